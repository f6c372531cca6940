"""Inputs that once gave silent wrong answers, drawn at random."""

import datetime
import json
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hetcal import (
    ArtefactError,
    CalibrationWarning,
    DataError,
    GroupPartitioner,
    HeterogeneousCalibratedClassifier,
    HeterogeneousCalibrator,
    load,
    save,
)
from hetcal.copies import copies
from hetcal.folds import make_folds, out_of_fold
from hetcal.links import sigmoid
from hetcal.rows import clusters_of, effective_rows, worth
from hetcal.scorer import as_days, as_text, content_hash
from hetcal_cases import heterogeneous
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("lightgbm")


def fit_quietly(model, *arguments, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return model.fit(*arguments, **given)


# -- folds ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_cluster_is_on_both_sides_and_uncovered_rows_have_no_logit(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(900, 1500))
    clusters = rng.integers(0, n // int(rng.integers(2, 6)), n)
    y = (rng.random(n) < 0.4).astype(float)
    splitters = [5, 3, GroupKFold(4), StratifiedGroupKFold(3), [(np.arange(150), np.arange(150, n))]]
    cv = splitters[seed % len(splitters)]
    grouped = not isinstance(cv, list)
    if not grouped:
        clusters = np.sort(clusters)
    folds = make_folds(cv, y, y, groups=clusters if grouped else None, clusters=clusters)
    for train, test in folds.pairs:
        assert not set(clusters[train]) & set(clusters[test])
    logits = out_of_fold(folds, lambda train: lambda test: np.full(test.size, float(train.size)))
    np.testing.assert_array_equal(np.isnan(logits), ~folds.covered)
    assert folds.covered.sum() == sum(test.size for _, test in folds.pairs)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (ShuffleSplit(3, random_state=0), "tested more than once"),
        (RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0), "tested more than once"),
        ([(np.arange(400), np.arange(400))], "both the training and the test rows"),
        ([(np.arange(350), np.arange(350, 400))], "at least 100"),
        ([(np.arange(200), np.arange(200, 600))], "names row 599"),
        (iter([]), "gave no folds"),
        (GroupKFold(3), "pass groups="),
        (LeaveOneGroupOut(), "pass groups="),
    ],
)
def test_folds_that_cannot_judge_are_refused(cv, message):
    X, y, z, *_ = heterogeneous(400, 0)
    with pytest.raises(DataError, match=message):
        HeterogeneousCalibrator("tree", cv=cv).fit(X, y, logits=z)


@pytest.mark.parametrize("cv", [TimeSeriesSplit(4), ShuffleSplit(1, random_state=0), KFold(3)])
@pytest.mark.parametrize("way", ["tree", "bag", "forest"])
def test_only_covered_rows_are_scored(cv, way):
    X, y, z, *_ = heterogeneous(3000, 0)
    model = HeterogeneousCalibrator(way, cv=cv, threads=1).fit(X, y, logits=z)
    assert all(0.3 < choice.log_loss < 1.0 for choice in model.selection_.choices)
    assert model.selection_.chosen in (way, "global")


def test_folds_by_number_mean_the_rows_that_were_given():
    X, y, z, *_ = heterogeneous(2000, 0)
    weight = (np.arange(2000) >= 500).astype(float)
    folds = [(np.arange(1200), np.arange(1200, 2000))]
    whole = HeterogeneousCalibrator("tree", cv=folds).fit(X, y, logits=z, sample_weight=weight)
    shifted = [(np.arange(700), np.arange(700, 1500))]
    cut = HeterogeneousCalibrator("tree", cv=shifted).fit(X[500:], y[500:], logits=z[500:])
    assert whole.selection_ == cut.selection_


