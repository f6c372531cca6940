"""Rows that are copies of each other, exact or nearly: exported twice, rounded, jittered, with a time stamp beside.

Two rows agree in a column where they differ by at most a tolerance, a share of its spread; whole numbers and codes of
categories must be equal. A column on which a share p_k of all pairs agree tells -log p_k when two rows agree on it;
linked are rows that agree on four fifths of what all columns tell. That alone does not make copies: where features are
few or discrete, independent rows agree as well, and where they are dense they come near. Copies moreover

    agree more often    the rate of linked pairs is far above exp(-4/5 sum_k -log p_k), that of unrelated columns;
    keep a distance     a tenth of the tolerance links nearly as many, while of smooth densities few are left;
    share their labels  with r = y - p(z) the rows of a cell have in common the share of variance
                        rho = sum_cells sum_{i != j} r_i r_j / sum_cells sum_{i != j} (r_i^2 + r_j^2) / 2,

1 for copies and near 0 for independent rows. Looked at are rows that are neighbours when sorted by the logit, by the
columns that tell most or by a hash of all columns; a band of rows is asked first whether there are copies at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hetcal.calibrators import platt
from hetcal.links import Floats, sigmoid

__all__ = ["copies"]

Clusters = NDArray[np.intp]
TOLERANCES = (5e-2, 1.5e-2, 1e-3, 1e-5, 1e-7)
AGREED = 0.8  # of what all columns tell
SURPRISE = 100.0  # of the rate of linked pairs
NEARER = 3.0  # so many times fewer pairs may a tenth of the tolerance link
COMMON_SHARE = 0.5  # of rho
KEPT = 0.98  # so much of what a wide tolerance joins, a tight one must join too to be preferred
NEIGHBOURS = (1, 2, 4)  # places apart in sorted order
KEYS = 3  # columns to sort by, beside the logit and the hash
BAND = 1_000  # rows that are asked first
SAMPLE = 3_000  # rows that tell how often rows agree in a column
FEWEST = 0.005  # so small a share of rows that are copies does not matter
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(32))


def copies(encoded: Floats, z: Floats, y: Floats) -> Clusters | None:
    """A number for each row that copies of one row share; None if there are no copies.

    Parameters
    ----------
    encoded : (n, d) array
        Features, NaN where missing. A counter of the rows is left out, as it would tell copies apart.
    z, y : (n,) arrays
        Logits and labels.
    """
    columns = [column for column in (z, *encoded.T) if not _is_counter(column)]
    step = -(-z.size // SAMPLE)
    a, b = platt(z[::step], y[::step])
    residual = y - sigmoid(a + b * z)
    keys = [z, _hash(columns).astype(np.float64)]
    found: list[Clusters] = []
    for tolerance in TOLERANCES:
        near = _Near(columns, tolerance, step)
        every = [*keys, *(columns[k] for k in np.argsort(-near.tells)[:KEYS] if near.tells[k] > 0)]
        if any(near.cells([_band(key, step)], residual) is not None for key in every):
            cells = near.cells([np.argsort(key, kind="stable") for key in every], residual)
            if cells is not None and (not found or _joined(cells) >= KEPT * _joined(found[0])):
                found.append(cells)
    return found[-1] if found else None  # the tightest that joins as much: fewer rows are in a cell by chance


def _band(key: Floats, step: int) -> Clusters:
    """Rows next to each other in a key: neighbours there are neighbours among all rows."""
    low, high = np.nanquantile(key[::step], (0.5, min(1.0, 0.5 + BAND / key.size)), method="lower")
    rows = np.flatnonzero((key >= low) & (key <= high))[: 2 * BAND]
    return np.asarray(rows[np.argsort(key[rows], kind="stable")])


def _joined(cells: Clusters) -> int:
    return cells.size - int(cells.max()) - 1


class _Near:
    """Which rows agree within a tolerance."""

    def __init__(self, columns: list[Floats], tolerance: float, step: int) -> None:
        self.columns = columns
        samples = [column[::step] for column in columns]
        self.margins = [_margin(sample, tolerance) for sample in samples]
        self.tells = np.array([_tells(sample, margin) for sample, margin in zip(samples, self.margins, strict=True)])

    def linked(self, left: Clusters, right: Clusters, share: float = 1.0) -> NDArray[np.bool_]:
        """Whether two rows agree on enough, within a share of the tolerance."""
        told = np.zeros(left.size)
        for column, margin, tells in zip(self.columns, self.margins, self.tells, strict=True):
            told += tells * _agree(column, share * margin, left, right)
        return np.asarray(told >= AGREED * self.tells.sum())

    def cells(self, orders: list[Clusters], residual: Floats) -> Clusters | None:
        """Cells of linked rows, numbered over all rows; None where these are no copies."""
        left = np.concatenate([order[:-step] for order in orders for step in NEIGHBOURS])
        right = np.concatenate([order[step:] for order in orders for step in NEIGHBOURS])
        keep = self.linked(left, right)
        left, right = left[keep], right[keep]
        looked = orders[0]
        if left.size < FEWEST * looked.size or left.size > NEARER * np.count_nonzero(self.linked(left, right, 0.1)):
            return None
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        shape = (residual.size, residual.size)
        graph = coo_array((np.ones(left.size, dtype=np.int8), (left, right)), shape=shape)
        cell = np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)
        size = np.bincount(cell)
        often = float((size * (size - 1.0)).sum()) / looked.size**2
        if often <= SURPRISE * np.exp(-AGREED * self._told_by_distinct(looked, cell)):
            return None
        together = (np.bincount(cell, residual) ** 2 - np.bincount(cell, residual**2)).sum()
        apart = (np.bincount(cell, residual**2) * (size - 1)).sum()
        return cell if together > COMMON_SHARE * apart else None

    def _told_by_distinct(self, looked: Clusters, cell: Clusters) -> float:
        """What all columns tell by the rows looked at, one of each cell: copies make it seem little."""
        rows = looked[np.unique(cell[looked], return_index=True)[1]]
        rows = rows[:: -(-rows.size // SAMPLE)]
        return sum(_tells(column[rows], margin) for column, margin in zip(self.columns, self.margins, strict=True))


def _margin(column: Floats, tolerance: float) -> float:
    """The difference within which two rows agree; none between whole numbers, as codes of categories are."""
    held = column[~np.isnan(column)]
    if (held == np.floor(held)).all():  # also where nothing is held
        return 0.0
    low, high = np.quantile(held, (0.1, 0.9))
    return tolerance * float(high - low if high > low else held.std())


def _tells(column: Floats, margin: float) -> float:
    """-log of the share of pairs of rows that agree."""
    held = np.sort(column[~np.isnan(column)])
    missing = column.size - held.size
    near = np.searchsorted(held, held + margin, side="right") - np.arange(1, held.size + 1)
    pairs = 0.5 * column.size * (column.size - 1.0)
    return float(-np.log((near.sum() + 0.5 * missing * (missing - 1.0) + 1.0) / (pairs + 1.0)))


def _agree(column: Floats, margin: float, left: Clusters, right: Clusters) -> NDArray[np.bool_]:
    one, other = column[left], column[right]
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(one - other) <= margin) | (np.isnan(one) & np.isnan(other)))


def _hash(columns: list[Floats]) -> NDArray[np.uint64]:
    """64 bits of each row: equal rows are neighbours when sorted by them."""
    key = np.zeros(columns[0].size, dtype=np.uint64)
    for column in columns:
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
