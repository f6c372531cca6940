import json

import numpy as np
import pytest
from multislot_rerank import Candidates, InvalidInput
from multislot_rerank.context import ContextFeatures
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.model_reranker import ModelReranker, training_rows
from multislot_rerank.trees import TreeEnsemble, raw_score
from oracles import context_by_hand
from papershelf_core.metrics import roc_auc

lightgbm = pytest.importorskip("lightgbm")

ATTRIBUTES = ("creator", "topic")
WORLD = InfluenceWorld()


@pytest.fixture(scope="module")
def logged():
    return WORLD.log(3000, seed=0)


@pytest.fixture(scope="module")
def fitted(logged):
    rewards = {"click": logged.clicks, "skip_first": 1 - logged.clicks}
    weights = {"click": 1.0, "skip_first": 0.1}
    return ModelReranker.fit(logged.requests, logged.slates, rewards, attributes=ATTRIBUTES, weights=weights)


def test_feature_rows_equal_their_definition(logged):
    aged = Candidates(
        logged.requests[0].scores, logged.requests[0].embeddings, logged.requests[0].attributes, np.arange(20.0) * 3600
    )
    for request, slate in [(aged, logged.slates[0]), *zip(logged.requests[1:20], logged.slates[1:20], strict=True)]:
        layout = ContextFeatures.of(request, ATTRIBUTES, WORLD.slots)
        rows = layout.rows(request, slate)
        assert rows.shape == (WORLD.slots, len(layout.names))
        for slot, item in enumerate(slate):
            by_hand = context_by_hand.features(request, ATTRIBUTES, WORLD.slots, item, list(slate[:slot]))
            assert np.allclose(rows[slot], by_hand, atol=1e-12), layout.names


def test_compiled_trees_equal_lightgbm(logged):
    layout = ContextFeatures(2, ATTRIBUTES, WORLD.slots, dimension=8, aged=False)
    rows = training_rows(layout, logged.requests, logged.slates)
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1}, lightgbm.Dataset(rows, logged.clicks.ravel()), 60
    )
    compiled = TreeEnsemble.from_lightgbm(booster)
    expected = booster.predict(rows[:2000], raw_score=True)
    ours = np.array([raw_score(row, compiled.arrays) for row in rows[:2000]])
    assert np.abs(ours - expected).max() < 1e-12


def test_slate_equals_scoring_every_candidate_in_every_slot(fitted):
    rng = np.random.default_rng(9)

    def predict(rows):
        total = np.zeros(len(rows))
        for name, weight in fitted.weights.items():
            raw = np.array([raw_score(row, fitted.heads[name].arrays) for row in rows])
            total += weight / (1 + np.exp(-raw))
        return total

    for _ in range(20):
        request, _ = WORLD.request(rng)
        expected = context_by_hand.greedy(request, ATTRIBUTES, WORLD.slots, predict)
        assert fitted.rerank(request).items.tolist() == expected


def test_lazy_slate_of_a_monotone_model_equals_scoring_every_candidate(logged):
    model = ModelReranker.fit(
        logged.requests, logged.slates, {"click": logged.clicks}, attributes=ATTRIBUTES, monotone=True
    )
    kept = [
        ContextFeatures(2, ATTRIBUTES, WORLD.slots, dimension=8, aged=False).names.index(name)
        for name in model.features.names
    ]
    rng = np.random.default_rng(8)
    for _ in range(40):
        request, _ = WORLD.request(rng)
        expected = context_by_hand.greedy(
            request,
            ATTRIBUTES,
            WORLD.slots,
            lambda rows: np.array([raw_score(row, model.heads["click"].arrays) for row in rows[:, kept]]),
        )
        slate = model.rerank(request)
        assert slate.items.tolist() == expected
        assert np.allclose(slate.utilities, model.predict(request, slate.items)["click"], atol=1e-12)
    with pytest.raises(InvalidInput, match=r"weights\['click'\]=-1.0 must be finite, and >= 0"):
        ModelReranker.fit(
            logged.requests, logged.slates, {"click": logged.clicks}, monotone=True, weights={"click": -1.0}, trees=1
        )


def test_predicting_a_slate_gives_the_utilities_of_its_placing(fitted):
    request, _ = WORLD.request(np.random.default_rng(3))
    slate = fitted.rerank(request)
    predicted = fitted.predict(request, slate.items)
    total = sum(weight * predicted[name] for name, weight in fitted.weights.items())
    assert np.allclose(slate.utilities, total, atol=1e-12)


