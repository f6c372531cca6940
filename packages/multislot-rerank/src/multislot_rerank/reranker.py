"""The sequential greedy algorithm: fill the slots one after the other, each with the item of largest utility now.

    s_k = argmax_{i not in S} u_i(S),   S = {s_1 .. s_k-1},   under the constraints;   ties to the lower index.

Our formulation of the paper's linear-time algorithm: the context of a candidate is kept up to date by one cosine for
each item placed, and only for candidates that can still win. Objectives and constraints are data, so that a reranker is
immutable and one instance serves any number of threads. Windows in the objectives and beams go through full scans.

Under constraints i ranges over the candidates from which the slate can still be completed (see ``look_ahead``).
"""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from multislot_rerank.admission import instance, members, whole
from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.candidates import Candidates
from multislot_rerank.constraint_rows import ages, checked_constraints, constraint_rows
from multislot_rerank.constraints import Constraint
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import lazy_sga
from multislot_rerank.look_ahead import keep_where_possible
from multislot_rerank.objectives import (
    AttributeRepeat,
    Freshness,
    LogDeterminant,
    MaxSimilarity,
    Objective,
    Relevance,
)
from multislot_rerank.scan import UNLIMITED, ScanProblem, scan_slate

__all__ = ["SequentialGreedyReranker", "Slate"]


@dataclass(frozen=True)
class Slate:
    """A slate, best slot first.

    Attributes
    ----------
    items : ndarray of int64, shape (K,)
        Candidate numbers.
    utilities : ndarray, shape (K,)
        Utility of each item when it was placed.
    relaxed : tuple of (int, Constraint)
        Every constraint that the slate breaks, by the slot where it does (see ``violations``).
    proven : bool
        That what is relaxed, but for soft constraints, could not have been kept: the constraints cannot all hold in any
        slate, and a constraint that was given up not with the more important ones kept. False where the search for such
        a slate ended at its bound.
    """

    items: Ints
    utilities: Floats
    relaxed: tuple[tuple[int, Constraint], ...] = ()
    proven: bool = True


