"""What a row is worth: how many independent rows the calibration rows amount to.

Rows that belong together (the user's ``groups``, ``copies`` of one row) count as one, uneven weights for fewer:

    n_eff = (sum_g W_g)^2 / sum_g W_g^2,     W_g the weight of cluster g                    (Kish 1965)
    worth_i = w_i n_eff / sum w

Every count of rows below is a sum of worths, so nothing changes when all weights are multiplied by a constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.copies import copies
from hetcal.links import Floats

__all__ = ["clusters_of", "effective_rows", "worth"]

Clusters = NDArray[np.intp]


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
