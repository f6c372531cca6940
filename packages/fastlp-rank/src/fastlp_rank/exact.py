r"""Column generation in rational arithmetic: what answers where rounding stops the compiled kernel.

.. math:: \max \sum_p \alpha_p c(p) \;\; \text{s.t.} \;\; \sum_p \alpha_p A_k(p) = r_k,\; L_k \le r_k \le U_k,\;
          \sum_p \alpha_p = 1,\; \alpha \ge 0

Floats are whole multiples of a power of two, so scores, rows, bounds and slot weights become integers without loss. A
basis of K + 1 columns (rankings p, activities r_k) is kept with its inverse as fractions; phase 1 minimises the
violations first; Bland's rule takes over while steps have no length. Hundreds of times slower than the kernel; it gives
up rather than being wrong.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from heapq import nsmallest
from math import lcm

import numpy as np
from numpy.typing import NDArray

from fastlp_rank.status import Status

__all__ = ["Vertex", "solve_exactly"]

Floats = NDArray[np.float64]

_LONGEST = 2_000_000
"""Multiplications before giving up: some seconds."""
_IDLE = 40
"""Steps without length, per row of the basis, before giving up."""


@dataclass(frozen=True)
class Vertex:
    """Where the method stopped: a basis' rankings with their weights, and its multipliers (of phase 1: a ray)."""

    status: Status
    rankings: list[tuple[int, ...]]
    weights: list[float]
    multipliers: list[Fraction]
    pricings: int


def solve_exactly(
    u: Floats,
    A: Floats,
    lower: Floats,
    upper: Floats,
    v: Floats,
    violation_costs: Floats,
    known: list[tuple[int, ...]],
    max_pricings: int,
) -> Vertex:
    """Solve the problem that the floats state; phase 1 weighs a unit of row k's violation with ``violation_costs``."""
    master = _Master(u, A, lower, upper, v, violation_costs, known)
    return master.run(max_pricings)


def _integers(*arrays: Floats) -> tuple[list[list[int]], int]:
    """Multiply by the smallest power of two that makes every finite entry whole; entries, exponent."""
    ratios = [[x.as_integer_ratio() for x in array.ravel().tolist()] for array in arrays]
    shift = max((den.bit_length() - 1 for row in ratios for _, den in row), default=0)
    return [[num << (shift - den.bit_length() + 1) for num, den in row] for row in ratios], shift


