"""Generated requests: the benchmark's exposure instances, a mixed bag of awkward small ones, and bandit-shaped ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Instance", "awkward", "bandit_shaped", "diversity_rows", "exposure"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Instance:
    """Arrays of one request, as `solve_arrays` takes them."""

    scores: Floats
    rows: Floats
    lower: Floats
    upper: Floats
    slot_weights: Floats


def exposure(n: int, m: int, K: int, seed: int) -> Instance:
    """Overlapping groups whose exposure must move 60 % of the way from the greedy ranking's to their population share.

    u ~ Beta(2, 5); each of K groups holds 30 % of the items at random; v_j = 1 / log2(j + 1); the row is <= where the
    greedy ranking exceeds the target, >= elsewhere.
    """
    rng = np.random.default_rng(seed)
    scores = rng.beta(2.0, 5.0, n)
    rows = (rng.random((K, n)) < 0.3).astype(np.float64)
    slot_weights = 1.0 / np.log2(np.arange(2.0, m + 2.0))
    greedy = np.argsort(-scores, kind="stable")[:m]
    reached = rows[:, greedy] @ slot_weights
    target = 0.4 * reached + 0.6 * rows.mean(axis=1) * slot_weights.sum()
    lower = np.where(reached > target, -np.inf, target)
    upper = np.where(reached > target, target, np.inf)
    return Instance(scores, rows, lower, upper, slot_weights)


def awkward(seed: int) -> Instance:
    """Small and nasty: ties, duplicated and zero rows, equalities, and bounds that are often contradictory.

    Bounds are drawn around what a random mixture of three rankings reaches (feasible) or around that moved by noise
    and rounded (often infeasible, never by less than rounding).
    """
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    m = int(rng.integers(1, min(n, 8) + 1))
    K = int(rng.integers(0, 6))
    slot_weights = (
        np.ones(m),
        1.0 / np.log2(np.arange(2.0, m + 2.0)),
        np.sort(rng.integers(0, 4, m))[::-1] + float(rng.integers(0, 2)),
    )[int(rng.integers(3))].astype(np.float64)
    slot_weights[0] = max(slot_weights[0], 1.0)
    scores = rng.integers(-2, 3, n).astype(np.float64) if rng.random() < 0.7 else rng.normal(size=n)
    rows = rng.integers(-1, 2, (K, n)).astype(np.float64) if rng.random() < 0.6 else rng.normal(size=(K, n))
    if K and rng.random() < 0.2:
        rows[0] = 0.0
    if K > 1 and rng.random() < 0.2:
        rows[1] = rows[0] * rng.integers(1, 3)
    mixture = np.zeros(n)
    for _ in range(3):
        mixture[rng.permutation(n)[:m]] += slot_weights / 3.0
    centre = rows @ mixture
    if rng.random() < 0.4:
        centre = np.round(centre + 2.0 * rng.normal(size=K))
    kind = rng.integers(0, 4, K)
    lower = np.choose(kind, [centre, np.full(K, -np.inf), centre, centre - 0.5]) if K else centre
    upper = np.choose(kind, [centre, centre, np.full(K, np.inf), centre + 0.25]) if K else centre
    return Instance(scores, rows, lower, upper, slot_weights)


def diversity_rows(
    categories: NDArray[np.int64], slot_weights: Floats, *, at_most: float = 0.4, at_least: float = 0.05, size: int = 5
) -> tuple[Floats, Floats, Floats]:
    """One row a category: at most 40 % of the exposure, at least 5 % if it has five candidates."""
    labels, counts = np.unique(categories, return_counts=True)
    rows = (categories[None, :] == labels[:, None]).astype(np.float64)
    total = float(slot_weights.sum())
    lower = np.where(counts >= size, at_least * total, -np.inf)
    return rows, lower, np.full(labels.size, at_most * total)


def bandit_shaped(requests: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Scores (requests, 80) and categories (80,) of the Open Bandit sample's shape: click rates plus rare affinities.

    Category sizes are those of the sample's item feature 3; an affinity to a few items is present in 6 % of requests.
    """
    rng = np.random.default_rng(seed)
    categories = np.repeat(np.arange(7), [27, 19, 17, 7, 7, 2, 1])
    click_rate = rng.beta(4.0, 1000.0, categories.size)
    affinity = (rng.random((requests, categories.size)) < 0.03) * (rng.random((requests, 1)) < 0.06)
    return click_rate + affinity, categories
