"""Bad input names the field, the value and the remedy."""

import numpy as np
import pytest
from fastlp_rank import (
    GroupCount,
    GroupExposure,
    InvalidProblemError,
    LinearExposure,
    RankingProblem,
    SlotWeights,
    solve_batch,
)

LABELS = ["a", "a", "b"]
DCG = SlotWeights.dcg(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RankingProblem([1.0, np.nan, 2.0], DCG), r"scores\[1\] = nan is not finite; .* leave the item out"),
        (lambda: RankingProblem([[1.0, 2.0]], DCG), r"scores has shape \(1, 2\); pass a vector"),
        (lambda: RankingProblem(["x", "y"], DCG), "scores is not an array of numbers"),
        (lambda: RankingProblem([1.0], DCG), "2 slots for 1 candidates; .* fewer slots or add filler"),
        (lambda: RankingProblem([1.0, 2.0], 2), "slots is a int; pass SlotWeights"),
        (lambda: RankingProblem([1.0, 2.0], DCG, ["a"]), r"constraints\[0\] is a str; this version takes"),
        (
            lambda: SlotWeights.explicit([0.5, 1.0]),
            r"slots\[1\] = 1.0 is larger than slots\[0\] = 0.5; number the slots",
        ),
        (lambda: SlotWeights.explicit([1.0, -1.0]), r"slots\[1\] = -1.0 is negative"),
        (lambda: SlotWeights.explicit([0.0, 0.0]), "slots are all 0"),
        (lambda: SlotWeights.explicit([]), "slots is empty"),
        (lambda: SlotWeights.dcg(0), "m = 0 slots"),
        (lambda: SlotWeights.uniform(2.5), "m = 2.5 slots"),
        (lambda: _with(GroupExposure(LABELS, "c", max_share=0.5)), "group 'c' is unknown; the labels are a, b"),
        (lambda: _with(GroupExposure(LABELS, "a")), "neither min_share nor max_share is given"),
        (lambda: _with(GroupExposure(LABELS, "a", min_share=0.5, max_share=0.4)), "min_share = 0.5 exceeds max_share"),
        (lambda: _with(GroupExposure(LABELS, "a", max_share=40)), "max_share = 40 is no share"),
        (lambda: _with(GroupExposure(LABELS, max_share=0.4)), "group is missing; name one of the labels"),
        (lambda: _with(GroupExposure(LABELS[:2], "a", max_share=0.4)), r"groups has shape \(2,\)"),
        (lambda: _with(GroupCount(LABELS, "a", at_most=1)), "a count needs equal slot weights, .* use GroupExposure"),
        (lambda: _with(LinearExposure([1.0, 2.0], upper=1.0)), r"values has shape \(2,\); give one a candidate"),
        (lambda: _with(LinearExposure([1.0, np.inf, 0.0], upper=1.0)), r"linear: values\[1\] = inf is not finite"),
        (lambda: _with(LinearExposure([1.0, 2.0, 0.0], lower=np.nan)), "lower is NaN"),
        (lambda: _with(LinearExposure([1.0, 2.0, 0.0], lower=np.inf)), "hold no number"),
        (
            lambda: _with(LinearExposure(np.ones(3), upper=1.0), LinearExposure(np.ones(3), upper=2.0)),
            r"constraints\[1\]: the name 'linear' is taken",
        ),
    ],
)
def test_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidProblemError, match=message):
        make()


def _with(*constraints: GroupExposure | GroupCount | LinearExposure) -> RankingProblem:
    return RankingProblem([3.0, 2.0, 1.0], DCG, constraints)


def test_rows() -> None:
    problem = _with(
        GroupExposure(LABELS, "a", min_share=0.1, max_share=0.5),
        GroupExposure(np.array([True, False, False]), max_share=0.25),
        LinearExposure([1, 2, 3], lower=0.5, name="margin"),
    )
    assert problem.names == ("exposure[a]", "exposure[mask]", "margin")
    assert problem.rows.tolist() == [[1, 1, 0], [1, 0, 0], [1, 2, 3]]
    np.testing.assert_allclose(problem.lower, [0.1 * DCG.total, -np.inf, 0.5])
    np.testing.assert_allclose(problem.upper, [0.5 * DCG.total, 0.25 * DCG.total, np.inf])


def test_the_problem_keeps_its_own_scores() -> None:
    scores = np.array([3.0, 2.0, 1.0])
    problem = RankingProblem(scores, DCG)
    scores[0] = 99.0
    assert problem.scores[0] == 3.0


