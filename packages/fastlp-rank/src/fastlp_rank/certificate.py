r"""Check a solution from the raw problem alone: no solver state, no solver code, plain NumPy.

A lottery (rankings π_r, weights α_r) and prices λ prove each other. The lottery gives a value that can be had,
Σ_r α_r Σ_j v_j u_{π_r(j)}; the prices give a bound that nothing feasible exceeds,

.. math:: G(\lambda) = \sum_j v_j \operatorname{key}_{(j)} + \sum_k \lambda_k^+ U_k - \lambda_k^- L_k,
          \qquad \operatorname{key}_i = u_i - \sum_k \lambda_k a_{ki}.

Gap zero means optimal. For contradicting bounds the same expression with u = 0 and a ray |λ_k| <= 1 is negative, and
its size is a lower bound of the total violation Σ_k of every lottery.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlp_rank.problem import RankingProblem
from fastlp_rank.status import Status

__all__ = ["Certificate", "Verification", "verify_arrays"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
        G(λ): no feasible lottery is better; -inf where infeasibility is proven.
    gap : float
        (bound - objective) / max(1, |objective|); for INFEASIBLE the lottery's total violation minus the proven least
        one, relative to max(1, the latter).
    violation : float
        Largest violation of a row, relative to max(1, max_i |a_ki| Σ v).
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
            Largest gap, violation and weight error that count as proven.

        Returns
        -------
        Verification
        """
        rows = [constraint.row(problem.n, problem.slots) for constraint in problem.constraints]
        return verify_arrays(
            self,
            problem.scores,
            np.array([row[0] for row in rows]).reshape(len(rows), problem.n),
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows]),
            problem.slots.values,
            tol=tol,
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
) -> Verification:
    """Verify a certificate against the arrays of a problem; see `Certificate.verify`."""
    n = scores.size
    rankings, weights = certificate.rankings, certificate.weights
    permutes = all(len(set(r)) == len(r) and min(r) >= 0 and max(r) < n for r in rankings.tolist())
    if rankings.shape != (weights.size, slot_weights.size) or not permutes or not np.isfinite(weights).all():
        return Verification(certificate.status, False, math.nan, math.inf, math.inf, math.inf, 0.0, math.inf)
    weight_error = max(abs(math.fsum(weights) - 1.0), float(max(0.0, -weights.min(initial=0.0))))
    exposure = np.zeros(n)  # expected exposure of every item
    for ranking, weight in zip(rankings, weights, strict=True):
        exposure[ranking] += weight * slot_weights
    objective = math.fsum(scores * exposure)
    activity = np.array([math.fsum(row * exposure) for row in rows])
    over = np.maximum(np.maximum(lower - activity, activity - upper), 0.0)
    size = np.maximum(1.0, np.abs(rows).max(axis=1, initial=0.0) * math.fsum(slot_weights))
    violation = float((over / size).max(initial=0.0))

    if certificate.status is Status.INFEASIBLE:
        ray = certificate.ray
        size_ok = bool(np.isfinite(ray).all() and np.abs(ray).max(initial=0.0) <= 1.0 + 1e-9)
        least = -_dual_value(np.zeros(n), rows, lower, upper, slot_weights, ray) if size_ok else -math.inf
        gap = (math.fsum(over) - least) / max(1.0, abs(least))
        holds = least > 0.0 and gap <= tol and weight_error <= tol
        bound = -math.inf if least > 0.0 else math.inf
        return Verification(certificate.status, holds, objective, bound, gap, violation, max(least, 0.0), weight_error)
    bound = _dual_value(scores, rows, lower, upper, slot_weights, certificate.prices)
    gap = (bound - objective) / max(1.0, abs(objective))
    holds = weight_error <= tol and gap >= -tol
    if certificate.status is Status.OPTIMAL:
        holds = holds and gap <= tol and violation <= tol
    elif violation > tol:
        holds = weight_error <= tol  # a lottery that is not feasible yet may exceed the bound
    return Verification(certificate.status, holds, objective, bound, gap, violation, 0.0, weight_error)


def _dual_value(u: Floats, rows: Floats, lower: Floats, upper: Floats, v: Floats, prices: Floats) -> float:
    """G(λ), summed without cancellation error; inf for a price on a side that has no bound."""
    if not np.isfinite(prices).all():
        return math.inf
    terms = []
    for price, low, high in zip(prices.tolist(), lower.tolist(), upper.tolist(), strict=True):
        if price > 0.0:
            terms.append(price * high)
        elif price < 0.0:
            terms.append(price * low)
    if any(math.isinf(term) for term in terms):
        return math.inf
    key = u - prices @ rows if prices.size else u
    best = np.sort(key)[::-1][: v.size]
    return math.fsum([*(v * best).tolist(), *terms])
