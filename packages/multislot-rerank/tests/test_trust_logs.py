"""Logs, targets, models and worlds refuse what has no meaning, and models what they were not fitted with."""

import functools
import json

import numpy as np
import pandas as pd
import pytest
from multislot_rerank import (
    Candidates,
    InvalidInput,
    Relevance,
    SequentialGreedyReranker,
    SlateLog,
    TargetPolicy,
    cascade_dr,
    estimate_all,
    iips,
    pseudo_inverse,
    replay,
    rips,
    sips,
)
from multislot_rerank.cascade_world import CascadeWorld
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.pareto import choose_honestly, sweep
from multislot_rerank.policies import by_relevance, compare_policies, whole_slate
from multislot_rerank.sharded import replay_shards
from multislot_rerank.simulator import SlateSimulator
from multislot_rerank.tradeoff_search import search


def frame(**columns):
    base = {
        "request": [0, 0, 1, 1],
        "slot": [0, 1, 0, 1],
        "item": [0, 1, 2, 0],
        "candidates": 3,
        "reward": [1, 0, 0, 1],
    }
    return pd.DataFrame({name: value for name, value in (base | columns).items() if value is not None})


RECORDED = {"conditional": [0.5, 0.5, 0.25, 0.5], "marginal": [0.5, 0.4, 0.25, 0.4]}


def test_uniform_logging_is_said_and_never_guessed():
    for extra in ({}, {"propensity": 0.5}, {"pscore": 0.5}):
        with pytest.raises(InvalidInput, match="say logging='uniform'"):
            SlateLog.from_frame(frame(**extra))
    for column in RECORDED:
        with pytest.raises(InvalidInput, match=r"frame has no column (conditional|marginal); give both"):
            SlateLog.from_frame(frame(**{column: RECORDED[column]}))
        with pytest.raises(InvalidInput, match="leaves nothing to record"):
            SlateLog.from_frame(frame(**{column: RECORDED[column]}), logging="uniform")
    with pytest.raises(InvalidInput, match="logging='unifrom' is unknown"):
        SlateLog.from_frame(frame(), logging="unifrom")
    assert SlateLog.from_frame(frame(), logging="uniform").is_uniform
    assert not SlateLog.from_frame(frame(**RECORDED)).is_uniform


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"candidates": [3, 9, 3, 3]}, "candidates is 3 and 9 in request 0"),
        ({"candidates": [3, 3, 3, 4]}, "candidates is 3 and 4 in request 1"),
        ({"slot": [0, 0, 0, 1]}, "each once"),
        ({"slot": [0, 1, 1, 2]}, "each once"),
        ({"slot": [0, 1, -1, 0]}, "each once"),
        ({"slot": [0, 0.5, 0, 1]}, "not whole"),
        ({"request": [0, 0, 0, 1]}, "each once"),
        ({"request": [0, 0, None, 1]}, "request has missing values"),
        ({"item": [0, 0, 2, 0]}, "shows an item twice"),
        ({"item": [0, 3, 2, 0]}, "outside"),
        ({"item": [0, None, 2, 0]}, "item"),
        ({"candidates": pd.to_timedelta([3, 3, 3, 3])}, "candidates"),
        ({"reward": pd.to_datetime(["2020-01-01"] * 4)}, "reward"),
        ({"reward": ["1", "0", "0", "1"]}, "reward"),
        ({"reward": pd.array([1, None, 0, 1], dtype="Int64")}, "reward"),
        ({"conditional": [0.5, 0.5, 0.0, 0.5]}, r"conditional.* outside \(0, 1\]"),
        ({"conditional": [0.5, 1.5, 0.25, 0.5]}, r"conditional.* outside \(0, 1\]"),
        ({"marginal": [0.5, -0.1, 0.25, 0.5]}, r"marginal.* outside \(0, 1\]"),
        ({"marginal": [0.4, 0.1, 0.25, 0.5]}, "differ"),
        ({"conditional": [1e-200, 1e-200, 0.25, 0.5], "marginal": [1e-200, 0.1, 0.25, 0.5]}, "multiply to"),
    ],
)
def test_frames_that_contradict_themselves_are_refused(columns, message):
    with pytest.raises(InvalidInput, match=message):
        SlateLog.from_frame(frame(**(RECORDED | columns)))


@pytest.mark.parametrize("junk", [None, {"request": [0]}, [1, 2], "log.csv", pd.DataFrame, pd.Series([1.0])], ids=repr)
def test_what_is_no_frame_is_refused(junk):
    with pytest.raises(InvalidInput, match="frame is no pandas DataFrame"):
        SlateLog.from_frame(junk, logging="uniform")


