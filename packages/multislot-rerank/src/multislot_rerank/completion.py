"""Whether the slots that are left can be filled without breaking a constraint.

Sequences with at most c of w of a kind are the car-sequencing problem, which is NP-hard (Kis, 2004), so greedy can run
into a dead end that no local check foresees. Items that no constraint tells apart are one type. With

    x_tj = an item of type t stands in the free slot j,      y_vj = the item in slot j has the value v

a slate keeps the constraints where

    sum_t x_tj = 1     sum_j x_tj <= items of type t     y_vj = sum_{t of v} x_tj     sum_{j in window} y_vj <= c
    sum_{j < end} y_vj >= minimum

and ``inequalities`` finds one or a proof by counting that there is none. What it learns serves every later question.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Ints
from multislot_rerank.inequalities import LATER, UNKNOWN, YES, System, add, search, system

__all__ = ["BOUND", "Completion"]

BOUND = 100_000_000
"""Terms that the searches of a request look at; then the slate says that what it relaxed may have been avoidable."""
_LEARNT = 400  # inequalities, then half of them are forgotten


class Completion:
    """Answers whether a beginning of a slate can be completed; remembers its answers.

    Parameters
    ----------
    codes : ndarray of int64, shape (N, P)
    caps, minima : ndarray of int64, shape (C, 4) and (M, 4)
        Rows that must hold (see ``constraint_rows``).
    pinned : ndarray of int64, shape (K,)
        Item of a slot or -1.
    work : ndarray of int64, shape (1,)
        What is left of the bound; shared by the searches of a request.
    """

    def __init__(self, codes: Ints, caps: Ints, minima: Ints, pinned: Ints, work: Ints) -> None:
        values, has = _telling(codes, caps, minima)
        kinds, types = np.unique(has, axis=0, return_inverse=True)
        types = types.reshape(-1)
        self.types: list[int] = types.tolist()
        self._free = np.flatnonzero(pinned < 0)
        self._slot = {int(slot): j for j, slot in enumerate(self._free)}
        self._types = len(kinds)
        self._work = work
        self._system, self._given = _written(values, kinds, types, caps, minima, pinned)
        self._known: dict[tuple[int, ...], bool] = {}
        self._pinned = np.where(pinned >= 0, types[pinned], -1)
        self.certain = True

    def possible(self) -> bool:
        """Whether any slate keeps the constraints."""
        return self._search(())

    def extends(self, items: Sequence[int], item: int) -> bool:
        """Whether a slate that keeps the constraints begins with ``items`` and ``item``."""
        beginning = (*(self.types[i] for i in items), self.types[item])
        if beginning not in self._known:
            self._known[beginning] = self._search(beginning)
        return self._known[beginning]

    def _search(self, beginning: tuple[int, ...]) -> bool:
        assumed = [
            2 * (self._slot[slot] * self._types + kind) for slot, kind in enumerate(beginning) if slot in self._slot
        ]
        share = self._work // 2  # so that one hard question does not leave the others without an answer
        self._work -= share
        answer = search(self._system, self._given, np.array(assumed, np.int64), share)
        self._work += np.maximum(share, 0)
        self.certain = self.certain and answer != UNKNOWN
        if answer == YES:
            whole = self._pinned.copy()
            stands = self._system.truth[: 2 * len(self._free) * self._types : 2].reshape(len(self._free), self._types)
            whole[self._free] = np.argmax(stands, axis=1)
            found = tuple(whole.tolist())
            self._known.update((found[:length], True) for length in range(1, len(found) + 1))
        return bool(answer == YES)


def _telling(codes: Ints, caps: Ints, minima: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """The values that constraints count and which items have them, shapes (V, 3) and (N, V).

    A value is (family, column, code), in this order; one cap speaks of one family, columns of labels of one attribute.
    """
    values: list[tuple[int, int, int]] = []
    for column in range(codes.shape[1]):
        ranks = caps[caps[:, 0] == column, 3]
        family = int(ranks.min()) if ranks.size else -1 - column
        counted = {0} if (minima[:, 0] == column).any() else set()
        counts = caps[caps[:, 0] == column, 2]
        if counts.size:  # rarer values cannot exceed a cap
            counted |= set(np.flatnonzero(np.bincount(codes[:, column]) > counts.min()).tolist())
        values += [(family, column, code) for code in counted]
    table = np.array(sorted(values), np.int64).reshape(-1, 3)
    return table, codes[:, table[:, 1]] == table[:, 2]


def _written(
    values: Ints, kinds: NDArray[np.bool_], types: Ints, caps: Ints, minima: Ints, pinned: Ints
) -> tuple[System, int]:
    """The constraints as inequalities, and how many they are."""
    slots = len(pinned)
    rules: list[tuple[int, int, int, int, int]] = []
    for v, (_, column, code) in enumerate(values.tolist()):
        for _, window, most, _ in caps[caps[:, 0] == column].tolist():
            rules += [(v, start, start + window, 0, most) for start in range(slots - window + 1)]
        if code == 0:
            rules += [(v, 0, end, least, slots) for _, end, least, _ in minima[minima[:, 0] == column].tolist()]
    members = np.ascontiguousarray(kinds)
    held = np.zeros((slots, len(values)), np.bool_)
    held[pinned >= 0] = members[types[pinned[pinned >= 0]]]
    supply = np.bincount(types, minlength=len(kinds)) - np.bincount(types[pinned[pinned >= 0]], minlength=len(kinds))
    table = np.array(rules, np.int64).reshape(-1, 5)
    free = np.flatnonzero(pinned < 0)
    family = np.ascontiguousarray(values[:, 0])
    variables = len(free) * (len(kinds) + len(values))
    rows, terms = _write(system(0, 0, 0), members, supply, free, held, table, family)
    written = system(variables, rows + _LEARNT, terms + _LEARNT * variables // 4)
    _write(written, members, supply, free, held, table, family)
    written.sizes[LATER] = len(free) * len(kinds)  # values are decided before types: proofs by counting speak of them
    written.phase[:] = 1
    return written, int(rows)


@njit(cache=True, nogil=True)
def _most(held, rules, label, mirrored):  # type: ignore[no-untyped-def]
    """Most items of a label in the first 1, 2, .. slots (``mirrored``: the last), pinned ones among them.

    Slot by slot, an item wherever all windows around the slot still admit one: moving the next item of any filling
    forward to that slot keeps every window (exchange), so none holds more.
    """
    slots = held.shape[0]
    count = np.zeros(rules.shape[0], np.int64)
    mine = np.flatnonzero((rules[:, 0] == label) & (rules[:, 4] < rules[:, 2] - rules[:, 1]))
    for r in mine:
        for slot in range(rules[r, 1], rules[r, 2]):
            count[r] += held[slot, label]
    most, so_far = np.empty(slots, np.int64), 0
    for step in range(slots):
        slot = slots - 1 - step if mirrored else step
        fits = not held[slot, label]
        for r in mine:
            fits = fits and not (rules[r, 1] <= slot < rules[r, 2] and count[r] >= rules[r, 4])
        if fits:
            for r in mine:
                count[r] += int(rules[r, 1] <= slot < rules[r, 2])
        so_far += int(fits or held[slot, label])
        most[step] = so_far
    return most


@njit(cache=True, nogil=True)
def _limit(s, literals, ones, size, least, most, needs):  # type: ignore[no-untyped-def]
    """Add least <= sum of literals <= most; where there is no room for it, only count rows and terms."""
    for side in range(2):
        degree = least if side == 0 else size - most
        if degree > 0:
            needs[0] += 1
            needs[1] += size
            if s.least.size > 0:
                add(s, literals, ones, size, degree)
        for k in range(size):
            literals[k] ^= 1


@njit(cache=True, nogil=True)
def _write(s, members, supply, free, held, rules, family):  # type: ignore[no-untyped-def]
    """Write the inequalities, or count their rows and terms if the system has no room.

    Besides those that define a solution, some that follow from them but that no sum of few of them shows:

        sum_j y_vj (first or last slots) <= most that the windows admit there
        sum_j y_vj >= free slots - most of the other values of the attribute - items without a value
        sum_v y_vj + items without a value = 1        (>= 1 where items have several)
    """
    types, values, slots = members.shape[0], members.shape[1], held.shape[0]
    needs = np.zeros(2, np.int64)
    width = max(types + values, free.size) + 1
    literals, ones = np.zeros(width, np.int64), np.ones(width, np.int64)
    for j in range(free.size):
        for t in range(types):
            literals[t] = 2 * (j * types + t)
        _limit(s, literals, ones, types, 1, 1, needs)
        for v in range(values):
            size = 1
            literals[0] = 2 * (free.size * types + v * free.size + j) + 1
            for t in range(types):
                if members[t, v]:
                    literals[size] = 2 * (j * types + t)
                    size += 1
            _limit(s, literals, ones, size, 1, 1, needs)
    for t in range(types):
        for j in range(free.size):
            literals[j] = 2 * (j * types + t)
        _limit(s, literals, ones, free.size, 0, supply[t], needs)
    place = np.full(slots, -1)
    place[free] = np.arange(free.size)
    room = np.empty(values, np.int64)
    for v in range(values):
        stock = 0
        for t in range(types):
            stock += supply[t] * members[t, v]
        for mirrored in range(2):
            most = _most(held, rules, v, mirrored == 1)
            size, pinned = 0, 0
            for step in range(slots):
                slot = slots - 1 - step if mirrored else step
                if held[slot, v]:
                    pinned += 1
                if place[slot] < 0:
                    continue
                literals[size] = 2 * (free.size * types + v * free.size + place[slot])
                size += 1
                if most[step] - pinned < min(stock, size):
                    _limit(s, literals, ones, size, 0, most[step] - pinned, needs)
            room[v] = min(stock, most[slots - 1] - pinned)
        _limit(s, literals, ones, free.size, 0, stock, needs)
    for r in range(rules.shape[0]):
        v, size, pinned = rules[r, 0], 0, 0
        for slot in range(rules[r, 1], rules[r, 2]):
            pinned += held[slot, v]
        for j in range(free.size):
            if rules[r, 1] <= free[j] < rules[r, 2]:
                literals[size] = 2 * (free.size * types + v * free.size + j)
                size += 1
        _limit(s, literals, ones, size, rules[r, 3] - pinned, rules[r, 4] - pinned, needs)
    for first in range(values):
        if first > 0 and family[first - 1] == family[first]:
            continue
        last = first
        while last < values and family[last] == family[first]:
            last += 1
        without, several = 0, 1
        for t in range(types):
            labels = members[t, first:last].sum()
            several = max(several, labels)
            if labels == 0:
                without += supply[t]
        for v in range(first, last):
            needed = free.size - without - room[first:last].sum() + room[v]
            for j in range(free.size):
                literals[j] = 2 * (free.size * types + v * free.size + j)
            _limit(s, literals, ones, free.size, needed, free.size, needs)
        for j in range(free.size):
            size = 0
            for v in range(first, last):
                literals[size] = 2 * (free.size * types + v * free.size + j)
                size += 1
            for t in range(types):
                if not members[t, first:last].any():
                    literals[size] = 2 * (j * types + t)
                    size += 1
            _limit(s, literals, ones, size, 1, several, needs)
    return needs[0], needs[1]
