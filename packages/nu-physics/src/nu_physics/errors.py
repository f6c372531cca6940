"""What bad input gets: one exception for a value, one for a missing optional package.

Every message names the field, the offending value, the allowed range and, for names, the nearest known ones.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["InvalidInput", "MissingExtra", "check_choice", "check_energies", "check_range"]


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
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} = {value!r}: a real number is needed") from None
    if not math.isfinite(number) or number > high or number < low or (open_low and number == low):
        left = "(" if open_low else "["
        raise InvalidInput(f"{name} = {value!r} is outside the allowed range {left}{low:g}, {high:g}]")
    return number


def check_choice(name: str, value: str, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``; otherwise raise with the nearest names."""
    names = list(known)
    if value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise InvalidInput(f"{name} = {value!r} is not known{hint} Known: {', '.join(names)}")


def check_energies(name: str, values: object, *, positive: bool = True) -> NDArray[np.float64]:
    """Return ``values`` as a finite float64 array; raise naming the first offending entry."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name}: numbers are needed, got {values!r}") from None
    if array.size == 0:
        raise InvalidInput(f"{name} is empty; give at least one value")
    least, most = array.min(), array.max()  # a NaN makes both comparisons false
    if not ((least > 0 if positive else least >= 0) and most < math.inf):
        bad = ~np.isfinite(array) | ((array <= 0) if positive else (array < 0))
        flat = int(np.flatnonzero(bad.ravel())[0])
        low = "(0, inf)" if positive else "[0, inf)"
        raise InvalidInput(
            f"{name}[{flat}] = {array.ravel()[flat]!r} is outside the allowed range {low}; remove or mask it"
        )
    return array