def test_a_lone_objective_is_no_list():
    for objectives in ("reward", None, 3, ["reward", "reward"], [None], {"reward": 1}):
        with pytest.raises(InvalidInput, match="objectives"):
            SlateLog.from_frame(frame(), objectives, logging="uniform")
        if objectives is not None:
            with pytest.raises(InvalidInput, match="objectives"):
                SlateLog.uniform([[0, 1]], [[[1, 0], [0, 1]]], 3, objectives)


def test_a_log_made_by_hand_is_validated_too():
    good = SlateLog.uniform([[0, 1], [2, 0]], [[1, 0], [0, 1]], 3)
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    assert len(SlateLog(**fields)) == 2
    for name, value in (
        ("slates", [[0, 0], [2, 0]]),
        ("rewards", [[np.nan, 0], [0, 1]]),
        ("conditionals", [[2.0, 0.5], [0.5, 0.5]]),
        ("conditionals", [[0.5, 0.5], [0.5, 0.5]]),
        ("marginals", [[0.0, 0.5], [0.5, 0.5]]),
        ("candidates", [3, 1]),
        ("candidates", [3, 3, 3]),
        ("objectives", ("a", "b")),
        ("is_uniform", "yes"),
    ):
        with pytest.raises(InvalidInput, match=name):
            SlateLog(**(fields | {name: value}))


def test_rows_of_a_subset_are_numbers_of_records():
    log = SlateLog.uniform([[0, 1], [2, 0]], [[1, 0], [0, 1]], 3)
    for rows in ([True, False], [-1], [2], [0.5], [], "0", None):
        with pytest.raises(InvalidInput, match="rows"):
            log.subset(rows)
    assert log.subset([1]).slates.tolist() == [[2, 0]]


@pytest.mark.parametrize("junk", [None, "log", SlateLog, TargetPolicy, 3, np.ones((2, 2)), {"slates": []}], ids=repr)
def test_estimators_refuse_what_is_no_log_or_target(junk):
    log = SlateLog.uniform([[0, 1], [2, 0]], [[1, 0], [0, 1]], 3)
    target = TargetPolicy.deterministic(log, [[0, 1], [2, 0]])
    q = np.zeros((2, 2))
    for estimate in (replay, sips, rips, iips, pseudo_inverse, estimate_all, lambda a, b: cascade_dr(a, b, q, q)):
        with pytest.raises(InvalidInput, match="log="):
            estimate(junk, target)
        with pytest.raises(InvalidInput, match="target="):
            estimate(log, junk)
        with pytest.raises(InvalidInput, match="target has shape"):
            estimate(log, TargetPolicy.deterministic(log.subset([0]), [[0, 1]]))
    for call in (
        lambda: TargetPolicy.deterministic(junk, [[0, 1]]),
        lambda: TargetPolicy.stochastic(junk, q, q),
        lambda: sweep(junk, {"a": [[0, 1]] * 2}),
        lambda: choose_honestly(junk, {"a": [[0, 1]] * 2}, lambda front: "a"),
        lambda: search(junk, lambda theta: [[0, 1]], {"a": (0.0, 1.0)}),
        lambda: sweep(log, junk),
        lambda: search(log, lambda theta: [[0, 1]], junk),
        lambda: search(log, junk, {"a": (0.0, 1.0)}) if not callable(junk) else sweep(log, junk),
        lambda: replay_shards(junk),
        lambda: replay_shards([junk]),
        lambda: compare_policies(junk, {"a": by_relevance}),
        lambda: compare_policies(InfluenceWorld(), junk),
        lambda: compare_policies(InfluenceWorld(), {"a": junk}),
        lambda: whole_slate(junk),
        lambda: SlateSimulator(junk, 1),
    ):
        with pytest.raises(InvalidInput):
            call()


def test_targets_made_by_hand_are_probabilities():
    for prefixes, marginals, slates in (
        ([[0.5, 0.6]], [[0.5, 0.5]], None),
        ([[1.5, 0.6]], [[0.5, 0.5]], None),
        ([[0.5, 0.4]], [[0.5, np.nan]], None),
        ([[0.5, 0.4]], [[0.5]], None),
        ([[0.5, 0.4]], [[0.5, 0.4]], [[1, 1]]),
    ):
        with pytest.raises(InvalidInput, match="target"):
            TargetPolicy(prefixes, marginals, slates)