def test_groups_reach_the_splitter_and_share_a_fold():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(300), 10)
    X = rng.normal(size=(300, 4))[who]
    z = rng.normal(size=3000)
    y = (rng.random(3000) < sigmoid(z + 2 * rng.normal(size=300)[who])).astype(int)  # of the user, not of the features
    alone = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z)
    for cv in (5, GroupKFold(5)):
        together = HeterogeneousCalibrator(threads=1, cv=cv).fit(X, y, logits=z, groups=who)
        assert together.selection_.chosen == "global"
        assert together.n_effective_ == pytest.approx(300)
    assert alone.selection_.chosen != "global"
    with pytest.raises(DataError, match="share a group"):
        HeterogeneousCalibrator("tree", cv=KFold(5, shuffle=True, random_state=0)).fit(X, y, logits=z, groups=who)
    named = np.array([f"user {i}" for i in who], dtype=object)
    again = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z, groups=named)
    assert again.selection_.chosen == "global"


def test_groups_are_routed_in_both_classes():
    import sklearn
    from sklearn.model_selection import cross_validate

    X, y, z, *_ = heterogeneous(1200, 0)
    who = np.repeat(np.arange(240), 5)
    table = np.column_stack([z, X])
    with sklearn.config_context(enable_metadata_routing=True):
        for model in (
            HeterogeneousCalibrator("tree", score_column=0, cv=GroupKFold(4)),
            HeterogeneousCalibratedClassifier(LogisticRegression(), cv=GroupKFold(4)),
        ):
            model.set_fit_request(groups=True)
            result = cross_validate(model, table, y, params={"groups": who}, cv=GroupKFold(2), error_score="raise")
            assert result["test_score"].min() > 0.6


@pytest.mark.parametrize("times", [2, 10])
def test_copies_of_rows_change_nothing(times):
    rng = np.random.default_rng(0)
    X, z = rng.normal(size=(1000, 5)), rng.normal(size=1000)
    y = (rng.random(1000) < sigmoid(z)).astype(int)
    order = rng.permutation(np.repeat(np.arange(1000), times))
    model = HeterogeneousCalibrator(threads=1).fit(X[order], y[order], logits=z[order])
    assert model.n_effective_ == pytest.approx(1000)
    assert model.selection_.chosen in ("global", "identity")
    once = HeterogeneousCalibrator("global").fit(X, y, logits=z)
    np.testing.assert_allclose(model.decision_function(X, logits=z), once.decision_function(X, logits=z), atol=1e-9)


def test_rows_of_few_discrete_values_are_no_copies():
    rng = np.random.default_rng(1)
    X = rng.integers(0, 3, (2000, 2)).astype(float)
    z = X[:, 0] - 1.0
    y = (rng.random(2000) < sigmoid(z + X[:, 1])).astype(float)
    assert copies(X, z, y) is None
    assert copies(np.tile(X + rng.random((2000, 2)), (3, 1)), np.tile(z, 3), np.tile(y, 3)).max() == 1999


def test_groups_and_copies_join():
    X, y, z = np.arange(300.0)[:, None] ** 1.5, np.tile([0.0, 1.0], 150), np.linspace(-1, 1, 300)
    X, y, z = np.vstack([X] * 4), np.tile(y, 4), np.tile(z, 4)
    groups = np.repeat(np.arange(4), 300)
    assert np.unique(clusters_of(groups, X, z, y)).size == 1
    assert np.unique(clusters_of(groups, X + 3000 * groups[:, None], z, y)).size == 4


# -- weights -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-200, 200))
def test_worth_is_free_of_scale_and_sums_to_the_effective_rows(seed, exponent):
    rng = np.random.default_rng(seed)
    w = rng.gamma(0.7, size=50) + 1e-6
    clusters = rng.integers(0, 20, 50) if seed % 2 else None
    one, other = worth(w, clusters, 50), worth(w * 10.0**exponent, clusters, 50)
    np.testing.assert_allclose(one, other, rtol=1e-9)
    mass = w if clusters is None else np.array([w[clusters == k].sum() for k in np.unique(clusters)])
    assert one.sum() == pytest.approx(mass.sum() ** 2 / (mass**2).sum())
    assert effective_rows(one, clusters, 50) == pytest.approx(one.sum())
    assert worth(np.full(50, 10.0**exponent), None, 50) is None


