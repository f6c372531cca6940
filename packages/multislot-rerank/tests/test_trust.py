"""Random requests against the definitions: the lazy kernel, the scan and a brute greedy agree or refuse alike."""

import numpy as np
import pytest
from multislot_rerank import (
    AttributeRepeat,
    Candidates,
    Freshness,
    FreshQuota,
    InvalidInput,
    LogDeterminant,
    MaxPerWindow,
    MaxSimilarity,
    MinGap,
    Pin,
    Relevance,
    SequentialGreedyReranker,
    diversify,
)
from oracles import slate_by_definition
from oracles.random_requests import disagreement, draw


def test_slates_and_refusals_are_those_of_the_definitions():
    found = {seed: difference for seed in range(1000) if (difference := disagreement(draw((77, seed))))}
    assert found == {}


@pytest.mark.parametrize("beam", [1, 2])
@pytest.mark.parametrize("window", [None, 1])
def test_overflowing_utilities_are_refused_and_the_largest_finite_ones_are_not(beam, window):
    candidates = Candidates([-1e308, -1e308, 0.0], np.eye(3))
    objectives = [MaxSimilarity(1.0, window)]
    with pytest.raises(InvalidInput, match="candidate 0 can leave the range of doubles"):
        SequentialGreedyReranker([Relevance((10.0,)), *objectives], 3, beam=beam).rerank(candidates)
    slate = SequentialGreedyReranker([Relevance((0.5,)), *objectives], 3, beam=beam).rerank(candidates)
    assert slate.items.tolist() == [2, 0, 1]
    assert slate.utilities.tolist() == [0.0, -0.5e308, -0.5e308]


def test_cancelling_weights_are_refused_whatever_the_order_of_the_sum():
    scores = [[1e308, 1e308, 1e308], [1.0, 1.0, 1.0]]
    for weights in ((1.0, 1.0, -1.0), (1.0, -1.0, 1.0)):
        with pytest.raises(InvalidInput, match="candidate 0"):
            SequentialGreedyReranker([Relevance(weights)], 2).rerank(Candidates(scores))


def test_a_large_unused_column_does_not_make_a_request_overflow():
    candidates = Candidates([[1e308, 1.0], [1e308, 2.0]])
    slate = SequentialGreedyReranker([Relevance((0.0, 1e200))], 2).rerank(candidates)
    assert slate.items.tolist() == [1, 0]


@pytest.mark.parametrize("strategy", ["mmr", "msd", "dpp"])
def test_diversify_does_not_depend_on_the_unit_of_vectors_or_on_huge_scores(strategy):
    rng = np.random.default_rng(0)
    vectors, scores = rng.normal(size=(30, 4)), rng.random(30)
    plain = diversify(vectors, scores, 4, strategy).indices.tolist()
    for exponent in (-1000, -500, 500, 1000):
        assert diversify(np.ldexp(vectors, exponent), scores, 4, strategy).indices.tolist() == plain
    if strategy == "dpp":
        for exponent in (-1000, 1000):
            assert diversify(vectors, np.ldexp(scores, exponent), 4, strategy).indices.tolist() == plain


@pytest.mark.parametrize("seed", range(30))
def test_cosine_is_right_from_1e_308_to_1e308(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(12, 5)) * 10.0 ** rng.uniform(-307.5, 307.5, (12, 1))
    vectors[rng.random(12) < 0.1] = 0.0
    expected = slate_by_definition.cosines(vectors)
    candidates = Candidates(np.zeros(12), vectors)
    unit = candidates.embeddings * candidates.inverse_norm[:, None]
    assert np.allclose(unit @ unit.T, expected, atol=1e-14)
    # the most dissimilar second item is the one whose cosine to the first is smallest
    slate = SequentialGreedyReranker([MaxSimilarity(1.0)], 2, [Pin(0, 0)]).rerank(candidates)
    assert slate.utilities[1] == pytest.approx(-np.maximum(expected[0, 1:], 0).min(), abs=1e-14)


def test_pins_that_break_a_constraint_are_reported():
    candidates = Candidates([0.9, 0.8, 0.7], attributes={"c": ["a", "a", "b"]}, age_s=[50.0, 50.0, 50.0])
    quota, gap = FreshQuota(1, 10.0), MinGap("c", 3)
    slate = SequentialGreedyReranker([Relevance()], 2, [Pin(0, 0), Pin(1, 1), quota]).rerank(candidates)
    assert slate.relaxed == ((1, quota),)
    slate = SequentialGreedyReranker([Relevance()], 2, [Pin(0, 0), Pin(1, 1), gap]).rerank(candidates)
    assert slate.relaxed == ((1, gap),)
    assert slate.proven


def test_greedy_goes_around_a_dead_end():
    # taking b in slot 0 leaves a, a for slots 1 and 2, which must differ: only a b a keeps the gap
    candidates = Candidates([0.1, 0.2, 0.9], attributes={"c": ["a", "a", "b"]})
    slate = SequentialGreedyReranker([Relevance()], 3, [MinGap("c", 2)]).rerank(candidates)
    assert slate.items.tolist() == [1, 2, 0]
    assert slate.relaxed == ()


