"""Data from production: every status is proven, in every unit, with every offset, whatever lies far off."""

import sys
from dataclasses import replace
from fractions import Fraction
from math import perm
from pathlib import Path

import numpy as np
import pytest
from fastlp_rank import (
    Certificate,
    GroupExposure,
    InvalidProblemError,
    LinearExposure,
    RankingProblem,
    SlotWeights,
    Status,
    Workspace,
    solve,
    solve_arrays,
    solve_batch,
    verify_arrays,
)
from fastlp_rank.exact import solve_exactly
from fastlp_rank.instances import UNTIDY, Instance, awkward, exposure, untidy
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.assignment_lp import optimum
from oracles.rational_simplex import best_lottery

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


def arrays(instance: Instance) -> tuple[np.ndarray, ...]:
    return tuple(vars(instance).values())


def solved(instance: Instance, **options: float) -> tuple[Status, Workspace]:
    K, n = instance.rows.shape
    workspace = Workspace(n, instance.slot_weights.size, K)
    return solve_arrays(*arrays(instance), workspace, **options), workspace


@pytest.mark.parametrize("kind", UNTIDY)
def test_every_status_is_proven_in_rational_arithmetic(kind: str) -> None:
    pytest.importorskip("highspy", reason="the fuzz imports it")
    from fuzz import evaluate

    tol = 1e-6 if kind == "float32 shares" else 1e-9
    for seed in range(25):
        instance = untidy(kind, seed)
        status, found = solved(instance, feasibility_tol=tol)
        certificate = found.certificate(status)
        assert status in (Status.OPTIMAL, Status.INFEASIBLE), seed
        assert evaluate(certificate, instance, tol).proven, seed
        assert verify_arrays(certificate, *arrays(instance), feasibility_tol=tol).holds, seed


def test_rational_arithmetic_agrees_with_highs() -> None:
    for seed in range(200):
        instance = awkward(seed)
        # bounds that rounding alone makes contradictory are for the kernel's tolerance
        wide = Instance(
            instance.scores, instance.rows, instance.lower - 1e-9, instance.upper + 1e-9, *arrays(instance)[4:]
        )
        vertex = solve_exactly(*arrays(wide), np.ones(len(wide.rows)), [], 5000)
        expected, value = optimum(*arrays(wide))
        assert vertex.status.name == expected, seed
        if value is not None:
            found = sum(
                w * float(wide.slot_weights @ wide.scores[list(r)])
                for r, w in zip(vertex.rankings, vertex.weights, strict=True)
            )
            assert found == pytest.approx(value, abs=1e-8), seed


def test_a_proof_may_need_more_digits_than_a_float_has() -> None:
    """Entries of 1e10 and more cancel in the keys: prices rounded to floats leave a gap of 7e-7."""
    needed = 0
    for kind, seed in (
        ("row sentinels", 2026006289),
        ("row sentinels", 2026008568),
        ("low and high scores", 2026007847),
        ("near copies", 2026006281),
        ("two at once", 2026006238),
    ):
        instance = untidy(kind, seed)
        status, found = solved(instance)
        certificate = found.certificate(status)
        assert status in (Status.OPTIMAL, Status.INFEASIBLE), (kind, seed)
        assert verify_arrays(certificate, *arrays(instance)).holds, (kind, seed)
        rounded = replace(certificate, rest=None)
        needed += not verify_arrays(rounded, *arrays(instance)).holds
    assert needed == 5


def test_an_activity_that_rounding_decides_is_evaluated_in_fractions() -> None:
    """Floats say that the lottery misses its row by 0.88e-9 of its size, in truth it misses it by 1.5e-9."""
    pytest.importorskip("highspy", reason="the fuzz imports it")
    from fuzz import evaluate

    instance = untidy("mixed magnitudes", 2026006901)
    status, found = solved(instance)
    certificate = found.certificate(status)
    assert status is Status.OPTIMAL
    assert evaluate(certificate, instance, 1e-9).proven
    assert verify_arrays(certificate, *arrays(instance)).violation <= 1e-9


