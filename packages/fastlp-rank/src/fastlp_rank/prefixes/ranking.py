r"""Solve a `PrefixProblem`: compiled on floats, and on fractions where floats do not prove the answer.

The proof is a potential for every group and slot (`fastlp_rank.prefixes.flow`): its bound minus the ranking's value is
the gap. Contradicting bounds are shown by slots that cannot hold what must, or fill with what may, stand in them.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlp_rank.certificate import size_about
from fastlp_rank.errors import InvalidProblemError
from fastlp_rank.prefixes import flow
from fastlp_rank.prefixes.problem import PrefixProblem
from fastlp_rank.prefixes.proof import PrefixVerification, contradiction, verify_ranking
from fastlp_rank.status import Status

__all__ = ["PrefixRanking", "rank_prefixes"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDING = 4.0 * 2.0**-52  # a gain below this fraction of its parts is none
_PROVEN_GAP = 1e-9  # of the scores' size, as in the certificate of lotteries; what is above goes to fractions
_UNDERFLOW = 2.0**-1000  # sums of numbers this small lose digits that no relative error tells of


@dataclass(frozen=True, eq=False)
class PrefixRanking:
    """The best ranking, or why there is none.

    Attributes
    ----------
    status : Status
        OPTIMAL: no ranking that keeps the bounds is better, nor any lottery that keeps them in expectation. INFEASIBLE:
        ``conflict`` says which slots prove it.
    ranking : array of int64, shape (m,)
        Candidate in every slot; empty where infeasible.
    objective : float
        Σ v_j u; NaN where infeasible.
    gap : float
        Bound of the potentials minus objective, computed without cancellation; 0 where fractions decided.
    counts : array of int64, shape (G, m)
        Items of every group (in the order of ``problem.labels``) in every prefix.
    potentials : array of shape (G, m)
        The proof, in floats, or in fractions where floats do not hold it; NaN where infeasible.
    prices : dict of name to float
        Of each bound, positive for at_most, negative for at_least: relaxing it by one item gains no more than that.
    conflict : str or None
    """

    status: Status
    ranking: Ints
    objective: float
    gap: float
    counts: Ints
    potentials: NDArray[Any]
    prices: dict[str, float]
    conflict: str | None = None

    def verify(self, problem: PrefixProblem) -> PrefixVerification:
        """Recompute the claim from the raw problem, in fractions and without solver code."""
        if self.status is Status.INFEASIBLE:
            return PrefixVerification(contradiction(problem), float("nan"), ())
        return verify_ranking(problem, self.ranking, self.potentials)


def rank_prefixes(problem: PrefixProblem) -> PrefixRanking:
    """Find the best ranking that keeps every bound in every prefix, with its proof.

    Tens of microseconds; tens of milliseconds where the digits of floats prove nothing (scores that differ in the sixth
    digit within a group while groups lie far apart) and fractions decide.

    Raises
    ------
    InvalidProblemError
        If `problem` is no PrefixProblem.

    Examples
    --------
    >>> from fastlp_rank import PrefixCount, PrefixProblem, SlotWeights
    >>> bounds = [PrefixCount("b", 2, at_least=1), PrefixCount("a", 3, at_most=2)]
    >>> problem = PrefixProblem([9.0, 8.0, 7.0, 2.0, 1.0], SlotWeights.dcg(3), ["a", "a", "a", "b", "c"], bounds)
    >>> found = rank_prefixes(problem)
    >>> found.status.name, found.ranking.tolist(), found.gap
    ('OPTIMAL', [0, 3, 1], 0.0)
    >>> found.verify(problem).holds
    True
    """
    if not isinstance(problem, PrefixProblem):
        raise InvalidProblemError(f"problem is a {type(problem).__name__}; pass a PrefixProblem")
    m, G = problem.slots.m, len(problem.labels)
    u, v, group = problem.scores, problem.slots.values, problem.group
    lower, upper = problem.lower.copy(), problem.upper.copy()
    w = v - np.append(v[1:], 0.0)
    choice, ranking, count = np.zeros(m, np.int64), np.zeros(m, np.int64), np.zeros((G, m), np.int64)
    potential: NDArray[Any] = np.zeros(G * m + 1)
    outcome, gap, blur = flow.rank(
        u, group, w, lower, upper, _ROUNDING, 16 * potential.size, choice, count, potential, ranking
    )
    if outcome == flow.CONTRADICTORY:
        return _infeasible(problem, lower, upper)
    shown = u[group >= 0]
    mth = float(np.partition(shown, shown.size - m)[shown.size - m])
    allowed = _PROVEN_GAP * size_about(shown, mth, m) * float(v.sum())
    trusted = allowed > _UNDERFLOW or shown.min() == shown.max()
    if outcome != flow.SOLVED or not (trusted and gap + blur <= allowed):
        gap = 0.0
        potential = _in_fractions(problem, lower, upper, choice, count, ranking)
    potentials = potential[:-1].reshape(G, m)
    objective = float(u[ranking] @ v)
    prices = _prices(problem, w, count, potentials)
    return PrefixRanking(Status.OPTIMAL, ranking, objective, float(gap), count, potentials, prices)


def _in_fractions(
    problem: PrefixProblem, lower: Ints, upper: Ints, choice: Ints, count: Ints, ranking: Ints
) -> NDArray[Any]:
    """The same search without rounding, on closed bounds; writes the best ranking, returns its potentials."""
    G, m = lower.shape
    item, size = flow.best_of_groups(problem.scores, problem.group, G, m)
    exact: Any = [Fraction(x) for x in problem.scores.tolist()]
    top = max(exact[item[g, 0]] for g in range(G) if size[g])
    score = np.array([[exact[i] - top for i in row] for row in item.tolist()], dtype=object)
    weight = [Fraction(x) for x in problem.slots.values.tolist()]
    w = np.array([a - b for a, b in zip(weight, [*weight[1:], Fraction(0)], strict=True)], dtype=object)
    potential = np.array([Fraction(0)] * (G * m + 1), dtype=object)
    flow.earliest_deadline(lower, upper, choice)
    most = np.minimum(problem.upper, size[:, None])
    search: Any = flow.improve
    search.py_func(score, w, problem.lower, most, choice, count, potential, Fraction(0), -2)
    ranking[:] = item[choice, count[choice, np.arange(m)] - 1]
    return potential


def _prices(problem: PrefixProblem, w: Floats, count: Ints, potentials: NDArray[Any]) -> dict[str, float]:
    """What each bound costs: the first item beyond it against the slope of the potentials; 0 where it is slack."""
    G, m = count.shape
    item, size = flow.best_of_groups(problem.scores, problem.group, G, m)
    score = problem.scores[item] - problem.scores[problem.group >= 0].max()
    place = {label: g for g, label in enumerate(problem.labels)}
    prices = {}
    for bound in problem.bounds:
        g, j = place[bound.group], bound.first - 1
        n = int(count[g, j])
        slope = float(potentials[g, j] - (potentials[g, j + 1] if j + 1 < m else 0))
        price = 0.0
        if bound.at_most is not None and n == bound.at_most and n < size[g]:
            price += max(0.0, float(w[j] * score[g, n] - slope))
        if bound.at_least is not None and n == bound.at_least and n > 0:
            price -= max(0.0, float(slope - w[j] * score[g, n - 1]))
        prices[bound.label] = price
    return prices


def _infeasible(problem: PrefixProblem, lower: Ints, upper: Ints) -> PrefixRanking:
    """The slots that prove it; bounds are closed."""
    kind, g, a, b = flow.conflict(lower, upper)
    if not kind:
        raise RuntimeError("no ranking was found and no slots prove that there is none: please report this request")
    G, m = lower.shape
    labels = problem.labels
    if kind == 1:
        why = (
            f"group {labels[g]!r} must have {lower[g, a]} and may have {upper[g, a]} items in the first {a + 1} slots, "
            "by its own bounds, its number of candidates and one item a slot; relax one of its bounds"
        )
    else:
        before_most = upper[:, a - 1] if a else np.zeros(G, dtype=np.int64)
        before_least = lower[:, a - 1] if a else np.zeros(G, dtype=np.int64)
        parts = np.maximum(0, lower[:, b] - before_most) if kind == 2 else upper[:, b] - before_least
        named = ", ".join(f"{int(p)} of {label!r}" for p, label in zip(parts, labels, strict=True) if p or kind == 3)
        verb = "must hold" if kind == 2 else "may hold at most"
        slots = f"{parts.sum()} items in {b - a + 1} slots"
        why = f"slots {a + 1} to {b + 1} {verb} {named}: {slots}; relax a bound of these groups"
    return PrefixRanking(
        Status.INFEASIBLE,
        np.empty(0, dtype=np.int64),
        float("nan"),
        float("nan"),
        np.zeros((G, m), dtype=np.int64),
        np.full((G, m), np.nan),
        {bound.label: float("nan") for bound in problem.bounds},
        why,
    )