def test_a_less_important_constraint_gives_way_to_a_more_important_one():
    # both cannot hold: the first of the list does, in every slot
    candidates = Candidates([0.9, 0.8, 0.7], attributes={"c": ["a", "a", "b"], "t": ["x", "y", "x"]})
    gap, topic = MinGap("c", 2), MinGap("t", 2)
    for constraints in ([gap, topic], [topic, gap]):
        slate = SequentialGreedyReranker([Relevance()], 3, constraints).rerank(candidates)
        assert {constraint for _, constraint in slate.relaxed} <= {constraints[1]}


def test_an_empty_search_budget_is_told(monkeypatch):
    monkeypatch.setattr("multislot_rerank.look_ahead.BOUND", 0)
    candidates = Candidates([0.1, 0.2, 0.9], attributes={"c": ["a", "a", "b"]})
    slate = SequentialGreedyReranker([Relevance()], 3, [MinGap("c", 2)]).rerank(candidates)
    assert not slate.proven
    assert len(slate.relaxed) == 1


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, np.datetime64("NaT")])
def test_no_value_is_equal_to_nothing(missing):
    candidates = Candidates([0.9, 0.8, 0.7], attributes={"c": [missing, missing, "b"]})
    assert len(set(candidates.codes["c"].tolist())) == 3
    objectives = [Relevance(), AttributeRepeat("c", 5.0)]
    slate = SequentialGreedyReranker(objectives, 3, [MinGap("c", 3), MaxPerWindow("c", 3, 1)]).rerank(candidates)
    assert slate.items.tolist() == [0, 1, 2]
    assert slate.relaxed == ()


def test_pandas_and_arrow_missing_values_are_equal_to_nothing():
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    columns = [
        pd.Series(["a", None, None, "a"]),
        pd.array(["a", pd.NA, pd.NA, "a"], dtype="string"),
        pd.array([1, pd.NA, pd.NA, 1], dtype="Int64"),
        pd.Categorical(["a", None, None, "a"]),
        pd.to_datetime(pd.Series(["2020-01-01", None, None, "2020-01-01"])),
        pa.array(["a", None, None, "a"]),
        np.array([1.0, np.nan, np.nan, 1.0]),
    ]
    for column in columns:
        codes = Candidates(np.ones(4), attributes={"c": column}).codes["c"].tolist()
        assert codes[0] == codes[3]
        assert len(set(codes)) == 3


HOURS = [1.0, 2.5]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s", "m", "h"])
def test_durations_are_converted_to_seconds(unit):
    import pandas as pd

    whole = np.array([6, 18]) * 3600 * 10**3
    ages = (whole * np.timedelta64(1, "ms")).astype(f"timedelta64[{unit}]")
    for given in (ages, list(ages), ages.astype("timedelta64[us]").tolist(), pd.Series(ages), pd.TimedeltaIndex(ages)):
        assert Candidates([1.0, 2.0], age_s=given).age_s.tolist() == [6 * 3600.0, 18 * 3600.0]


def refused_columns():
    import datetime

    import pandas as pd

    yield from [
        np.array([1 + 1j, 2]),
        [1j, 2.0],
        np.ma.array([1.0, 2.0], mask=[False, True]),
        [np.ma.masked, 2.0],
        ["1.0", "2.0"],
        np.array(["1", "2"]),
        [b"1", b"2"],
        [1.0, None],
        [1.0, "2"],
        [1.0, np.nan],
        [1.0, float("inf")],
        [10**400, 1],
        np.array(["2020-01-01", "2020-01-02"], "datetime64[s]"),
        [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)],
        [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
        pd.to_datetime(["2020-01-01", "2020-01-02"]),
        pd.array([1, pd.NA], dtype="Int64"),
        np.array([(1, 2.0), (3, 4.0)], dtype=[("a", int), ("b", float)]),
        np.array([np.timedelta64(1, "Y"), np.timedelta64(2, "Y")]),
        np.array([np.timedelta64(1), np.timedelta64(2)]),
        np.array([1, "NaT"], "timedelta64[s]"),
        {"a": 1.0, "b": 2.0},
        {1.0, 2.0},
        (x for x in (1.0, 2.0)),
        "ab",
        None,
        object(),
        np.float64,
    ]


REFUSED = list(refused_columns())


@pytest.mark.parametrize("column", REFUSED, ids=lambda column: type(column).__name__)
def test_what_is_no_number_is_refused_everywhere(column):
    with pytest.raises(InvalidInput, match="scores"):
        Candidates(column)
    with pytest.raises(InvalidInput, match="embeddings"):
        Candidates([1.0, 2.0], column if column is not None else [[None], [1.0]])
    if isinstance(column, np.ndarray | list):
        with pytest.raises(InvalidInput, match="embeddings"):
            Candidates(
                [1.0, 2.0], np.ma.array(column).reshape(-1, 1) if np.ma.is_masked(column) else [[v] for v in column]
            )
    if column is not None:
        with pytest.raises(InvalidInput, match="age_s"):
            Candidates([1.0, 2.0], age_s=column)
    with pytest.raises(InvalidInput, match="weights"):
        Relevance(column)


