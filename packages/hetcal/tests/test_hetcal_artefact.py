import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hetcal import ArtefactError, GroupPartitioner, HeterogeneousCalibrator, TreePartitioner, load, save
from hetcal_cases import heterogeneous

pytest.importorskip("lightgbm")


def tables():
    X, y, z, region, _ = heterogeneous(4000, 0)
    rng = np.random.default_rng(1)
    names = np.array(["north", "south", "east", "west"])

    def table(X, region):
        return pd.DataFrame(
            {"a": X[:, 0].astype(np.float32), "place": names[region], "b": X[:, 1], "n": X[:, 2].round()}
        )

    Xt, _, zt, regiont, _ = heterogeneous(100_000, 2)
    test = table(Xt, regiont)
    for column in ("a", "b", "n"):
        test.loc[rng.random(len(test)) < 0.05, column] = np.nan
    test["place"] = test["place"].astype(object)
    test.loc[rng.random(len(test)) < 0.05, "place"] = "never seen"
    test.loc[rng.random(len(test)) < 0.05, "place"] = None
    test.loc[:999, "b"] = X[:1000, 1]  # values on which thresholds lie near
    zt[:100], zt[100:200] = np.inf, -np.inf
    return table(X, region), y, z, test, zt


@pytest.fixture(scope="module")
def data():
    return tables()


