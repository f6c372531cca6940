"""The LP over every ranking written out, solved in exact rational arithmetic (two-phase simplex, Bland's rule)."""

from fractions import Fraction
from itertools import permutations


def best_lottery(scores, rows, lower, upper, slot_weights):
    """Exact optimum over mixtures of all rankings of m out of n items; None when no mixture meets the bounds."""
    u, v = [Fraction(x) for x in scores], [Fraction(x) for x in slot_weights]
    A = [[Fraction(x) for x in row] for row in rows]
    lists = list(permutations(range(len(u)), len(v)))
    value = [sum(w * u[i] for w, i in zip(v, p, strict=True)) for p in lists]
    activity = [[sum(w * a[i] for w, i in zip(v, p, strict=True)) for p in lists] for a in A]
    # every bound is one row  activity + slack = bound  or  activity - slack = bound
    table, right = [[Fraction(1)] * len(lists)], [Fraction(1)]
    sides = [(k, x, s) for k in range(len(A)) for x, s in ((upper[k], 1), (lower[k], -1)) if abs(x) < float("inf")]
    table[0] += [Fraction(0)] * len(sides)
    for position, (k, bound, sign) in enumerate(sides):
        table.append(activity[k] + [Fraction(sign if q == position else 0) for q in range(len(sides))])
        right.append(Fraction(bound))
    return maximise(value + [Fraction(0)] * len(sides), table, right)


def maximise(cost, table, right):
    """max c·x, T x = b, x >= 0."""
    rows, columns = len(table), len(cost)
    T = [[x if b >= 0 else -x for x in row] for row, b in zip(table, right, strict=True)]
    b = [abs(x) for x in right]
    T = [row + [Fraction(int(i == r)) for i in range(rows)] for r, row in enumerate(T)]
    basis = [columns + r for r in range(rows)]
    _pivot_to_optimum(T, b, basis, [Fraction(0)] * columns + [Fraction(-1)] * rows, columns + rows)
    if sum(x for x, j in zip(b, basis, strict=True) if j >= columns) > 0:
        return None
    for r in range(rows):  # artificials that are still basic, at zero, leave where they can
        if basis[r] >= columns:
            j = next((j for j in range(columns) if T[r][j] != 0), None)
            if j is not None:
                _exchange(T, b, basis, r, j)
    _pivot_to_optimum(T, b, basis, [*cost, *[Fraction(0)] * rows], columns)
    return sum(x * cost[j] for x, j in zip(b, basis, strict=True) if j < columns)


def _pivot_to_optimum(T, b, basis, cost, allowed):
    while True:
        entering = None
        for j in range(allowed):
            if cost[j] - sum(cost[basis[r]] * T[r][j] for r in range(len(T))) > 0:
                entering = j
                break
        if entering is None:
            return
        ratios = [(b[r] / T[r][entering], basis[r], r) for r in range(len(T)) if T[r][entering] > 0]
        _exchange(T, b, basis, min(ratios)[2], entering)


def _exchange(T, b, basis, r, j):
    pivot = T[r][j]
    T[r] = [x / pivot for x in T[r]]
    b[r] /= pivot
    for i in range(len(T)):
        if i != r and T[i][j] != 0:
            factor = T[i][j]
            T[i] = [x - factor * y for x, y in zip(T[i], T[r], strict=True)]
            b[i] -= factor * b[r]
    basis[r] = j
