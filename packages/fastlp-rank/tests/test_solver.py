"""The solver against exact arithmetic, against HiGHS, and against itself."""

import math

import numpy as np
import pytest
from fastlp_rank import (
    GroupCount,
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
from fastlp_rank import solver as solver_module
from fastlp_rank.bench import as_problem
from fastlp_rank.instances import Instance, awkward, exposure
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.assignment_lp import least_total_violation, optimum
from oracles.rational_simplex import best_lottery


def arrays(instance: Instance) -> tuple[np.ndarray, ...]:
    return tuple(vars(instance).values())


def solved(instance: Instance, **options: float) -> tuple[Status, Workspace]:
    K, n = instance.rows.shape
    workspace = Workspace(n, instance.slot_weights.size, K)
    return solve_arrays(*arrays(instance), workspace, **options), workspace


def integer_instance(seed: int) -> Instance:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    m = int(rng.integers(1, min(n, 4 if n < 6 else 3) + 1))
    K = int(rng.integers(0, 4))
    rows = rng.integers(-2, 3, (K, n)).astype(float)
    v = np.sort(rng.integers(0, 4, m)).astype(float)[::-1].copy()
    v[0] = max(v[0], 1.0)
    centre = rng.integers(-4, 5, K).astype(float)
    kind = rng.integers(0, 4, K)
    lower = np.where(kind == 1, -np.inf, np.where(kind == 3, centre - 1, centre))
    upper = np.where(kind == 2, np.inf, np.where(kind == 3, centre + 1, centre))
    return Instance(rng.integers(-3, 4, n).astype(float), rows, lower, upper, v)


def test_equals_exact_rational_simplex_over_all_rankings() -> None:
    infeasible = 0
    for seed in range(150):
        instance = integer_instance(seed)
        exact = best_lottery(*arrays(instance))
        status, found = solved(instance)
        infeasible += exact is None
        assert (status is Status.INFEASIBLE) == (exact is None), seed
        if exact is not None:
            # a handful of roundings of numbers below 100
            assert abs(found.objective - float(exact)) <= 1e-12 * max(1.0, abs(float(exact))), seed
            assert abs(found.bound - float(exact)) <= 1e-10 * max(1.0, abs(float(exact))), seed
    assert 20 < infeasible < 130


@pytest.mark.parametrize("first", [10_000, 10_100, 10_200, 10_300])
def test_equals_highs_and_every_certificate_holds(first: int) -> None:
    for seed in range(first, first + 100):
        instance = awkward(seed)
        status, found = solved(instance)
        expected, value = optimum(*arrays(instance))
        assert status.name == expected, seed
        check = verify_arrays(found.certificate(status), *arrays(instance))
        assert check.holds, (seed, check)
        if value is not None:
            assert abs(found.objective - value) <= 1e-9 * max(1.0, abs(value)), seed
            assert found.violation <= 1e-9, seed


@pytest.mark.parametrize("size", [(50, 10, 3), (120, 20, 6), (300, 30, 12), (60, 60, 4), (40, 1, 5)])
def test_medium_sizes_are_certified_optimal(size: tuple[int, int, int]) -> None:
    for seed in range(5):
        instance = exposure(*size, seed)
        status, found = solved(instance)
        check = verify_arrays(found.certificate(status), *arrays(instance))
        assert check.holds, (size, seed, status, check)


def test_cycling_guard_keeps_results_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_module, "_STALL_LIMIT", 0)  # perturb at the first degenerate step
    for seed in range(20_000, 20_150):
        instance = awkward(seed)
        status, found = solved(instance)
        expected, value = optimum(*arrays(instance))
        assert status.name == expected, seed
        if value is not None:
            assert abs(found.objective - value) <= 1e-9 * max(1.0, abs(value)), seed
            assert verify_arrays(found.certificate(status), *arrays(instance)).holds, seed


def test_a_narrow_first_box_is_widened_and_a_wide_one_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for box in (1e-3, 64.0):
        monkeypatch.setattr(solver_module, "_BOX", box)
        for seed in range(30_000, 30_100):
            instance = awkward(seed)
            status, found = solved(instance)
            expected, value = optimum(*arrays(instance))
            assert status.name == expected, seed
            if value is not None:
                assert abs(found.objective - value) <= 1e-9 * max(1.0, abs(value)), seed


