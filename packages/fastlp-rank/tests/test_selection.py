"""Equal slot weights: the dual simplex is exact, its lottery is the vertex, what it leaves is answered all the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fastlp_rank import (
    GroupCount,
    LinearExposure,
    RankingProblem,
    SlotWeights,
    Status,
    Workspace,
    selection,
    solve,
    solve_arrays,
    solve_batch,
    verify_arrays,
)
from fastlp_rank.instances import Instance
from fastlp_rank.instances import selection as generated
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.assignment_lp import least_total_violation
from oracles.selection_lp import selection_optimum

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


def drawn(seed: int, most: int = 90) -> Instance:
    """Ties, repeated, empty and dependent rows, equalities, points at 0 and 1, any unit; one in six contradictory."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, most + 1))
    m = int(rng.integers(1, min(n, 20) + 1))
    K = int(rng.integers(0, 10))
    scores = (
        rng.integers(-2, 3, n).astype(float),
        rng.beta(2.0, 5.0, n),
        np.round(rng.normal(size=n), 1),
    )[rng.integers(3)] * 10.0 ** rng.integers(-6, 7)
    rows = (
        (rng.random((K, n)) < 0.3).astype(float),
        rng.integers(-1, 2, (K, n)).astype(float),
        rng.normal(size=(K, n)),
    )[rng.integers(3)]
    if K > 2 and rng.random() < 0.4:
        rows[:3] = (rows[0], rows[1] * 0.0, rows[0] + rows[2]) if rng.random() < 0.5 else (rows[0], rows[0], rows[2])
    weight = float(rng.choice([1.0, 0.37, 3.0]))
    point = np.zeros(n)
    lists = int(rng.integers(1, 4))
    for _ in range(lists):
        point[rng.permutation(n)[:m]] += weight / lists
    best = np.zeros(n)
    best[np.argsort(-scores)[:m]] = weight
    reached = rows @ (point if rng.random() < 0.5 else 0.7 * point + 0.3 * best)
    if rng.random() < 0.3:
        reached = np.round(reached + 0.5 * rng.normal(size=K), 1)
    side = rng.integers(0, 4, K) if rng.random() < 0.8 else np.zeros(K, dtype=int)
    lower = np.where(side == 1, -np.inf, np.where(side == 3, reached - 0.1, reached))
    upper = np.where(side == 2, np.inf, np.where(side == 3, reached + 0.1, reached))
    return Instance(scores, np.ascontiguousarray(rows), lower, upper, np.full(m, weight))


def arrays(instance: Instance) -> tuple[np.ndarray, ...]:
    return tuple(vars(instance).values())


def solved(instance: Instance, **options: float) -> tuple[Status, Workspace]:
    K, n = instance.rows.shape
    workspace = Workspace(n, instance.slot_weights.size, K)
    return solve_arrays(*arrays(instance), workspace, **options), workspace


def vertex(instance: Instance) -> tuple[int, selection.Scratch, int]:
    """Places, scratch and pricings of the dual simplex alone."""
    u, A, lower, upper, v = arrays(instance)
    K, n = A.shape
    floats, ints = selection.sizes(n, K)
    scratch = selection.carve(np.zeros(floats), np.zeros(ints, dtype=np.int64), n, K)
    size = np.abs(A).max(axis=1, initial=0.0) * v.sum()
    unit = float(np.abs(u).max()) or 1.0
    places, pricings, _ = selection.select(
        u, A, lower, upper, v.size, v[0], unit, np.where(size > 0.0, size, 1.0), 5000, scratch
    )
    return places, scratch, pricings


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_answers_are_those_of_highs_proven_and_short(seed: int) -> None:
    instance = drawn(seed)
    status, found = solved(instance)
    m = instance.slot_weights.size
    certificate = found.certificate(status)
    assert verify_arrays(certificate, *arrays(instance)).holds
    assert all(len(set(ranking)) == m for ranking in found.rankings.tolist())
    expected, value = selection_optimum(*arrays(instance))
    size = float(np.abs(instance.scores).max()) * instance.slot_weights.sum()
    if status.name != expected or (value is not None and abs(found.objective - value) > 1e-7 * size):
        from exact_lp import exact_optimum

        # HiGHS keeps rows to 1e-7: fractions decide
        exact = exact_optimum(*arrays(instance))
        assert (exact is None) == (status is Status.INFEASIBLE) or found.violation > 0.0
        assert exact is None or abs(found.objective - float(exact)) <= 1e-8 * size
    if status is Status.OPTIMAL:
        exposure = np.zeros(instance.scores.size)
        for ranking, weight in zip(found.rankings, found.weights, strict=True):
            exposure[ranking] += weight * instance.slot_weights
        activity = instance.rows @ exposure
        near = 1e-9 * (1.0 + np.abs(instance.rows) @ exposure)
        tight = (np.abs(activity - instance.lower) <= near) | (np.abs(activity - instance.upper) <= near)
        assert found.weights.size <= tight.sum() + 1


