"""Drawing rankings."""

import numpy as np
import pytest
from fastlp_rank import Lottery, solve
from fastlp_rank.bench import as_problem
from fastlp_rank.instances import exposure
from scipy.stats import chisquare

LOTTERY = Lottery(np.array([[0, 1], [1, 2], [2, 0]]), np.array([0.5, 0.3, 0.2]))


def _counts(draws: list[np.ndarray]) -> np.ndarray:
    return np.bincount([int(draw[0]) for draw in draws], minlength=3)


def test_draws_follow_the_weights() -> None:
    rng = np.random.default_rng(0)
    by_rng = _counts([LOTTERY.sample(rng) for _ in range(100_000)])
    by_id = _counts([LOTTERY.sample(request_id=f"request-{i}") for i in range(100_000)])
    for counts in (by_rng, by_id):
        assert chisquare(counts, 100_000 * LOTTERY.weights).pvalue > 1e-3


def test_a_request_id_sticks() -> None:
    assert LOTTERY.sample(request_id="x").tolist() == LOTTERY.sample(request_id=b"x").tolist()


def test_exactly_one_source() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        LOTTERY.sample()
    with pytest.raises(ValueError, match="exactly one"):
        LOTTERY.sample(np.random.default_rng(0), request_id="x")


def test_marginals_are_doubly_substochastic_and_carry_the_objective() -> None:
    problem = as_problem(exposure(50, 10, 3, 0))
    solution = solve(problem)
    X = solution.marginals()
    np.testing.assert_allclose(X.sum(axis=0), 1.0, atol=1e-12)
    assert X.sum(axis=1).max() <= 1.0 + 1e-12
    assert problem.scores @ X @ problem.slots.values == pytest.approx(solution.objective, rel=1e-13)
    assert (np.diff(solution.lottery.weights) <= 0).all()
    assert max(solution.violations.values()) <= 1e-12
    for k, name in enumerate(problem.names):
        assert problem.rows[k] @ X @ problem.slots.values == pytest.approx(solution.activities[name], rel=1e-13)
