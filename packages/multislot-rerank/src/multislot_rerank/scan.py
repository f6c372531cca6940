"""Greedy and beam search by full scans: for utilities that can rise again, for dead ends, and to check the lazy kernel.

A penalty within a window forgets what has left it, so a utility can rise and the lazy bound no longer holds. Every slot
then scores all candidates, on cosines that are computed once for each placed item: O(N d) a slot and beam. The parts of
a utility are computed and summed as in ``lazy_greedy``, so that both give the same bits and break no tie differently.

A beam of width B keeps the B partial slates of largest summed utility; B = 1 is greedy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Floats, Ints, Vectors
from multislot_rerank.completion import Completion
from multislot_rerank.lazy_greedy import cosine_of, shrink, worth

__all__ = ["UNLIMITED", "Kept", "ScanProblem", "scan_slate"]

UNLIMITED = 0
"""Window that never forgets."""


@dataclass(frozen=True)
class ScanProblem:
    """What the kernels of ``lazy_greedy`` take, and windows.

    Attributes
    ----------
    static : ndarray, shape (N,)
    embeddings : ndarray, shape (N, d)
    inverse_norm : ndarray, shape (N,)
    weights : ndarray, shape (3,)
        Similarity weight, log-determinant weight, jitter.
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
    embeddings: Vectors
    inverse_norm: Floats
    weights: Floats
    similarity_window: int
    codes: Ints
    repeat_weight: Floats
    repeat_window: Ints
    caps: Ints
    pinned: Ints
    fresh: NDArray[np.bool_]
    fresh_quota: int


@dataclass(frozen=True)
class Kept:
    """Constraints that are never let go, with the look-ahead that makes it possible.

    Attributes
    ----------
    caps : ndarray of bool, shape (C,)
    quota : bool
    completion : Completion
        Of these constraints.
    """

    caps: NDArray[np.bool_]
    quota: bool
    completion: Completion


@dataclass(frozen=True)
class _Partial:
    """A slate in the making: items, utilities, cosines to each placed item, and the determinant's residuals."""

    items: tuple[int, ...]
    utilities: tuple[float, ...]
    cosines: Floats
    factor: Floats
    residual: Floats

    @property
    def total(self) -> float:
        return sum(self.utilities)


def scan_slate(problem: ScanProblem, beam: int, kept: Kept | None = None) -> tuple[Ints, Floats]:
    """Items and utilities of the best slate that a beam of that width finds.

    Without ``kept`` each slot lets go of what stands in its way there, the last cap first; with it, only candidates
    from which the kept constraints can still be completed are considered.
    """
    count, slots = len(problem.static), len(problem.pinned)
    empty = np.empty((count, 0))
    log_det = problem.weights[1] > 0
    factor = np.zeros((count if log_det else 1, slots))
    partials = [_Partial((), (), empty, factor, np.full(count, 1.0 + problem.weights[2]))]
    for slot in range(slots):
        grown = []
        for rank, partial in enumerate(partials):
            utility = _utilities(
                problem.static, partial.cosines, problem.similarity_window, partial.residual, problem.codes,
                problem.repeat_weight, problem.repeat_window, np.array(partial.items, np.int64), problem.weights,
            )  # fmt: skip
            best = _choices(problem, partial.items, slot, utility, beam, kept)
            grown += [(-(partial.total + float(utility[i])), rank, i, float(utility[i])) for i in best]
        grown.sort(key=lambda entry: entry[:3])
        partials = [_placed(problem, partials[rank], item, utility) for _, rank, item, utility in grown[:beam]]
    winner = partials[0]
    return np.array(winner.items, np.int64), np.array(winner.utilities)


