"""The theory as functions: which score is optimal, what its AUC is, and between which regions a lift arises.

Let eta = P(Y = 1 | leaf, score). Among all scores that are functions of (leaf, score), eta has the best ROC curve
(Neyman-Pearson: the likelihood ratio rises with eta), and with pi = E eta and eta, eta' independent copies

    AUC* = 1/2 + E|eta - eta'| / (4 pi (1 - pi)).

Of any score h the AUC splits exactly over pairs of leaves,

    AUC = sum_{k,m} w_km A_km,   w_km = n+_k n-_m / (n+ n-),   A_km = P(h+ in k > h- in m) + 1/2 P(equal),

and a strictly increasing map within each leaf leaves every A_kk alone: the lift is made between leaves.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetcal.errors import DataError
from hetcal.links import Floats

__all__ = [
    "AucDecomposition",
    "AucLift",
    "DiscreteProblem",
    "auc_decomposition",
    "auc_lift",
    "check_optimality",
    "optimal_auc",
    "roc_auc",
]


def optimal_auc(probabilities: Any, sample_weight: Any = None) -> float:
    """AUC of a calibrated score, from its values alone, in O(n log n).

    AUC* = 1/2 + E|p - p'| / (4 pi (1 - pi)); for a finite set of rows the expectation runs over all ordered pairs.

    Parameters
    ----------
    probabilities : array of shape (n,)
        Calibrated probabilities.
    sample_weight : array of shape (n,), optional

    Returns
    -------
    float

    Raises
    ------
    DataError
        For values outside [0, 1], or all 0 or all 1, or weights that are none.

    Examples
    --------
    >>> optimal_auc([0.2, 0.8])
    0.8
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1 or p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise DataError("probabilities must be a non-empty vector of values in [0, 1]")
    w = np.ones_like(p) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if w.shape != p.shape or not (np.isfinite(w) & (w >= 0)).all() or not w.sum() > 0:
        raise DataError("sample_weight must hold one finite number >= 0 a row, and not only zeros")
    w = w / w.sum()
    order = np.argsort(p, kind="stable")
    p, w = p[order], w[order]
    below = np.cumsum(w) - w
    difference = 2.0 * float(np.sum(w * p * (2.0 * below + w - 1.0)))  # E|p - p'|
    prior = float(np.sum(w * p))
    if not 0 < prior < 1:
        raise DataError(f"the mean probability is {prior:g}; AUC needs both classes")
    return 0.5 + difference / (4.0 * prior * (1.0 - prior))


def roc_auc(y: Floats, scores: Floats, weight: Floats | None = None) -> float:
    """AUC with ties counted half; trusted arrays."""
    w = np.ones_like(y) if weight is None else weight
    order = np.argsort(scores)
    ordered, positive = scores[order], (w * y)[order]
    negative = (w * (1.0 - y))[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positive, negative = np.add.reduceat(positive, first), np.add.reduceat(negative, first)
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + 0.5 * negative)) / (positive.sum() * negative.sum()))


@dataclass(frozen=True)
class AucDecomposition:
    """AUC split over pairs of leaves.

    Attributes
    ----------
    auc : float
    between, within : float
        Sums of weight * pair_auc over k != m and over k = m; they add up to ``auc``.
    weight : array (K, K)
        Share of the (positive in k, negative in m) pairs.
    pair_auc : array (K, K)
        A_km; NaN where there is no such pair.
    """

    auc: float
    between: float
    within: float
    weight: Floats
    pair_auc: Floats