WAYS = [
    {"partitioner": "tree"},
    {"partitioner": "bag"},
    {"partitioner": "forest"},
    {"partitioner": "forest", "quality": "high"},
    {"partitioner": "global"},
    {"partitioner": "identity"},
    {"partitioner": "tree", "calibrator": "isotonic"},
    {"partitioner": "tree", "calibrator": "histogram"},
    {"partitioner": "tree", "calibrator": "beta"},
    {"partitioner": "tree", "calibrator": "shift"},
    {"partitioner": "tree", "calibrator": "temperature"},
    {"partitioner": "tree", "calibrator": "identity"},
    {"partitioner": GroupPartitioner(["place"])},
    {"partitioner": TreePartitioner(max_depth=9, min_leaf=20), "prior_correction": 0.1},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_scorer_equals_the_estimator_on_100k_rows(data, options, tmp_path):
    table, y, z, test, zt = data
    if options.get("quality") == "high":  # of some 2,000 trees
        test, zt = test[:10_000], zt[:10_000]
    model = HeterogeneousCalibrator(selection=None, threads=1, **options).fit(table, y, logits=z)
    path = save(model, tmp_path / "model.json")
    scorer = load(path)
    assert scorer.unseen(test) == model.unseen(test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of cells that fit never met
        expected = model.predict_proba(test, logits=zt)[:, 1]
        got = scorer.predict_proba(test, logits=zt)
        np.testing.assert_allclose(got, expected, atol=1e-9, rtol=0)
        columns = {name: test[name].to_numpy() for name in test}
        np.testing.assert_array_equal(scorer.predict_proba(columns, logits=zt), got)


def test_artefact_is_canonical_and_small(data, tmp_path):
    table, y, z, _, _ = data
    texts = [
        save(HeterogeneousCalibrator("tree").fit(table, y, logits=z), tmp_path / f"{i}.json").read_bytes()
        for i in (0, 1)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) < 64_000
    assert json.loads(texts[0])["schema"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.json", "1.json"]


def test_user_groups_are_asked_for(data, tmp_path):
    table, y, z, test, zt = data
    groups = table["place"].to_numpy()
    model = HeterogeneousCalibrator("groups").fit(table, y, logits=z, groups=groups)
    scorer = load(save(model, tmp_path / "g.json"))
    given = test["place"].to_numpy()
    expected = model.predict_proba(test, logits=zt, groups=given)[:, 1]
    np.testing.assert_allclose(scorer.predict_proba(test, logits=zt, groups=given), expected, atol=1e-12)
    with pytest.raises(ValueError, match="groups="):
        scorer.predict_proba(test, logits=zt)


def test_scorer_imports_numpy_alone(data, tmp_path):
    import hetcal.scorer

    table, y, z, _, _ = data
    path = save(HeterogeneousCalibrator("tree").fit(table, y, logits=z), tmp_path / "m.json")
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('scorer', {hetcal.scorer.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        f"scorer = module.Scorer.from_file({str(path)!r})\n"
        "p = scorer.predict_proba({'a': [0.1], 'b': [0.2], 'n': [1.0], 'place': ['north']}, logits=[0.3])\n"
        "assert 0 < p[0] < 1\n"
        "assert not {'scipy', 'sklearn', 'pandas', 'hetcal', 'lightgbm'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_refusals(data, tmp_path):
    table, y, z, _, _ = data
    model = HeterogeneousCalibrator(lambda t: np.zeros(len(t), int), selection=None).fit(table, y, logits=z)
    with pytest.raises(ArtefactError, match="no Python function"):
        save(model, tmp_path / "f.json")
    path = save(HeterogeneousCalibrator("tree").fit(table, y, logits=z), tmp_path / "m.json")
    newer = json.loads(path.read_text()) | {"schema": 99}
    path.write_text(json.dumps(newer))
    with pytest.raises(ArtefactError, match="schema 99"):
        load(path)
    path.write_text("{")
    with pytest.raises(ArtefactError):
        load(path)
    path.write_text("{}")
    with pytest.raises(ArtefactError, match="not a hetcal artefact"):
        load(path)


def test_a_damaged_artefact_is_refused_at_load(tmp_path):
    X, y, z, *_ = heterogeneous(1000, 0)
    path = save(HeterogeneousCalibrator("tree").fit(X, y, logits=z), tmp_path / "m.json")
    good = json.loads(path.read_text())
    damaged = [[1], None]
    damaged += [{k: v for k, v in good.items() if k != name} for name in ("chosen", "classes", "reason")]
    damaged.append({**good, "clip": -1})
    damaged += [{**good, name: value} for name in ("columns", "model", "schema", "clip") for value in (None, "x")]
    for name in ("way", "intercept", "slope", "maps", "trees"):
        damaged.append({**good, "model": {k: v for k, v in good["model"].items() if k != name}})
        damaged.append({**good, "model": {**good["model"], name: "x"}})
    damaged.append({**good, "model": {**good["model"], "trees": [{**good["model"]["trees"][0], "left": [0]}]}})
    for document in damaged:
        path.write_text(json.dumps(document))
        with pytest.raises(ArtefactError, match=r"m\.json"):
            load(path)


def test_text_where_numbers_were_is_named(tmp_path):
    X, y, z, *_ = heterogeneous(1000, 0)
    scorer = load(save(HeterogeneousCalibrator("tree").fit(X, y, logits=z), tmp_path / "m.json"))
    columns = [X[:, 0].astype(object), *X.T[1:]]
    columns[0][3] = "abc"
    with pytest.raises(ValueError, match="column 'x0' holds what is no number"):
        scorer.predict_proba(columns, logits=z)


@pytest.mark.parametrize("way", ["tree", "bag"])
def test_scorer_refuses_infinite_features_that_it_reads_and_looks_at_no_others(way, tmp_path):
    X, y, z, _, _ = heterogeneous(3000, 0)
    table = pd.DataFrame({"constant": 1.0, "a": X[:, 0], "b": X[:, 1]})
    model = HeterogeneousCalibrator(way, selection=None).fit(table, y, logits=z)
    scorer = load(save(model, tmp_path / "model.json"))
    wrong = table.assign(a=np.where(np.arange(3000) == 11, np.inf, table["a"]))
    with pytest.raises(ValueError, match=r"column 'a' has 1 infinity values \(first in row 11\); use NaN"):
        scorer.predict_proba(wrong, logits=z)
    unread = table.assign(constant="text")
    np.testing.assert_array_equal(scorer.predict_proba(unread, logits=z), scorer.predict_proba(table, logits=z))
    np.testing.assert_array_equal(model.predict_proba(unread, logits=z), model.predict_proba(table, logits=z))
