"""The paired bootstrap: resample rows (or groups of rows) of all arrays together.

    theta* = statistic(rows drawn with replacement),   interval = quantiles of theta*,   s.e. = sd of theta*

Because every array loses and repeats the same rows, a difference of two methods keeps its pairing.

References
----------
Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13 (percentile interval).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from papershelf_core.metrics._checks import same_length

__all__ = ["Interval", "paired_bootstrap"]


@dataclass(frozen=True)
class Interval:
    """An estimate on all rows, its percentile interval and its standard error."""

    estimate: float
    low: float
    high: float
    standard_error: float


def paired_bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap a statistic of several arrays that share their rows.

    Parameters
    ----------
    statistic : callable
        Takes the arrays, resampled, and returns a float; for a comparison let it return the difference.
    *arrays : array-like, each of n rows
    groups : array-like of shape (n,), optional
        Rows that belong together (a user, a document); whole groups are drawn then.
    replicates : int
    level : float
        Coverage of the percentile interval.
    seed : int

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If no array is given, lengths differ, the level is outside (0, 1), ``replicates < 2``, or the statistic is not
        finite on a resample.

    Examples
    --------
    >>> a, b = np.array([0.2, 0.4, 0.6]), np.array([0.1, 0.3, 0.5])
    >>> result = paired_bootstrap(lambda a, b: float(np.mean(a - b)), a, b, replicates=100)
    >>> round(result.low, 6), round(result.high, 6)
    (0.1, 0.1)
    """
    if not arrays:
        raise ValueError("arrays: give at least one array to resample")
    if replicates < 2:
        raise ValueError(f"replicates={replicates} must be at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level={level} must be inside (0, 1)")
    columns: list[NDArray[Any]] = [np.asarray(array) for array in arrays]
    rows = len(columns[0])
    if rows == 0:
        raise ValueError("arrays[0] is empty; give at least one row")
    for position, column in enumerate(columns):
        same_length(f"arrays[{position}]", column, rows)
    blocks = _blocks(groups, rows)

    rng = np.random.default_rng(seed)
    values = np.empty(replicates)
    for replicate in range(replicates):
        drawn = rng.integers(len(blocks), size=len(blocks))
        index = np.concatenate([blocks[block] for block in drawn]) if groups is not None else drawn
        values[replicate] = statistic(*(column[index] for column in columns))
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"statistic is {values[bad[0]]} on {bad.size} of {replicates} resamples; "
            "it must be defined on every resample (too few rows of a class?)"
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*columns)), float(low), float(high), float(values.std(ddof=1)))


def _blocks(groups: ArrayLike | None, rows: int) -> list[NDArray[np.intp]] | range:
    """Row numbers of each group; without groups every row is its own."""
    if groups is None:
        return range(rows)
    names = np.asarray(groups)
    same_length("groups", names, rows)
    _, group = np.unique(names, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group))[:-1])