def test_rewards_that_leave_the_range_of_doubles_are_refused():
    slates = [[0, 1], [1, 0]] * 20
    log = SlateLog.uniform(slates, np.tile([[1e308, -1e308], [1e308, 1e308]], (20, 1)), 2)
    target = TargetPolicy.deterministic(log, [[0, 1]] * 40)
    for estimate in (replay, sips, rips, iips):
        with pytest.raises(InvalidInput, match="range of doubles"):
            estimate(log, target)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_ladder_prints_a_column_an_objective(count):
    rng = np.random.default_rng(count)
    slates = np.argsort(rng.random((500, 4)), axis=1)[:, :2]
    names = ["click", "a long objective", "dwell"][:count]
    log = SlateLog.uniform(slates, rng.random((500, 2, count)) + 10.0 * np.arange(count), 4, names)
    ladder = estimate_all(log, TargetPolicy.deterministic(log, np.tile([1, 2], (500, 1))))
    lines = str(ladder).splitlines()
    assert lines[0].count("s.e.") == count
    assert all(name in lines[0] for name in (names if count > 1 else ["value"]))
    for line, rung in zip(lines[1:], ladder.rungs, strict=False):
        for value, error in zip(rung.estimate.value, rung.estimate.standard_error, strict=True):
            assert f"{value:.5f}" in line
            assert f"{error:.5f}" in line


# -- models


def requests_with(aged, dimension, count=60, columns=2, names=("creator",)):
    rng = np.random.default_rng(0)
    return [
        Candidates(
            rng.random((5, columns)),
            rng.normal(size=(5, dimension)) if dimension else None,
            {name: rng.integers(3, size=5).tolist() for name in names},
            rng.exponential(100.0, 5) if aged else None,
        )
        for _ in range(count)
    ]


@functools.cache
def fitted(aged, dimension, monotone=False):
    pytest.importorskip("lightgbm")
    from multislot_rerank.model_reranker import ModelReranker

    rng = np.random.default_rng(1)
    slates = np.array([rng.permutation(5)[:3] for _ in range(60)])
    clicks = (rng.random((60, 3)) < 0.5).astype(int)
    return ModelReranker.fit(
        requests_with(aged, dimension), slates, {"click": clicks}, attributes=["creator"], monotone=monotone, trees=3,
        parameters={"min_data_in_leaf": 5},
    )  # fmt: skip


FIELDS = [(aged, dimension) for aged in (False, True) for dimension in (0, 2, 3)]


@pytest.mark.parametrize("ours", FIELDS)
@pytest.mark.parametrize("monotone", [False, True])
def test_a_model_serves_requests_with_its_own_fields_alone(ours, monotone, tmp_path):
    from multislot_rerank.model_reranker import ModelReranker

    model = fitted(*ours, monotone)
    model.save(tmp_path / "model.json")
    for served in (model, ModelReranker.load(tmp_path / "model.json")):
        for theirs in FIELDS:
            (request,) = requests_with(*theirs, count=1)
            if theirs == ours:
                assert sorted(set(served.rerank(request).items.tolist())) == sorted(
                    served.rerank(request).items.tolist()
                )
                continue
            for call in (served.rerank, lambda request, served=served: served.predict(request, [0, 1])):
                with pytest.raises(InvalidInput, match="where the model was fitted with"):
                    call(request)
        for request in (
            requests_with(*ours, count=1, columns=3)[0],
            requests_with(*ours, count=1, names=("topic",))[0],
        ):
            with pytest.raises(InvalidInput, match=r"columns where the model has|no attribute 'creator'"):
                served.rerank(request)


