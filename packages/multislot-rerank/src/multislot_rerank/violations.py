"""Which constraints a finished slate breaks, and where.

    cap (p, w, c)       broken in slot k where   #{j in (k-w, k] : value_p(s_j) = value_p(s_k)} > c
    minimum (p, e, m)   broken in the last m - #{j < e : s_j has p} of the first e slots that lack it

A window that holds one item too many is told by the slot of its last such item, so that a slate without a broken slot
keeps every window. Pins count like any other item.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Ints

__all__ = ["broken_slots"]


@njit(cache=True, nogil=True)
def broken_slots(items: Ints, codes: Ints, caps: Ints, minima: Ints, constraints: int) -> NDArray[np.bool_]:
    """Shape (K, constraints): a column for each rank (see ``constraint_rows``)."""
    slots = items.size
    broken = np.zeros((slots, constraints), np.bool_)
    for c in range(caps.shape[0]):
        column, window, most, rank = caps[c]
        for slot in range(slots):
            alike = 0
            for other in range(max(0, slot - window + 1), slot + 1):
                alike += codes[items[other], column] == codes[items[slot], column]
            if alike > most:
                broken[slot, rank] = True
    for m in range(minima.shape[0]):
        column, end, missing, rank = minima[m]
        for slot in range(end):
            missing -= codes[items[slot], column] == 0
        for slot in range(end - 1, -1, -1):
            if missing > 0 and codes[items[slot], column] != 0:
                broken[slot, rank] = True
                missing -= 1
        if missing > 0:
            broken[end - 1, rank] = True  # more than there are slots, which even a slate of such items breaks
    return broken