@pytest.mark.parametrize("way", ["auto", "tree", "bag", "forest", "global"])
@pytest.mark.parametrize("scale", ["sum to 1", 1e9])
def test_weights_count_by_their_ratios(way, scale):
    X, y, z, *_ = heterogeneous(2500, 0)
    weight = np.random.default_rng(0).choice([0.5, 1.0, 2.0], 2500)
    scaled = weight / weight.sum() if scale == "sum to 1" else weight * scale
    first, second = (
        HeterogeneousCalibrator(way, threads=1).fit(X, y, logits=z, sample_weight=w).decision_function(X, logits=z)
        for w in (weight, scaled)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    equal = HeterogeneousCalibrator(way, threads=1).fit(X, y, logits=z, sample_weight=np.full(2500, 1 / 2500))
    plain = HeterogeneousCalibrator(way, threads=1).fit(X, y, logits=z)
    np.testing.assert_array_equal(equal.decision_function(X, logits=z), plain.decision_function(X, logits=z))


def test_a_pipeline_gets_the_weights():
    X, y, *_ = heterogeneous(800, 0)
    weight = np.where(X[:, 0] > 0, 10.0, 0.1)
    calibrator = HeterogeneousCalibrator("identity")
    pipeline = make_pipeline(StandardScaler(), make_pipeline(LogisticRegression()))
    plain, weighted = (
        HeterogeneousCalibratedClassifier(pipeline, calibrator).fit(X, y, sample_weight=w) for w in (None, weight)
    )
    assert np.abs(plain.base_logits(X) - weighted.base_logits(X)).max() > 0.1
    from sklearn.neighbors import KNeighborsClassifier

    with pytest.warns(CalibrationWarning, match="takes no sample_weight"):
        HeterogeneousCalibratedClassifier(KNeighborsClassifier(), calibrator).fit(X, y, sample_weight=weight)


# -- identifiers, unseen and missing cells -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["auto", "tree", "bag", "forest"])
def test_an_identifier_is_named_unused_and_not_kept(way, tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=1000)
    y = (rng.random(1000) < sigmoid(z)).astype(int)
    table = pd.DataFrame({"a": rng.normal(size=1000), "who": [f"secret-{i}" for i in rng.permutation(1000)]})
    with pytest.warns(CalibrationWarning, match=r"\['who'\].*identifiers"):
        model = HeterogeneousCalibrator(way, selection=None if way != "auto" else "cv", threads=1).fit(
            table, y, logits=z
        )
    assert model.set_aside_ == ("who",)
    path = save(model, tmp_path / "m.json")
    assert "secret" not in path.read_text()
    np.testing.assert_array_equal(
        model.predict_proba(table.assign(who="x"), logits=z), model.predict_proba(table, logits=z)
    )
    np.testing.assert_allclose(
        load(path).predict_proba(table, logits=z), model.predict_proba(table, logits=z)[:, 1], atol=1e-12
    )


def larger_child(tree, columns, row):
    """Walk a dumped LightGBM tree; a cell that is None goes with the more rows."""
    node = tree
    while "split_feature" in node:
        left, right = node["left_child"], node["right_child"]
        value = columns[node["split_feature"]][row]
        if value is None:
            count = [child.get("internal_count", child.get("leaf_count")) for child in (left, right)]
            node = left if count[0] > count[1] else right
        elif node["decision_type"] == "==":
            node = left if str(int(value)) in str(node["threshold"]).split("||") else right
        else:
            node = left if value <= node["threshold"] else right
    return node["leaf_value"]


@pytest.mark.parametrize("seed", range(3))
def test_unseen_cells_take_the_larger_child_in_a_forest(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 40, 3000)
    X = pd.DataFrame({"c": np.char.add("v", codes.astype(str)), "a": rng.normal(size=3000)})
    z = rng.normal(size=3000)
    y = (rng.random(3000) < sigmoid(z + np.where(codes % 3 == 0, 2.0, -1.0))).astype(int)
    model = HeterogeneousCalibrator("forest", selection=None, threads=1, quality="high").fit(X, y, logits=z)
    new = pd.DataFrame({"c": ["never"] * 5, "a": [*rng.normal(size=4), np.nan]})
    with pytest.warns(CalibrationWarning, match="'c' 5, 'a' 1 of 5 rows"):
        got = model.decision_function(new, logits=z[:5])
    forest, total = model.model_, 0.0
    total = forest.coefficients[0] + forest.coefficients[-1] * (model.overall_[0] + model.overall_[1] * z[:5])
    columns = [[None] * 5, [*new["a"][:4], None], z[:5]]
    for weight, part in zip(forest.coefficients[1:-1], forest.parts, strict=True):
        sums = np.zeros(5)
        for booster in part.boosters:
            trees = booster.dump_model()["tree_info"]
            sums += [sum(larger_child(t["tree_structure"], columns, row) for t in trees) for row in range(5)]
        total = total + weight * sums / len(part.boosters)
    np.testing.assert_allclose(got, total, atol=1e-9)


SPELLINGS = [
    (3, [3.0, "3", np.int8(3), np.float32(3), Decimal(3), np.str_("3")]),
    (2.5, ["2.5", np.float64(2.5)]),
    (True, ["True", np.bool_(True)]),
    (datetime.date(2024, 5, 1), ["2024-05-01", pd.Timestamp("2024-05-01"), np.datetime64("2024-05-01")]),
]


@pytest.mark.parametrize(("value", "others"), SPELLINGS, ids=str)
def test_a_category_has_one_canonical_text(value, others):
    assert {as_text(other) for other in others} == {as_text(value)}
    assert {as_text(v) for v in (None, np.nan, pd.NA, pd.NaT, np.datetime64("NaT"))} == {None}


@pytest.mark.parametrize("kind", ["int64", "float64", "object", "str", "category", "Int64", "string"])
def test_categories_are_served_in_any_spelling(kind, tmp_path):
    X, y, z, region, _ = heterogeneous(2000, 0)
    table = pd.DataFrame({"place": region, "b": X[:, 2]})
    model = HeterogeneousCalibrator("tree", categorical=["place"], selection=None).fit(table, y, logits=z)
    scorer = load(save(model, tmp_path / "m.json"))
    expected = model.predict_proba(table, logits=z)
    other = table.astype({"place": kind})
    np.testing.assert_array_equal(model.predict_proba(other, logits=z), expected)
    np.testing.assert_allclose(scorer.predict_proba(other, logits=z), expected[:, 1], atol=1e-12)


# -- tables --------------------------------------------------------------------------------------------------------


def rich_table(n, seed):
    rng = np.random.default_rng(seed)
    X, y, z, region, _ = heterogeneous(n, seed)
    day = np.datetime64("2024-01-01") + (X[:, 0] * 100).astype("timedelta64[D]").astype("timedelta64[s]")
    table = pd.DataFrame(
        {
            "when": day.astype("datetime64[us]"),
            "place": np.array(["n", "s", "e", "w"])[region],
            "count": pd.array((X[:, 2] * 10).round().astype(int), dtype="Int64"),
            "flag": pd.array(X[:, 3] > 0, dtype="boolean"),
            "level": X[:, 1],
        }
    )
    for column in ("when", "count", "flag", "level", "place"):
        table.loc[rng.random(n) < 0.05, column] = None
    return table, y, z


def containers(table):
    import pyarrow as pa

    yield "dates as objects", table.assign(when=table["when"].astype(object))
    yield "categorical", table.astype({"place": "category"})
    yield (
        "floats",
        table.assign(
            count=table["count"].astype(float),
            flag=table["flag"].astype(object).map({True: 1.0, False: 0.0}).astype(float),
        ),
    )
    yield "nanoseconds", table.astype({"when": "datetime64[ns]"})
    yield "zone", table.assign(when=table["when"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"))
    yield "pyarrow", pa.Table.from_pandas(table, preserve_index=False)
    try:
        import polars as pl
    except ModuleNotFoundError:
        return
    frame = pl.from_arrow(pa.Table.from_pandas(table, preserve_index=False))
    yield "polars", frame
    yield "polars categorical", frame.with_columns(pl.col("place").cast(pl.Categorical))
    yield "polars enum", frame.with_columns(pl.col("place").cast(pl.Enum(["e", "n", "s", "w"])))
    yield "polars small", frame.with_columns(pl.col("count").cast(pl.Int8), pl.col("when").cast(pl.Datetime("ms")))


@pytest.mark.parametrize("way", ["tree", "forest"])
def test_one_table_in_every_container(way, tmp_path):
    table, y, z = rich_table(1500, 0)
    folds = [(np.arange(1000), np.arange(1000, 1500))]
    model = HeterogeneousCalibrator(way, selection=None, cv=folds, threads=1).fit(table, y, logits=z)
    expected = model.predict_proba(table, logits=z)
    scorer = load(save(model, tmp_path / "m.json"))
    seen = []
    for name, other in containers(table):
        seen.append(name)
        np.testing.assert_array_equal(model.predict_proba(other, logits=z), expected, err_msg=name)
        np.testing.assert_allclose(scorer.predict_proba(other, logits=z), expected[:, 1], atol=1e-12, err_msg=name)
        again = HeterogeneousCalibrator(way, selection=None, cv=folds, threads=1).fit(
            other, y, logits=z, sample_weight=np.where(np.arange(1500) < 3, 0.0, 1.0)
        )
        first = HeterogeneousCalibrator(way, selection=None, cv=folds, threads=1).fit(
            table, y, logits=z, sample_weight=np.where(np.arange(1500) < 3, 0.0, 1.0)
        )
        np.testing.assert_array_equal(
            again.predict_proba(table, logits=z), first.predict_proba(table, logits=z), err_msg=name
        )
    assert "pyarrow" in seen


def test_days_are_exact_and_nothing_is_nan():
    cells = np.array(["2024-03-01T12:00", "NaT", "1969-12-31"], dtype="datetime64[ns]")
    np.testing.assert_array_equal(as_days(cells), [19783.5, np.nan, -1.0])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series(pd.to_timedelta(np.arange(300), unit="s")), "'v' holds"),
        (pd.Series([[1, 2]] * 300), "'v' holds list"),
        (pd.Series([b"x"] * 300), "'v' holds bytes"),
        (pd.Series([{"a": 1}] * 300), "'v' holds dict"),
        (pd.Series([datetime.date(2024, 1, 1), "x"] * 150), "'v' holds text and time"),
        (pd.Series(np.arange(300) + 1j), "'v' holds"),
    ],
    ids=str,
)
def test_columns_that_cannot_be_read_are_refused_by_name(column, message):
    X, y, z, *_ = heterogeneous(300, 0)
    with pytest.raises(DataError, match=message):
        HeterogeneousCalibrator("tree").fit(pd.DataFrame({"a": X[:, 0], "v": column}), y, logits=z)


