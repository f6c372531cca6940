"""Expected calibration error on bins of equal mass, and its debiased form.

Rows are sorted by predicted probability and cut into B bins of equal weight (rows of equal probability stay together).
With w_b the share, p_b the mean prediction and y_b the mean label of bin b,

    ECE          = sum_b w_b |y_b - p_b|
    debiased^2   = sum_b w_b [ (y_b - p_b)^2 - y_b (1 - y_b) / (n_b - 1) ]

The second removes, bin by bin, the variance of y_b that makes a calibrated model look wrong on few rows; n_b is Kish's
effective number of rows, (sum w)^2 / sum w^2, where rows are weighted.

References
----------
Kumar, Liang & Ma, "Verified uncertainty calibration", arXiv:1909.10155 (the debiased estimator).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papershelf_core.metrics._checks import Floats, binary_labels, finite_vector, same_length, weights_of

__all__ = ["ece", "ece_debiased"]


def ece(y: ArrayLike, probabilities: ArrayLike, bins: int = 15, sample_weight: ArrayLike | None = None) -> float:
    """Expected calibration error, L1, on bins of equal mass.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels 0 or 1.
    probabilities : array-like of shape (n,)
        Predicted probability of label 1.
    bins : int
        Number of bins; fewer come out where many rows share one probability.
    sample_weight : array-like of shape (n,), optional

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If rows are not finite, labels not 0 or 1, probabilities outside [0, 1], lengths differ or ``bins < 1``.

    Examples
    --------
    >>> round(ece([0, 1, 0, 1], [0.1, 0.7, 0.2, 0.8], bins=2), 6)
    0.2
    """
    share, label, prediction, _ = _bin_means(y, probabilities, bins, sample_weight)
    return float(share @ np.abs(label - prediction))


def ece_debiased(
    y: ArrayLike, probabilities: ArrayLike, bins: int = 15, sample_weight: ArrayLike | None = None
) -> float:
    """Debiased calibration error, root of the L2 form; 0 where noise alone explains the bins.

    Parameters
    ----------
    y, probabilities, bins, sample_weight
        As ``ece``; every bin must hold at least two (effective) rows.

    Returns
    -------
    float
        On the scale of a probability, like ``ece``.

    Raises
    ------
    ValueError
        As ``ece``, or if a bin holds fewer than two effective rows.

    Examples
    --------
    >>> y = np.arange(4000) % 2
    >>> ece_debiased(y, np.full(4000, 0.5)), round(ece_debiased(y, np.full(4000, 0.7)), 3)
    (0.0, 0.2)
    """
    share, label, prediction, rows = _bin_means(y, probabilities, bins, sample_weight)
    if rows.min() < 2:
        raise ValueError(f"bins={bins} leaves a bin with {rows.min():.3g} effective rows; use fewer bins")
    noise = label * (1 - label) / (rows - 1)
    return math.sqrt(max(0.0, float(share @ ((label - prediction) ** 2 - noise))))


def _bin_means(
    y: ArrayLike, probabilities: ArrayLike, bins: int, sample_weight: ArrayLike | None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Share, mean label, mean prediction and effective rows of every bin that is not empty."""
    if not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins={bins!r} must be at least 1, a whole number")
    labels = binary_labels(y)
    values = finite_vector("probabilities", probabilities)
    same_length("probabilities", values, len(labels))
    bad = np.flatnonzero((values < 0) | (values > 1))
    if bad.size:
        raise ValueError(f"probabilities[{bad[0]}]={values[bad[0]]:g} is outside [0, 1]; give probabilities")
    weights = weights_of(sample_weight, len(labels))
    index = _equal_mass_bin(values, weights, bins)
    mass = np.bincount(index, weights)
    kept = mass > 0
    mass_kept = mass[kept]
    label = np.bincount(index, weights * labels)[kept] / mass_kept
    prediction = np.bincount(index, weights * values)[kept] / mass_kept
    effective = mass_kept**2 / np.bincount(index, weights**2)[kept]
    return mass_kept / mass_kept.sum(), label, prediction, effective


def _equal_mass_bin(values: Floats, weights: Floats, bins: int) -> NDArray[np.intp]:
    """Bin of each row: the bin in which the middle of its probability level's mass falls."""
    _, level = np.unique(values, return_inverse=True)
    mass = np.bincount(level, weights)
    middle = np.cumsum(mass) - mass / 2
    bin_of_level: NDArray[np.intp] = np.minimum((middle / mass.sum() * bins).astype(np.intp), bins - 1)
    return bin_of_level[level]