def test_least_violation_equals_highs() -> None:
    compared = 0
    for seed in range(40_000, 40_200):
        instance = awkward(seed)
        status, found = solved(instance)
        if status is Status.INFEASIBLE:
            check = verify_arrays(found.certificate(status), *arrays(instance))
            least = least_total_violation(*arrays(instance)[1:])
            assert check.holds
            assert abs(check.least_violation - least) <= 1e-8 * max(1.0, least), seed
            compared += 1
    assert compared > 15


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_units_do_not_matter(seed: int, score_unit: float, row_unit: float) -> None:
    one = awkward(seed)
    other = Instance(
        one.scores * score_unit, one.rows * row_unit, one.lower * row_unit, one.upper * row_unit, one.slot_weights
    )
    status, found = solved(one)
    status_other, found_other = solved(other)
    assert status is status_other
    if status is Status.OPTIMAL:
        assert math.isclose(
            found_other.objective, found.objective * score_unit, rel_tol=1e-9, abs_tol=1e-9 * score_unit
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_support_is_at_most_tight_rows_plus_one(seed: int) -> None:
    instance = awkward(seed)
    status, found = solved(instance)
    assert abs(found.weights.sum() - 1.0) <= 1e-12
    assert (found.weights > 0).all()
    if status is Status.OPTIMAL:
        expected = np.zeros(instance.scores.size)
        for ranking, weight in zip(found.rankings, found.weights, strict=True):
            assert len(set(ranking.tolist())) == ranking.size
            expected[ranking] += weight * instance.slot_weights
        activity = instance.rows @ expected
        tight = (np.abs(activity - instance.lower) < 1e-9) | (np.abs(activity - instance.upper) < 1e-9)
        assert found.weights.size <= tight.sum() + 1


def test_shadow_price_is_the_derivative_of_the_optimum() -> None:
    groups = np.array(["a"] * 10 + ["b"] * 10)
    scores = np.concatenate([np.linspace(2.0, 1.0, 10), np.linspace(1.1, 0.1, 10)])

    def at(share: float) -> float:
        return solve(
            RankingProblem(scores, SlotWeights.dcg(5), [GroupExposure(groups, "a", max_share=share)])
        ).objective

    solution = solve(RankingProblem(scores, SlotWeights.dcg(5), [GroupExposure(groups, "a", max_share=0.63)]))
    slope = (at(0.6301) - at(0.6299)) / (2e-4 * SlotWeights.dcg(5).total)
    assert solution.prices["exposure[a]"] == pytest.approx(slope, rel=1e-6)
    assert solution.prices["exposure[a]"] > 0.0


def test_selection_with_integer_counts_is_one_list() -> None:
    scores = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    genre = ["x", "x", "x", "x", "y", "y"]
    solution = solve(RankingProblem(scores, SlotWeights.uniform(4), [GroupCount(genre, "x", at_most=2)]))
    assert solution.objective == 9 + 8 + 5 + 4
    assert solution.lottery.weights.tolist() == [1.0]
    assert set(solution.lottery.rankings[0].tolist()) == {0, 1, 4, 5}


def test_counts_do_not_depend_on_the_common_slot_weight() -> None:
    scores = np.arange(6.0)
    count = [GroupCount(["x", "y"] * 3, "x", at_least=1.5)]
    one = solve(RankingProblem(scores, SlotWeights.uniform(3), count))
    half = solve(RankingProblem(scores, SlotWeights.explicit([0.5, 0.5, 0.5]), count))
    assert half.objective == pytest.approx(one.objective / 2, rel=1e-14)


def test_without_constraints_it_sorts() -> None:
    scores = np.array([1.0, 3.0, 3.0, 2.0])
    solution = solve(RankingProblem(scores, SlotWeights.dcg(3)))
    assert solution.lottery.rankings.tolist() == [[1, 2, 3]]
    assert solution.gap == 0.0
    assert solution.pricings == 1


def test_infeasible_names_the_contradiction() -> None:
    groups = ["a", "a", "b", "b"]
    problem = RankingProblem(
        [4.0, 3.0, 2.0, 1.0],
        SlotWeights.dcg(2),
        [
            GroupExposure(groups, "a", max_share=0.3),
            GroupExposure(groups, "b", max_share=0.5),
            LinearExposure([1.0, 0.0, 0.0, 0.0], upper=10.0, name="idle"),
        ],
    )
    solution = solve(problem)
    assert solution.status is Status.INFEASIBLE
    assert solution.bound == -math.inf
    assert math.isnan(solution.gap)
    ray = solution.farkas_ray
    assert ray is not None
    assert ray["exposure[a]"] == pytest.approx(1.0)
    assert ray["exposure[b]"] == pytest.approx(1.0)
    assert ray["idle"] == 0.0
    # shares 0.3 + 0.5 leave a fifth of the exposure without a home
    assert sum(solution.violations.values()) == pytest.approx(0.2 * SlotWeights.dcg(2).total)
    assert solution.certificate().verify(problem).holds


def test_a_mask_without_members_is_infeasible_not_an_error() -> None:
    problem = RankingProblem([1.0, 2.0], SlotWeights.dcg(1), [GroupExposure([False, False], min_share=0.1)])
    assert solve(problem).status is Status.INFEASIBLE


def test_limit_gives_a_valid_bound() -> None:
    instance = exposure(100, 10, 3, 0)
    best = solve(as_problem(instance))
    for allowed in range(1, best.pricings):
        stopped = solve(as_problem(instance), max_pricings=allowed)
        assert stopped.status is Status.LIMIT
        assert stopped.pricings == allowed
        assert stopped.bound >= best.objective - 1e-12
        assert stopped.certificate().verify(as_problem(instance)).holds


def test_warm_start_of_the_same_request_needs_fewer_pricings() -> None:
    cold = warm = 0
    for seed in range(20):
        problem = as_problem(exposure(100, 10, 3, seed))
        first = solve(problem)
        again = solve(problem, warm=first)
        assert again.status is Status.OPTIMAL
        assert again.objective == pytest.approx(first.objective, abs=1e-9)
        cold += first.pricings
        warm += again.pricings
    assert warm < 0.5 * cold


def test_warm_start_of_another_size_is_refused() -> None:
    first = solve(RankingProblem([3.0, 2.0, 1.0], SlotWeights.dcg(2)))
    with pytest.raises(InvalidProblemError, match="warm solves n=3, m=2; this is n=2"):
        solve(RankingProblem([3.0, 2.0], SlotWeights.dcg(2)), warm=first)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidProblemError, match="max_pricings=0"):
        solve(RankingProblem([3.0, 2.0], SlotWeights.dcg(2)), max_pricings=0)