def test_families() -> None:
    assert RankingProblem([1.0, 2.0], SlotWeights.uniform(2)).family == "selection"
    assert RankingProblem([1.0, 2.0], DCG).family == "exposure"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.masked_array([3.0, 2.0, 1.0], mask=[0, 1, 0]), r"\[1\] is masked; .* blocked=mask"),
        ([3.0, 2.0 + 0j, 1.0], "not an array of numbers .*complex"),
        (np.array([3.0, 2.0, 1.0], dtype=np.complex64), "not an array of numbers .*complex"),
        (["3", "2", "1"], "not an array of numbers"),
        (np.array([b"3", b"2", b"1"]), "not an array of numbers"),
        ([3.0, "2", 1.0], "not an array of numbers"),
        (np.array([3.0, "2", 1.0], dtype=object), "'2' is a str"),
        (np.array([3.0, None, 1.0], dtype=object), r"not an array of numbers|\[1\] = nan is not finite"),
        (np.array(["2026-01-01"] * 3, dtype="datetime64[s]"), "not an array of numbers"),
    ],
)
def test_what_is_no_number_is_refused_everywhere(values: object, message: str) -> None:
    for make in (
        lambda: RankingProblem(values, DCG),
        lambda: RankingProblem([3.0, 2.0, 1.0], DCG, [LinearExposure(values, upper=1.0)]),
        lambda: SlotWeights.explicit(values),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            make()
    if "None" not in str(values):  # None becomes NaN, which the batch refuses by its own message
        with pytest.raises(InvalidProblemError, match=message):
            solve_batch(values, np.ones((1, 3)), [0.0], [1.0], [1.0])
        with pytest.raises(InvalidProblemError, match=message):
            solve_batch([[3.0, 2.0, 1.0]], values, [0.0], [1.0], [1.0])


def test_masks_in_every_container_are_the_same_group() -> None:
    pandas = pytest.importorskip("pandas")
    expected = [1.0, 0.0, 1.0]
    for mask in (
        [True, False, True],
        (1, 0, 1),
        np.array([1, 0, 1], dtype=np.int8),
        np.array([1.0, 0.0, 1.0], dtype=np.float32),
        np.array([True, False, True], dtype=object),
        pandas.Series([True, False, True]),
        pandas.Series([True, False, True], dtype="boolean"),
        pandas.Series([1, 0, 1], dtype="Int64"),
        np.ma.masked_array([True, False, True], mask=False),
    ):
        assert _with(GroupExposure(mask, max_share=0.5)).rows.tolist() == [expected]
        problem = RankingProblem([3.0, 2.0, 1.0], SlotWeights.dcg(1), blocked=mask)
        assert problem.blocked is not None
        assert problem.blocked.tolist() == [True, False, True]
    for mask in (
        pandas.Series([True, None, True], dtype="boolean"),
        [1, 2, 0],
        [0.5, 0.0, 1.0],
        np.ma.masked_array([True, False, True], mask=[0, 1, 0]),
        ["1", "0", "1"],
        [True, None, False],
        [True, np.nan, False],
    ):
        with pytest.raises(InvalidProblemError):
            _with(GroupExposure(mask, max_share=0.5))
        with pytest.raises(InvalidProblemError):
            RankingProblem([3.0, 2.0, 1.0], SlotWeights.dcg(1), blocked=mask)


@pytest.mark.parametrize(
    "labels",
    [
        [["a", "b"], ["b"], ["a"]],
        [["a", "b"], ["b", "c"], ["a", "c"]],
        [{"a", "b"}, {"b"}, {"a"}],
        [("a", "b"), ("b",), ("a",)],
        [["a"], "b", "a"],
        [np.array(["a", "b"]), np.array(["b", "c"]), np.array(["a", "c"])],
        [["a"], None, ["a", None]],
        [["a", 1], [1.0], ["a", np.nan]],
    ],
)
def test_an_item_may_carry_several_labels(labels: object) -> None:
    assert _with(GroupExposure(labels, "a", max_share=0.5)).rows.tolist() == [[1.0, 0.0, 1.0]]


def test_labels_of_mixed_types_stay_apart() -> None:
    assert _with(GroupExposure([1, "1", 1], 1, max_share=0.5)).rows.tolist() == [[1.0, 0.0, 1.0]]
    pandas = pytest.importorskip("pandas")
    assert _with(GroupExposure(pandas.Series(["a", pandas.NA, "a"]), "a", max_share=0.5)).rows.tolist() == [[1, 0, 1]]
