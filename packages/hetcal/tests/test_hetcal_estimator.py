import warnings

import numpy as np
import pandas as pd
import pytest
from hetcal import (
    CalibrationWarning,
    CallablePartitioner,
    DataError,
    GroupPartitioner,
    HeterogeneousCalibratedClassifier,
    HeterogeneousCalibrator,
    LeafMapError,
    TreePartitioner,
    auc_decomposition,
    optimal_auc,
)
from hetcal.calibrators import platt
from hetcal.links import logistic_loss, sigmoid
from hetcal_cases import heterogeneous
from oracles.calibration_by_hand import walk
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

lightgbm = pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def problem():
    return heterogeneous(6000, 0), heterogeneous(20000, 1)


@pytest.mark.filterwarnings("ignore")  # the checks feed odd data on purpose
@parametrize_with_checks([HeterogeneousCalibrator(score_column=0), HeterogeneousCalibratedClassifier()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("way", ["auto", "tree", "bag", "forest"])
def test_lift_reaches_what_the_theory_allows(problem, way):
    (X, y, z, _, _), (Xt, yt, zt, _, eta) = problem
    model = HeterogeneousCalibrator(way, threads=1).fit(X, y, logits=z)
    p = model.predict_proba(Xt, logits=zt)[:, 1]
    possible = optimal_auc(eta) - roc_auc_score(yt, zt)
    share = {"tree": 0.88, "auto": 0.88, "bag": 0.88, "forest": 0.84}[way]
    assert roc_auc_score(yt, p) - roc_auc_score(yt, zt) > share * possible
    assert model.selection_.lift == pytest.approx(possible, abs=0.02)


def test_tree_lift_is_made_between_leaves(problem):
    (X, y, z, _, _), (Xt, yt, zt, _, _) = problem
    model = HeterogeneousCalibrator("tree").fit(X, y, logits=z)
    leaf = model.apply(Xt)
    before, after = (auc_decomposition(yt, s, leaf) for s in (zt, model.decision_function(Xt, logits=zt)))
    np.testing.assert_allclose(np.diag(before.pair_auc), np.diag(after.pair_auc), atol=1e-12)
    assert after.between - before.between > 0.05
    np.testing.assert_allclose(model.calibrate(zt, leaf), model.predict_proba(Xt, logits=zt)[:, 1], atol=1e-15)


def test_no_gain_comes_out_as_global_or_next_to_it():
    moved = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, z = rng.normal(size=(2000, 5)), rng.normal(size=2000)
        y = rng.random(2000) < sigmoid(1.4 * z - 0.5)  # nothing in X
        model = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z)
        a, b = platt(z, y.astype(float))
        fresh, logits = rng.normal(size=(20_000, 5)), rng.normal(size=20_000)
        answer, eta = model.decision_function(fresh, logits=logits), 1.4 * logits - 0.5
        if model.selection_.chosen == "forest":
            moved += 1
            excess = logistic_loss(sigmoid(eta), answer) - logistic_loss(sigmoid(eta), a + b * logits)
            assert excess.mean() < 1e-3
        else:
            assert model.selection_.chosen == "global"
            np.testing.assert_allclose(answer, a + b * logits, atol=1e-12)
    assert moved < 4


def test_a_calibrated_base_stays_as_it_is_or_nearly():
    rng = np.random.default_rng(4)
    X, z = rng.normal(size=(4000, 3)), rng.normal(size=4000)
    y = rng.random(4000) < sigmoid(z)
    model = HeterogeneousCalibrator("tree").fit(X, y, logits=z)
    excess = np.mean(logistic_loss(sigmoid(z), model.decision_function(X, logits=z)) - logistic_loss(sigmoid(z), z))
    assert 0 <= excess < 1e-3


def test_scores_and_logits_are_the_same_thing(problem):
    X, y, z, _, _ = problem[0]
    by_logit = HeterogeneousCalibrator("tree").fit(X, y, logits=z)
    by_score = HeterogeneousCalibrator("tree").fit(X, y, scores=sigmoid(z))
    np.testing.assert_allclose(
        by_logit.predict_proba(X, logits=z), by_score.predict_proba(X, scores=sigmoid(z)), atol=1e-7
    )


def test_extreme_scores_are_clipped_and_counted(problem):
    X, y, z, _, _ = problem[0]
    scores = sigmoid(z)
    scores[:3], scores[3:5] = 1.0, 0.0
    model = HeterogeneousCalibrator("tree").fit(X, y, scores=scores)
    assert model.n_clipped_ == 5
    infinite = np.where(np.arange(z.size) < 3, np.inf, z)
    assert np.isfinite(model.decision_function(X, logits=infinite)).all()


def test_weights_equal_repeated_rows(problem):
    X, y, z, _, _ = (a[:1500] for a in problem[0])
    times = np.random.default_rng(0).integers(0, 3, 1500)
    options = {"partitioner": TreePartitioner(max_depth=3, min_leaf=1, max_features=1.0), "selection": None}
    a = HeterogeneousCalibrator(**options).fit(X, y, logits=z, sample_weight=times)
    b = HeterogeneousCalibrator(**options).fit(np.repeat(X, times, 0), np.repeat(y, times), logits=np.repeat(z, times))
    np.testing.assert_allclose(a.decision_function(X, logits=z), b.decision_function(X, logits=z), atol=1e-4)


def test_tree_apply_equals_walking_with_missing_values(problem):
    X, y, z, _, _ = problem[0]
    X = X.copy()
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    model = HeterogeneousCalibrator("tree", selection=None).fit(X, y, logits=z)
    leaf = model.apply(X[:500])
    assert [walk(model.model_.partitioner.tree_, row) for row in X[:500]] == leaf.tolist()


def table_of(X, region):
    names = np.array(["north", "south", "east", "west"])
    return pd.DataFrame({"a": X[:, 2], "place": names[region], "b": X[:, 3]})


@pytest.mark.parametrize("way", ["tree", "bag", "forest"])
def test_columns_by_name_categories_by_value(problem, way):
    (X, y, z, region, _), _ = problem
    table = table_of(X, region)
    model = HeterogeneousCalibrator(way, selection=None, threads=1).fit(table, y, logits=z)
    p = model.predict_proba(table, logits=z)
    assert roc_auc_score(y, p[:, 1]) > roc_auc_score(y, z) + 0.05
    shuffled = table[["b", "place", "a"]].assign(extra=1)
    other_codes = shuffled.assign(
        place=pd.Categorical(shuffled["place"], categories=["west", "north", "east", "south"])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(model.predict_proba(other_codes[["a", "place", "b"]], logits=z), p)
    unseen = table.assign(place="elsewhere")
    missing = table.assign(place=None)
    with pytest.warns(CalibrationWarning, match=r"never met at fit.*'place' 6000 of 6000 rows"):
        alike = [model.predict_proba(rows, logits=z) for rows in (unseen, missing)]
    np.testing.assert_array_equal(*alike)
    assert model.unseen(unseen) == model.unseen(missing) == {"place": 6000}
    assert model.unseen(table) == {}


def test_groups_nested_and_unseen(problem):
    X, y, z, region, _ = problem[0]
    groups = np.column_stack([region // 2, region])
    model = HeterogeneousCalibrator("groups", shrinkage="hierarchy").fit(X, y, logits=z, groups=groups)
    assert model.selection_.chosen == "groups"
    assert model.model_.leaf_map.tau.shape == (2, 2)
    a, b = platt(z, y.astype(float))
    unseen = model.decision_function(X[:5], logits=z[:5], groups=np.full((5, 2), 9))
    np.testing.assert_allclose(unseen, a + b * z[:5], atol=1e-12)
    assert (model.apply(X[:5], groups=np.full((5, 2), 9)) == -1).all()
    with pytest.raises(DataError, match="groups="):
        model.predict_proba(X, logits=z)


def test_group_columns_and_a_function(problem):
    X, y, z, region, _ = problem[0]
    table = table_of(X, region)
    by_column = HeterogeneousCalibrator(GroupPartitioner(["place"])).fit(table, y, logits=z)
    by_function = HeterogeneousCalibrator(
        lambda t: t["place"].map({"east": 0, "north": 1, "south": 2, "west": 3}).to_numpy()
    )
    by_function.fit(table, y, logits=z)
    np.testing.assert_allclose(
        by_column.decision_function(table, logits=z), by_function.decision_function(table, logits=z), atol=1e-6
    )
    np.testing.assert_array_equal(by_column.apply(table), by_function.apply(table))
    with pytest.raises(LeafMapError, match="one integer a row"):
        HeterogeneousCalibrator(CallablePartitioner(lambda t: t["a"].to_numpy())).fit(table, y, logits=z)
    with pytest.raises(DataError, match="no group has"):
        HeterogeneousCalibrator(GroupPartitioner(["place"], min_rows=10**6), selection=None).fit(table, y, logits=z)


def test_honest_structure_comes_from_other_rows(problem):
    (X, y, z, _, _), (Xt, yt, _, _, _) = problem
    model = HeterogeneousCalibrator(TreePartitioner(structure=(Xt, yt)), selection=None).fit(X, y, logits=z)
    other = HeterogeneousCalibrator(TreePartitioner(structure=(Xt, yt)), selection=None).fit(X, np.roll(y, 1), logits=z)
    np.testing.assert_array_equal(model.model_.partitioner.tree_.threshold, other.model_.partitioner.tree_.threshold)
    assert not np.allclose(model.model_.leaf_map.theta, other.model_.leaf_map.theta)


@pytest.mark.parametrize("way", ["tree", "bag", "forest"])
def test_soft_labels(problem, way):
    X, _, z, _, eta = problem[0]
    model = HeterogeneousCalibrator(way, soft_labels=True, threads=1).fit(X, eta, logits=z)
    p = model.predict_proba(X, logits=z)[:, 1]
    assert np.corrcoef(p, eta)[0, 1] > 0.97
    assert np.isnan(model.selection_.lift)


def test_prior_correction_moves_the_mean(problem):
    X, y, z, _, _ = problem[0]
    keep = (y == 1) | (np.random.default_rng(0).random(y.size) < 0.2)
    model = HeterogeneousCalibrator("tree", prior_correction=float(y.mean())).fit(X[keep], y[keep], logits=z[keep])
    assert model.predict_proba(X, logits=z)[:, 1].mean() == pytest.approx(y.mean(), abs=0.02)


def test_grid_search_and_pipeline(problem):
    X, y, z, _, _ = (a[:2000] for a in problem[0])
    table = np.column_stack([z, X])
    pipeline = make_pipeline(FunctionTransformer(), HeterogeneousCalibrator("tree", score_column=0))
    search = GridSearchCV(
        pipeline, {"heterogeneouscalibrator__shrinkage": ["eb", "none"]}, cv=3, scoring="neg_log_loss"
    ).fit(table, y)
    assert search.best_score_ > -0.65
    assert search.predict_proba(table).shape == (2000, 2)


def test_same_seed_same_result_and_refit_forgets(problem):
    X, y, z, region, _ = (a[:2000] for a in problem[0])
    model = HeterogeneousCalibrator("bag", threads=1)
    first = model.fit(X, y, logits=z).decision_function(X, logits=z)
    model.fit(table_of(X, region), y, logits=z)
    again = model.fit(X, y, logits=z).decision_function(X, logits=z)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(clone(model).fit(X, y, logits=z).decision_function(X, logits=z), first)


BAD = [
    ({}, "neither scores nor logits"),
    ({"logits": "z", "scores": "p"}, "both scores and logits"),
    ({"scores": "z"}, "did you mean logits"),
    ({"logits": "nan"}, "1 NaN"),
    ({"logits": "short"}, "299 rows but X has 300"),
    ({"logits": "z", "sample_weight": "negative"}, "negative or not finite"),
    ({"logits": "z", "sample_weight": "zero"}, "sums to zero"),
    ({"logits": "z", "y": "one"}, "one class only"),
    ({"logits": "z", "y": "three"}, "3 values"),
    ({"logits": "z", "y": "soft"}, "soft_labels=True"),
    ({"logits": "z", "y": "missing"}, "NaN or infinite labels"),
    ({"logits": "z", "X": "infinite"}, "infinity"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_input_says_what_and_how_to_mend_it(problem, given, message):
    X, y, z, _, eta = (a[:300] for a in problem[0])
    bad_logit = z.copy()
    bad_logit[7] = np.nan
    values = {
        "z": z,
        "p": sigmoid(z),
        "nan": bad_logit,
        "short": z[:-1],
        "negative": np.r_[-1.0, np.ones(299)],
        "zero": np.zeros(300),
        "one": np.ones(300),
        "three": np.arange(300) % 3,
        "soft": eta,
        "missing": np.where(np.arange(300) == 3, np.nan, y),
        "infinite": np.where(np.arange(1200).reshape(300, 4) == 5, np.inf, X),
    }
    arguments = {k: values[v] for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        HeterogeneousCalibrator().fit(arguments.pop("X", X), arguments.pop("y", y), **arguments)


def test_tables_that_changed_are_refused(problem):
    X, y, z, region, _ = problem[0]
    table = table_of(X, region)
    model = HeterogeneousCalibrator("tree").fit(table, y, logits=z)
    with pytest.raises(ValueError, match="place"):
        model.predict_proba(table.drop(columns="place"), logits=z)
    with pytest.raises(DataError, match="held numbers at fit"):
        model.predict_proba(table.assign(a="text"), logits=z)
    with pytest.raises(ValueError, match="2 features"):
        HeterogeneousCalibrator("tree").fit(X, y, logits=z).predict_proba(X[:, :2], logits=z)
    with pytest.raises(DataError, match="duplicate column names"):
        HeterogeneousCalibrator("tree").fit(table.set_axis(["a", "a", "b"], axis=1), y, logits=z)
    with pytest.raises(DataError, match="categorical column 'c'"):
        HeterogeneousCalibrator("tree", categorical=["c"]).fit(table, y, logits=z)


@pytest.mark.parametrize(
    "options",
    [
        {"partitioner": "leaf"},
        {"calibrator": "spline"},
        {"shrinkage": "much"},
        {"shrinkage": -1.0},
        {"selection": "aic"},
        {"quality": "low"},
        {"score_kind": "odds"},
        {"clip": 0},
        {"prior_correction": 1.5},
    ],
    ids=str,
)
def test_bad_parameters(problem, options):
    X, y, z, _, _ = problem[0]
    with pytest.raises(ValueError, match=next(iter(options))):
        HeterogeneousCalibrator(**options).fit(X, y, logits=z)


def test_rows_the_model_was_trained_on_are_noticed(problem):
    X, y, z, _, _ = problem[0]
    with pytest.warns(CalibrationWarning, match="almost perfectly"):
        HeterogeneousCalibrator("global").fit(X, y, logits=z + 20 * y)
    with pytest.warns(CalibrationWarning, match="worse than chance"):
        HeterogeneousCalibrator("global").fit(X, y, logits=-z)


def test_few_rows_get_the_global_map(problem):
    X, y, z, _, _ = (a[:150] for a in problem[0])
    model = HeterogeneousCalibrator().fit(X, y, logits=z)
    assert model.selection_.chosen == "global"
    assert "too few" in model.selection_.reason


def test_strings_as_classes(problem):
    X, y, z, _, _ = problem[0]
    names = np.array(["bad", "good"])[y]
    model = HeterogeneousCalibrator("tree").fit(X, names, logits=z)
    assert set(model.predict(X, logits=z)) == {"bad", "good"}
    assert (model.predict(X, logits=z) == names).mean() > 0.7


# -- the classifier ------------------------------------------------------------------------------------------------


def test_prefit_takes_a_fitted_model_a_frozen_one_and_a_function(problem):
    from sklearn.frozen import FrozenEstimator

    (X, y, _, _, _), (Xt, yt, _, _, _) = problem
    base = LogisticRegression().fit(X[:2000], y[:2000])
    results = [
        HeterogeneousCalibratedClassifier(given, HeterogeneousCalibrator("tree"), cv=cv).fit(Xt[:4000], yt[:4000])
        for given, cv in ((base, "prefit"), (FrozenEstimator(base), 5), (base.decision_function, "prefit"))
    ]
    first, second, third = (model.predict_proba(Xt) for model in results)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


@pytest.mark.parametrize("ensemble", [True, False])
def test_cross_fitting_calibrates(problem, ensemble):
    (X, y, z, _, _), (Xt, yt, zt, _, _) = problem
    X, Xt = np.column_stack([X[:, :2], z]), np.column_stack([Xt[:, :2], zt])
    base = LogisticRegression()
    model = HeterogeneousCalibratedClassifier(
        base, HeterogeneousCalibrator("tree"), ensemble=ensemble, partition_features=[0, 1]
    ).fit(X, y)
    plain = clone(base).fit(X, y)
    assert len(model.estimators_) == (5 if ensemble else 1)
    assert roc_auc_score(yt, model.predict_proba(Xt)[:, 1]) > roc_auc_score(yt, plain.predict_proba(Xt)[:, 1]) + 0.01


def test_metadata_reaches_the_model(problem):
    import sklearn

    X, y, _, _, _ = (a[:600] for a in problem[0])
    weights = np.random.default_rng(0).random(600)
    with sklearn.config_context(enable_metadata_routing=True):
        base = LogisticRegression().set_fit_request(sample_weight=True)
        model = HeterogeneousCalibratedClassifier(base, HeterogeneousCalibrator("global"))
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        routed = GridSearchCV(model, {"ensemble": [True]}, cv=3).fit(X, y, sample_weight=weights)
    direct = HeterogeneousCalibratedClassifier(LogisticRegression(), HeterogeneousCalibrator("global")).fit(
        X, y, sample_weight=weights
    )
    np.testing.assert_allclose(routed.best_estimator_.predict_proba(X), direct.predict_proba(X), atol=1e-12)


def test_classifier_refusals(problem):
    X, y, _, _, _ = (a[:300] for a in problem[0])
    with pytest.raises(ValueError, match="prefit"):
        HeterogeneousCalibratedClassifier(cv="some").fit(X, y)
    with pytest.raises(DataError, match="one class"):
        HeterogeneousCalibratedClassifier().fit(X, np.ones(300))
    with pytest.raises(DataError, match="no test fold"):
        HeterogeneousCalibratedClassifier(cv=[(np.arange(200), np.arange(200, 300))]).fit(X, y)
    with pytest.raises(DataError, match="not callable"):
        HeterogeneousCalibratedClassifier(object(), cv="prefit").fit(X, y)
    with pytest.raises(DataError, match="shape"):
        HeterogeneousCalibratedClassifier(lambda X: np.zeros((len(X), 2)), cv="prefit").fit(X, y)


# -- what is a category ---------------------------------------------------------------------------------------------


def test_a_few_cells_of_text_in_a_column_of_numbers_are_refused(problem):
    X, y, z, region, _ = (a[:400] for a in problem[0])
    numbers = X[:, 0].astype(object)
    numbers[[7, 30]] = "12,5", "n/a"
    table = pd.DataFrame({"income": numbers, "b": X[:, 1]})
    message = r"'income' holds numbers but for 2 cells \(row 7: '12,5'\).*categorical="
    for spelled in (table, table.astype({"income": str})):
        with pytest.raises(DataError, match=message):
            HeterogeneousCalibrator("tree").fit(spelled, y, logits=z)
    with pytest.raises(DataError, match=r"'x0' holds numbers but for 2 cells \(row 7: '12,5'\)"):
        HeterogeneousCalibrator("tree").fit(table.to_numpy(), y, logits=z)
    for meant in (table.astype({"income": "category"}), table.assign(income=np.where(region > 0, numbers, "none"))):
        with pytest.warns(CalibrationWarning, match=r"'income'.*identifiers"):
            model = HeterogeneousCalibrator("tree").fit(meant, y, logits=z)
        assert model.encoder_.columns[0].is_category
    with pytest.warns(CalibrationWarning, match=r"'income'.*identifiers"):
        declared = HeterogeneousCalibrator("tree", categorical=["income"]).fit(table, y, logits=z)
    assert declared.encoder_.columns[0].is_category
    few = table.assign(income=np.where(np.arange(400) == 7, "other", (X[:, 0] > 0).astype(int).astype(str)))
    assert HeterogeneousCalibrator("tree").fit(few, y, logits=z).encoder_.columns[0].values == ("0", "1", "other")
    whole = table.assign(income=X[:, 0].astype(str))
    assert not HeterogeneousCalibrator("tree").fit(whole, y, logits=z).encoder_.columns[0].is_category