def test_context_closes_most_of_the_gap_to_the_truth_and_earns_more():
    train, test = WORLD.log(6000, seed=10), WORLD.log(3000, seed=11)
    model = ModelReranker.fit(train.requests, train.slates, {"click": train.clicks}, attributes=ATTRIBUTES)
    layout = model.features
    rows, labels = training_rows(layout, test.requests, test.slates), test.clicks.ravel()
    context = roc_auc(labels, np.array([raw_score(row, model.heads["click"].arrays) for row in rows]))
    first_score, truth = roc_auc(labels, rows[:, 0]), roc_auc(labels, test.probability.ravel())
    assert context / first_score - 1 > 0.06
    assert (context - first_score) / (truth - first_score) > 0.9
    # clicks that its slates would bring, by the world's own probabilities, against the order of the best score
    rng = np.random.default_rng(12)
    gains = []
    for _ in range(300):
        request, appeal = WORLD.request(rng)
        ours = WORLD.click_probability(request, appeal, model.rerank(request).items).sum()
        by_score = WORLD.click_probability(request, appeal, np.argsort(-request.scores[:, 0])[: WORLD.slots]).sum()
        gains.append(ours - by_score)
    assert np.mean(gains) > 5 * np.std(gains) / np.sqrt(300)
    assert np.mean(gains) > 0.15


def test_artefact_round_trip_is_exact(fitted, tmp_path):
    path = tmp_path / "model.json"
    fitted.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.json"]
    again = ModelReranker.load(path)
    rng = np.random.default_rng(4)
    for _ in range(10):
        request, _ = WORLD.request(rng)
        one, two = fitted.rerank(request), again.rerank(request)
        assert one.items.tolist() == two.items.tolist()
        assert one.utilities.tolist() == two.utilities.tolist()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.update(schema=9), "no model of schema 2"),
        (lambda d: d["heads"]["click"].pop("leaf"), "trees lack leaf"),
        (lambda d: d["heads"]["click"]["left"].__setitem__(0, 10**6), "left points outside"),
        (lambda d: d["heads"]["click"]["right"].__setitem__(3, 0), "right points outside"),
        (lambda d: d["heads"]["click"]["feature"].__setitem__(0, 99), "tests a feature beyond"),
        (lambda d: d["heads"]["click"]["roots"].__setitem__(0, 10**6), "a root or a feature is out of range"),
        (lambda d: d["heads"]["click"]["threshold"].pop(), "differ in length"),
        (lambda d: d["weights"].update(dwell=1.0), "weights names dwell"),
    ],
)
def test_a_damaged_artefact_is_refused(fitted, tmp_path, damage, message):
    path = tmp_path / "model.json"
    fitted.save(path)
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match=message):
        ModelReranker.load(path)


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"schema": 2}', "[" * 100_000])
def test_what_is_no_artefact_is_refused(tmp_path, text):
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="write it with ModelReranker"):
        ModelReranker.load(path)


def test_bad_input_is_named(logged, fitted):
    with pytest.raises(InvalidInput, match="slates has 1 rows for 3000 requests"):
        ModelReranker.fit(logged.requests, logged.slates[:1], {"click": logged.clicks[:1]})
    with pytest.raises(InvalidInput, match=r"rewards\['click'\] must be 0 or 1"):
        ModelReranker.fit(logged.requests[:9], logged.slates[:9], {"click": 2 * logged.clicks[:9] + 1})
    outside = logged.slates[:9].copy()
    outside[4, 0] = 77
    with pytest.raises(InvalidInput, match=r"slates\[4\].*outside its 20 candidates"):
        ModelReranker.fit(logged.requests[:9], outside, {"click": logged.clicks[:9]})
    with pytest.raises(InvalidInput, match="8 slots are more than the 3 candidates"):
        fitted.rerank(Candidates(np.ones((3, 2)), np.ones((3, 8)), {"creator": [1, 2, 3], "topic": [1, 2, 3]}))
    with pytest.raises(InvalidInput, match="no attribute 'topic', which the model uses"):
        fitted.rerank(Candidates(np.ones((9, 2)), np.ones((9, 8)), {"creator": list(range(9))}))
    with pytest.raises(InvalidInput, match="scores has 1 columns where the model has 2"):
        fitted.rerank(Candidates(np.ones(9), np.ones((9, 8)), {"creator": list(range(9)), "topic": list(range(9))}))
