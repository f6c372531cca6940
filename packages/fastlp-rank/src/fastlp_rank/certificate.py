r"""Check a solution from the raw problem alone: no solver state, no solver code, plain NumPy.

A lottery (rankings π_r, weights α_r) and prices λ prove each other. The lottery gives a value that can be had,
Σ_r α_r Σ_j v_j u_{π_r(j)}; the prices give a bound that nothing feasible exceeds,

.. math:: G(\lambda) = \sum_j v_j \operatorname{key}_{(j)} + \sum_k \lambda_k^+ U_k - \lambda_k^- L_k,
          \qquad \operatorname{key}_i = u_i - \sum_k \lambda_k a_{ki}.

Gap zero means optimal. For contradicting bounds the same expression with u = 0 and a ray |λ_k| <= 1 is negative, and
its size is a lower bound of the total violation Σ_k of every lottery.

Nothing here has a unit. As Σ_i e_i = V = Σ_j v_j for the exposures of every lottery, a bound b of a row a says that
a's mean is at most, or at least, b / V. The **size** of the row is the distance from the entry nearest to b / V to the
max(m, 3)-th nearest one that differs from it: as far as it takes to fill the slots, whatever a few entries of 1e9 do; 1
for a group. The size of the scores is the same about the m-th largest score, or the distance of the lottery's mean score
below that one where this is more (items that are scored away, shown because the rows leave no choice). A violation is measured in size · V of its row, a gap in size · V of the scores. Both are unchanged when scores, or a row with its
bounds, are multiplied by a positive number or shifted (bounds by V times as much), up to the last bits of the input:
a violation, or unused room, below 16 · 2^-52 |b|, and a gap below as much of the m-th score times V, is within the
rounding of the numbers stated and counts as none.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fastlp_rank.problem import RankingProblem
from fastlp_rank.status import Status

__all__ = ["Certificate", "Verification", "size_about", "verify_arrays"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDING = 16.0 * 2.0**-52


def size_about(values: Floats, centre: float, m: int) -> float:
    """Distance of the max(m, 3)-th nearest other value from the value nearest to the centre.

    Of the farthest where there are fewer; where all values are equal to rounding, the value's or centre's own magnitude.
    """
    nearest = float(values[np.argmin(np.abs(values - centre))])
    magnitude = max(abs(nearest), abs(centre))
    distance = np.abs(values - nearest)
    distance = distance[distance > _ROUNDING * magnitude]
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
    """

    status: Status
    rankings: Ints
    weights: Floats
    prices: Floats
    ray: Floats

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
    """Verify a certificate against the arrays of a problem; see `Certificate.verify`."""
    n, m = scores.size, slot_weights.size
    rankings, weights = certificate.rankings, certificate.weights
    permutes = all(len(set(r)) == len(r) and min(r) >= 0 and max(r) < n for r in rankings.tolist())
    mass = math.fsum(weights)
    if rankings.shape != (weights.size, m) or not permutes or not 0.0 < mass < math.inf:
        return Verification(certificate.status, False, math.nan, math.inf, math.inf, math.inf, 0.0, math.inf)
    weight_error = max(abs(mass - 1.0), float(max(0.0, -weights.min(initial=0.0))))
    exposure = np.zeros(n)  # expected exposure of every item
    for ranking, weight in zip(rankings, weights / mass, strict=True):
        exposure[ranking] += weight * slot_weights
    objective = math.fsum(scores * exposure)
    total = math.fsum(slot_weights)

    # how far every row is from either bound: positive inside, negative outside
    above = np.array([_room(row, high, exposure, slot_weights) for row, high in zip(rows, upper.tolist(), strict=True)])
    below = -np.array([_room(row, low, exposure, slot_weights) for row, low in zip(rows, lower.tolist(), strict=True)])
    over = np.maximum(-np.minimum(above, below), 0.0)
    violation = 0.0
    for row, excess, bound in zip(rows, over.tolist(), np.where(above < below, upper, lower).tolist(), strict=True):
        if excess > _ROUNDING * abs(bound):
            violation = max(violation, excess / (size_about(row, bound / total, m) * total))
    feasible = violation <= feasibility_tol
    infeasible = certificate.status is Status.INFEASIBLE
    multiplier = certificate.ray if infeasible else certificate.prices
    spare = np.where(multiplier > 0.0, above, np.where(multiplier < 0.0, below, 0.0))
    admissible = bool(np.isfinite(multiplier).all() and np.isfinite(spare).all())

    if infeasible:
        least = rounding = 0.0
        if admissible and np.abs(multiplier).max(initial=0.0) <= 1.0 + 1e-9:
            key = _keys(np.zeros(n), 0.0, rows, lower, upper, total, multiplier)
            least = -math.fsum(slot_weights * np.sort(key)[::-1][:m])
            priced = np.where(multiplier > 0.0, upper, np.where(multiplier < 0.0, lower, 0.0))
            rounding = _ROUNDING * math.fsum(np.abs(multiplier * priced))
        proven = least > rounding
        violated = math.fsum(over[over > _ROUNDING * np.abs(np.where(above < below, upper, lower))])
        gap = (violated - least) / violated if violated > 0.0 else math.inf
        bound = -math.inf if proven else math.inf
        holds = proven and gap <= tol and weight_error <= tol
        return Verification(certificate.status, holds, objective, bound, gap, violation, max(least, 0.0), weight_error)

    cut = float(np.partition(scores, n - m)[n - m])
    mean = math.fsum((scores - cut) * exposure) / total
    unit = max(size_about(scores, cut, m), -mean) * total
    missed = unmet = math.inf
    if admissible:
        key = _keys(scores, cut, rows, lower, upper, total, multiplier)
        missed = math.fsum([*(slot_weights * np.sort(key)[::-1][:m]).tolist(), *(-key * exposure).tolist()])
        priced = np.where(multiplier > 0.0, upper, np.where(multiplier < 0.0, lower, 0.0))
        unmet = missed + math.fsum(np.abs(multiplier) * np.where(spare > _ROUNDING * np.abs(priced), spare, 0.0))
        missed += math.fsum(np.abs(multiplier) * (np.maximum(spare, 0.0) if feasible else spare))
    gap = missed / unit if unit > 0.0 else missed
    holds = weight_error <= tol
    if certificate.status is Status.OPTIMAL:
        holds = holds and feasible and unmet <= max(tol * unit, _ROUNDING * abs(cut) * total)
    return Verification(certificate.status, holds, objective, objective + missed, gap, violation, 0.0, weight_error)


def _room(row: Floats, bound: float, exposure: Floats, slot_weights: Floats) -> float:
    """bound - Σ_i a_i e_i, taken about the bound per unit of exposure."""
    if not math.isfinite(bound):
        return bound
    centre = bound / math.fsum(slot_weights)
    rest = Fraction(bound) - Fraction(centre) * sum(map(Fraction, slot_weights.tolist()))
    return math.fsum([*((centre - row) * exposure).tolist(), float(rest)])


def _keys(
    u: Floats, cut: float, rows: Floats, lower: Floats, upper: Floats, total: float, multiplier: Floats
) -> Floats:
    """key_i up to a constant, all differences taken before anything is multiplied."""
    key = u - cut
    for row, low, high, price in zip(rows, lower.tolist(), upper.tolist(), multiplier.tolist(), strict=True):
        if price != 0.0:
            key = key - price * (row - (high if price > 0.0 else low) / total)
    return key
