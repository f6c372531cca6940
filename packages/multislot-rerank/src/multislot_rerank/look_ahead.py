"""Which candidates may take a slot: under every constraint, or under as many as leave one.

Greedy first runs with the constraints checked slot by slot; a slate that breaks none is the greedy choice among those
that can be completed, as its own end is the completion. Only for one that breaks some it is asked which constraints can
hold together (``what_can_hold``), and the slate is filled again from candidates with which these can be completed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.completion import BOUND, Completion
from multislot_rerank.constraint_rows import ConstraintRows
from multislot_rerank.constraints import Constraint
from multislot_rerank.lazy_greedy import minima_due
from multislot_rerank.violations import broken_slots

__all__ = ["Filled", "Kept", "charges", "choices", "keep_where_possible"]


@dataclass(frozen=True)
class Kept:
    """Constraints that are never let go, with the look-ahead that makes it possible.

    Attributes
    ----------
    ranks : ndarray of bool, shape (R,)
    completion : Completion
        Of these constraints.
    """

    ranks: NDArray[np.bool_]
    completion: Completion


@dataclass(frozen=True)
class Filled:
    """A slate, what it breaks by slot, and whether that could not have been kept."""

    items: Ints
    utilities: Floats
    relaxed: tuple[tuple[int, Constraint], ...]
    proven: bool


def keep_where_possible(
    rows: ConstraintRows, filled: tuple[Ints, Floats], fill: Callable[[Kept], tuple[Ints, Floats]]
) -> Filled:
    """The slate ``filled``, or, where it breaks a constraint, the one that keeps all that can hold together."""
    (items, utilities), proven = filled, True
    broken = _broken(rows, items)
    if broken.any():
        kept, proven = _what_can_hold(rows)
        if kept is not None:
            items, utilities = fill(kept)
            proven = proven and kept.completion.certain
        broken = _broken(rows, items)
    relaxed = _named(broken, rows.hard)
    if rows.soft:
        soft = broken_slots(items, rows.codes, rows.soft_caps, rows.soft_minima, len(rows.soft))
        relaxed = tuple(sorted(relaxed + _named(soft, rows.soft), key=lambda entry: entry[0]))
    return Filled(items, utilities, relaxed, proven or not broken.any())


def _named(broken: NDArray[np.bool_], constraints: Sequence[Constraint]) -> tuple[tuple[int, Constraint], ...]:
    if not broken.any():
        return ()
    return tuple((int(slot), constraints[rank]) for slot, rank in np.argwhere(broken))


def choices(
    rows: ConstraintRows, items: tuple[int, ...], slot: int, utility: Floats, most: int, kept: Kept | None
) -> list[int]:
    """The best candidates for a slot, at most so many, under as many constraints as leave one."""
    if rows.pinned[slot] >= 0:
        return [int(rows.pinned[slot])]
    for allowed in _ever_looser(rows, items, slot, kept):
        candidates = np.flatnonzero(allowed)
        ordered = candidates[np.argsort(-utility[candidates], kind="stable")]
        found: list[int] = []
        for item in ordered.tolist():
            if len(found) == most:
                break
            if kept is None or kept.completion.extends(items, item):
                found.append(item)
        if found:
            return found
    raise AssertionError("k is at most N: some candidate is free")


def charges(rows: ConstraintRows, items: tuple[int, ...], slot: int) -> Floats:
    """What soft constraints cost each candidate in the slot, as ``violations`` would report it."""
    breaks = np.zeros((len(rows.codes), len(rows.soft)), np.bool_)
    placed = np.array(items, np.int64)
    for column, window, most, rank in rows.soft_caps.tolist():
        inside = placed[max(0, slot - window + 1) :]
        codes = rows.codes[:, column]
        breaks[:, rank] |= (codes[:, None] == codes[inside]).sum(axis=1) + 1 > most
    for (column, _, _, rank), due in zip(
        rows.soft_minima.tolist(), _due(rows, items, slot, rows.soft_minima), strict=True
    ):
        if due:
            breaks[:, rank] |= rows.codes[:, column] != 0
    total = np.zeros(len(rows.codes))  # constraint by constraint: equal rows keep equal sums
    for rank, price in enumerate(rows.prices):
        total += price * breaks[:, rank]
    return total


def _broken(rows: ConstraintRows, items: Ints) -> NDArray[np.bool_]:
    return broken_slots(items, rows.codes, rows.caps, rows.minima, len(rows.hard))


def _due(rows: ConstraintRows, items: Sequence[int], slot: int, minima: Ints) -> list[bool]:
    placed, due = rows.pinned.copy(), np.zeros(len(minima), np.bool_)
    placed[:slot] = items
    minima_due(slot, placed, rows.pinned, rows.codes, minima, due)
    return list(due.tolist())


def _ever_looser(
    rows: ConstraintRows, items: Sequence[int], slot: int, kept: Kept | None
) -> Iterator[NDArray[np.bool_]]:
    """Candidates under all constraints, then without the last, and so on; what is kept never goes."""
    allowed = np.ones((len(rows.hard) + 1, len(rows.codes)), np.bool_)  # the last: not placed yet
    allowed[-1, list(items)] = False
    allowed[-1, rows.pinned[rows.pinned >= 0]] = False
    slate = np.concatenate([np.array(items, np.int64), rows.pinned[slot:]])
    for cap in rows.caps:
        allowed[cap[3]] &= ~_over_cap(rows.codes, slate, slot, cap)
    for (column, _, _, rank), due in zip(rows.minima.tolist(), _due(rows, items, slot, rows.minima), strict=True):
        if due:
            allowed[rank] &= rows.codes[:, column] == 0
    always = np.zeros(len(rows.hard), np.bool_) if kept is None else kept.ranks
    for held in range(len(rows.hard), -1, -1):
        if held < len(rows.hard) and always[held]:
            continue
        yield allowed[-1] & allowed[:held].all(axis=0) & allowed[:-1][always].all(axis=0)


def _over_cap(all_codes: Ints, slate: Ints, slot: int, cap: Ints) -> NDArray[np.bool_]:
    """Candidates that would exceed a cap in some window around the slot, pinned items to come included."""
    column, window, most, _ = (int(number) for number in cap)
    codes = all_codes[:, column]
    over = np.zeros(len(codes), np.bool_)
    for start in range(max(0, slot - window + 1), slot + 1):
        inside = slate[start : start + window]
        inside = inside[inside >= 0]
        over |= (codes[:, None] == codes[inside]).sum(axis=1) + 1 > most
    return over


def _what_can_hold(rows: ConstraintRows) -> tuple[Kept | None, bool]:
    """The constraints that can hold together, the most important first, and whether the search was exhaustive."""
    work = np.array([BOUND])

    def kept(ranks: list[int]) -> Kept:
        chosen = np.zeros(len(rows.hard), np.bool_)
        chosen[ranks] = True
        caps, minima = (some[chosen[some[:, 3]]] for some in (rows.caps, rows.minima))
        return Kept(chosen, Completion(rows.codes, caps, minima, rows.pinned, work))

    every = kept(list(range(len(rows.hard))))
    if every.completion.possible():
        return every, True
    proven = every.completion.certain
    best: Kept | None = None
    for rank in range(len(rows.hard)):
        trial = kept([*([] if best is None else np.flatnonzero(best.ranks).tolist()), rank])
        best = trial if trial.completion.possible() else best
        proven = proven and trial.completion.certain
    return best, proven
