"""Area under the ROC curve: with weights and ties, its DeLong variance, paired test, and the grouped form.

With positives i of score x_i and weight w_i, negatives j of score y_j and weight v_j,

    AUC = sum_ij w_i v_j psi(x_i, y_j) / (sum_i w_i sum_j v_j),   psi = 1 if x > y, 1/2 if x = y, 0 if x < y.

DeLong's variance of the unweighted AUC comes from the placements V_i = mean_j psi(x_i, y_j) of the m positives and
W_j = mean_i psi(x_i, y_j) of the n negatives: var = S(V)/m + S(W)/n with S the sample variance. Two scores on the same
rows are compared through the differences of their placements, which carry the covariance.

References
----------
DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837; placements by mid-ranks in O(n log n): Sun & Xu, IEEE Signal
Processing Letters 21 (2014) 1389.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papershelf_core.metrics._checks import Floats, binary_labels, finite_vector, same_length, weights_of

__all__ = ["AucComparison", "AucEstimate", "GroupedAuc", "auc_delong", "delong_test", "gauc", "roc_auc"]


@dataclass(frozen=True)
class AucEstimate:
    """AUC with DeLong's variance."""

    auc: float
    variance: float

    @property
    def standard_error(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class AucComparison:
    """Two scores on the same rows; ``difference = auc_a - auc_b`` and its two-sided normal test."""

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    z: float
    p_value: float


@dataclass(frozen=True)
class GroupedAuc:
    """Weighted mean of the AUC within groups, and what it covers.

    Attributes
    ----------
    value : float
    groups : int
        Groups that hold both classes.
    skipped : int
        Groups of one class alone, in which AUC is undefined.
    weight_share : float
        Share of the total weight that the counted groups hold.
    """

    value: float
    groups: int
    skipped: int
    weight_share: float


def roc_auc(y: ArrayLike, scores: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve, ties counted half.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels 0 or 1.
    scores : array-like of shape (n,)
        Higher means more likely 1.
    sample_weight : array-like of shape (n,), optional
        Weights >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If rows are not finite, labels not 0 or 1, lengths differ, or one class has no weight.

    Examples
    --------
    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    labels, values = _labels_and_scores(y, scores)
    return _weighted_auc(labels, values, weights_of(sample_weight, len(labels)))


def auc_delong(y: ArrayLike, scores: ArrayLike) -> AucEstimate:
    """AUC and DeLong's variance in O(n log n).

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels 0 or 1, at least two rows of each.
    scores : array-like of shape (n,)

    Returns
    -------
    AucEstimate

    Raises
    ------
    ValueError
        As ``roc_auc``, or if a class has fewer than two rows.

    Examples
    --------
    >>> estimate = auc_delong([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> estimate.auc, round(estimate.variance, 6)
    (0.75, 0.125)
    """
    labels, values = _labels_and_scores(y, scores)
    positive, negative = _placements(labels, values)
    variance = positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)
    return AucEstimate(float(positive.mean()), float(variance))


def delong_test(y: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> AucComparison:
    """DeLong's paired test of AUC(a) = AUC(b) on the same rows.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels 0 or 1, at least two rows of each.
    scores_a, scores_b : array-like of shape (n,)

    Returns
    -------
    AucComparison
        Where both scores rank every pair alike, z is 0 and the p-value 1.

    Raises
    ------
    ValueError
        As ``auc_delong``.

    Examples
    --------
    >>> test = delong_test([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], [0.4, 0.1, 0.35, 0.2])
    >>> test.difference, round(test.p_value, 3)
    (0.25, 0.752)
    """
    labels, first = _labels_and_scores(y, scores_a, "scores_a")
    _, second = _labels_and_scores(y, scores_b, "scores_b")
    placements_a, placements_b = _placements(labels, first), _placements(labels, second)
    differences = [a - b for a, b in zip(placements_a, placements_b, strict=True)]
    variance = sum(float(d.var(ddof=1)) / len(d) for d in differences)
    auc_a, auc_b = float(placements_a[0].mean()), float(placements_b[0].mean())
    error = math.sqrt(variance)
    difference = auc_a - auc_b
    if error == 0:
        z = 0.0 if difference == 0 else math.copysign(math.inf, difference)
    else:
        z = difference / error
    return AucComparison(auc_a, auc_b, difference, error, z, math.erfc(abs(z) / math.sqrt(2)))


def gauc(y: ArrayLike, scores: ArrayLike, groups: ArrayLike, sample_weight: ArrayLike | None = None) -> GroupedAuc:
    """Grouped AUC: the AUC within each group, averaged with the groups' total weight.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
    groups : array-like of shape (n,)
        Group of each row (a user, a request), of any type that sorts.
    sample_weight : array-like of shape (n,), optional

    Returns
    -------
    GroupedAuc
        Groups of one class are left out and counted in ``skipped``.

    Raises
    ------
    ValueError
        As ``roc_auc``, or if no group holds both classes.

    Examples
    --------
    >>> gauc([0, 1, 0, 1, 1], [0.2, 0.3, 0.9, 0.8, 0.7], ["a", "a", "b", "b", "c"])
    GroupedAuc(value=0.5, groups=2, skipped=1, weight_share=0.8)
    """
    labels, values = _labels_and_scores(y, scores, both_classes=False)
    weights = weights_of(sample_weight, len(labels))
    names = np.asarray(groups)
    same_length("groups", names, len(labels))
    _, group = np.unique(names, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    total = counted = 0.0
    used = 0
    for rows in np.split(order, starts[1:]):
        weight = float(weights[rows].sum())
        if not 0 < weights[rows] @ labels[rows] < weight:
            continue
        total += weight * _weighted_auc(labels[rows], values[rows], weights[rows])
        counted += weight
        used += 1
    if not used:
        raise ValueError("groups: no group holds rows of both classes; grouped AUC needs at least one")
    return GroupedAuc(total / counted, used, len(starts) - used, counted / float(weights.sum()))


def _labels_and_scores(
    y: ArrayLike, scores: ArrayLike, name: str = "scores", both_classes: bool = True
) -> tuple[NDArray[np.bool_], Floats]:
    labels = binary_labels(y)
    values = finite_vector(name, scores)
    same_length(name, values, len(labels))
    if both_classes and (labels.all() or not labels.any()):
        raise ValueError(f"y holds class {int(labels[0])} alone; AUC needs rows of both classes")
    return labels, values


def _weighted_auc(labels: NDArray[np.bool_], values: Floats, weights: Floats) -> float:
    _, level = np.unique(values, return_inverse=True)
    positive = np.bincount(level, weights=weights * labels)
    negative = np.bincount(level, weights=weights * ~labels)
    if not (positive.sum() > 0 and negative.sum() > 0):
        raise ValueError("sample_weight gives one class no weight; AUC needs both")
    below = np.cumsum(negative) - negative
    return float(positive @ (below + negative / 2) / (positive.sum() * negative.sum()))


def _placements(labels: NDArray[np.bool_], values: Floats) -> tuple[Floats, Floats]:
    """V_i of the positives and W_j of the negatives, in the order of the rows."""
    positive, negative = np.sort(values[labels]), np.sort(values[~labels])
    for name, rows in (("1", positive), ("0", negative)):
        if len(rows) < 2:
            raise ValueError(f"y has {len(rows)} row of class {name}; a variance needs at least two of each")
    above = _share_below(negative, values[labels])
    below = 1 - _share_below(positive, values[~labels])
    return above, below


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """Share of ``ordered`` below each value, ties counted half."""
    counts = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    share: Floats = counts / (2 * len(ordered))
    return share