def test_a_column_of_another_kind_is_refused_at_serving(tmp_path):
    table, y, z = rich_table(1500, 0)
    model = HeterogeneousCalibrator("forest", selection=None, threads=1).fit(table, y, logits=z)
    scorer = load(save(model, tmp_path / "m.json"))
    for wrong in (table.assign(when=1.0), table.assign(level=table["when"]), table.assign(level="text")):
        with pytest.raises(DataError, match="at fit"):
            model.predict_proba(wrong, logits=z)
        with pytest.raises(ValueError, match="at fit"):
            scorer.predict_proba(wrong, logits=z)


# -- scorer and artefact -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    X, y, z, *_ = heterogeneous(1000, 0)
    path = tmp_path_factory.mktemp("trust") / "m.json"
    model = HeterogeneousCalibrator("tree", selection=None).fit(X, y, logits=z)
    return X, z, model, save(model, path)


def test_the_scorer_refuses_shapes_that_do_not_match(saved):
    X, z, model, path = saved
    scorer = load(path)
    wrong = [
        (X[:10], z[:5]),
        (X[:1], z[:5]),
        (X[:4].tolist(), z[:4]),
        (list(X[:4]), z[:4]),
        (X[:10, :3], z[:10]),
        (X[0], z[:1]),
        ({f"x{i}": X[: 10 - i, i] for i in range(4)}, z[:10]),
        (X[:10], z[0]),
        (X[:10], np.full(10, np.nan)),
        (X[:10], z[:10].astype(str).astype(object)[:, None].repeat(2, 1)),
    ]
    for rows, logits in wrong:
        with pytest.raises(ValueError, match=r"rows|shape|square|columns|cells|NaN"):
            scorer.predict_proba(rows, logits=logits)
    np.testing.assert_allclose(
        scorer.predict_proba(list(X[:10].T), logits=z[:10]), model.predict_proba(X[:10], logits=z[:10])[:, 1]
    )


