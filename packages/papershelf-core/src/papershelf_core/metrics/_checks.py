"""The checks that every metric makes of its arrays, once, at the boundary."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def finite_vector(name: str, values: ArrayLike) -> Floats:
    """Return a float64 vector; name the field and the row when it is none or not finite."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is not an array of numbers ({error}); give one number a row") from None
    if vector.ndim != 1:
        raise ValueError(f"{name} has shape {vector.shape}; give one value a row (a vector)")
    if vector.size == 0:
        raise ValueError(f"{name} is empty; give at least one row")
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}]={vector[bad[0]]} is not finite ({bad.size} such rows); drop or mend them")
    return vector


def binary_labels(y: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as booleans; refuse what is not 0 or 1."""
    vector = finite_vector("y", y)
    bad = np.flatnonzero((vector != 0) & (vector != 1))
    if bad.size:
        raise ValueError(f"y[{bad[0]}]={vector[bad[0]]:g} is not a label; use 0 and 1")
    return np.equal(vector, 1)


def weights_of(sample_weight: ArrayLike | None, rows: int) -> Floats:
    """Return weights >= 0 with a positive sum; ones by default."""
    if sample_weight is None:
        return np.ones(rows)
    weights = finite_vector("sample_weight", sample_weight)
    same_length("sample_weight", weights, rows)
    bad = np.flatnonzero(weights < 0)
    if bad.size:
        raise ValueError(f"sample_weight[{bad[0]}]={weights[bad[0]]:g} is negative; weights must be >= 0")
    if not weights.sum() > 0:
        raise ValueError("sample_weight sums to 0; at least one row needs a positive weight")
    return weights


def same_length(name: str, values: NDArray[Any], rows: int) -> None:
    """Refuse arrays of unequal length."""
    if len(values) != rows:
        raise ValueError(f"{name} has {len(values)} rows where {rows} are expected; give one value a row")
