r"""Check a solution from the raw problem alone: no solver code; floats, and fractions where floats do not do.

A lottery (rankings π_r, weights α_r) and prices λ prove each other. The lottery gives a value that can be had,
Σ_r α_r Σ_j v_j u_{π_r(j)}; the prices give a bound that nothing feasible exceeds,

.. math:: G(\lambda) = \sum_j v_j \operatorname{key}_{(j)} + \sum_k \lambda_k^+ U_k - \lambda_k^- L_k,
          \qquad \operatorname{key}_i = u_i - \sum_k \lambda_k a_{ki}.

Gap zero means optimal. For contradicting bounds the same expression with u = 0 and a ray |λ_k| <= 1 is negative, and
its size is a lower bound of the total violation Σ_k of every lottery.

Nothing here has a unit. As Σ_i e_i = V = Σ_j v_j for the exposures of every lottery, a bound b of a row a says that
a's mean is at most, or at least, b / V. The **size** of the row is the distance from the entry nearest to b / V to
the max(m, 3)-th nearest one that differs from it: as far as it takes to fill the slots, whatever a few entries of 1e9
do; 1 for a group. The size of the scores is the same about the m-th largest score, or the distance of the lottery's
mean score below that one where this is more (items that are scored away, shown because the rows leave no choice). A
violation is measured in size · V of its row, a gap in size · V of the scores. Both are unchanged when scores, or a
row with its bounds, are multiplied by a positive number or shifted (bounds by V times as much), up to the last bits
of the input: within the rounding of the numbers stated, and none, is a violation, or unused room, below 16 · 2^-52
|b|; a gap below as much of the m-th score times V or of the objective's distance from that; and a gap, up to 1e-7,
that the last bits of steep prices make up, 2^-52 Σ_k |λ_k| size_k V.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlp_rank.problem import RankingProblem
from fastlp_rank.status import Status

__all__ = ["Certificate", "Verification", "size_about", "verify_arrays"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING = 16.0 * 2.0**-52
"""What the last bits of a number stated may hide, relative to it."""
_CANCELLED = 4.0 * 2.0**-52
"""Rounding of a key, relative to its parts."""
_STEEPEST = 1e-7
"""Largest gap that the last bits of the prices excuse."""


def size_about(values: Floats, centre: float, m: int) -> float:
    """Distance of the max(m, 3)-th nearest other value from the value nearest to the centre.

    Of the farthest where there are fewer; where all are equal to rounding, the value's or centre's own magnitude.
    """
    nearest = float(values[np.argmin(np.abs(values - centre))])
    magnitude = max(abs(nearest), abs(centre))
    distance = np.abs(values - nearest)
    distance = distance[distance > ROUNDING * magnitude]
    if distance.size == 0:
        return magnitude
    place = min(max(m, 3), distance.size) - 1
    return float(np.partition(distance, place)[place])


@dataclass(frozen=True)
class Verification:
    """What an independent recomputation found.

    Attributes
    ----------
    status : Status
        What the certificate claims.
    holds : bool
        Whether the claim is proven to the tolerance.
    objective : float
        Value of the lottery.
    bound : float
        G(λ): no feasible lottery is better; -inf where infeasibility is proven. Where the lottery is feasible to
        ``feasibility_tol``: none is better that violates no row by more than it does.
    gap : float
        Bound - objective in units of size · V of the scores (see the module); for INFEASIBLE the part of the lottery's
        total violation that the ray does not prove.
    violation : float
        Largest violation of a row in units of its size · V.
    least_violation : float
        Proven lower bound of the total violation; 0 unless infeasible.
    weight_error : float
        Distance of the weights from a probability vector; inf where a ranking repeats or invents an item.
    """

    status: Status
    holds: bool
    objective: float
    bound: float
    gap: float
    violation: float
    least_violation: float
    weight_error: float


@dataclass(frozen=True, eq=False)
class Certificate:
    """A claim and its proof: everything a sceptic needs besides the problem.

    Attributes
    ----------
    status : Status
    rankings : array of int64, shape (R, m)
    weights : array of float64, shape (R,)
    prices : array of float64, shape (K,)
        λ, in the order of the constraints; NaN when infeasible.
    ray : array of float64, shape (K,)
        Farkas ray; NaN unless infeasible.
    rest : array of float64, shape (K,), optional
        What rounding left out of ``prices`` or ``ray``: the multipliers are their sums, which are evaluated in
        fractions. Where entries of 1e15 cancel, a proof needs more digits than a float has.
    """

    status: Status
    rankings: Ints
    weights: Floats
    prices: Floats
    ray: Floats
    rest: Floats | None = None

    def verify(self, problem: RankingProblem, *, tol: float = 1e-9) -> Verification:
        """Recompute value, bound and violations from ``problem``.

        Parameters
        ----------
        problem : RankingProblem
        tol : float
            Largest gap and weight error that count as proven. The violation may be ``problem.feasibility_tol``.

        Returns
        -------
        Verification
        """
        rows = [constraint.row(problem.n, problem.slots) for constraint in problem.constraints]
        A = np.array([row[0] for row in rows]).reshape(len(rows), problem.n)
        scores, certificate = problem.scores, self
        if problem.blocked is not None:
            allowed = np.flatnonzero(~problem.blocked)
            place = np.full(problem.n, problem.n)  # a blocked item becomes one that does not exist
            place[allowed] = np.arange(allowed.size)
            exists = (self.rankings >= 0) & (self.rankings < problem.n)
            certificate = replace(self, rankings=np.where(exists, place[self.rankings * exists], problem.n))
            scores, A = scores[allowed], A[:, allowed]
        return verify_arrays(
            certificate,
            scores,
            A,
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows]),
            problem.slots.values,
            tol=tol,
            feasibility_tol=problem.feasibility_tol,
        )


def verify_arrays(
    certificate: Certificate,
    scores: Floats,
    rows: Floats,
    lower: Floats,
    upper: Floats,
    slot_weights: Floats,
    *,
    tol: float = 1e-9,
    feasibility_tol: float = 1e-9,
) -> Verification:
    """Verify a certificate against the arrays of a problem; see `Certificate.verify`.

    What floats do not confirm, or what prices so steep that their rounding could matter confirm, is evaluated in
    rational arithmetic before it is refused or believed.
    """
    n, m = scores.size, slot_weights.size
    rankings, weights = certificate.rankings, certificate.weights
    permutes = all(len(set(r)) == len(r) and min(r) >= 0 and max(r) < n for r in rankings.tolist())
    if rankings.shape != (weights.size, m) or not permutes or not 0.0 < math.fsum(weights) < math.inf:
        return Verification(certificate.status, False, math.nan, math.inf, math.inf, math.inf, 0.0, math.inf)
    if certificate.rest is None or not certificate.rest.any():
        numbers = _Numbers(scores, rows, lower, upper, slot_weights)
        found, unclear = _evaluate(certificate, numbers, tol, feasibility_tol)
        if found.holds and not unclear:
            return found
    exact = _Numbers(scores, rows, lower, upper, slot_weights, exact=True)
    return _evaluate(certificate, exact, tol, feasibility_tol)[0]


class _Numbers:
    """A problem as floats, or as the fractions that the floats are."""

    def __init__(
        self, scores: Floats, rows: Floats, lower: Floats, upper: Floats, slot_weights: Floats, exact: bool = False
    ) -> None:
        self.exact = exact
        self.floats = scores, rows, slot_weights
        self.lower, self.upper = lower.tolist(), upper.tolist()
        self.u, self.A, self.v = self.own(scores), self.own(rows), self.own(slot_weights)
        self.total = self.sum(self.v)

    def own(self, array: Floats) -> NDArray[Any]:
        """Floats or fractions."""
        if not self.exact:
            return array
        fractions = np.empty(array.size, dtype=object)
        fractions[:] = [Fraction(x) for x in array.ravel().tolist()]
        return fractions.reshape(array.shape)

    def sum(self, terms: NDArray[Any]) -> Any:
        """Without cancellation error."""
        return sum(terms.tolist(), start=Fraction(0)) if self.exact else math.fsum(terms)

    def centre(self, bound: float) -> Any:
        """A bound per unit of exposure."""
        return Fraction(bound) / self.total if self.exact else bound / self.total

    def room(self, k: int, bound: float, exposure: NDArray[Any]) -> Any:
        """Subtract Σ_i a_ki e_i from a bound, taken about the bound per unit of exposure; infinite without a bound."""
        if not math.isfinite(bound):
            return bound
        centre = self.centre(bound)
        room = self.sum((centre - self.A[k]) * exposure)
        if not self.exact:
            room += float(Fraction(bound) - Fraction(centre) * sum(map(Fraction, self.v.tolist())))
        return room

    def parts(self, k: int, bound: float, exposure: NDArray[Any]) -> float:
        """Sum of the sizes of what `room` adds up: how many digits may have cancelled."""
        return float(np.abs(self.centre(bound) - self.A[k]) @ exposure) if math.isfinite(bound) else 0.0

    def size(self, k: int, bound: float) -> float:
        """Size of row k about a bound."""
        _, rows, slot_weights = self.floats
        return size_about(rows[k], bound / math.fsum(slot_weights), slot_weights.size)

    def top(self, key: NDArray[Any]) -> Any:
        """Σ_j v_j key_(j)."""
        return self.sum(self.v * np.sort(key)[::-1][: self.v.size])


def _evaluate(
    certificate: Certificate, numbers: _Numbers, tol: float, feasibility_tol: float
) -> tuple[Verification, bool]:
    """Verification, and whether rounding of an activity or of the prices' terms could have decided it."""
    scores, _, slot_weights = numbers.floats
    weights = numbers.own(certificate.weights)
    mass = numbers.sum(weights)
    weight_error = max(abs(float(mass) - 1.0), float(max(0.0, -certificate.weights.min())))
    exposure = numbers.own(np.zeros(scores.size))  # expected exposure of every item
    for ranking, weight in zip(certificate.rankings, weights / mass, strict=True):
        exposure[ranking] += weight * numbers.v
    objective = float(numbers.sum(numbers.u * exposure))

    infeasible = certificate.status is Status.INFEASIBLE
    multipliers = (certificate.ray if infeasible else certificate.prices).tolist()
    rest = [0.0] * len(multipliers) if certificate.rest is None else certificate.rest.tolist()
    admissible = all(map(math.isfinite, multipliers + rest))
    if numbers.exact and admissible:
        multipliers = [Fraction(x) + Fraction(y) for x, y in zip(multipliers, rest, strict=True)]
    violation, violated, room, unused, rounding, steepness = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    unclear = False  # whether rounding of an activity may have decided that a row is met
    unmet = 0.0  # unused room beyond the last bits of the bounds
    cut = float(np.partition(scores, scores.size - slot_weights.size)[scores.size - slot_weights.size])
    key = numbers.own(np.zeros(scores.size)) if infeasible else numbers.u - numbers.own(np.array([cut]))[0]
    parts = np.zeros(scores.size)  # of every key: far larger than the key where much cancels
    for k, price in enumerate(multipliers):
        low, high = numbers.lower[k], numbers.upper[k]
        above, below = numbers.room(k, high, exposure), -numbers.room(k, low, exposure)
        excess, bound = max((-above, high), (-below, low))
        lost = 0.0 if numbers.exact else _CANCELLED * numbers.parts(k, bound, exposure)
        hidden = ROUNDING * abs(bound)
        if excess + lost > hidden:
            size = numbers.size(k, bound) * float(numbers.total)
            allowed = max(feasibility_tol * size, hidden)
            unclear = unclear or excess - lost <= allowed < excess + lost
        if excess > hidden:
            violation = max(violation, float(excess) / size)
            violated += excess
        if price == 0.0 or not admissible:
            continue
        spare, bound = (above, high) if price > 0.0 else (below, low)
        if not math.isfinite(bound):
            admissible = False
            continue
        steep = abs(price)
        key = key - price * (numbers.A[k] - numbers.centre(bound))
        if not numbers.exact:
            parts += abs(price) * np.abs(numbers.A[k] - numbers.centre(bound))
        room += steep * spare
        unused += steep * max(spare, 0)
        unmet += steep * (spare if spare > ROUNDING * abs(bound) else 0)
        rounding += float(steep) * ROUNDING * abs(bound)
        steepness += float(steep) * numbers.size(k, bound)
    feasible = violation <= feasibility_tol

    if infeasible:
        boxed = admissible and all(abs(x) <= 1.0 + 1e-9 for x in multipliers)
        least = -numbers.top(key) if boxed else 0.0
        blur = 0.0 if numbers.exact else rounding + _CANCELLED * steepness * float(numbers.total)
        proven = least > blur
        gap = float(violated - least) / float(violated) if violated > 0 else math.inf
        holds = proven and float(violated - least) <= tol * float(violated) + rounding and weight_error <= tol
        bound = -math.inf if proven else math.inf
        least = max(float(least), 0.0)
        return Verification(certificate.status, holds, objective, bound, gap, violation, least, weight_error), False

    mean = float(numbers.sum((numbers.u - numbers.own(np.array([cut]))[0]) * exposure)) / float(numbers.total)
    unit = max(size_about(scores, cut, slot_weights.size), -mean) * float(numbers.total)
    missed, allowed = math.inf, math.inf
    if admissible:
        if numbers.exact:
            shortfall = numbers.top(key) - numbers.sum(key * exposure)
        else:
            best = slot_weights * np.sort(key)[::-1][: slot_weights.size]
            shortfall = math.fsum([*best.tolist(), *(-key * exposure).tolist()])
        missed = float(shortfall + (unused if feasible else room))
        unmet = float(shortfall + unmet)
        total = float(numbers.total)
        last_bits = min(2.0**-52 * steepness * total, _STEEPEST * unit)
        allowed = max(tol * unit, ROUNDING * max(abs(cut), abs(mean)) * total, last_bits)
    gap = missed / unit if unit > 0.0 else missed
    holds = weight_error <= tol
    if certificate.status is Status.OPTIMAL:
        holds = holds and admissible and feasible and unmet <= allowed
    found = Verification(certificate.status, holds, objective, objective + missed, gap, violation, 0.0, weight_error)
    if numbers.exact:
        return found, False
    error = _CANCELLED * parts
    within_reach = key + error >= np.sort(key - error)[-slot_weights.size]
    return found, unclear or float(error[within_reach].max()) > 0.1 * tol * unit / float(numbers.total)
