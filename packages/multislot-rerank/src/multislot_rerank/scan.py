"""Greedy and beam search by full scans, in numpy: for utilities that can rise again, and to check the lazy kernels.

A penalty within a window forgets what has left it, so a utility can rise and the lazy bound no longer holds. Every slot
then scores all candidates, on cosines that are computed once for each placed item: O(N d) a slot and beam.

A beam of width B keeps the B partial slates of largest summed utility; B = 1 is greedy.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.arrays import Floats, Ints

__all__ = ["ScanProblem", "scan_slate"]

UNLIMITED = 0
"""Window that never forgets."""


@dataclass(frozen=True)
class ScanProblem:
    """What the kernels of ``lazy_greedy`` take, and windows.

    Attributes
    ----------
    static : ndarray, shape (N,)
    unit : ndarray, shape (N, d)
        Embeddings of length 1 (or 0).
    similarity_weight, log_det_weight, jitter : float
    similarity_window : int
        Slots that MaxSimilarity looks back; 0 is all.
    codes : ndarray of int64, shape (N, P)
    repeat_weight : ndarray, shape (R,), and repeat_window : ndarray of int64, shape (R,)
        Of the first R attributes.
    caps : ndarray of int64, shape (C, 3)
        (attribute, window, count).
    pinned : ndarray of int64, shape (K,)
    fresh : ndarray of bool, shape (N,)
    fresh_quota : int
    """

    static: Floats
    unit: Floats
    similarity_weight: float
    similarity_window: int
    log_det_weight: float
    jitter: float
    codes: Ints
    repeat_weight: Floats
    repeat_window: Ints
    caps: Ints
    pinned: Ints
    fresh: NDArray[np.bool_]
    fresh_quota: int


@dataclass(frozen=True)
class _Partial:
    """A slate in the making: items, utilities, cosines to each placed item, and the determinant's residuals."""

    items: tuple[int, ...]
    utilities: tuple[float, ...]
    dropped: tuple[int, ...]
    cosines: Floats
    factor: Floats
    residual: Floats

    @property
    def total(self) -> float:
        return sum(self.utilities)


def scan_slate(problem: ScanProblem, beam: int) -> tuple[Ints, Floats, Ints]:
    """Items, utilities and dropped constraints of the best slate that a beam of that width finds."""
    count, slots = len(problem.static), len(problem.pinned)
    empty = np.empty((count, 0))
    partials = [_Partial((), (), (), empty, empty, np.full(count, 1.0 + problem.jitter))]
    for slot in range(slots):
        grown = []
        for rank, partial in enumerate(partials):
            utility = _utility(problem, partial)
            allowed, dropped = _allowed(problem, partial, slot)
            choices = np.flatnonzero(allowed)
            best = choices[np.argsort(-utility[choices], kind="stable")[:beam]]
            grown += [(-(partial.total + utility[i]), rank, int(i), float(utility[i]), dropped) for i in best]
        grown.sort(key=lambda entry: entry[:3])
        partials = [
            _placed(problem, partials[rank], item, utility, dropped) for _, rank, item, utility, dropped in grown[:beam]
        ]
    winner = partials[0]
    return np.array(winner.items, np.int64), np.array(winner.utilities), np.array(winner.dropped, np.int64)


def _utility(problem: ScanProblem, partial: _Partial) -> Floats:
    """Utility of every candidate as the next item."""
    value = problem.static.copy()
    placed = list(partial.items)
    if placed and problem.similarity_weight > 0:
        recent = partial.cosines[:, -problem.similarity_window :]
        value -= problem.similarity_weight * np.maximum(recent.max(axis=1), 0.0)
    for p, (weight, window) in enumerate(zip(problem.repeat_weight, problem.repeat_window, strict=True)):
        seen = problem.codes[placed[-window:], p] if placed else np.empty(0, np.int64)
        value -= weight * (problem.codes[:, p, None] == seen).sum(axis=1)
    if problem.log_det_weight > 0:
        value += problem.log_det_weight * np.log(partial.residual)
    return value


def _allowed(problem: ScanProblem, partial: _Partial, slot: int) -> tuple[NDArray[np.bool_], int]:
    """Candidates that may take the slot, and how many constraints had to be dropped to have any."""
    count, slots = len(problem.static), len(problem.pinned)
    if problem.pinned[slot] >= 0:
        return np.arange(count) == problem.pinned[slot], 0
    free = np.ones(count, np.bool_)
    free[list(partial.items)] = False
    free[problem.pinned[problem.pinned >= 0]] = False
    later = problem.pinned[slot:]
    missing = problem.fresh_quota - problem.fresh[list(partial.items)].sum() - problem.fresh[later[later >= 0]].sum()
    must_be_fresh = problem.fresh_quota > 0 and missing >= (later < 0).sum()
    slate = np.concatenate([np.array(partial.items, np.int64), problem.pinned[slot:]])
    blocked = [_over_cap(problem, slate, slot, cap, slots) for cap in problem.caps]
    for dropped in range(len(blocked) + 2):
        allowed = free.copy()
        for over in blocked[: max(len(blocked) - dropped, 0)]:
            allowed &= ~over
        if must_be_fresh and dropped <= len(blocked):
            allowed &= problem.fresh
        if allowed.any():
            break
    return allowed, dropped


def _over_cap(problem: ScanProblem, slate: Ints, slot: int, cap: Ints, slots: int) -> NDArray[np.bool_]:
    """Candidates that would exceed a cap in some window around the slot, pinned items to come included."""
    attribute, window, most = (int(number) for number in cap)
    codes = problem.codes[:, attribute]
    over = np.zeros(len(codes), np.bool_)
    for start in range(max(0, slot - window + 1), slot + 1):
        inside = slate[start : min(start + window, slots)]
        inside = inside[inside >= 0]
        over |= (codes[:, None] == codes[inside]).sum(axis=1) + 1 > most
    return over


def _placed(problem: ScanProblem, partial: _Partial, item: int, utility: float, dropped: int) -> _Partial:
    """The partial slate with one more item."""
    cosine = problem.unit @ problem.unit[item]
    cosine[cosine > 1.0 - 1e-14] = 1.0
    factor, residual = partial.factor, partial.residual
    if problem.log_det_weight > 0:
        column = (cosine - factor @ factor[item]) / np.sqrt(residual[item])
        factor = np.column_stack([factor, column])
        residual = np.maximum(residual - column**2, problem.jitter)
    return replace(
        partial,
        items=(*partial.items, item),
        utilities=(*partial.utilities, utility),
        dropped=(*partial.dropped, dropped),
        cosines=np.column_stack([partial.cosines, cosine]),
        factor=factor,
        residual=residual,
    )