def test_the_compact_lp_in_fractions_equals_the_lp_over_all_rankings() -> None:
    from exact_lp import exact_optimum

    compared = 0
    for seed in range(400):
        instance = awkward(seed)
        if perm(instance.scores.size, instance.slot_weights.size) > 60:
            continue
        assert exact_optimum(*arrays(instance)) == best_lottery(*arrays(instance)), seed
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("sentinel", [-1e6, -1e9, -1e12, -1e15])
@pytest.mark.parametrize("size", [(100, 10, 3), (200, 20, 5)])
def test_scoring_an_item_away_equals_blocking_it(size: tuple[int, int, int], sentinel: float) -> None:
    for seed in range(5):
        instance = exposure(*size, seed)
        away = np.random.default_rng(seed).random(size[0]) < 0.1
        scores = np.where(away, sentinel, instance.scores)
        spoilt = Instance(scores, *arrays(instance)[1:])
        status, found = solved(spoilt)
        assert status is Status.OPTIMAL
        assert verify_arrays(found.certificate(status), *arrays(spoilt)).holds
        constraints = [
            LinearExposure(row, low if low > -np.inf else None, high if high < np.inf else None, name=str(k))
            for k, (row, low, high) in enumerate(zip(*arrays(instance)[1:4], strict=True))
        ]
        problem = RankingProblem(instance.scores, SlotWeights(instance.slot_weights), constraints, blocked=away)
        blocked = solve(problem)
        assert not away[blocked.lottery.rankings].any()
        assert blocked.certificate().verify(problem).holds
        assert found.objective == pytest.approx(blocked.objective, rel=1e-12)
        assert solve(problem, warm=blocked).objective == pytest.approx(blocked.objective, rel=1e-12)
        shown = np.flatnonzero(away)[: size[1]]
        broken = Certificate(
            Status.OPTIMAL, shown[None, :].copy(), np.ones(1), np.zeros(size[2]), np.full(size[2], np.nan)
        )
        if shown.size == size[1]:
            assert not broken.verify(problem).holds


def test_the_field_example() -> None:
    genre = ["d", "d", "c", "d", "n", "c", "c"]
    problem = RankingProblem(
        [0.9, 0.8, 0.3, 0.7, 0.2, 0.1, -1e12],
        SlotWeights.dcg(3),
        [GroupExposure(genre, "d", max_share=0.6), GroupExposure(genre, "n", min_share=0.1)],
    )
    solution = solve(problem)
    assert solution.status is Status.OPTIMAL
    without = RankingProblem(problem.scores, problem.slots, problem.constraints, blocked=[False] * 6 + [True])
    assert solution.objective == pytest.approx(solve(without).objective, rel=1e-14)
    assert solution.certificate().verify(problem).holds