@pytest.mark.parametrize(
    "column", [np.array([1, 2], dtype) for dtype in ("int8", "uint64", "float16", "float32", "longdouble", "object")]
)
def test_real_numbers_of_any_width_mean_themselves(column):
    assert Candidates(column).scores.tolist() == [[1.0], [2.0]]
    assert Candidates(np.ma.array(column), age_s=column).age_s.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "values", ["ab", b"ab", {"a", "b"}, {"a": 1, "b": 2}, (c for c in "ab"), None, 3, np.ones((2, 2)),
               np.ma.array(["a", "b"], mask=[True, False])],
)  # fmt: skip
def test_attributes_that_are_no_column_are_refused(values):
    with pytest.raises(InvalidInput, match=r"attributes\['c'\]"):
        Candidates([1.0, 2.0], attributes={"c": values})


JUNK = [Relevance, "relevance", None, 0.7, {"type": "Relevance"}, np.ones(2), object(), InvalidInput, Candidates]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk).partition(" at 0x")[0])
def test_what_is_no_objective_constraint_or_candidate_is_refused_by_name(junk):
    candidates = Candidates([0.9, 0.8])
    for objectives in (junk, [junk], [Relevance(), junk], (junk,), [Pin(0, 0)], Relevance(), [[Relevance()]]):
        with pytest.raises(InvalidInput, match="objectives"):
            SequentialGreedyReranker(objectives, 1)
    for constraints in (junk, [junk], [Pin(0, 0), junk], [Relevance()], Pin(0, 0), [Pin], [[Pin(0, 0)]]):
        with pytest.raises(InvalidInput, match="constraints"):
            SequentialGreedyReranker([Relevance()], 1, constraints)
    reranker = SequentialGreedyReranker([Relevance()], 1)
    with pytest.raises(InvalidInput, match="candidates"):
        reranker.rerank(junk)
    for requests in (junk, [junk], [candidates, junk], candidates):
        with pytest.raises(InvalidInput, match="requests"):
            reranker.rerank_batch(requests)


def test_containers_of_any_order_keeping_kind_are_taken():
    candidates = Candidates([0.9, 0.8])
    for objectives in ([Relevance()], (Relevance(),), iter([Relevance()]), np.array([Relevance()], object)):
        assert SequentialGreedyReranker(objectives, 1).rerank(candidates).items.tolist() == [0]
    listed = [Relevance()]
    reranker = SequentialGreedyReranker(listed, 1)
    listed.append("junk")
    assert reranker.rerank(candidates).items.tolist() == [0]


@pytest.mark.parametrize(
    "value", [None, "1", True, 1j, np.timedelta64(1, "s"), [1.0], float("nan"), float("inf"), -1.0]
)
def test_numbers_of_objectives_and_constraints_are_numbers(value):
    calls = [
        lambda: Freshness(value, 1.0),
        lambda: Freshness(1.0, value),
        lambda: MaxSimilarity(value),
        lambda: MaxSimilarity(1.0, window=value),
        lambda: AttributeRepeat("c", value),
        lambda: AttributeRepeat("c", 1.0, window=value),
        lambda: LogDeterminant(value),
        lambda: LogDeterminant(1.0, value),
        lambda: Pin(value, 0),
        lambda: Pin(0, value),
        lambda: MaxPerWindow("c", value, 1),
        lambda: MaxPerWindow("c", 1, value),
        lambda: MinGap("c", value),
        lambda: FreshQuota(value, 1.0),
        lambda: SequentialGreedyReranker([], value),
        lambda: SequentialGreedyReranker([], 1, beam=value),
    ]
    for number, call in enumerate(calls):
        if value is None and number in (3, 5):  # None is a window: all
            continue
        with pytest.raises(InvalidInput):
            call()
    if value != float("inf"):
        with pytest.raises(InvalidInput):
            FreshQuota(1, value)


@pytest.mark.parametrize("name", [None, 3, "", b"c", ["c"], str])
def test_attribute_names_are_texts(name):
    for call in (lambda: AttributeRepeat(name, 1.0), lambda: MaxPerWindow(name, 2, 1), lambda: MinGap(name, 2)):
        with pytest.raises(InvalidInput, match="attribute"):
            call()


def test_huge_whole_numbers_are_as_good_as_none():
    candidates = Candidates([0.9, 0.8, 0.7], attributes={"c": ["a", "a", "b"]}, age_s=[1.0, 1.0, 1.0])
    huge = 10**30
    constraints = [MinGap("c", huge), MaxPerWindow("c", huge, huge), FreshQuota(huge, 10.0)]
    slate = SequentialGreedyReranker([Relevance(), AttributeRepeat("c", 0.0, huge)], 2, constraints).rerank(candidates)
    assert slate.items.tolist() == [0, 2]
    assert slate.relaxed == ((1, constraints[2]),)
