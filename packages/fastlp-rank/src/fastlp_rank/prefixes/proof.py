r"""Check a ranking, or a contradiction, from the raw problem alone: no solver code, in fractions.

The potentials p (p_{g,m+1} = 0) give a bound that no ranking and no lottery with these prefixes exceeds,

.. math:: \sum_j \max_g p_{gj} + \sum_{gj} \max_{L \le N \le U} \bigl( w_j S_g(N) - (p_{gj} - p_{g,j+1}) N \bigr),

with S_g(N) the sum of group g's N best scores and w_j = v_j - v_{j+1}. Scores are taken about the largest shown, which
changes bound and value alike, as every slot is filled.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlp_rank.certificate import size_about
from fastlp_rank.prefixes.problem import PrefixProblem

__all__ = ["PrefixVerification", "contradiction", "verify_ranking"]

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class PrefixVerification:
    """What an independent recomputation found.

    Attributes
    ----------
    holds : bool
        Whether the claim is proven: every bound kept and the gap at most 1e-9, or a contradiction found.
    gap : float
        Bound of the potentials minus the ranking's value, in units of the scores' size (`fastlp_rank.certificate`)
        times Σ v; NaN of a contradiction.
    violated : tuple of str
        Names of bounds that the ranking does not keep.
    """

    holds: bool
    gap: float
    violated: tuple[str, ...]


def verify_ranking(problem: PrefixProblem, ranking: NDArray[np.int64], potentials: NDArray[Any]) -> PrefixVerification:
    """Check that a ranking keeps the bounds, and that potentials prove it best."""
    m = problem.slots.m
    items = [int(i) for i in ranking]
    if len(set(items)) != m or any(not 0 <= i < problem.group.size or problem.group[i] < 0 for i in items):
        return PrefixVerification(False, float("nan"), ())
    groups = [problem.labels[problem.group[i]] for i in items]
    violated = []
    for bound in problem.bounds:
        count = groups[: bound.first].count(bound.group)
        low = 0 if bound.at_least is None else bound.at_least
        high = m if bound.at_most is None else bound.at_most
        if not low <= count <= high:
            violated.append(bound.label)
    shown = problem.scores[problem.group >= 0]
    top = Fraction(float(shown.max()))
    v = [Fraction(x) for x in problem.slots.values.tolist()]
    value = sum((a * (Fraction(float(problem.scores[i])) - top) for a, i in zip(v, items, strict=True)), Fraction(0))
    gap = _bound(problem, potentials, top, v) - value
    mth = float(np.partition(shown, shown.size - m)[shown.size - m])
    unit = Fraction(size_about(shown, mth, m)) * sum(v)
    relative = float(gap / unit) if unit else float(gap)
    return PrefixVerification(not violated and relative <= _TOLERANCE, relative, tuple(violated))


def _bound(problem: PrefixProblem, potentials: NDArray[Any], top: Fraction, v: list[Fraction]) -> Fraction:
    G, m = problem.lower.shape
    p = [[Fraction(x) for x in row] + [Fraction(0)] for row in potentials.tolist()]
    total = sum((max(p[g][j] for g in range(G)) for j in range(m)), Fraction(0))
    for g in range(G):
        best = sorted((Fraction(float(u)) - top for u in problem.scores[problem.group == g]), reverse=True)
        sums = [Fraction(0)]
        for u in best[:m]:
            sums.append(sums[-1] + u)
        for j in range(m):
            w = v[j] - (v[j + 1] if j + 1 < m else 0)
            slope = p[g][j] - p[g][j + 1]
            least, most = int(problem.lower[g, j]), min(int(problem.upper[g, j]), len(best), m)
            total += max(w * sums[n] - slope * n for n in range(least, most + 1))
    return total


def contradiction(problem: PrefixProblem) -> bool:
    """Whether some slots a..b must hold more items than they are, or may hold fewer.

    A group's count in the first l slots is at most U_k + max(0, l - k) and at least L_k - max(0, k - l) for its bound
    at any k, and at most its number of items.
    """
    G, m = problem.lower.shape
    most, least = np.zeros((G, m + 1), dtype=np.int64), np.zeros((G, m + 1), dtype=np.int64)
    at = np.arange(m + 1)
    for g in range(G):
        number = int((problem.group == g).sum())
        for place in range(1, m + 1):
            most[g, place] = min(number, place, *(problem.upper[g, :] + np.maximum(0, place - at[1:])))
            least[g, place] = max(0, *(problem.lower[g, :] - np.maximum(0, at[1:] - place)))
    if (least > most).any():
        return True
    for a in range(m):
        for b in range(a + 1, m + 1):
            must = np.maximum(0, least[:, b] - most[:, a]).sum()
            may = (most[:, b] - least[:, a]).sum()
            if must > b - a or may < b - a:
                return True
    return False
