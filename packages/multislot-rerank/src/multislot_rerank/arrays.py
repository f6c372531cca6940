"""The checks that the public functions make of their arrays, once, at the boundary."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multislot_rerank.errors import InvalidInput

__all__ = ["Floats", "Ints", "Vectors", "distinct_rows", "finite", "integers", "probabilities"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Vectors = NDArray[np.float32] | NDArray[np.float64]


def finite(name: str, values: ArrayLike, ndim: int) -> Floats:
    """Return a C-ordered float64 array of ``ndim`` axes; name field and index where it is not finite."""
    array = _rectangular(name, values, np.float64, ndim)
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        count = int((~np.isfinite(array)).sum())
        raise InvalidInput(f"{name}{list(first)}={array[first]} is not finite ({count} such); drop or mend these rows")
    return array


def integers(name: str, values: ArrayLike, ndim: int) -> Ints:
    """Return a C-ordered int64 array; refuse numbers that are not whole."""
    whole = finite(name, values, ndim)
    if (whole != np.floor(whole)).any():
        raise InvalidInput(f"{name} holds numbers that are not whole; give item numbers")
    return whole.astype(np.int64)


def probabilities(name: str, values: ArrayLike, ndim: int) -> Floats:
    """Return probabilities of logged actions: inside (0, 1]."""
    array = finite(name, values, ndim)
    wrong = (array <= 0) | (array > 1)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InvalidInput(
            f"{name}{list(first)}={array[first]:g} is outside (0, 1]; a logged action has a positive probability"
        )
    return array


def distinct_rows(name: str, slates: Ints) -> None:
    """Refuse a slate that shows an item twice."""
    ordered = np.sort(slates, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise InvalidInput(f"{name}[{row}]={slates[row].tolist()} shows an item twice; a slate has distinct items")


def _rectangular(name: str, values: ArrayLike, dtype: Any, ndim: int) -> NDArray[Any]:
    try:
        array = np.ascontiguousarray(values, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{name} is ragged or not numeric ({error}); give rows of equal length") from error
    if array.ndim != ndim:
        raise InvalidInput(f"{name} has shape {array.shape}; {ndim} axes are expected")
    if 0 in array.shape:
        raise InvalidInput(f"{name} has shape {array.shape}; give at least one row and one column")
    return array
