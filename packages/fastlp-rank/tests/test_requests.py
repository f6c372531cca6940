"""Requests shaped like, and taken from, the Open Bandit sample."""

import numpy as np
import pytest
from fastlp_rank import Status, solve_batch, verify_arrays
from fastlp_rank.instances import bandit_shaped, diversity_rows
from fastlp_rank.requests import open_bandit


def _all_verified(scores: np.ndarray, categories: np.ndarray, m: int) -> None:
    v = 1.0 / np.log2(np.arange(2.0, m + 2.0))
    rows, lower, upper = diversity_rows(categories, v)
    batch = solve_batch(scores, rows, lower, upper, v)
    assert (batch.status == Status.OPTIMAL).all()
    for b in range(len(scores)):
        check = verify_arrays(batch.certificate(b), scores[b], rows, lower, upper, v)
        assert check.holds, (b, check)


@pytest.mark.parametrize("m", [3, 10])
def test_generated_requests(m: int) -> None:
    _all_verified(*bandit_shaped(100, seed=1), m)


@pytest.mark.data
@pytest.mark.parametrize(("campaign", "items", "groups"), [("all", 80, 7), ("men", 34, 4)])
def test_open_bandit_requests(campaign: str, items: int, groups: int) -> None:
    scores, categories = open_bandit(200, campaign)
    assert scores.shape == (200, items)
    assert np.unique(categories).size == groups
    assert (scores.max(axis=1) > 0.5).all()  # an affinity is present in the first requests
    _all_verified(scores, categories, 10)