def test_the_scorer_takes_what_was_fitted_only(saved, tmp_path):
    X, z, _, path = saved
    with pytest.raises(ValueError, match="fitted on a logit"):
        load(path).predict_proba(X, scores=sigmoid(z))
    y = (np.random.default_rng(0).random(1000) < sigmoid(z)).astype(int)
    model = HeterogeneousCalibrator("global").fit(X, y, scores=sigmoid(z))
    scorer = load(save(model, tmp_path / "p.json"))
    with pytest.raises(ValueError, match="fitted on a probability"):
        scorer.predict_proba(X, logits=z)
    np.testing.assert_allclose(
        scorer.predict_proba(X, scores=sigmoid(z)), model.predict_proba(X, scores=sigmoid(z))[:, 1], atol=1e-12
    )
    with pytest.raises(DataError, match="pass them as scores="):
        model.predict_proba(X, logits=sigmoid(z))


def test_any_change_of_a_saved_file_is_refused(saved, tmp_path):
    *_, path = saved
    text = path.read_text()
    rng = np.random.default_rng(0)
    digits = [i for i, c in enumerate(text) if c.isdigit()]
    copy = tmp_path / "t.json"
    for place in rng.choice(digits, 60, replace=False):
        changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        try:
            same = json.loads(changed) == json.loads(text)  # as 1e-17 and 2e-17 beyond the last digit of a float
        except json.JSONDecodeError:
            same = False
        copy.write_text(changed)
        if not same:
            with pytest.raises(ArtefactError):
                load(copy)
    for end in rng.integers(1, len(text) - 2, 20):
        copy.write_text(text[:end])
        with pytest.raises(ArtefactError):
            load(copy)
    copy.write_text(json.dumps(json.loads(text), indent=2))  # the content counts, not its layout
    load(copy)