def test_a_model_is_fitted_on_requests_of_one_kind():
    pytest.importorskip("lightgbm")
    from multislot_rerank.model_reranker import ModelReranker

    slates, clicks = np.tile([0, 1], (2, 1)), {"click": np.ones((2, 2))}
    for one, other in ((FIELDS[0], FIELDS[1]), (FIELDS[1], FIELDS[2]), (FIELDS[1], FIELDS[4])):
        mixed = [*requests_with(*one, count=1), *requests_with(*other, count=1)]
        with pytest.raises(InvalidInput, match="where the model was fitted with"):
            ModelReranker.fit(mixed, slates, clicks)
    good = requests_with(False, 2, count=2)
    for changed in (
        {"requests": [good[0], "b"]},
        {"requests": good[0]},
        {"requests": []},
        {"rewards": [np.ones((2, 2))]},
        {"rewards": {}},
        {"attributes": "creator"},
        {"attributes": [None]},
        {"weights": [1.0]},
        {"weights": {"click": "1"}},
        {"trees": 0},
        {"parameters": {"monotone_constraints": [1]}},
        {"parameters": {"objective": "regression"}},
    ):
        with pytest.raises(InvalidInput):
            ModelReranker.fit(**({"requests": good, "slates": slates, "rewards": clicks} | changed))
    model = fitted(False, 2)
    for slate in ([0, 0], [5], [-1], [0, 1, 2, 3], [True], [], "0"):
        with pytest.raises(InvalidInput, match="slate"):
            model.predict(good[0], slate)
    for junk in (None, "request", Candidates):
        with pytest.raises(InvalidInput, match="candidates="):
            model.rerank(junk)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scores", "2"), ("scores", 0), ("scores", True), ("slots", 2.5), ("dimension", -1), ("dimension", None),
     ("aged", 1), ("monotone", "yes"), ("attributes", "creator"), ("attributes", [1]), ("heads", []),
     ("heads", {}), ("heads", {"click": []}),
     ("weights", [1]), ("weights", {"click": "1"}), ("weights", {"click": float("nan")}), ("weights", {"click": True})],
)  # fmt: skip
def test_fields_of_a_saved_model_are_checked(field, value, tmp_path):
    from multislot_rerank.model_reranker import ModelReranker

    fitted(True, 2).save(tmp_path / "model.json")
    document = json.loads((tmp_path / "model.json").read_text())
    for damaged in (document | {field: value}, {name: v for name, v in document.items() if name != field}):
        (tmp_path / "model.json").write_text(json.dumps(damaged))
        with pytest.raises(InvalidInput):
            ModelReranker.load(tmp_path / "model.json")
    for part in ("roots", "feature", "threshold", "left", "right", "leaf"):
        for wrong in (None, "abc", [None], [[0]], ["0"], {"a": 1}, [float("nan")], [1e308, 1e308, -1e308], [True]):
            damaged = json.loads(json.dumps(document))
            damaged["heads"]["click"][part] = wrong
            (tmp_path / "model.json").write_text(json.dumps(damaged))
            with pytest.raises(InvalidInput):
                ModelReranker.load(tmp_path / "model.json")


def test_scores_too_large_to_centre_are_refused():
    request = Candidates([[1.7e308, 0.0]] + [[-1.7e308, 0.0]] * 4, attributes={"creator": list("aabbc")})
    with pytest.raises(InvalidInput, match="too large to subtract their mean"):
        fitted(False, 0).rerank(request)


# -- worlds


@pytest.mark.parametrize(
    "changed",
    [{"influence": np.nan}, {"influence": "1"}, {"influence": -1.0},
     {"candidates": 0}, {"candidates": 2.5},
     {"slots": 21}, {"slots": True}, {"creators": 0}, {"topics": -1}, {"dimension": 0}, {"unseen": -0.1},
     {"unseen": None}],
)  # fmt: skip
def test_worlds_that_cannot_be_are_refused(changed):
    with pytest.raises(InvalidInput, match=next(iter(changed))):
        InfluenceWorld(**changed)


@pytest.mark.parametrize("items", [[-1], [20], [0.5], [True], [0, 1], "0", None])
def test_the_simulator_places_candidates_by_number(items):
    simulator = SlateSimulator(InfluenceWorld(), 1)
    rng = np.random.default_rng(0)
    simulator.reset(rng)
    with pytest.raises(InvalidInput, match="items"):
        simulator.place(items, rng)


@pytest.mark.parametrize(
    "changed",
    [{"appeal": [0.5, 1.5]}, {"appeal": [0.5, np.nan]}, {"likeness": [[0.0, -1.0], [0.0, 0.0]]},
     {"likeness": [[0.0, 0.1]]}, {"damping": 2.0}, {"damping": "1"}, {"slots": 3}, {"slots": 0}],
)  # fmt: skip
def test_cascade_worlds_that_cannot_be_are_refused(changed):
    with pytest.raises(InvalidInput, match=next(iter(changed))):
        CascadeWorld(**({"appeal": [0.5, 0.4], "likeness": np.zeros((2, 2)), "damping": 0.5, "slots": 1} | changed))


def test_a_reranker_is_a_policy_and_its_class_is_none():
    assert callable(whole_slate(SequentialGreedyReranker([Relevance((1.0, 0.0))], 8)))
    with pytest.raises(InvalidInput, match="reranker="):
        whole_slate(SequentialGreedyReranker)
