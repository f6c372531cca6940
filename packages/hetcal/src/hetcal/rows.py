"""What a row is worth: how many independent rows the calibration rows amount to.

Rows that belong together (the user's ``groups``, exact copies) count as one, and uneven weights count for fewer:

    n_eff = (sum_g W_g)^2 / sum_g W_g^2,     W_g the weight of cluster g                    (Kish 1965)
    worth_i = w_i n_eff / sum w

Every count of rows below is a sum of worths, so nothing changes when all weights are multiplied by a constant.

Equal features and logits alone do not make two rows copies: where features are few and discrete, independent rows
share them as well. Copies share their labels too: with r = y - mean y, the rows of a cell have in common the share of
variance

    rho = sum_cells sum_{i != j} r_i r_j / sum_cells sum_{i != j} (r_i^2 + r_j^2) / 2,

1 for copies and near 0 for independent rows. And copies agree in all columns at once, far more often than columns
without relation would: the rate of equal pairs over the product of the columns' own rates. Both must be large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.links import Floats

__all__ = ["clusters_of", "copies", "effective_rows", "worth"]

Clusters = NDArray[np.intp]
COMMON_SHARE = 0.5  # of rho
SAME_LOGIT = 1e-6  # relative; a model fitted in other folds on the same rows differs by so little
SURPRISE = 100.0  # of the rate of equal pairs
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(32))


def effective_rows(weight: Floats | None, clusters: Clusters | None, rows: int) -> float:
    """How many independent rows of equal weight tell as much."""
    if clusters is None:
        return float(rows) if weight is None else float(weight.sum() ** 2 / (weight**2).sum())
    mass = np.bincount(clusters, weights=weight)
    return float(mass.sum() ** 2 / (mass**2).sum())


def worth(weight: Floats | None, clusters: Clusters | None, rows: int) -> Floats | None:
    """What each row counts for, in effective rows; None where each counts as one."""
    if weight is not None:
        weight = weight / weight.max()  # sums of squares neither overflow nor vanish
        weight = None if (weight == 1.0).all() else weight
    if weight is None and clusters is None:
        return None
    w = np.ones(rows) if weight is None else weight
    return np.asarray(w * (effective_rows(weight, clusters, rows) / w.sum()))


def clusters_of(groups: Any, encoded: Floats, z: Floats, y: Floats) -> Clusters | None:
    """A number for each row that rows of one group, or copies of one row, share; None if every row stands alone."""
    same = copies(encoded, z, y)
    if groups is None:
        return same
    group = _numbered(groups)
    if same is None:
        return group
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    groups_found, cells = int(group.max()) + 1, int(same.max()) + 1
    size = groups_found + cells  # a graph of groups and cells, with a row for every edge
    graph = coo_array((np.ones(group.size), (group, same + groups_found)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][group], dtype=np.intp)


def _numbered(groups: Any) -> Clusters:
    from hetcal.scorer import as_text

    values = np.asarray(groups)
    if values.ndim == 1 and values.dtype.kind in "iubU":
        return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.intp)
    values = values[:, None] if values.ndim == 1 else values
    seen: dict[Any, int] = {}
    rows = (tuple(as_text(cell) for cell in row) for row in values)
    keys = ((row if any(cell is not None for cell in row) else i) for i, row in enumerate(rows))  # of no group
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.intp)


def copies(encoded: Floats, z: Floats, y: Floats) -> Clusters | None:
    """Rows of equal features and logit under one number, if there are any and they are copies of each other."""
    key = _fingerprint(encoded, z.size)
    order = np.lexsort((z, key))
    apart_z = np.diff(z[order]) > SAME_LOGIT * (1.0 + np.abs(z[order][1:]))
    cell = np.empty(z.size, dtype=np.intp)
    cell[order] = np.cumsum(np.r_[False, (np.diff(key[order]) != 0) | apart_z])
    size = np.bincount(cell)
    if size.max() == 1:
        return None
    residual = y - y.mean()
    square = np.bincount(cell, residual**2)
    together = (np.bincount(cell, residual) ** 2 - square).sum()
    apart = (square * (size - 1)).sum()
    if together <= COMMON_SHARE * apart:
        return None
    by_chance = float(np.prod([_equal_pairs(column) for column in (z, *encoded.T) if not _is_counter(column)]))
    return cell if float((size * (size - 1.0)).sum()) / z.size**2 > SURPRISE * by_chance else None


def _equal_pairs(column: Floats) -> float:
    """Share of pairs of rows with one value."""
    size = np.unique(column, return_counts=True)[1].astype(np.float64)
    return float((size * (size - 1.0)).sum()) / column.size**2


def _fingerprint(encoded: Floats, rows: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each row; a counter of the rows is left out, as it would tell copies apart."""
    key = np.zeros(rows, dtype=np.uint64)
    for column in encoded.T:
        if _is_counter(column):
            continue
        values = np.where(np.isnan(column), np.inf, column + 0.0)  # one NaN, one zero; no column holds infinities
        key ^= np.ascontiguousarray(values).view(np.uint64)
        key *= MIX[0]
        key ^= key >> MIX[2]
        key *= MIX[1]
        key ^= key >> MIX[2]
    return key


def _is_counter(column: Floats) -> bool:
    """Distinct integers without wide gaps, as row numbers are."""
    low, high = column.min(), column.max()
    if not high - low + 1 <= 2.0 * column.size or column.size == 0:
        return False
    return bool((column == np.floor(column)).all() and np.unique(column).size == column.size)
