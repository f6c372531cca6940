"""The sequential greedy algorithm: fill the slots one after the other, each with the item of largest utility now.

    s_k = argmax_{i not in S} u_i(S),   S = {s_1 .. s_k-1},   under the constraints;   ties to the lower index.

Our formulation of the paper's linear-time algorithm: the context of a candidate is kept up to date by one cosine for
each item placed, and only for candidates that can still win. Objectives and constraints are data, so that a reranker is
immutable and one instance serves any number of threads. Windows in the objectives and beams go through full scans.

Under constraints i ranges over the candidates from which the slate can still be completed. Greedy first runs with the
constraints checked slot by slot; a slate that breaks none is that argmax, as its own end is the completion. Only one
that breaks some is searched for again, with a look-ahead (see ``completion``).
"""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.admission import instance, members, whole
from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.candidates import Candidates
from multislot_rerank.completion import BOUND, Completion
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
from multislot_rerank.scan import UNLIMITED, Kept, ScanProblem, scan_slate
from multislot_rerank.violations import broken_slots

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
        That what is relaxed could not have been kept: the constraints cannot all hold in any slate, and a constraint
        that was given up not with the more important ones kept. False where the search for such a slate ended at its
        bound.
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
        for name, kinds in (("objectives", Objective), ("constraints", Constraint)):
            object.__setattr__(self, name, members(name, getattr(self, name), kinds))
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
            If there are fewer than ``k`` candidates, an objective or constraint needs a field they do not have, or
            utilities could leave the range of doubles.
        """
        instance("candidates", candidates, Candidates)
        if len(candidates) < self.k:
            raise InvalidInput(f"k={self.k} is more than the {len(candidates)} candidates; lower k or add candidates")
        problem = self.scan_problem(candidates)
        if self.beam > 1 or problem.similarity_window or problem.repeat_window.any():
            items, utilities = scan_slate(problem, self.beam)
        else:
            items, utilities = lazy_sga(
                problem.static,
                problem.embeddings,
                problem.inverse_norm,
                problem.weights,
                problem.codes,
                problem.repeat_weight,
                problem.pinned,
                problem.caps,
                problem.fresh,
                problem.fresh_quota,
            )
        return self._kept_where_possible(problem, items, utilities) if self.constraints else Slate(items, utilities)

    def scan_problem(self, candidates: Candidates) -> ScanProblem:
        """The request as arrays: what the lazy kernel takes, and its twin, the scan."""
        assert candidates.embeddings is not None
        codes, repeat_weight, column = self._codes(candidates)
        fresh, quota = self._fresh(candidates)
        windows = dict.fromkeys(list(column)[: len(repeat_weight)], UNLIMITED)
        similarity_window = UNLIMITED
        for objective in self.objectives:
            if isinstance(objective, AttributeRepeat):
                windows[objective.attribute] = min(objective.window or UNLIMITED, self.k)
            elif isinstance(objective, MaxSimilarity):
                similarity_window = min(objective.window or UNLIMITED, self.k)
        weights = self._context_weights(candidates)
        return ScanProblem(
            static=self._static(candidates, sum(repeat_weight.tolist()), weights),
            embeddings=candidates.embeddings,
            inverse_norm=candidates.inverse_norm,
            weights=weights,
            similarity_window=similarity_window,
            codes=codes,
            repeat_weight=repeat_weight,
            repeat_window=np.array(list(windows.values()), np.int64),
            caps=self._caps(column),
            pinned=self._pinned(candidates),
            fresh=fresh,
            fresh_quota=quota,
        )

    def _kept_where_possible(self, problem: ScanProblem, items: Ints, utilities: Floats) -> Slate:
        """The slate, or, where it breaks a constraint, the one that keeps all that can hold together."""
        proven = True
        broken = broken_slots(items, problem.codes, problem.caps, problem.fresh, problem.fresh_quota)
        if broken.any():
            kept, proven = _what_can_hold(problem)
            if kept is not None:
                items, utilities = scan_slate(problem, self.beam, kept)
                proven = proven and kept.completion.certain
            broken = broken_slots(items, problem.codes, problem.caps, problem.fresh, problem.fresh_quota)
        return Slate(items, utilities, self._relaxed(broken), proven or not broken.any())

    def rerank_batch(self, requests: Iterable[Candidates], threads: int = 1) -> list[Slate]:
        """Re-rank many requests; the kernel releases the interpreter lock, so threads share the cores."""
        whole("threads", threads, 1)
        given = members("requests", requests, Candidates)
        if threads == 1:
            return [self.rerank(request) for request in given]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.rerank, given))

    def _static(self, candidates: Candidates, repeat: float, context: Floats) -> Floats:
        """What is known before the first slot; refuses utilities that could overflow as the slate is filled."""
        total, weights = np.zeros(len(candidates)), np.zeros(candidates.scores.shape[1])
        others = float(context[0]) + repeat * self.k
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
                    total += objective.weight * np.exp2(-_age("Freshness", candidates) / objective.half_life_s)
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
            (column[c.attribute], min(c.gap, self.k), 1)
            if isinstance(c, MinGap)
            else (column[c.attribute], min(c.window, self.k), min(c.count, self.k))
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

    def _fresh(self, candidates: Candidates) -> tuple[NDArray[np.bool_], int]:
        for constraint in self.constraints:
            if isinstance(constraint, FreshQuota):
                return _age("FreshQuota", candidates) <= constraint.max_age_s, min(constraint.count, self.k + 1)
        return np.zeros(len(candidates), np.bool_), 0

    def _relaxed(self, broken: NDArray[np.bool_]) -> tuple[tuple[int, Constraint], ...]:
        """Name what each slot breaks, caps in the order of the list, then the quota."""
        order: list[Constraint] = [c for c in self.constraints if isinstance(c, MaxPerWindow | MinGap)]
        order += [c for c in self.constraints if isinstance(c, FreshQuota)]
        return tuple((int(slot), order[c]) for slot, c in np.argwhere(broken))


def _what_can_hold(problem: ScanProblem) -> tuple[Kept | None, bool]:
    """The constraints that can hold together, the most important first, and whether the search was exhaustive."""
    work = np.array([BOUND])

    def kept(caps: list[int], quota: bool) -> Kept:
        chosen = np.zeros(len(problem.caps), np.bool_)
        chosen[caps] = True
        completion = Completion(
            problem.codes,
            problem.caps[chosen],
            problem.pinned,
            problem.fresh,
            problem.fresh_quota if quota else 0,
            work,
        )
        return Kept(chosen, quota, completion)

    every = kept(list(range(len(problem.caps))), problem.fresh_quota > 0)
    if every.completion.possible():
        return every, True
    proven = every.completion.certain
    best: Kept | None = None
    if problem.fresh_quota > 0:
        trial = kept([], True)
        best = trial if trial.completion.possible() else None
        proven = proven and trial.completion.certain
    for cap in range(len(problem.caps)):
        caps, quota = ([], False) if best is None else (np.flatnonzero(best.caps).tolist(), best.quota)
        trial = kept([*caps, cap], quota)
        best = trial if trial.completion.possible() else best
        proven = proven and trial.completion.certain
    return best, proven


def _age(needed_by: str, candidates: Candidates) -> Floats:
    if candidates.age_s is None:
        raise InvalidInput(f"candidates have no age_s, which {needed_by} needs")
    return candidates.age_s
