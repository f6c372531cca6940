r"""The compact LP of a ranking request in rational arithmetic: a bounded-variable simplex on whole numbers.

.. math:: \max \sum_{il} w_l u_i z_{il} \;\; \text{s.t.} \;\; \sum_i z_{il} = l,\;
          L_k \le \sum_{il} w_l a_{ki} z_{il} \le U_k,\; 0 \le z \le 1,\qquad w_l = v_l - v_{l+1}

over the levels l with w_l > 0: the exposures of lotteries are the sums of w_l times a point of the hypersimplex of size
l. One level is left where all slots weigh the same. Shares no idea with the solver: no rankings, no pricing, no floats.
The tableau holds whole numbers over one common denominator, and every division is exact (Edmonds 1967, Bareiss 1968).
"""

from fractions import Fraction
from math import lcm

import numpy as np


def exact_optimum(scores, rows, lower, upper, slot_weights) -> Fraction | None:
    """Optimum of the problem that the numbers state (floats or fractions); None where the bounds contradict."""
    u, v = [Fraction(x) for x in scores], [Fraction(x) for x in slot_weights]
    n, levels = len(u), []
    for size, (here, below) in enumerate(zip(v, [*v[1:], Fraction(0)], strict=True), start=1):
        if here > below:
            levels.append((size, here - below))
    columns = n * len(levels)
    matrix, right = [], []
    for q, (size, _) in enumerate(levels):
        matrix.append([Fraction(int(j // n == q)) for j in range(columns)])
        right.append(Fraction(size))
    ranges: list[Fraction | None] = [Fraction(1)] * columns
    slacks = []  # (row, sign): activity + sign * slack = bound
    for row, low, high in zip(rows, lower, upper, strict=True):
        a = [Fraction(x) for x in row]
        low, high = (None if abs(b) == np.inf else Fraction(b) for b in (low, high))
        if low is None and high is None:
            continue
        slacks.append((len(matrix), 1 if high is not None else -1))
        ranges.append(None if low is None or high is None else high - low)
        right.append(high if high is not None else low)
        matrix.append([w * x for _, w in levels for x in a])
    for r, entries in enumerate(matrix):
        entries += [Fraction(sign * int(r == row)) for row, sign in slacks]
    cost = [w * x for _, w in levels for x in u] + [Fraction(0)] * len(slacks)
    return _maximise(cost, matrix, right, ranges)


def _maximise(cost, matrix, right, ranges):
    """max c·x, M x = b, 0 <= x_j <= range_j (None: no upper bound); None where nothing is feasible."""
    simplex = _Simplex(cost, matrix, right, ranges)
    simplex.optimise(phase=1)
    if any(x > 0 for x, j in zip(simplex.x, simplex.basis, strict=True) if j >= simplex.width):
        return None
    simplex.ranges[simplex.width :] = [Fraction(0)] * len(matrix)
    simplex.optimise(phase=2)
    return sum(c * x for c, x in zip(cost, simplex.solution(), strict=True))


class _Simplex:
    """Every nonbasic variable is 0: one at its upper bound is replaced by its distance from there."""

    def __init__(self, cost, matrix, right, ranges) -> None:
        height, self.width = len(matrix), len(cost)
        self.ranges = [*ranges, *[None] * height]  # one artificial a row
        self.table = np.zeros((height + 2, self.width + height), dtype=object)
        self.table[:, :] = 0
        self.denominator = 1
        self.x = []  # basic values
        for r in range(height):
            scale = lcm(*(x.denominator for x in [*matrix[r], right[r]])) * (-1 if right[r] < 0 else 1)
            self.table[r, : self.width] = [int(scale * x) for x in matrix[r]]
            self.table[r, self.width + r] = 1
            self.x.append(scale * right[r])
        # the last two rows: z - objective = 0, for the artificials and for the cost
        self.table[height, : self.width] = -self.table[:height, : self.width].sum(axis=0)
        scale = lcm(*(c.denominator for c in cost))
        self.table[height + 1, : self.width] = [-int(scale * c) for c in cost]
        self.basis = list(range(self.width, self.width + height))
        self.complemented = [False] * (self.width + height)

    def optimise(self, phase):
        height = len(self.basis)
        idle = 0
        while True:
            reduced = self.table[height - 1 + phase, : self.width]
            improving = np.flatnonzero(reduced < 0)
            if not improving.size:
                return
            # the steepest, and by Bland's rule the first while nothing moves
            entering = int(improving[0] if idle > 20 else min(improving, key=lambda j: reduced[j]))
            idle = 0 if self._enter(entering) else idle + 1

    def _enter(self, entering):
        """Raise a variable until one of the basis, or itself, meets a bound; whether anything moved."""
        rates = [Fraction(d, self.denominator) for d in self.table[: len(self.basis), entering].tolist()]
        step, leaving = self.ranges[entering], None
        for i, (rate, x) in enumerate(zip(rates, self.x, strict=True)):
            limit = self.ranges[self.basis[i]]
            if rate == 0 or (rate < 0 and limit is None):
                continue
            reach = x / rate if rate > 0 else (limit - x) / -rate
            if step is None or reach < step or (reach == step and leaving is not None
                                                and self.basis[i] < self.basis[leaving]):  # fmt: skip
                step, leaving = reach, i
        self.x = [x - step * rate for x, rate in zip(self.x, rates, strict=True)]
        if leaving is None:
            self.table[:, entering] *= -1
            self.complemented[entering] ^= True
            return step > 0
        if rates[leaving] < 0:  # leaves at its upper bound
            left = self.basis[leaving]
            self.table[leaving] *= -1
            self.table[leaving, left] *= -1
            self.complemented[left] ^= True
        self.basis[leaving] = entering
        self.x[leaving] = step
        row, pivot = self.table[leaving].copy(), self.table[leaving, entering]
        self.table = (self.table * pivot - np.outer(self.table[:, entering], row)) // self.denominator
        self.table[leaving] = row
        self.denominator = pivot
        return step > 0

    def solution(self):
        values = [Fraction(0)] * self.width
        for x, j in zip(self.x, self.basis, strict=True):
            if j < self.width:
                values[j] = x
        return [self.ranges[j] - x if self.complemented[j] else x for j, x in enumerate(values)]
