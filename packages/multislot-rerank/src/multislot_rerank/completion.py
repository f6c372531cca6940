"""Whether the slots that are left can be filled without breaking a constraint: an exact search with a bound.

Sequences with at most c of w of a kind are the car-sequencing problem, which is NP-hard (Kis, 2004), so greedy can run
into a dead end that no local check foresees. Items that no constraint tells apart are one type; the search fills slot
after slot with types, depth first, and turns back where

    sum_v min(items of value v left, most of v that fit into the slots left) < free slots left        for some cap,

or the quota is out of reach, or the same state (slot, types left, types in the window, quota left) failed before.
A thousand types and ten slots without a dead end take ten steps.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Ints

__all__ = ["BOUND", "Completion"]

BOUND = 50_000
"""Steps of search a request; reached, the slate says that what it relaxed may have been avoidable."""
_REMEMBERED = 1 << 20  # numbers kept of failed states, 4 MB
YES, NO, UNKNOWN = 1, 0, -1


class Completion:
    """Answers whether a beginning of a slate can be completed; remembers its answers.

    Parameters
    ----------
    codes : ndarray of int64, shape (N, P)
    caps : ndarray of int64, shape (C, 3)
        (attribute, window, count) that must hold.
    pinned : ndarray of int64, shape (K,)
        Item of a slot or -1.
    fresh : ndarray of bool, shape (N,)
    fresh_quota : int
    steps : ndarray of int64, shape (1,)
        Steps left; shared by the searches of a request.
    """

    def __init__(
        self, codes: Ints, caps: Ints, pinned: Ints, fresh: NDArray[np.bool_], fresh_quota: int, steps: Ints
    ) -> None:
        kinds, types = np.unique(_telling(codes, caps, fresh, fresh_quota), axis=0, return_inverse=True)
        self.types: list[int] = types.reshape(-1).tolist()
        self._codes, self._fresh = np.ascontiguousarray(kinds[:, :-1]), kinds[:, -1] == 1
        self._caps, self._quota, self._steps = caps, fresh_quota, steps
        self._pinned = np.where(pinned >= 0, types.reshape(-1)[pinned], -1)
        left = np.bincount(self.types, minlength=len(kinds)) - np.bincount(
            self._pinned[self._pinned >= 0], minlength=len(kinds)
        )
        self._left = np.minimum(left, int((pinned < 0).sum())).astype(np.int64)
        reach = int(caps[:, 1].max()) - 1 if len(caps) else 0
        width = len(kinds) + reach + 2
        self._failed = np.zeros((max(_REMEMBERED // width, 1), width), np.int32)
        self._known: dict[tuple[int, ...], bool] = {}
        self.certain = True

    def possible(self) -> bool:
        """Whether any slate keeps the constraints."""
        return self._search((), -1)

    def extends(self, items: Sequence[int], item: int) -> bool:
        """Whether a slate that keeps the constraints begins with ``items`` and ``item``."""
        placed = tuple(self.types[i] for i in items)
        kind = self.types[item]
        beginning = (*placed, kind)
        if beginning not in self._known:
            self._known[beginning] = self._search(placed, kind)
        return self._known[beginning]

    def _search(self, placed: tuple[int, ...], kind: int) -> bool:
        path = np.full(len(self._pinned), -1, np.int64)
        path[: len(placed)] = placed
        answer = _complete(
            len(placed), kind, path, self._left.copy(), self._codes, self._fresh, self._pinned, self._caps, self._quota,
            self._failed, self._steps,
        )  # fmt: skip
        self.certain = self.certain and answer != UNKNOWN
        if answer == YES:
            whole = tuple(path.tolist())
            self._known.update((whole[:length], True) for length in range(len(placed) + 1, len(whole) + 1))
        return bool(answer == YES)


def _telling(codes: Ints, caps: Ints, fresh: NDArray[np.bool_], fresh_quota: int) -> Ints:
    """What the constraints see of an item: its values that can exceed a cap (else -1), and whether it is fresh."""
    seen = np.full((len(codes), codes.shape[1] + 1), -1, np.int64)
    for attribute in range(codes.shape[1]):
        counts = caps[caps[:, 0] == attribute, 2]
        if counts.size:
            column = codes[:, attribute]
            frequent = np.bincount(column)[column] > counts.min()
            seen[frequent, attribute] = column[frequent]
    seen[:, -1] = fresh if fresh_quota > 0 else 0
    return seen


@njit(cache=True, nogil=True)
def _fits(kind, slot, path, pinned, codes, caps):  # type: ignore[no-untyped-def]
    """Whether a type keeps every window around the slot, pinned items to come included."""
    slots = path.size
    for c in range(caps.shape[0]):
        attribute, window, most = caps[c, 0], caps[c, 1], caps[c, 2]
        code = codes[kind, attribute]
        if code < 0:
            continue
        # later windows are parts of the last whole one
        for start in range(max(0, slot - window + 1), min(slot, max(0, slots - window)) + 1):
            alike = 1
            for other in range(start, min(start + window, slots)):
                neighbour = path[other] if other < slot else pinned[other]
                if other != slot and neighbour >= 0 and codes[neighbour, attribute] == code:
                    alike += 1
            if alike > most:
                return False
    return True


@njit(cache=True, nogil=True)
def _value_counts(left, codes, attribute, only_fresh, fresh, counts):  # type: ignore[no-untyped-def]
    """Items left of each value into ``counts``; returns those that no cap on the attribute can stop."""
    counts[:] = 0
    unbound = 0
    for kind in range(left.size):
        if only_fresh and not fresh[kind]:
            continue
        if codes[kind, attribute] >= 0:
            counts[codes[kind, attribute]] += left[kind]
        else:
            unbound += left[kind]
    return unbound


@njit(cache=True, nogil=True)
def _promising(slot, left, codes, fresh, pinned, caps, missing, counts):  # type: ignore[no-untyped-def]
    """The bounds that every completion must pass."""
    slots = pinned.size
    free = 0
    for other in range(slot, slots):
        if pinned[other] < 0:
            free += 1
        elif fresh[pinned[other]]:
            missing -= 1
    fresh_left = 0
    for kind in range(left.size):
        if fresh[kind]:
            fresh_left += left[kind]
    if missing > min(free, fresh_left):
        return False
    ahead = slots - slot
    for c in range(caps.shape[0]):
        window, most = caps[c, 1], caps[c, 2]
        room = ahead // window * most + min(ahead % window, most)
        for only_fresh in range(2):
            fillable = _value_counts(left, codes, caps[c, 0], only_fresh == 1, fresh, counts)
            for value in range(counts.size):
                fillable += min(counts[value], room)
            if fillable < (missing if only_fresh else free):
                return False
    return True


@njit(cache=True, nogil=True)
def _row_of(state, failed):  # type: ignore[no-untyped-def]
    """Row of a table of states that holds this one, or the row where it belongs; -1 where the table has no room."""
    hashed = np.uint64(1469598103934665603)
    for entry in state:
        hashed = (hashed ^ np.uint64(entry + 1)) * np.uint64(1099511628211)
    row = np.int64(hashed % np.uint64(failed.shape[0]))
    for _ in range(16):
        if failed[row, 0] == 0:
            return row
        same = True
        for place in range(state.size):
            if failed[row, place] != state[place]:
                same = False
                break
        if same:
            return row
        row = (row + 1) % failed.shape[0]
    return -1


@njit(cache=True, nogil=True)
def _describe(slot, left, path, reach, missing, state):  # type: ignore[no-untyped-def]
    state[0], state[1] = slot + 1, max(missing, 0)
    for kind in range(left.size):
        state[2 + kind] = left[kind]
    for back in range(reach):
        state[2 + left.size + back] = path[slot - 1 - back] if slot - 1 - back >= 0 else -1


@njit(cache=True, nogil=True)
def _complete(  # type: ignore[no-untyped-def]
    first, kind_of_first, path, left, codes, fresh, pinned, caps, quota, failed, steps
):
    """Fill ``path`` from slot ``first`` on (there with that type, unless -1): YES, NO, or UNKNOWN at the bound."""
    slots, kinds = path.size, left.size
    missing = quota
    for slot in range(first):
        missing -= fresh[path[slot]]
        if pinned[slot] < 0:
            left[path[slot]] -= 1
    reach = failed.shape[1] - kinds - 2
    state = np.empty(failed.shape[1], np.int32)
    counts = np.zeros(codes.max() + 1 if codes.size else 0, np.int64)
    order, choices, tried = np.empty((slots, kinds), np.int64), np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    crowd = np.empty(kinds)
    slot, entering = first, True
    while True:
        if slot == slots and missing <= 0:
            return YES
        if slot < slots and entering:
            if steps[0] <= 0:
                return UNKNOWN
            steps[0] -= 1
            tried[slot] = 0
            choices[slot] = 0
            wanted = pinned[slot] if pinned[slot] >= 0 else (kind_of_first if slot == first else -1)
            if _promising(slot, left, codes, fresh, pinned, caps, missing, counts):
                _describe(slot, left, path, reach, missing, state)
                row = _row_of(state, failed)
                if wanted >= 0:
                    choices[slot], order[slot, 0] = 1, wanted
                elif row < 0 or failed[row, 0] == 0:
                    # what is plentiful first, what no cap stops last; fresh items while the quota wants some
                    crowd[:] = 0.0
                    for c in range(caps.shape[0]):
                        _value_counts(left, codes, caps[c, 0], False, fresh, counts)
                        for kind in range(kinds):
                            if codes[kind, caps[c, 0]] >= 0:
                                crowd[kind] += counts[codes[kind, caps[c, 0]]]
                    for kind in range(kinds):
                        if missing > 0 and fresh[kind]:
                            crowd[kind] += 1e6
                    for kind in np.argsort(-crowd):
                        if left[kind] > 0:
                            order[slot, choices[slot]] = kind
                            choices[slot] += 1
        placed = False
        while slot < slots and tried[slot] < choices[slot]:
            kind = order[slot, tried[slot]]
            tried[slot] += 1
            if (pinned[slot] >= 0 or left[kind] > 0) and _fits(kind, slot, path, pinned, codes, caps):
                path[slot] = kind
                if pinned[slot] < 0:
                    left[kind] -= 1
                missing -= fresh[kind]
                placed = True
                break
        if placed:
            slot, entering = slot + 1, True
            continue
        if slot < slots and choices[slot] > 0 and pinned[slot] < 0 and not (slot == first and kind_of_first >= 0):
            _describe(slot, left, path, reach, missing, state)
            row = _row_of(state, failed)
            if row >= 0:
                failed[row, :] = state
        slot, entering = slot - 1, False
        if slot < first:
            return NO
        if pinned[slot] < 0:
            left[path[slot]] += 1
        missing += fresh[path[slot]]
