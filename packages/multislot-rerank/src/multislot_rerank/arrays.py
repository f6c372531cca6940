"""The checks that the public functions make of their arrays, once, at the boundary.

A number is a bool, an integer or a float. Every other kind has one meaning or none:

    text, complex, datetime, structured         refused
    masked                                      refused where an entry is masked, else its data
    object                                      taken where every element is a real number
    timedelta                                   a duration (``seconds``), and refused as anything else
    None, NaN, NaT, NA, infinity                refused: not a finite number
"""

from datetime import timedelta
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multislot_rerank.errors import InvalidInput

__all__ = [
    "Floats",
    "Ints",
    "Vectors",
    "distinct_rows",
    "finite",
    "integers",
    "plain_array",
    "probabilities",
    "real",
    "seconds",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Vectors = NDArray[np.float32] | NDArray[np.float64]

_REMEDIES = {
    "c": "is complex; give its real part or its modulus",
    "m": "holds durations; divide by a unit and give plain numbers",
    "M": "holds dates; give plain numbers (an age is request time minus publish time)",
    "U": "holds text; give numbers",
    "S": "holds bytes; give numbers",
    "V": "has fields; give one column a number",
}
_LARGEST_WHOLE = 2.0**53  # beyond it floats skip whole numbers
_SIZED_UNITS = frozenset({"W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"})  # months and years vary


def finite(name: str, values: ArrayLike, ndim: int) -> Floats:
    """Return a C-ordered float64 array of ``ndim`` axes; name field and index where it is not finite."""
    return _finite(name, _shaped(name, real(name, values), ndim))


def integers(name: str, values: ArrayLike, ndim: int) -> Ints:
    """Return a C-ordered int64 array; refuse truth values and numbers that are not whole."""
    array = _shaped(name, real(name, values), ndim)
    if array.dtype.kind == "b":
        raise InvalidInput(f"{name} holds truth values; give item numbers (numpy.flatnonzero of a mask)")
    if array.dtype.kind == "f":
        array = _finite(name, array)
        if (array != np.floor(array)).any():
            raise InvalidInput(f"{name} holds numbers that are not whole; give item numbers")
        if (np.abs(array) > _LARGEST_WHOLE).any():
            raise InvalidInput(f"{name} holds floats beyond 2**53, where whole numbers are skipped; give integers")
    elif array.dtype.kind == "u" and (array > np.iinfo(np.int64).max).any():
        raise InvalidInput(f"{name} holds numbers beyond 2**63; give item numbers")
    return np.ascontiguousarray(array, np.int64)


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


def seconds(name: str, values: ArrayLike) -> Floats:
    """Return a vector in seconds: plain numbers are seconds, durations are converted."""
    array = plain_array(name, values)
    durations = array.dtype.kind == "O" and array.ndim == 1 and array.size
    if durations and all(isinstance(value, timedelta) and value == value for value in array):
        array = np.array([value.total_seconds() for value in array])
    if array.dtype.kind == "m":
        unit, _ = np.datetime_data(array.dtype)
        if unit not in _SIZED_UNITS:
            raise InvalidInput(f"{name} holds durations of unit {unit!r}, which has no length in seconds; give seconds")
        array = array / np.timedelta64(1, "s")
    return finite(name, array, 1)


def distinct_rows(name: str, slates: Ints) -> None:
    """Refuse a slate that shows an item twice."""
    ordered = np.sort(slates, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise InvalidInput(f"{name}[{row}]={slates[row].tolist()} shows an item twice; a slate has distinct items")


def plain_array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return the values as numpy sees them, masks looked at and not lost."""
    if type(values) is np.ndarray:
        return values
    if _masks(values):
        raise InvalidInput(f"{name} has masked entries; drop or fill them")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InvalidInput(f"{name} is ragged or not numeric ({error}); give rows of equal length") from error


def real(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return an array of bools, integers or floats, of any number of axes."""
    array = plain_array(name, values)
    kind = array.dtype.kind
    if kind in "biuf":
        return array
    if kind == "O":
        for value in array.flat:
            if isinstance(value, np.timedelta64) or not isinstance(value, Real):
                raise InvalidInput(f"{name} is ragged or not numeric (it holds {value!r}); give numbers")
        try:
            return array.astype(np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(f"{name} is ragged or not numeric ({error}); give numbers below 1.8e308") from error
    raise InvalidInput(f"{name} is ragged or not numeric: it {_REMEDIES.get(kind, f'has dtype {array.dtype}')}")


def _masks(values: object) -> bool:
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(values).any())
    if isinstance(values, (list, tuple)):
        return any(_masks(value) for value in values if isinstance(value, (list, tuple, np.ma.MaskedArray)))
    return False


def _finite(name: str, array: NDArray[Any]) -> Floats:
    with np.errstate(over="ignore"):  # a long double beyond the range of a double is infinite, and refused
        numbers = np.ascontiguousarray(array, np.float64)
    if not np.isfinite(numbers).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
        count = int((~np.isfinite(numbers)).sum())
        raise InvalidInput(
            f"{name}{list(first)}={numbers[first]} is not finite ({count} such); drop or mend these rows"
        )
    return numbers


def _shaped(name: str, array: NDArray[Any], ndim: int) -> NDArray[Any]:
    if array.ndim != ndim:
        raise InvalidInput(f"{name} has shape {array.shape}; {ndim} axes are expected")
    if 0 in array.shape:
        raise InvalidInput(f"{name} has shape {array.shape}; give at least one row and one column")
    return array
