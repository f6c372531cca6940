"""The sequential greedy algorithm: fill the slots one after the other, each with the item of largest utility now.

    s_k = argmax_{i not in S} u_i(S),   S = {s_1 .. s_k-1},   under the constraints;   ties to the lower index.

Our formulation of the paper's linear-time algorithm: the context of a candidate is kept up to date by one cosine for
each item placed, and only for candidates that can still win. Objectives and constraints are data, so that a reranker is
immutable and one instance serves any number of threads. Windows in the objectives and beams go through full scans.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.candidates import Candidates
from multislot_rerank.constraints import Constraint, FreshQuota, MaxPerWindow, MinGap, Pin
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import lazy_sga
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
        Slots in which a constraint had to be dropped, and which.
    """

    items: Ints
    utilities: Floats
    relaxed: tuple[tuple[int, Constraint], ...] = ()


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
        By importance: where none fits, the last is dropped first.
    beam : int
        Partial slates kept while filling; 1 is greedy, more can only find a larger summed utility at a higher cost.

    Raises
    ------
    InvalidInput
        If ``k < 1``, an objective comes twice, a pin lies outside the slate or two pins share an item or a slot.

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
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise InvalidInput(f"{name}={value!r} must be at least 1, a whole number")
        once = [
            f"AttributeRepeat of {objective.attribute}"
            if isinstance(objective, AttributeRepeat)
            else type(objective).__name__
            for objective in self.objectives
        ]
        for kind in once:
            if once.count(kind) > 1:
                raise InvalidInput(f"objectives has {kind} twice; keep one")
        quotas = [constraint for constraint in self.constraints if isinstance(constraint, FreshQuota)]
        if len(quotas) > 1:
            raise InvalidInput("constraints has FreshQuota twice; keep one")
        pins = [constraint for constraint in self.constraints if isinstance(constraint, Pin)]
        for name, numbers in (("slot", [pin.slot for pin in pins]), ("item", [pin.item for pin in pins])):
            if len(set(numbers)) < len(numbers):
                raise InvalidInput(f"constraints: two pins share one {name}")
        for pin in pins:
            if not 0 <= pin.slot < self.k:
                raise InvalidInput(f"Pin: slot={pin.slot} is outside the {self.k} slots")

    def rerank(self, candidates: Candidates) -> Slate:
        """Choose and order ``k`` of the candidates.

        Raises
        ------
        InvalidInput
            If there are fewer than ``k`` candidates, or an objective or constraint needs a field they do not have.
        """
        if len(candidates) < self.k:
            raise InvalidInput(f"k={self.k} is more than the {len(candidates)} candidates; lower k or add candidates")
        if self.beam > 1 or any(getattr(objective, "window", None) for objective in self.objectives):
            items, utilities, dropped = scan_slate(self.scan_problem(candidates), self.beam)
            return Slate(items, utilities, self._relaxed(dropped))
        codes, repeat_weight, column = self._codes(candidates)
        fresh, quota = self._fresh(candidates)
        items, utilities, dropped = lazy_sga(
            self._static(candidates),
            candidates.embeddings,
            candidates.inverse_norm,
            self._context_weights(candidates),
            codes,
            repeat_weight,
            self._pinned(candidates),
            self._caps(column),
            fresh,
            quota,
        )
        return Slate(items, utilities, self._relaxed(dropped))

    def scan_problem(self, candidates: Candidates) -> ScanProblem:
        """The request as the numpy scan takes it (``scan``): the twin of the compiled kernel."""
        assert candidates.embeddings is not None
        codes, repeat_weight, column = self._codes(candidates)
        fresh, quota = self._fresh(candidates)
        weights = self._context_weights(candidates)
        windows = dict.fromkeys(list(column)[: len(repeat_weight)], UNLIMITED)
        similarity_window = UNLIMITED
        for objective in self.objectives:
            if isinstance(objective, AttributeRepeat):
                windows[objective.attribute] = objective.window or UNLIMITED
            elif isinstance(objective, MaxSimilarity):
                similarity_window = objective.window or UNLIMITED
        return ScanProblem(
            static=self._static(candidates),
            unit=candidates.embeddings * candidates.inverse_norm[:, None],
            similarity_weight=float(weights[0]),
            similarity_window=similarity_window,
            log_det_weight=float(weights[1]),
            jitter=float(weights[2]),
            codes=codes,
            repeat_weight=repeat_weight,
            repeat_window=np.array(list(windows.values()), np.int64),
            caps=self._caps(column),
            pinned=self._pinned(candidates),
            fresh=fresh,
            fresh_quota=quota,
        )

    def rerank_batch(self, requests: Iterable[Candidates], threads: int = 1) -> list[Slate]:
        """Re-rank many requests; the kernel releases the interpreter lock, so threads share the cores."""
        if threads < 1:
            raise InvalidInput(f"threads={threads} must be at least 1")
        if threads == 1:
            return [self.rerank(request) for request in requests]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.rerank, requests))

    def _static(self, candidates: Candidates) -> Floats:
        total = np.zeros(len(candidates))
        for objective in self.objectives:
            if isinstance(objective, Relevance):
                if len(objective.weights) != candidates.scores.shape[1]:
                    raise InvalidInput(
                        f"Relevance has {len(objective.weights)} weights for {candidates.scores.shape[1]} score columns"
                    )
                total += candidates.scores @ np.asarray(objective.weights, np.float64)
            elif isinstance(objective, Freshness):
                total += objective.weight * np.exp2(-_age("Freshness", candidates) / objective.half_life_s)
        return total

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

    def _codes(self, candidates: Candidates) -> tuple[Ints, Floats, dict[str, int]]:
        """Columns of attribute codes: those with a repeat weight first."""
        weights: dict[str, float] = {}
        for objective in self.objectives:
            if isinstance(objective, AttributeRepeat):
                weights[objective.attribute] = objective.weight
        names = list(weights)
        for constraint in self.constraints:
            if isinstance(constraint, MaxPerWindow | MinGap) and constraint.attribute not in names:
                names.append(constraint.attribute)
        for name in names:
            if name not in candidates.codes:
                known = ", ".join(candidates.codes) or "none"
                raise InvalidInput(f"candidates have no attribute {name!r}; they have {known}")
        codes = np.empty((len(candidates), len(names)), np.int64)
        for column, name in enumerate(names):
            codes[:, column] = candidates.codes[name]
        return codes, np.array(list(weights.values()), np.float64), {name: column for column, name in enumerate(names)}

    def _caps(self, column: dict[str, int]) -> Ints:
        rows = [
            (column[c.attribute], c.gap, 1) if isinstance(c, MinGap) else (column[c.attribute], c.window, c.count)
            for c in self.constraints
            if isinstance(c, MaxPerWindow | MinGap)
        ]
        return np.array(rows, np.int64).reshape(-1, 3)

    def _pinned(self, candidates: Candidates) -> Ints:
        pinned = np.full(self.k, -1, np.int64)
        for constraint in self.constraints:
            if isinstance(constraint, Pin):
                if not 0 <= constraint.item < len(candidates):
                    raise InvalidInput(f"Pin: item={constraint.item} is not one of the {len(candidates)} candidates")
                pinned[constraint.slot] = constraint.item
        return pinned

    def _fresh(self, candidates: Candidates) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], int]:
        for constraint in self.constraints:
            if isinstance(constraint, FreshQuota):
                return _age("FreshQuota", candidates) <= constraint.max_age_s, constraint.count
        return np.zeros(len(candidates), np.bool_), 0

    def _relaxed(self, dropped: Ints) -> tuple[tuple[int, Constraint], ...]:
        """Name what each slot dropped: caps from the last, then the quota."""
        caps = [c for c in self.constraints if isinstance(c, MaxPerWindow | MinGap)]
        order: list[Constraint] = [*reversed(caps), *(c for c in self.constraints if isinstance(c, FreshQuota))]
        return tuple((slot, order[n]) for slot, count in enumerate(dropped.tolist()) for n in range(count))


def _age(needed_by: str, candidates: Candidates) -> Floats:
    if candidates.age_s is None:
        raise InvalidInput(f"candidates have no age_s, which {needed_by} needs")
    return candidates.age_s
