r"""Answers where one scale does not suit the data: sentinels, offsets, mixed magnitudes, nearly contradictory rows.

Every slot is filled, so Σ_i e_i = V = Σ_j v_j for the exposures e of every lottery, and an offset may be taken off:

.. math:: L_k \le \sum_i a_{ki} e_i \le U_k \iff
          L_k - c_k V \le \sum_i (a_{ki} - c_k) e_i \le U_k - c_k V .

Rows are centred on a bound per unit of exposure, scores on the m-th largest, and both divided by their size (see
`fastlp_rank.certificate`). Items a thousand sizes away are set aside, the rest is solved, and the answer is proven
against all items or the items that break the proof are brought back. What still lacks a proof is tried with the bounds
moved out within ``feasibility_tol``, and then in rational arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fastlp_rank import proof
from fastlp_rank.certificate import ROUNDING, size_about
from fastlp_rank.exact import solve_exactly
from fastlp_rank.status import Status

__all__ = ["Answer", "Arrays", "Limits", "answer_untidy"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FAR = 1e3
"""Sizes from the centre beyond which an item is set aside at first: no ordinary price reaches that far."""
_CAP = 1e6
"""Sizes above the m-th score to which a larger one is lowered: such an item is shown first either way."""
_CEILING = 1e100
"""Larger quotients are cut to this before they overflow; a proof looks at the numbers as given."""
_ROUNDS = 6
"""How often items are brought back before rational arithmetic takes over."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """A problem as `solve_arrays` takes it."""

    u: Floats
    A: Floats
    lower: Floats
    upper: Floats
    v: Floats


@dataclass(frozen=True, eq=False)
class Limits:
    """How long to search, and what counts as proven."""

    max_pricings: int
    feasibility_tol: float


@dataclass(frozen=True, eq=False)
class Answer:
    """A lottery with prices, or with a ray where the rows are claimed to contradict each other.

    ``rest`` is what their rounding left out; the compiled kernel leaves none.
    """

    rankings: Ints
    weights: Floats
    prices: Floats
    ray: Floats
    rest: Floats
    pricings: int
    stopped: bool

    @property
    def infeasible(self) -> bool:
        """Whether the claim is a contradiction."""
        return bool(np.isfinite(self.ray).all()) and self.ray.size > 0


Kernel = Callable[[Arrays, Floats, int], Answer]
"""Solve scaled arrays, given the rows' units and the pricings that are left."""
Judge = Callable[[Answer], int]
"""Leave an answer, its objective and bound in the caller's workspace; return a verdict of `proof`."""


def answer_untidy(arrays: Arrays, limits: Limits, kernel: Kernel, judge: Judge, tried: Answer | None) -> Status:
    """Find a proven answer; the judge has seen last what the returned status is about."""
    scaled = _Scaled(arrays, limits)
    spent = 0 if tried is None else tried.pricings
    nearly: Answer | None = None
    known: set[tuple[int, ...]] = set()
    last: Answer | None = tried

    def search(widened: bool, exactly: bool) -> Status | None:
        nonlocal spent, nearly, last
        kept = np.arange(arrays.u.size) if exactly else scaled.near()
        for _ in range(1 if exactly else _ROUNDS):
            left = limits.max_pricings - spent
            if left < 1:
                return Status.LIMIT
            answer = (
                scaled.exactly(widened, sorted(known), left) if exactly else scaled.solve(kernel, kept, widened, left)
            )
            spent += answer.pricings
            answer = replace(answer, pricings=spent)
            verdict = judge(answer)
            if answer.infeasible and widened and verdict != proof.UNPROVEN:
                return None
            if verdict == proof.PROVEN:
                return Status.INFEASIBLE if answer.infeasible else Status.OPTIMAL
            if answer.stopped and spent >= limits.max_pricings:
                return Status.LIMIT
            last = answer
            if verdict == proof.NEARLY_FEASIBLE:
                nearly = answer
                return None
            known.update(map(tuple, answer.rankings.tolist()))
            more = scaled.breaking(answer, kept)
            if not more.size:
                return None
            kept = np.union1d(kept, more)
        return None

    if tried is not None and judge(tried) == proof.NEARLY_FEASIBLE:
        nearly = tried
    for widened, exactly in ((False, False), (True, False), (False, True), (True, True)):
        if nearly is not None and not widened:
            continue
        status = search(widened, exactly)
        if status is not None:
            return status
        if nearly is not None and exactly:
            break
    if nearly is not None:
        judge(nearly)
        return Status.INFEASIBLE
    assert last is not None
    judge(scaled.without_false_bound(last))
    return Status.NUMERICAL