def test_batch_is_bit_identical_to_single_calls_whatever_the_threads() -> None:
    instances = [exposure(60, 8, 4, seed) for seed in range(40)]
    scores, rows, lower, upper = (
        np.stack([getattr(x, name) for x in instances]) for name in ("scores", "rows", "lower", "upper")
    )
    v = instances[0].slot_weights
    one = solve_batch(scores, rows, lower, upper, v)
    three = solve_batch(scores, rows, lower, upper, v, threads=3)
    for b, instance in enumerate(instances):
        status, single = solved(instance)
        for batch in (one, three):
            R = int(batch.support[b])
            assert batch.status[b] == status
            assert batch.objective[b] == single.objective
            np.testing.assert_array_equal(batch.rankings[b, :R], single.rankings)
            np.testing.assert_array_equal(batch.weights[b, :R], single.weights)
            np.testing.assert_array_equal(batch.prices[b], single.prices)
            assert verify_arrays(batch.certificate(b), *arrays(instance)).holds


def test_batch_shares_rows_and_bounds() -> None:
    instance = exposure(30, 5, 2, 1)
    scores = np.stack([instance.scores, instance.scores[::-1]])
    batch = solve_batch(scores, instance.rows, instance.lower, instance.upper, instance.slot_weights)
    for b in range(2):
        alone = Instance(scores[b].copy(), *arrays(instance)[1:])
        assert batch.objective[b] == solved(alone)[1].objective


def test_batch_names_the_bad_request() -> None:
    instance = exposure(30, 5, 2, 1)
    scores = np.stack([instance.scores, instance.scores])
    scores[1, 7] = np.nan
    with pytest.raises(InvalidProblemError, match=r"request 1: scores\[7\] = nan"):
        solve_batch(scores, instance.rows, instance.lower, instance.upper, instance.slot_weights)
    with pytest.raises(InvalidProblemError, match="lower has shape"):
        solve_batch(instance.scores[None], instance.rows, np.zeros(3), instance.upper, instance.slot_weights)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("scores", lambda a: a.astype(np.float32), "scores is a float32 array"),
        ("scores", lambda a: np.where(a == a.max(), np.inf, a), r"scores\[\d+\] = inf is not finite"),
        ("rows", lambda a: np.where(a == 1.0, np.nan, a), r"rows\[0, \d+\] = nan"),
        ("rows", lambda a: np.asfortranarray(a), "rows is not C-contiguous"),
        ("lower", lambda a: a + np.inf, r"lower\[0\]"),
        ("upper", lambda a: a[:1], "shapes scores"),
        ("slot_weights", lambda a: a[::-1].copy(), "slot_weights"),
        ("slot_weights", lambda a: np.ones(31), "m <= n"),
    ],
)
def test_solve_arrays_refuses(field: str, change: object, message: str) -> None:
    instance = vars(exposure(30, 5, 2, 1)).copy()
    assert callable(change)
    instance[field] = change(instance[field])
    with pytest.raises(InvalidProblemError, match=message):
        solve_arrays(*instance.values(), Workspace(30, 5, 2))


def test_workspace_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidProblemError, match="workspace of n=3, m=2, K=1"):
        solve_arrays(*arrays(exposure(30, 5, 2, 1)), Workspace(3, 2, 1))
