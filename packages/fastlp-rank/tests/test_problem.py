"""Bad input names the field, the value and the remedy."""

import numpy as np
import pytest
from fastlp_rank import GroupCount, GroupExposure, InvalidProblemError, LinearExposure, RankingProblem, SlotWeights

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