class _Scaled:
    """Scores and rows about their centres, in their sizes."""

    def __init__(self, arrays: Arrays, limits: Limits) -> None:
        self.arrays = arrays
        self.limits = limits
        u, A, v = arrays.u, arrays.A, arrays.v
        K, m = A.shape[0], v.size
        self.exposure = sum(map(Fraction, v.tolist()), start=Fraction(0))
        total = float(self.exposure)
        cut = float(np.partition(u, u.size - m)[u.size - m])
        self.score_size = size_about(u, cut, m) or 1.0
        with np.errstate(over="ignore"):
            self.scores = np.clip((u - cut) / self.score_size, -_CEILING, _CAP)
        self.rows = np.zeros(A.shape)
        self.lower, self.upper = np.full(K, -np.inf), np.full(K, np.inf)
        self.row_size, self.margin = np.ones(K), np.zeros(K)
        for k in range(K):
            bounds = [b for b in (float(arrays.lower[k]), float(arrays.upper[k])) if np.isfinite(b)]
            sizes = [(size_about(A[k], b / total, m), b) for b in bounds]
            if not sizes or min(sizes)[0] == 0.0:
                continue  # no bound, or a row of zeros that is bounded by 0
            size, bound = min(sizes)
            self.row_size[k] = size
            centre = bound / total
            with np.errstate(over="ignore"):
                self.rows[k] = np.clip((A[k] - centre) / size, -_CEILING, _CEILING)
            self.margin[k] = 0.5 * max(limits.feasibility_tol * total, ROUNDING * abs(bound) / size)
            self.lower[k] = self._moved(float(arrays.lower[k]), centre, size)
            self.upper[k] = self._moved(float(arrays.upper[k]), centre, size)

    def _moved(self, bound: float, centre: float, size: float) -> float:
        """(bound - centre · V) / size, rounded once."""
        if not np.isfinite(bound):
            return bound
        return float((Fraction(bound) - Fraction(centre) * self.exposure) / Fraction(size))

    def near(self) -> Ints:
        """Items within reach of ordinary prices; all when too few are."""
        far = (self.scores < -_FAR) | (np.abs(self.rows) > _FAR).any(axis=0)
        kept = np.flatnonzero(~far)
        return kept if kept.size >= self.arrays.v.size else np.arange(far.size)

    def solve(self, kernel: Kernel, kept: Ints, widened: bool, left: int) -> Answer:
        """Solve for the kept items, and state the answer in the problem's units and items."""
        margin = self.margin if widened else 0.0
        found = kernel(
            Arrays(
                np.ascontiguousarray(self.scores[kept]),
                np.ascontiguousarray(self.rows[:, kept]),
                self.lower - margin,
                self.upper + margin,
                self.arrays.v,
            ),
            self.row_size,
            left,
        )
        return Answer(
            kept[found.rankings],
            found.weights,
            found.prices * (self.score_size / self.row_size),
            found.ray / self.row_size,
            found.rest,
            found.pricings,
            found.stopped,
        )

    def exactly(self, widened: bool, known: list[tuple[int, ...]], left: int) -> Answer:
        """Solve in rational arithmetic."""
        a = self.arrays
        margin = self.margin * self.row_size if widened else np.zeros(self.margin.size)
        vertex = solve_exactly(a.u, a.A, a.lower - margin, a.upper + margin, a.v, np.ones(margin.size), known, left)
        multiplier = np.array([float(x) for x in vertex.multipliers])
        # where huge entries cancel, the last bit of a float is not fine enough to prove anything
        rest = np.array([float(x - Fraction(y)) for x, y in zip(vertex.multipliers, multiplier.tolist(), strict=True)])
        nothing = np.full(multiplier.size, np.nan)
        infeasible = vertex.status is Status.INFEASIBLE
        weights = np.array(vertex.weights)
        return Answer(
            np.array(vertex.rankings, dtype=np.int64).reshape(-1, a.v.size),
            weights / weights.sum(),
            nothing if infeasible else multiplier,
            multiplier if infeasible else nothing,
            rest,
            vertex.pricings,
            vertex.status is Status.LIMIT,
        )

    def breaking(self, answer: Answer, kept: Ints) -> Ints:
        """Items set aside that the answer's prices would show."""
        a = self.arrays
        multiplier = (answer.ray if answer.infeasible else answer.prices) * self.row_size
        key = -(np.nan_to_num(multiplier) @ self.rows)
        if not answer.infeasible:
            key += self.scores * self.score_size
        aside = np.setdiff1d(np.arange(a.u.size), kept, assume_unique=True)
        shown = np.partition(key[kept], kept.size - a.v.size)[kept.size - a.v.size]
        more: Ints = aside[key[aside] >= shown]
        return more

    def without_false_bound(self, answer: Answer) -> Answer:
        """Replace prices that bound nothing (a ray's, or not finite) by 0."""
        good = not answer.infeasible and bool(np.isfinite(answer.prices).all())
        if good:
            return answer
        zeros = np.zeros(answer.prices.size)
        return replace(answer, prices=zeros, ray=np.full(zeros.size, np.nan), rest=zeros)