def test_small_units_prove_nothing() -> None:
    scores, rows = np.array([9.0, 8.0, 1.0]) * 1e-10, np.array([[1.0, 1.0, 0.0]]) * 1e-10
    v, nan = SlotWeights.dcg(2).values, np.full(1, np.nan)
    for ranking in ([2, 1], [0, 1]):
        certificate = Certificate(Status.OPTIMAL, np.array([ranking]), np.ones(1), np.zeros(1), nan)
        assert not verify_arrays(certificate, scores, rows, np.array([-np.inf]), np.array([1.2e-10]), v).holds


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(-60, 60), st.integers(-60, 60), st.booleans())
def test_verdicts_do_not_depend_on_units(seed: int, score_power: int, row_power: int, touched: bool) -> None:
    """Powers of two change no bit but the exponent: the same certificate must get the same verdict."""
    one = awkward(seed)
    status, found = solved(one)
    certificate = found.certificate(status)
    if status is not Status.OPTIMAL:
        return
    if touched:
        certificate.prices[:] += 1e-7 * np.abs(one.scores).max()
    a, b = 2.0**score_power, 2.0**row_power
    other = (one.scores * a, one.rows * b, one.lower * b, one.upper * b, one.slot_weights)
    scaled = Certificate(
        status, certificate.rankings, certificate.weights, certificate.prices * (a / b), certificate.ray
    )
    first, second = verify_arrays(certificate, *arrays(one)), verify_arrays(scaled, *other)
    assert first.holds == second.holds
    assert first.violation == pytest.approx(second.violation, rel=1e-9, abs=1e-15)
    assert touched or first.holds


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2.0**20, -(2.0**30), 2.0**34]))
def test_an_offset_changes_nothing(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    one = exposure(30, 6, 3, seed)
    rows = np.round(rng.random(one.rows.shape) * 2.0**16) / 2.0**16  # so that the sum with the offset is exact
    centre = rows.mean(axis=1) * one.slot_weights.sum()
    lower, upper = centre, np.full(3, np.inf)
    status, found = solved(Instance(one.scores, rows, lower, upper, one.slot_weights))
    shift = [
        float(Fraction(b) + Fraction(offset) * sum(map(Fraction, one.slot_weights.tolist()))) for b in lower.tolist()
    ]
    moved = Instance(one.scores, rows + offset, np.array(shift), upper, one.slot_weights)
    status_moved, found_moved = solved(moved)
    assert status is status_moved is Status.OPTIMAL
    assert found_moved.objective == pytest.approx(found.objective, rel=1e-4 * abs(offset) / 2.0**34 + 1e-12)
    assert verify_arrays(found_moved.certificate(status_moved), *arrays(moved)).holds


def test_shares_in_float32_are_met_to_the_tolerance_said() -> None:
    met = contradictory = 0
    for seed in range(40):
        instance = untidy("float32 shares", seed)
        met += solved(instance, feasibility_tol=1e-6)[0] is Status.OPTIMAL
        contradictory += solved(instance, feasibility_tol=0.0)[0] is Status.INFEASIBLE
    assert met == 40
    assert contradictory > 5


def test_limit_only_at_the_budget_with_a_true_bound() -> None:
    for kind in UNTIDY:
        for seed in range(8):
            instance = untidy(kind, seed)
            status, best = solved(instance)
            if status is not Status.OPTIMAL:
                continue
            for allowed in (1, 2, 5, 9):
                stopped, found = solved(instance, max_pricings=allowed)
                assert stopped in (Status.OPTIMAL, Status.LIMIT), (kind, seed)
                if stopped is Status.LIMIT:
                    assert found.pricings == allowed, (kind, seed)
                    assert found.bound >= best.objective - 1e-8 * abs(best.objective), (kind, seed)


def test_what_would_overflow_is_refused_by_name() -> None:
    with pytest.raises(InvalidProblemError, match=r"scores\[1\] = 1e\+308 times the slot weights overflows; divide"):
        solve(RankingProblem([0.0, 1e308, 1.0], SlotWeights.dcg(3)))
    with pytest.raises(InvalidProblemError, match=r"rows\[0, 0\] = -1e\+308"):
        solve(RankingProblem([0.0, 1.0, 1.0], SlotWeights.dcg(3), [LinearExposure([-1e308, 1, 1], upper=0.0)]))
    for unit in (1e-200, 1e200):
        solution = solve(RankingProblem(np.array([3.0, 2.0, 1.0]) * unit, SlotWeights.dcg(2)))
        assert solution.status is Status.OPTIMAL
        assert solution.lottery.rankings.tolist() == [[0, 1]]


def test_a_batch_of_untidy_requests_equals_single_calls() -> None:
    instances = [exposure(40, 6, 3, seed) for seed in range(12)]
    scores, rows, lower, upper = (
        np.stack([getattr(x, name) for x in instances]) for name in ("scores", "rows", "lower", "upper")
    )
    scores[::3, 5] = -1e12
    v = instances[0].slot_weights
    batch = solve_batch(scores, rows, lower, upper, v, threads=2)
    for b in range(len(instances)):
        status, single = solved(Instance(scores[b], rows[b], lower[b], upper[b], v))
        assert batch.status[b] == status == Status.OPTIMAL
        assert batch.objective[b] == single.objective
        assert batch.bound[b] == single.bound
        np.testing.assert_array_equal(batch.prices[b], single.prices)
        assert verify_arrays(batch.certificate(b), scores[b], rows[b], lower[b], upper[b], v).holds
