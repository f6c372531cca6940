"""Greedy and beam search by full scans: for utilities that can rise again, dead ends, prices; to check the lazy kernel.

A penalty within a window forgets what has left it, so a utility can rise and the lazy bound no longer holds. Every slot
then scores all candidates, on cosines that are computed once for each placed item: O(N d) a slot and beam. The parts of
a utility are computed and summed as in ``lazy_greedy``, so that both give the same bits and break no tie differently.

A beam of width B keeps the B partial slates of largest summed utility; B = 1 is greedy.
"""

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from multislot_rerank.arrays import Floats, Ints, Vectors
from multislot_rerank.constraint_rows import ConstraintRows
from multislot_rerank.lazy_greedy import cosine_of, shrink, worth
from multislot_rerank.look_ahead import Kept, charges, choices

__all__ = ["UNLIMITED", "ScanProblem", "scan_slate"]

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
    repeat_weight : ndarray, shape (R,), and repeat_window : ndarray of int64, shape (R,)
        Of the first R columns of ``rows.codes``.
    rows : ConstraintRows
    """

    static: Floats
    embeddings: Vectors
    inverse_norm: Floats
    weights: Floats
    similarity_window: int
    repeat_weight: Floats
    repeat_window: Ints
    rows: ConstraintRows


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

    Without ``kept`` each slot lets go of what stands in its way there, the last constraint first; with it, only
    candidates from which the kept constraints can still be completed are considered.
    """
    count, slots = len(problem.static), len(problem.rows.pinned)
    empty = np.empty((count, 0))
    log_det = problem.weights[1] > 0
    factor = np.zeros((count if log_det else 1, slots))
    partials = [_Partial((), (), empty, factor, np.full(count, 1.0 + problem.weights[2]))]
    for slot in range(slots):
        grown = []
        for rank, partial in enumerate(partials):
            utility = _utilities(
                problem.static, partial.cosines, problem.similarity_window, partial.residual, problem.rows.codes,
                problem.repeat_weight, problem.repeat_window, np.array(partial.items, np.int64), problem.weights,
            )  # fmt: skip
            if problem.rows.soft:
                utility -= charges(problem.rows, partial.items, slot)
            best = choices(problem.rows, partial.items, slot, utility, beam, kept)
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
