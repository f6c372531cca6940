"""Which constraints a finished slate breaks, and where.

    cap (p, w, c)   broken in slot k where   #{j in (k-w, k] : value_p(s_j) = value_p(s_k)} > c
    quota m         broken in the last m - #fresh stale slots

A window that holds one item too many is told by the slot of its last such item, so that a slate without a broken slot
keeps every window. Pins count like any other item.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Ints

__all__ = ["broken_slots"]


@njit(cache=True, nogil=True)
def broken_slots(items: Ints, codes: Ints, caps: Ints, fresh: NDArray[np.bool_], fresh_quota: int) -> NDArray[np.bool_]:
    """Shape (K, C + 1): a column a cap (attribute, window, count) and the last for the quota."""
    slots, quota = items.size, caps.shape[0]
    broken = np.zeros((slots, quota + 1), np.bool_)
    for c in range(quota):
        attribute, window, most = caps[c, 0], caps[c, 1], caps[c, 2]
        for slot in range(slots):
            alike = 0
            for other in range(max(0, slot - window + 1), slot + 1):
                alike += codes[items[other], attribute] == codes[items[slot], attribute]
            broken[slot, c] = alike > most
    missing = fresh_quota
    for slot in range(slots):
        missing -= fresh[items[slot]]
    for slot in range(slots - 1, -1, -1):
        if missing > 0 and not fresh[items[slot]]:
            broken[slot, quota] = True
            missing -= 1
    if missing > 0:
        broken[slots - 1, quota] = True  # a quota above k, which even a slate of fresh items breaks
    return broken
