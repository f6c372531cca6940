"""The verifier accepts what is proven and refuses everything that was touched."""

from dataclasses import replace

import numpy as np
import pytest
from fastlp_rank import (
    Certificate,
    GroupExposure,
    RankingProblem,
    SlotWeights,
    Status,
    solve,
)

GROUPS = ["a"] * 4 + ["b"] * 4


def problem(max_share: float = 0.4, min_share_b: float = 0.3) -> RankingProblem:
    return RankingProblem(
        np.linspace(2.0, 1.0, 8),
        SlotWeights.dcg(4),
        [GroupExposure(GROUPS, "a", max_share=max_share), GroupExposure(GROUPS, "b", min_share=min_share_b)],
    )


def certificate() -> Certificate:
    return solve(problem()).certificate()


def test_holds_with_numbers_of_rounding_size() -> None:
    check = certificate().verify(problem())
    assert check.holds
    assert abs(check.gap) < 1e-14
    assert check.violation < 1e-14
    assert check.weight_error < 1e-14


@pytest.mark.parametrize(
    ("touch", "what"),
    [
        (lambda c: replace(c, weights=c.weights[::-1].copy()), "gap or violation"),
        (lambda c: replace(c, weights=c.weights * 1.001), "weights that do not sum to 1"),
        (lambda c: replace(c, weights=c.weights * np.nan), "NaN weights"),
        (lambda c: replace(c, prices=c.prices + 1e-6), "prices off by a millionth"),
        (lambda c: replace(c, prices=-c.prices), "prices on a side without a bound"),
        (lambda c: replace(c, prices=c.prices * np.nan), "NaN prices"),
        (lambda c: replace(c, rankings=np.zeros_like(c.rankings)), "an item in two slots"),
        (lambda c: replace(c, rankings=c.rankings - 1), "an item that does not exist"),
        (lambda c: replace(c, status=Status.INFEASIBLE), "a claim without a ray"),
    ],
)
def test_refuses_what_was_touched(touch: object, what: str) -> None:
    assert callable(touch)
    assert not touch(certificate()).verify(problem()).holds, what


def test_refuses_a_certificate_of_another_problem() -> None:
    assert not certificate().verify(problem(max_share=0.39)).holds


def test_infeasible_needs_its_own_ray() -> None:
    contradictory = problem(max_share=0.4, min_share_b=0.2)
    impossible = RankingProblem(
        contradictory.scores,
        contradictory.slots,
        [GroupExposure(GROUPS, "a", max_share=0.4), GroupExposure(GROUPS, "b", max_share=0.5)],
    )
    found = solve(impossible).certificate()
    assert found.status is Status.INFEASIBLE
    assert found.verify(impossible).holds
    assert not replace(found, ray=found.ray * 0.5).verify(impossible).holds  # proves less than the lottery violates
    assert not replace(found, ray=found.ray * 2.0).verify(impossible).holds  # outside the unit box
    assert not found.verify(contradictory).holds  # that one is feasible