@dataclass
class _Master:
    u: Floats
    A: Floats
    lower: Floats
    upper: Floats
    v: Floats
    violation_costs: Floats
    known: list[tuple[int, ...]]
    columns: list[list[int]] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    rankings: list[tuple[int, ...]] = field(default_factory=list)
    seen: set[tuple[int, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        (self.slots,), slot_shift = _integers(self.v)
        (self.scores,), self.score_shift = _integers(self.u)
        self.rows: list[list[int]] = []
        self.row_shifts: list[int] = []
        self.low: list[int | None] = []
        self.high: list[int | None] = []
        self.penalty: list[Fraction] = []
        for row, low, high, unit in zip(
            self.A, self.lower.tolist(), self.upper.tolist(), self.violation_costs.tolist(), strict=True
        ):
            (entries,), shift = _integers(row)
            bounds = [Fraction(b) * 2 ** (shift + slot_shift) if abs(b) < np.inf else None for b in (low, high)]
            extra = max((b.denominator.bit_length() - 1 for b in bounds if b is not None), default=0)
            self.rows.append([x << extra for x in entries])
            self.row_shifts.append(shift + extra)
            whole = [None if b is None else int(b * 2**extra) for b in bounds]
            self.low.append(whole[0])
            self.high.append(whole[1])
            self.penalty.append(Fraction(unit) / 2 ** (shift + extra + slot_shift))
        self.K = len(self.rows)
        self.work = 0

    def add(self, ranking: tuple[int, ...]) -> int:
        """Put a ranking into the pool."""
        self.seen.add(ranking)
        self.rankings.append(ranking)
        placed = list(zip(self.slots, ranking, strict=True))
        self.values.append(sum(w * self.scores[i] for w, i in placed))
        self.columns.append([sum(w * row[i] for w, i in placed) for row in self.rows])
        return len(self.rankings) - 1

    def best_ranking(self, prices: list[Fraction], with_scores: bool) -> tuple[int, ...]:
        """Top m items by u_i - Σ λ_k a_ki, over a common denominator."""
        common = 1
        for price in prices:
            common = lcm(common, price.denominator)
        key = [common * s for s in self.scores] if with_scores else [0] * len(self.scores)
        for price, row in zip(prices, self.rows, strict=True):
            factor = int(price * common)
            if factor:
                key = [x - factor * a for x, a in zip(key, row, strict=True)]
        self.work += len(key) * (self.K + 1)
        return tuple(nsmallest(len(self.slots), range(len(key)), key=lambda i: (-key[i], i)))

    def run(self, max_pricings: int) -> Vertex:
        """Pivot until nothing improves."""
        K = self.K
        zero, one = Fraction(0), Fraction(1)
        pricings = 1
        start = self.add(self.best_ranking([zero] * K, True))
        for ranking in self.known:
            if ranking not in self.seen:
                self.add(ranking)
        # a basic variable is a ranking p >= 0 or an activity -1 - k; all activities start in the basis
        basis = [-1 - k for k in range(K)] + [start]
        at_upper: dict[int, bool] = {}
        inverse = [[-one if i == j else zero for j in range(K)] + [Fraction(self.columns[start][i])] for i in range(K)]
        inverse.append([zero] * K + [one])
        x = [Fraction(a) for a in self.columns[start]] + [one]
        idle = 0
        gone: dict[int, int] = {}
        while True:
            outside = [self._outside(b, value) for b, value in zip(basis, x, strict=True)]
            feasible = not any(outside)
            # an activity that has left its bound outward counts as outside even before it has moved
            gone = {} if feasible else gone
            outside = [side or gone.get(b, 0) for b, side in zip(basis, outside, strict=True)]
            cost = [
                (Fraction(self.values[b]) if feasible else zero) if b >= 0 else side * -self._cost(b)
                for b, side in zip(basis, outside, strict=True)
            ]
            y = [sum((c * row[j] for c, row in zip(cost, inverse, strict=True) if c), start=zero) for j in range(K + 1)]
            self.work += 2 * (K + 1) ** 2
            if self.work > _LONGEST or idle > _IDLE * (K + 1):
                return self._vertex(Status.NUMERICAL, basis, x, y, feasible, pricings)
            entering, direction = self._enter(basis, at_upper, y, feasible, bland=idle > 2 * K + 10)
            if entering is None:
                if pricings >= max_pricings:
                    return self._vertex(Status.LIMIT, basis, x, y, feasible, pricings)
                ranking = self.best_ranking(y[:K], feasible)
                pricings += 1
                if ranking in self.seen:
                    status = Status.OPTIMAL if feasible else Status.INFEASIBLE
                    return self._vertex(status, basis, x, y, feasible, pricings)
                self.add(ranking)
                continue
            column = self.columns[entering] + [1] if entering >= 0 else None
            if column is None:
                d = [-row[-1 - entering] for row in inverse]
            else:
                d = [sum((r * c for r, c in zip(row, column, strict=True) if c), start=zero) for row in inverse]
            step, leaving, to_upper = self._ratio(basis, at_upper, x, outside, d, direction, entering)
            idle = idle + 1 if step == 0 else 0
            x = [value - step * direction * di for value, di in zip(x, d, strict=True)]
            if leaving is None:  # an activity goes from one of its bounds to the other
                at_upper[entering] = not at_upper[entering]
                continue
            if entering >= 0:
                x[leaving] = step
            else:
                fixed = self.low[-1 - entering] == self.high[-1 - entering]
                if fixed or (direction > 0) == at_upper[entering]:
                    gone[entering] = direction
                bound = self.high[-1 - entering] if at_upper.pop(entering) else self.low[-1 - entering]
                assert bound is not None
                x[leaving] = bound + step * direction
            left = basis[leaving]
            basis[leaving] = entering
            if left < 0:
                at_upper[left] = to_upper
                gone.pop(left, None)
            pivot = [value / d[leaving] for value in inverse[leaving]]
            inverse = [
                pivot if i == leaving else [a - d[i] * p if p and d[i] else a for a, p in zip(row, pivot, strict=True)]
                for i, row in enumerate(inverse)
            ]
            self.work += 2 * (K + 1) ** 2

    def _cost(self, variable: int) -> Fraction:
        return self.penalty[-1 - variable]

    def _outside(self, variable: int, value: Fraction) -> int:
        """-1 below its lower bound, +1 above its upper one, 0 within."""
        if variable >= 0:
            return 0
        low, high = self.low[-1 - variable], self.high[-1 - variable]
        return -1 if low is not None and value < low else 1 if high is not None and value > high else 0

    def _enter(
        self, basis: list[int], at_upper: dict[int, bool], y: list[Fraction], feasible: bool, bland: bool
    ) -> tuple[int | None, int]:
        """Return the known column of largest reduced cost (by Bland: the first), and its direction."""
        best, chosen, direction = Fraction(0), None, 1
        for variable, upper in sorted(at_upper.items()):
            k = -1 - variable
            fixed = self.low[k] == self.high[k]
            moves = [] if fixed else [(-y[k], -1) if upper else (y[k], 1)]
            if not feasible:  # leave the bound outward, where a unit costs less than it saves elsewhere
                moves += [(y[k] - self.penalty[k], 1)] if upper or fixed else []
                moves += [(-y[k] - self.penalty[k], -1)] if fixed or not upper else []
            for gain, way in moves:
                if gain > best:
                    best, chosen, direction = gain, variable, way
            if bland and chosen is not None:
                return chosen, direction
        inside = set(basis)
        for p, column in enumerate(self.columns):
            if p in inside:
                continue
            gain = (self.values[p] if feasible else 0) - y[self.K]
            for price, a in zip(y, column, strict=False):
                if price and a:
                    gain -= price * a
            self.work += self.K
            if gain > best:
                if bland:
                    return p, 1
                best, chosen, direction = gain, p, 1
        return chosen, direction

    def _ratio(
        self,
        basis: list[int],
        at_upper: dict[int, bool],
        x: list[Fraction],
        outside: list[int],
        d: list[Fraction],
        direction: int,
        entering: int,
    ) -> tuple[Fraction, int | None, bool]:
        """Return the step, the position that leaves (None: the entering one meets its other bound), and the bound."""
        step: Fraction | None = None
        leaving: int | None = None
        to_upper = False
        if entering < 0:
            low, high = self.low[-1 - entering], self.high[-1 - entering]
            if low is not None and high is not None and (direction < 0) == at_upper[entering] and low != high:
                step = Fraction(high - low)
        for i, variable in enumerate(basis):
            rate = -direction * d[i]
            if rate == 0:
                continue
            if variable >= 0:
                target, upper = (0, False) if rate < 0 else (None, False)
            else:
                low, high = self.low[-1 - variable], self.high[-1 - variable]
                if rate > 0:
                    target, upper = (low, False) if outside[i] < 0 else (None if outside[i] > 0 else high, True)
                else:
                    target, upper = (high, True) if outside[i] > 0 else (None if outside[i] < 0 else low, False)
            if target is None:
                continue
            t = (target - x[i]) / rate
            if step is None or t < step or (t == step and leaving is not None and variable < basis[leaving]):
                step, leaving, to_upper = t, i, upper
        assert step is not None, "the lotteries are a bounded set"
        return step, leaving, to_upper

    def _vertex(
        self, status: Status, basis: list[int], x: list[Fraction], y: list[Fraction], feasible: bool, pricings: int
    ) -> Vertex:
        shown = [(self.rankings[b], float(value)) for b, value in zip(basis, x, strict=True) if b >= 0 and value > 0]
        if status is Status.INFEASIBLE:
            costs = map(Fraction, self.violation_costs.tolist())
            multipliers = [p / c * w for p, c, w in zip(y, self.penalty, costs, strict=False)]
        elif feasible:
            multipliers = [p * Fraction(2) ** (s - self.score_shift) for p, s in zip(y, self.row_shifts, strict=False)]
        else:
            multipliers = [Fraction(0)] * self.K
        return Vertex(status, [r for r, _ in shown], [w for _, w in shown], multipliers, pricings)