def auc_decomposition(y: Any, scores: Any, leaf: Any, sample_weight: Any = None) -> AucDecomposition:
    """Split the AUC of a score over the pairs of leaves.

    Parameters
    ----------
    y : array of shape (n,)
        Labels 0 or 1.
    scores : array of shape (n,)
    leaf : integer array of shape (n,)
        Leaf numbers 0 .. K - 1.
    sample_weight : array of shape (n,), optional

    Returns
    -------
    AucDecomposition

    Raises
    ------
    DataError

    Examples
    --------
    >>> d = auc_decomposition([0, 1, 0, 1], [0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    >>> d.auc, d.between, d.within
    (1.0, 0.5, 0.5)
    """
    label, values = np.asarray(y, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    number = np.asarray(leaf)
    if label.ndim != 1 or values.shape != label.shape or number.shape != label.shape:
        raise DataError(
            f"y, scores and leaf must be vectors of one length: {label.shape}, {values.shape}, {number.shape}"
        )
    if number.dtype.kind not in "iu" or number.size == 0 or number.min() < 0:
        raise DataError("leaf must hold integers 0 .. K - 1")
    if not np.isin(label, (0.0, 1.0)).all() or label.min() == label.max():
        raise DataError("y must hold 0 and 1, both of them; soft labels have no AUC")
    if np.isnan(values).any():
        raise DataError(f"scores has {int(np.isnan(values).sum())} NaN")
    w = np.ones_like(label) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    _, level = np.unique(values, return_inverse=True)
    leaves = int(number.max()) + 1
    sides = []
    for side in (1.0, 0.0):
        per_leaf = []
        for k in range(leaves):
            rows = np.flatnonzero((label == side) & (number == k))
            rows = rows[np.argsort(level[rows], kind="stable")]
            per_leaf.append((level[rows], np.r_[0.0, np.cumsum(w[rows])], w[rows]))
        sides.append(per_leaf)
    wins = np.zeros((leaves, leaves))
    mass = [np.array([total[-1] for _, total, _ in side]) for side in sides]
    for k, (above, _, above_weight) in enumerate(sides[0]):
        for m, (at, total, _) in enumerate(sides[1]):
            low, high = np.searchsorted(at, above, "left"), np.searchsorted(at, above, "right")
            wins[k, m] = np.sum(above_weight * 0.5 * (total[low] + total[high]))
    pairs = np.outer(mass[0], mass[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        pair_auc = np.where(pairs > 0, wins / pairs, np.nan)
    weight = pairs / pairs.sum()
    share = wins / pairs.sum()
    within = float(np.trace(share))
    return AucDecomposition(float(share.sum()), float(share.sum()) - within, within, weight, pair_auc)


@dataclass(frozen=True)
class AucLift:
    """AUC of a score minus that of the base score on the same rows, with its uncertainty."""

    base: float
    calibrated: float
    lift: float
    standard_error: float
    low: float
    high: float
    p_value: float
    method: str


def auc_lift(
    y: Any, base: Any, calibrated: Any, *, method: str = "delong", replicates: int = 1000, seed: int = 0
) -> AucLift:
    """Paired lift in AUC with a 95 % interval.

    Parameters
    ----------
    y : array of shape (n,)
        Labels 0 or 1.
    base, calibrated : arrays of shape (n,)
        Scores, any increasing scale.
    method : {"delong", "bootstrap"}
        DeLong's test, or resampling of rows in pairs (p from the normal approximation).
    replicates, seed : int
        For the bootstrap.

    Returns
    -------
    AucLift

    Raises
    ------
    ValueError
        For an unknown method or unusable arrays.

    Examples
    --------
    >>> round(auc_lift([0, 0, 1, 1], [0.3, 0.6, 0.5, 0.8], [0.1, 0.2, 0.7, 0.9]).lift, 3)
    0.25
    """
    from papershelf_core import metrics
    from scipy.stats import norm

    if method not in ("delong", "bootstrap"):
        raise ValueError(f"method={method!r}; use 'delong' or 'bootstrap'")
    test = metrics.delong_test(y, calibrated, base)
    if method == "delong":
        margin = 1.959963984540054 * test.standard_error
        low, high, error, p = test.difference - margin, test.difference + margin, test.standard_error, test.p_value
    else:

        def difference(label: Floats, a: Floats, b: Floats) -> float:
            return roc_auc(label, a) - roc_auc(label, b)

        arrays = (np.asarray(v, dtype=np.float64) for v in (y, calibrated, base))
        interval = metrics.paired_bootstrap(difference, *arrays, replicates=replicates, seed=seed)
        low, high, error = interval.low, interval.high, interval.standard_error
        p = float(2 * norm.sf(abs(test.difference) / error)) if error > 0 else float("nan")
    return AucLift(test.auc_b, test.auc_a, test.difference, error, low, high, p, method)


@dataclass(frozen=True)
class DiscreteProblem:
    """A problem of C cells (leaf, score): the share of rows in each cell and P(Y = 1 | cell)."""

    mass: Floats
    eta: Floats

    def auc(self, h: Floats) -> float:
        """Exact AUC of a score that is constant in each cell."""
        positive, negative = self.mass * self.eta, self.mass * (1.0 - self.eta)
        above = (h[:, None] > h[None, :]) + 0.5 * (h[:, None] == h[None, :])
        return float(positive @ above @ negative / (positive.sum() * negative.sum()))


def check_optimality(problem: DiscreteProblem) -> tuple[float, float]:
    """AUC of eta and the best AUC over all orders of the cells (at most 8 cells), which the theorem says are equal."""
    cells = problem.eta.size
    if cells > 8:
        raise DataError(f"{cells} cells have {cells}! orders; give at most 8")
    best = max(problem.auc(np.array(order, dtype=np.float64)) for order in itertools.permutations(range(cells)))
    return problem.auc(problem.eta), best