@dataclass(frozen=True)
class SequentialGreedyReranker:
    """Re-rank candidates into a slate of ``k`` slots.

    Parameters
    ----------
    objectives : sequence of Objective
        Terms of the utility; at most one of each kind, AttributeRepeat one an attribute.
    k : int
        Slots.
    constraints : sequence of Constraint
        By importance (see ``constraints``): kept wherever they can hold together, else the last is let go first.
    beam : int
        Partial slates kept while filling; 1 is greedy, more can only find a larger summed utility at a higher cost.

    Raises
    ------
    InvalidInput
        If ``k < 1``, something is no objective or no constraint, an objective comes twice, a pin lies outside the slate
        or two pins share an item or a slot.

    Examples
    --------
    >>> reranker = SequentialGreedyReranker([Relevance(), AttributeRepeat("creator", 0.3)], k=3)
    >>> candidates = Candidates(scores=[0.9, 0.8, 0.7], attributes={"creator": ["ann", "ann", "bob"]})
    >>> reranker.rerank(candidates).items
    array([0, 2, 1])
    """

    objectives: Sequence[Objective]
    k: int
    constraints: Sequence[Constraint] = ()
    beam: int = 1

    def __post_init__(self) -> None:
        for name in ("k", "beam"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        object.__setattr__(self, "objectives", members("objectives", self.objectives, Objective))
        object.__setattr__(self, "constraints", checked_constraints(self.constraints, self.k))
        once = [
            f"AttributeRepeat of {objective.attribute}"
            if isinstance(objective, AttributeRepeat)
            else type(objective).__name__
            for objective in self.objectives
        ]
        for kind in once:
            if once.count(kind) > 1:
                raise InvalidInput(f"objectives has {kind} twice; keep one")

    def rerank(self, candidates: Candidates) -> Slate:
        """Choose and order ``k`` of the candidates.

        Raises
        ------
        InvalidInput
            If there are fewer than ``k`` candidates, an objective or constraint needs a field they do not have, or
            utilities could leave the range of doubles.
        """
        instance("candidates", candidates, Candidates)
        if len(candidates) < self.k:
            raise InvalidInput(f"k={self.k} is more than the {len(candidates)} candidates; lower k or add candidates")
        problem = self.scan_problem(candidates)
        rows = problem.rows
        if self.beam > 1 or problem.similarity_window or problem.repeat_window.any() or rows.soft:
            items, utilities = scan_slate(problem, self.beam)
        else:
            items, utilities = lazy_sga(
                problem.static,
                problem.embeddings,
                problem.inverse_norm,
                problem.weights,
                rows.codes,
                problem.repeat_weight,
                rows.pinned,
                rows.caps,
                rows.minima,
            )
        if not self.constraints:
            return Slate(items, utilities)
        kept = keep_where_possible(problem.rows, (items, utilities), lambda kept: scan_slate(problem, self.beam, kept))
        return Slate(kept.items, kept.utilities, kept.relaxed, kept.proven)

    def scan_problem(self, candidates: Candidates) -> ScanProblem:
        """The request as arrays: what the lazy kernel takes, and its twin, the scan."""
        assert candidates.embeddings is not None
        repeats = [objective for objective in self.objectives if isinstance(objective, AttributeRepeat)]
        similarity_window = UNLIMITED
        for objective in self.objectives:
            if isinstance(objective, MaxSimilarity):
                similarity_window = min(objective.window or UNLIMITED, self.k)
        weights = self._context_weights(candidates)
        rows = constraint_rows(self.constraints, candidates, self.k, [repeat.attribute for repeat in repeats])
        charged = sum(repeat.weight for repeat in repeats) * self.k + sum(rows.prices)
        return ScanProblem(
            static=self._static(candidates, charged, weights),
            embeddings=candidates.embeddings,
            inverse_norm=candidates.inverse_norm,
            weights=weights,
            similarity_window=similarity_window,
            repeat_weight=np.array([repeat.weight for repeat in repeats]),
            repeat_window=np.array([min(repeat.window or UNLIMITED, self.k) for repeat in repeats], np.int64),
            rows=rows,
        )

    def rerank_batch(self, requests: Iterable[Candidates], threads: int = 1) -> list[Slate]:
        """Re-rank many requests; the kernel releases the interpreter lock, so threads share the cores."""
        whole("threads", threads, 1)
        given = members("requests", requests, Candidates)
        if threads == 1:
            return [self.rerank(request) for request in given]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.rerank, given))

    def _static(self, candidates: Candidates, charged: float, context: Floats) -> Floats:
        """What is known before the first slot; refuses utilities that could overflow as the slate is filled."""
        total, weights = np.zeros(len(candidates)), np.zeros(candidates.scores.shape[1])
        others = float(context[0]) + charged
        if context[1] > 0:
            others += float(context[1]) * max(-math.log(context[2]), math.log1p(context[2]))
        with np.errstate(over="ignore", invalid="ignore"):
            for objective in self.objectives:
                if isinstance(objective, Relevance):
                    if len(objective.weights) != len(weights):
                        raise InvalidInput(
                            f"Relevance has {len(objective.weights)} weights for {len(weights)} score columns"
                        )
                    weights = np.array(objective.weights)
                    # column by column: a matrix product may round equal rows differently, and so order ties
                    for column, weight in zip(candidates.scores.T, objective.weights, strict=True):
                        total += weight * column
                elif isinstance(objective, Freshness):
                    total += objective.weight * np.exp2(-ages("Freshness", candidates) / objective.half_life_s)
                    others += objective.weight
        self._refuse_overflow(candidates.scores, weights, others)
        return total

    def _refuse_overflow(self, scores: Floats, weights: Floats, others: float) -> None:
        """Any order of the terms stays finite where the sum of their magnitudes does (a beam adds k utilities)."""
        summed = self.k if self.beam > 1 else 1
        if math.isfinite((float(np.abs(scores).max()) * float(np.abs(weights).sum()) + others) * summed):
            return
        with np.errstate(over="ignore"):
            unbounded = ~np.isfinite((np.abs(scores) @ np.abs(weights) + others) * summed)
        if unbounded.any():
            raise InvalidInput(
                f"objectives: weights times values of candidate {int(np.argmax(unbounded))} can leave the range of "
                "doubles (1.8e308); scale weights or scores down"
            )

    def _context_weights(self, candidates: Candidates) -> Floats:
        weights = np.zeros(3)
        for objective in self.objectives:
            if isinstance(objective, MaxSimilarity):
                weights[0] = objective.weight
            elif isinstance(objective, LogDeterminant):
                weights[1:] = objective.weight, objective.jitter
        if weights.any() and candidates.embeddings is not None and candidates.embeddings.shape[1] == 0:
            raise InvalidInput("candidates have no embeddings, which MaxSimilarity and LogDeterminant need")
        return weights