def test_a_schema_1_file_still_loads(saved, tmp_path):
    X, z, model, path = saved
    old = json.loads(path.read_text()) | {"schema": 1}
    for name in ("hash", "version", "score"):
        del old[name]
    old["columns"] = [{"name": c["name"], "values": c["values"]} for c in old["columns"]]
    old["model"]["ranks"] = old["model"]["ranks"][0]
    copy = tmp_path / "old.json"
    copy.write_text(json.dumps(old))
    np.testing.assert_allclose(load(copy).predict_proba(X, logits=z), model.predict_proba(X, logits=z)[:, 1])


def random_fit(seed, folder):
    """A random calibrator of random rows with missing values; the worst difference after saving and loading."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(250, 900))
    X, y, z, region, _ = heterogeneous(n, seed)
    table = pd.DataFrame(
        X[:, : rng.integers(1, 5)],
    ).add_prefix("n")
    table["place"] = np.array(["n", "s", "e", "w"], dtype=object)[region]
    if rng.random() < 0.5:
        table["when"] = np.datetime64("2024-01-01") + (X[:, 0] * 50).astype("timedelta64[D]")
    for column in table:
        table.loc[rng.random(n) < rng.choice([0.0, 0.1, 0.5]), column] = None
    ways = ["tree", "bag", "forest", "global", GroupPartitioner(["place"]), "groups"]
    way = ways[int(rng.integers(len(ways)))]
    groups = table["place"].to_numpy() if way == "groups" else None
    if way == "groups" and rng.random() < 0.5:
        groups = np.array([datetime.date(2024, 1, 1 + r) for r in region])
    quality = str(rng.choice(["standard", "high"])) if way == "forest" else "standard"
    model = HeterogeneousCalibrator(way, selection=None, quality=quality, threads=1, random_state=seed)
    fit_quietly(model, table, y, logits=z, groups=groups)
    scorer = load(save(model, folder / "m.json"))
    fresh = table.sample(frac=1, random_state=seed).reset_index(drop=True)
    fresh.loc[rng.random(n) < 0.1, "place"] = "unseen"
    given_groups = {} if groups is None else {"groups": groups}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ours = model.predict_proba(fresh, logits=z, **given_groups)[:, 1]
        return float(np.abs(scorer.predict_proba(fresh, logits=z, **given_groups) - ours).max())


def test_random_fits_with_missing_values_save_and_load(tmp_path):
    assert max(random_fit(seed, tmp_path) for seed in range(30)) <= 1e-12


@pytest.mark.slow
def test_200_random_fits_with_missing_values_save_and_load(tmp_path):
    assert max(random_fit(1000 + seed, tmp_path) for seed in range(200)) <= 1e-12


def test_a_classifier_saves_its_calibrator(tmp_path):
    X, y, *_ = heterogeneous(1000, 0)
    model = HeterogeneousCalibratedClassifier(LogisticRegression(), HeterogeneousCalibrator("tree")).fit(X, y)
    scorer = load(save(model, tmp_path / "m.json"))
    p = scorer.predict_proba(X, logits=model.base_logits(X))
    np.testing.assert_allclose(p, model.predict_proba(X)[:, 1], atol=1e-12)


def test_group_positions_of_an_array_are_saved(tmp_path):
    X, y, z, region, _ = heterogeneous(1000, 0)
    rows = np.column_stack([region, X[:, 2]])
    model = HeterogeneousCalibrator(GroupPartitioner([0]), selection=None).fit(rows, y, logits=z)
    scorer = load(save(model, tmp_path / "m.json"))
    np.testing.assert_allclose(scorer.predict_proba(rows, logits=z), model.predict_proba(rows, logits=z)[:, 1])


def test_calibration_does_not_harm():
    """A few draws of ``benchmarks/harm.py``, which runs 500."""
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "benchmarks" / "harm.py"
    if not path.exists():
        pytest.skip("the benchmarks are not in this tree")
    spec = importlib.util.spec_from_file_location("harm", path)
    harm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harm)
    for number in range(5000, 5014):
        result = harm.draw(number)
        assert result["auc"] > -0.005, result
        assert result["excess_platt"] < 0.002, result


BEYOND = 10**400  # an integer that no float holds


@pytest.mark.parametrize("size", [10**309, -BEYOND, 7**2000, 10**5000], ids=lambda size: f"{size.bit_length()} bits")
@pytest.mark.parametrize("field", ["logits", "scores", "sample_weight", "x"])
def test_integers_beyond_floats_are_refused_by_name(field, size, saved):
    scorer = load(saved[-1])
    n = 30
    cells = [1] * (n - 1) + [size]
    plain = {"logits": np.linspace(-1, 1, n)}
    given_ = {field: cells} if field == "scores" else {**plain, **({} if field == "x" else {field: cells})}
    X = pd.DataFrame({"x": pd.Series(cells if field == "x" else range(n), dtype=object)})
    with pytest.raises(DataError, match=field):
        HeterogeneousCalibrator("global").fit(X, np.arange(n) % 2, **given_)
    if field in ("logits", "x"):
        columns = {name: np.zeros(n) for name in scorer.names}
        number = next(c["name"] for c in scorer.columns if c["kind"] == "number")
        columns[number] = cells if field == "x" else columns[number]
        scorer.reads = {scorer.names.index(number)}
        with pytest.raises(ValueError, match=repr(number) if field == "x" else field):
            scorer.predict_proba(columns, logits=cells if field == "logits" else plain["logits"])


@pytest.mark.parametrize("name", ["clip", "prior_correction", "shrinkage"])
@pytest.mark.parametrize("size", [BEYOND, -(10**5000)], ids=["400", "-5000"])
def test_parameters_beyond_floats_are_refused_by_name(name, size):
    with pytest.raises(ValueError, match=name):
        HeterogeneousCalibrator("tree", **{name: size}).fit(np.zeros((4, 1)), [0, 1, 0, 1], logits=np.zeros(4))


@pytest.mark.parametrize("kind", ["Int128", "UInt128"])
def test_integers_of_128_bits_are_read_or_refused_by_name(kind, tmp_path):
    pl = pytest.importorskip("polars")
    if not hasattr(pl, kind):
        pytest.skip(f"this polars has no {kind}")
    rng = np.random.default_rng(0)
    x, z = rng.integers(0, 50, 400), rng.normal(size=400)
    y = (x + 10 * rng.normal(size=400) > 25).astype(int)
    wide, plain = pl.Series("x", x.tolist(), dtype=getattr(pl, kind)), pl.Series("x", x.tolist())
    weight = pl.Series("w", (x + 1).tolist(), dtype=getattr(pl, kind))
    labels = pl.Series("y", y.tolist(), dtype=getattr(pl, kind))
    fits = [
        HeterogeneousCalibrator("tree", selection=None).fit(
            pl.DataFrame({"x": column}), target, logits=z, sample_weight=weight
        )
        for column, target in ((wide, labels), (plain, y))
    ]
    answers = [model.predict_proba(pl.DataFrame({"x": wide}), logits=z) for model in fits]
    np.testing.assert_array_equal(*answers)
    scorer = load(save(fits[0], tmp_path / "model.json"))
    with pytest.raises(ValueError, match=r"'x'.*cast it"):
        scorer.predict_proba(pl.DataFrame({"x": wide}), logits=z)
    with pytest.raises(ValueError, match=r"logits.*cast it"):
        scorer.predict_proba(pl.DataFrame({"x": plain}), logits=wide)


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", "odds"), ("score", 7), ("score", "Logit"), ("way", "grove"), ("kind", "numbers"), ("kind", None)],
)
def test_a_field_edited_by_hand_is_refused_by_name(field, value, saved, tmp_path):
    artefact = json.loads(saved[-1].read_text())
    place = {"score": artefact, "way": artefact["model"], "kind": artefact["columns"][0]}[field]
    place[field] = value
    artefact["hash"] = content_hash(artefact)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(artefact))
    with pytest.raises(ArtefactError, match=field):
        load(path)


@pytest.mark.parametrize("seed", range(12))
def test_one_error_among_saturated_scores_is_believed(seed):
    """Logits of +-15 with a single wrong label: no fold foresees it, and yet they must not be served as they are."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(220, 600))
    z = rng.choice([-15.0, 15.0, -40.0, np.inf], n)
    y = (z > 0).astype(int)
    y[rng.integers(n)] ^= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        model = HeterogeneousCalibrator("auto" if seed % 2 else "tree", threads=1).fit(
            rng.normal(size=(n, 2)), y, logits=z
        )
    assert model.overall_[1] < 0.7
    assert model.selection_.chosen == "global"