@njit(cache=True, nogil=True)
def _utilities(  # type: ignore[no-untyped-def]
    static, cosines, similarity_window, residual, codes, repeat_weight, repeat_window, placed, weights
):
    """Utility of every candidate as the next item."""
    values = np.empty(static.size)
    recent = max(0, placed.size - similarity_window) if similarity_window > 0 else 0
    for i in range(static.size):
        nearest, repeat = 0.0, 0.0
        for j in range(recent, placed.size):
            nearest = max(nearest, cosines[i, j])
        for p in range(repeat_weight.size):
            seen = 0.0
            first = max(0, placed.size - repeat_window[p]) if repeat_window[p] > 0 else 0
            for j in range(first, placed.size):
                seen += codes[placed[j], p] == codes[i, p]
            repeat += repeat_weight[p] * seen
        values[i] = worth(static[i], nearest, repeat, residual[i], weights)
    return values


def _choices(
    problem: ScanProblem, items: tuple[int, ...], slot: int, utility: Floats, beam: int, kept: Kept | None
) -> list[int]:
    """The best candidates for a slot, at most ``beam``, under as many constraints as leave one."""
    if problem.pinned[slot] >= 0:
        return [int(problem.pinned[slot])]
    for allowed in _ever_looser(problem, items, slot, kept):
        candidates = np.flatnonzero(allowed)
        ordered = candidates[np.argsort(-utility[candidates], kind="stable")]
        found: list[int] = []
        for item in ordered.tolist():
            if len(found) == beam:
                break
            if kept is None or kept.completion.extends(items, item):
                found.append(item)
        if found:
            return found
    raise AssertionError("k is at most N: some candidate is free")


def _ever_looser(
    problem: ScanProblem, items: Sequence[int], slot: int, kept: Kept | None
) -> Iterator[NDArray[np.bool_]]:
    """Candidates under all constraints, then without the last cap, and so on; the quota last, what is kept never."""
    count, slots = len(problem.static), len(problem.pinned)
    free = np.ones(count, np.bool_)
    free[list(items)] = False
    free[problem.pinned[problem.pinned >= 0]] = False
    later = problem.pinned[slot:]
    missing = problem.fresh_quota - problem.fresh[list(items)].sum() - problem.fresh[later[later >= 0]].sum()
    must_be_fresh = problem.fresh_quota > 0 and missing >= (later < 0).sum()
    slate = np.concatenate([np.array(items, np.int64), problem.pinned[slot:]])
    keeps = [~_over_cap(problem, slate, slot, cap, slots) for cap in problem.caps]
    always = np.zeros(len(keeps), np.bool_) if kept is None else kept.caps
    for cap in np.flatnonzero(always):
        free &= keeps[cap]
    if must_be_fresh and kept is not None and kept.quota:
        free &= problem.fresh
    soft = np.flatnonzero(~always)
    quota = free & problem.fresh if must_be_fresh else free
    for count_kept in range(len(soft), -1, -1):
        allowed = quota.copy()
        for cap in soft[:count_kept]:
            allowed &= keeps[cap]
        yield allowed
    yield free


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


def _placed(problem: ScanProblem, partial: _Partial, item: int, utility: float) -> _Partial:
    """The partial slate with one more item."""
    factor, residual = partial.factor.copy(), partial.residual.copy()
    cosine = _advance(
        problem.embeddings, problem.inverse_norm, item, len(partial.items), factor, residual, problem.weights
    )
    return replace(
        partial,
        items=(*partial.items, item),
        utilities=(*partial.utilities, utility),
        cosines=np.column_stack([partial.cosines, cosine]),
        factor=factor,
        residual=residual,
    )


@njit(cache=True, nogil=True)
def _advance(embeddings, inverse_norm, item, step, factor, residual, weights):  # type: ignore[no-untyped-def]
    """Cosines to the item placed now, as the step-th; brings the residuals up to date."""
    cosine = np.zeros(inverse_norm.size)
    if weights[0] > 0.0 or weights[1] > 0.0:
        for i in range(inverse_norm.size):
            cosine[i] = cosine_of(embeddings, inverse_norm, i, item)
    if weights[1] > 0.0:
        root = np.sqrt(residual[item])
        for i in range(residual.size):
            residual[i] = shrink(residual[i], factor, i, item, step, cosine[i], root, weights[2])
    return cosine