def test_the_lottery_is_the_vertex() -> None:
    fractional = 0
    for seed in range(300):
        instance = drawn(seed)
        K, n = instance.rows.shape
        m = instance.slot_weights.size
        places, scratch, _ = vertex(instance)
        if places <= 0:
            continue
        x = np.zeros(n)
        x[scratch.near[:places][scratch.side[:places] > 0.0]] = 1.0
        basic = scratch.basis >= 0
        x[scratch.near[scratch.basis[basic]]] = scratch.value[basic]
        weights, rankings, prices = np.zeros(K + 1), np.zeros((K + 1, m), dtype=np.int64), np.zeros(K)
        lists = selection.state_answer(1.0, scratch, places, weights, rankings, prices)
        assert 1 <= lists <= max(1, np.sum((x > 1e-13) & (x < 1.0 - 1e-13)))
        shown = np.zeros(n)
        for ranking, weight in zip(rankings[:lists], weights[:lists], strict=True):
            shown[ranking] += weight
        np.testing.assert_allclose(shown, x, atol=1e-12)
        fractional += lists > 2
    assert fractional > 50


def test_the_dual_simplex_leaves_little_to_column_generation() -> None:
    left = answered = 0
    for seed in range(300):
        instance = drawn(seed)
        if solved(instance)[0] is Status.OPTIMAL:
            answered += 1
            left += vertex(instance)[0] <= 0
    assert answered > 200
    assert left <= 2


def test_few_items_are_looked_at_more_than_once() -> None:
    for seed in range(5):
        instance = generated(500, 50, 10, seed)
        status, found = solved(instance)
        assert status is Status.OPTIMAL
        assert found.pricings <= 4  # column generation takes some 40


def test_contradictions_are_proven_without_looking_for_the_best_list() -> None:
    for seed in range(10):
        one = generated(200, 20, 5, seed)
        rows, lower, upper = one.rows.copy(), one.lower.copy(), one.upper.copy()
        rows[1] = 1.0 - rows[0]
        lower[:2], upper[:2] = (10.5, 10.0), np.inf
        instance = Instance(one.scores, rows, lower, upper, one.slot_weights)
        assert vertex(instance)[0] == -1
        status, found = solved(instance)
        assert status is Status.INFEASIBLE
        check = verify_arrays(found.certificate(status), *arrays(instance))
        assert check.holds
        least = least_total_violation(rows, lower, upper, one.slot_weights)
        assert check.least_violation == pytest.approx(least, abs=1e-7)
        assert found.pricings <= 8  # after a search for the best list: 29 to 45


def test_the_budget_is_kept() -> None:
    for seed in range(60):
        instance = drawn(seed)
        status, best = solved(instance)
        if status is not Status.OPTIMAL:
            continue
        for allowed in (1, 2):
            stopped, found = solved(instance, max_pricings=allowed)
            assert stopped in (Status.OPTIMAL, Status.LIMIT)
            assert found.pricings <= allowed
            if stopped is Status.LIMIT:
                assert found.bound >= best.objective - 1e-9 * abs(best.objective)


def test_through_the_public_classes() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 3, 40)
    blocked = rng.random(40) < 0.2
    constraints = [
        GroupCount(groups, 0, at_most=2.5),
        GroupCount(groups == 1, at_least=3),
        LinearExposure(rng.random(40), lower=5.25, upper=5.25, name="cost"),
    ]
    problem = RankingProblem(rng.random(40), SlotWeights.uniform(8), constraints, blocked=blocked)
    solution = solve(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.certificate().verify(problem).holds
    assert not blocked[solution.lottery.rankings].any()
    assert solution.activities["cost"] == pytest.approx(5.25, rel=1e-13)
    assert solve(problem, warm=solution).objective == pytest.approx(solution.objective, rel=1e-13)


def test_a_batch_equals_single_calls() -> None:
    instances = [generated(60, 8, 4, seed) for seed in range(10)]
    scores, rows, lower, upper = (
        np.stack([getattr(x, name) for x in instances]) for name in ("scores", "rows", "lower", "upper")
    )
    batch = solve_batch(scores, rows, lower, upper, instances[0].slot_weights, threads=2)
    for b, instance in enumerate(instances):
        status, found = solved(instance)
        assert batch.status[b] == status
        assert batch.objective[b] == found.objective
        np.testing.assert_array_equal(batch.rankings[b, : batch.support[b]], found.rankings)
        np.testing.assert_array_equal(batch.prices[b], found.prices)
