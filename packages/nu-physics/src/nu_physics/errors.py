"""What bad input gets: one exception for a value, one for a missing optional package.

Every message names the field, the offending value, the allowed range and, for names, the nearest known ones.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "InvalidInput",
    "MissingExtra",
    "check_choice",
    "check_counts",
    "check_edges",
    "check_energies",
    "check_range",
    "check_whole",
    "freeze",
    "real_array",
]


class InvalidInput(ValueError):
    """A value that has no meaning for the physics; the message names field, value and allowed range."""


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the extra [{extra}]: pip install 'nu-physics[{extra}]'")
        self.extra = extra


def check_range(
    name: str, value: float, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> float:
    """Return ``float(value)`` if it is finite and inside ``[low, high]``, else raise :class:`InvalidInput`."""
    if isinstance(value, (str, bytes, bool, np.bool_)) or np.ma.is_masked(value):
        raise InvalidInput(f"{name} = {value!r}: a real number is needed")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{name} = {value!r}: a real number is needed") from None
    if not math.isfinite(number) or number > high or number < low or (open_low and number == low):
        left = "(" if open_low else "["
        raise InvalidInput(f"{name} = {value!r} is outside the allowed range {left}{low:g}, {high:g}]")
    return number


def check_whole(name: str, value: int, low: int) -> int:
    """Return ``int(value)`` if it is a whole number (not a truth value, not a float) of at least ``low``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidInput(f"{name} = {value!r}: a whole number is needed")
    if value < low:
        raise InvalidInput(f"{name} = {value!r} is outside the allowed range [{low}, inf)")
    return int(value)


def check_choice(name: str, value: str, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``; otherwise raise with the nearest names."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise InvalidInput(f"{name} = {value!r} is not known{hint} Known: {', '.join(names)}")


def real_array(name: str, values: object) -> NDArray[np.float64]:
    """Return ``values`` as a float64 array; text, complex, masked, boolean and missing entries raise."""
    if np.ma.is_masked(values):
        raise InvalidInput(f"{name} has masked entries; fill or drop them first")
    try:
        array = np.asarray(values)
    except ValueError:
        raise InvalidInput(f"{name} is ragged: every row needs the same length") from None
    if array.size and array.dtype.kind not in "iuf":
        raise InvalidInput(f"{name}: real numbers are needed, got {array.ravel()[0]!r} (dtype {array.dtype})")
    return array.astype(np.float64)


def check_energies(name: str, values: object, *, positive: bool = True) -> NDArray[np.float64]:
    """Return ``values`` as a finite float64 array; raise naming the first offending entry."""
    array = real_array(name, values)
    if array.size == 0:
        raise InvalidInput(f"{name} is empty; give at least one value")
    least, most = array.min(), array.max()  # a NaN makes both comparisons false
    if not ((least > 0 if positive else least >= 0) and most < math.inf):
        bad = ~np.isfinite(array) | ((array <= 0) if positive else (array < 0))
        flat = int(np.flatnonzero(bad.ravel())[0])
        low = "(0, inf)" if positive else "[0, inf)"
        raise InvalidInput(
            f"{name}[{flat}] = {float(array.ravel()[flat])!r} is outside the allowed range {low}; remove it"
        )
    return array


def check_counts(name: str, values: object, shape: tuple[int, ...], meaning: str) -> NDArray[np.float64]:
    """Return ``values`` as counts, finite and not negative, whose last axes have ``shape``."""
    array = real_array(name, values)
    if array.shape[-len(shape) :] != shape:
        raise InvalidInput(f"{name} has shape {array.shape}; its last axes must be {shape}: {meaning}")
    return check_energies(name, array, positive=False)


def check_edges(name: str, values: object) -> NDArray[np.float64]:
    """Return ``values`` as at least two positive edges of bins that rise."""
    edges = check_energies(name, values)
    if edges.ndim != 1 or edges.size < 2:
        raise InvalidInput(f"{name} has shape {edges.shape}; at least two edges in a row are needed")
    if np.any(np.diff(edges) <= 0):
        at = int(np.flatnonzero(np.diff(edges) <= 0)[0]) + 1
        raise InvalidInput(f"{name}[{at}] = {edges[at]:g} does not exceed the edge before it; sort them, drop repeats")
    return edges


def freeze(owner: object, *names: str) -> None:
    """Replace array fields of a frozen dataclass by copies that refuse writes: what is shared or cached stays true."""
    for name in names:
        copy = np.array(getattr(owner, name))
        copy.setflags(write=False)
        object.__setattr__(owner, name, copy)
