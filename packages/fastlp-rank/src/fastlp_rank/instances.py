"""Generated requests: the benchmark's exposure instances, a mixed bag of awkward small ones, and bandit-shaped ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNTIDY", "Instance", "awkward", "bandit_shaped", "diversity_rows", "exposure", "selection", "untidy"]

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
    return _towards_population(n, 1.0 / np.log2(np.arange(2.0, m + 2.0)), K, seed)


def selection(n: int, m: int, K: int, seed: int) -> Instance:
    """Draw the same with equal slot weights."""
    return _towards_population(n, np.ones(m), K, seed)


def _towards_population(n: int, slot_weights: Floats, K: int, seed: int) -> Instance:
    rng = np.random.default_rng(seed)
    scores = rng.beta(2.0, 5.0, n)
    rows = (rng.random((K, n)) < 0.3).astype(np.float64)
    m = slot_weights.size
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


UNTIDY = (
    "low scores",
    "low and high scores",
    "row sentinels",
    "timestamps",
    "offsets",
    "units",
    "near copies",
    "mixed magnitudes",
    "edges",
    "float32 shares",
    "everything shown",
    "one slot",
    "one row",
    "two at once",
)
"""What data from production looks like; see `untidy`."""


def untidy(kind: str, seed: int) -> Instance:
    """Draw a small request whose numbers are those of production.

    Sentinels of 1e3 to 1e15 in scores or rows, timestamps and other offsets, units of 1e-9 to 1e9, rows that nearly
    repeat another (relative difference 1e-13 to 1e-7), entries from 1e-6 to 1e6 in one row, bounds at the edge of what
    can be reached, shares of all groups as equalities computed in float32, n = m, m = 1, K = 1.
    """
    rng = np.random.default_rng([UNTIDY.index(kind), seed])
    instance = _request(rng, kind)
    spoil = [kind]
    if kind == "two at once":
        spoil = list(rng.choice(np.array(UNTIDY[:9]), 2, replace=False))
    for name in spoil:
        instance = _spoilt(instance, str(name), rng)
    return instance


def _request(rng: np.random.Generator, kind: str) -> Instance:
    """Draw a tidy request: groups or dense rows, bounds about what a mixture of three rankings reaches."""
    n = int(rng.integers(2, 26))
    m = n if kind == "everything shown" else 1 if kind == "one slot" else int(rng.integers(1, min(n, 8) + 1))
    K = 1 if kind == "one row" else int(rng.integers(1, 6))
    slot_weights = (
        np.ones(m),
        1.0 / np.log2(np.arange(2.0, m + 2.0)),
        np.sort(rng.random(m))[::-1] + 0.01,
    )[int(rng.integers(3))]
    scores = (rng.beta(2.0, 5.0, n), rng.normal(size=n), rng.integers(0, 4, n).astype(np.float64))[int(rng.integers(3))]
    rows = (rng.random((K, n)) < 0.3).astype(np.float64) if rng.random() < 0.5 else rng.random((K, n))
    lower, upper = _about_a_mixture(rng, rows, slot_weights, rng.random() < 0.3)
    return Instance(scores, rows, lower, upper, np.ascontiguousarray(slot_weights))


def _about_a_mixture(
    rng: np.random.Generator, rows: Floats, slot_weights: Floats, moved: bool
) -> tuple[Floats, Floats]:
    """Bounds that three rankings in equal parts keep; or, moved, that perhaps none keeps."""
    K, n = rows.shape
    mixture = np.zeros(n)
    for _ in range(3):
        mixture[rng.permutation(n)[: slot_weights.size]] += slot_weights / 3.0
    reached = rows @ mixture
    spread = np.median(np.abs(rows - np.median(rows, axis=1, keepdims=True)), axis=1) * slot_weights.sum()
    spread = np.where(spread > 0.0, spread, slot_weights.sum())
    if moved:
        reached = reached + 0.5 * spread * rng.normal(size=K)
    side = rng.integers(0, 4, K)
    lower = np.where(side == 1, -np.inf, np.where(side == 3, reached - 0.1 * spread, reached))
    upper = np.where(side == 2, np.inf, np.where(side == 3, reached + 0.1 * spread, reached))
    return lower, upper


def _spoilt(instance: Instance, kind: str, rng: np.random.Generator) -> Instance:
    """Replace the parts of a request that its kind makes untidy."""
    scores, rows, v = instance.scores.copy(), instance.rows.copy(), instance.slot_weights
    lower, upper = instance.lower.copy(), instance.upper.copy()
    K, n = rows.shape
    total = v.sum()
    size = 10.0 ** rng.uniform(3.0, 15.0)
    if kind in ("low scores", "low and high scores"):
        hit = rng.random(n) < rng.choice([0.1, 0.3, 0.7])
        scores[hit] = -size if rng.random() < 0.5 else -size * rng.random(int(hit.sum()))
        if kind == "low and high scores":
            scores[rng.integers(n)] = size * rng.random()
    elif kind == "row sentinels":
        rows[rng.random((K, n)) < 0.1] = size * rng.choice([-1.0, 1.0])
        if rng.random() < 0.5:
            lower, upper = _about_a_mixture(rng, rows, v, False)
    elif kind in ("timestamps", "offsets"):
        for k in range(K):
            if rng.random() < 0.7:
                days = 86_400.0 * float(rng.choice([1.0, 30.0, 365.0]))
                shift = size * rng.choice([-1.0, 1.0]) if kind == "offsets" else 1.7e9
                rows[k] = np.floor(shift + days * rng.random(n)) if kind == "timestamps" else shift + rows[k]
        lower, upper = _about_a_mixture(rng, rows, v, rng.random() < 0.3)
        if kind == "offsets" and rng.random() < 0.5:
            scores = scores + size
    elif kind == "units":
        unit = 10.0 ** rng.uniform(-9.0, 9.0, K)
        rows, lower, upper = rows * unit[:, None], lower * unit, upper * unit
        scores = scores * 10.0 ** rng.uniform(-9.0, 9.0)
    elif kind == "near copies":
        near = 10.0 ** rng.uniform(-13.0, -7.0)
        noise = rng.normal(size=(K, n)) if rng.random() < 0.7 else rng.normal(size=(K, 1))
        rows = np.vstack([rows, rows * (1.0 + near * noise)])
        shift = near * total * rng.normal(size=K) * rng.choice([0.0, 1.0])
        lower, upper = np.concatenate([lower, lower + shift]), np.concatenate([upper, upper + shift])
        if rng.random() < 0.5:
            lower[K:], upper[K:] = lower[:K], upper[:K]
    elif kind == "mixed magnitudes":
        rows = 10.0 ** rng.uniform(-6.0, 6.0, (K, n)) * (rng.choice([-1.0, 1.0], (K, n)) if rng.random() < 0.3 else 1.0)
        lower, upper = _about_a_mixture(rng, rows, v, rng.random() < 0.3)
        if rng.random() < 0.3:
            scores = 10.0 ** rng.uniform(-6.0, 6.0, n)
    elif kind == "edges":
        for k in range(K):
            most = float(np.sort(rows[k])[::-1][: v.size] @ v)
            least = float(np.sort(rows[k])[: v.size] @ v)
            nudge = 1.0 + float(rng.choice([-1e-7, -1e-12, -2e-16, 0.0, 0.0, 2e-16, 1e-12, 1e-7]))
            lower[k], upper[k] = (most * nudge, np.inf) if rng.random() < 0.5 else (-np.inf, least * nudge)
            if rng.random() < 0.3:
                lower[k] = upper[k] = max(lower[k], -np.inf) if lower[k] > -np.inf else upper[k]
    elif kind == "float32 shares":
        group = rng.integers(0, K + 1, n)
        rows = (group[None, :] == np.arange(K + 1)[:, None]).astype(np.float64)
        mixture = np.zeros(n)
        for _ in range(3):
            mixture[rng.permutation(n)[: v.size]] += v / 3.0
        shares = ((rows @ mixture) / total).astype(np.float32).astype(np.float64)
        lower = upper = shares * total
    return Instance(scores, np.ascontiguousarray(rows), lower.copy(), upper.copy(), v)


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
