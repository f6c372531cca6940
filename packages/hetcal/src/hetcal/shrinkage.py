"""How far a small leaf may leave its parent: empirical Bayes for the parameters of all leaves.

theta_k ~ N(m_k, diag(tau^2)), with m_k the parameters of the parent (the global fit, or the node one level up).
theta_k is its posterior mode (``leafwise.fit_leaves``) and tau^2 the fixed point of EM on Laplace approximations,

    tau_d^2 = mean_k [ (theta_kd - m_kd)^2 + v_kd ],      v_k = diag((H_k + diag(1 / tau^2))^-1).

Both are found together. Every Newton step on theta expands the likelihood of all leaves to second order; tau^2 is
moved on that expansion, without a pass over the rows, by an update that has the same fixed point and nears it faster:

    tau_d^2 <- sum_k (theta_kd - m_kd)^2 / sum_k [ 1 - v_kd / tau_d^2 ].

Where leaves do not differ, tau tends to 0 and every leaf returns to its parent. Where they do, large leaves keep
their own fit. tau -> infinity is the separate fit of each leaf.

MacKay. Bayesian Interpolation. Neural Computation 4 (1992): the update by the number of well-determined parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetcal.leafwise import Expansion, Leaves, fit_leaves
from hetcal.links import Floats

__all__ = ["Shrunk", "empirical_bayes", "nested_bayes", "no_shrinkage"]

FIRST_TAU2 = 0.25
SMALLEST_TAU2 = 1e-6  # far below any effect that changes a probability, large enough to invert
ROUNDS, TOLERANCE = 3, 1e-5  # of MacKay's rounds on log tau^2 within one Newton step on theta
FLAT = 1e-6  # precision of the prior of an unshrunk leaf: keeps separable leaves finite, moves others by 1e-6 / n


@dataclass(frozen=True)
class Shrunk:
    """Parameters of the leaves (K, D) and the prior's standard deviations tau (levels, D)."""

    theta: Floats
    tau: Floats


def no_shrinkage(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    centre: Floats,
    *,
    offset: Floats | None = None,
    lower: Floats | None = None,
) -> Shrunk:
    """Each leaf alone; an empty leaf gets ``centre``."""
    mean = np.broadcast_to(centre, (n_leaves, features.shape[0])).copy()
    fit = fit_leaves(
        features,
        y,
        weight,
        leaf,
        n_leaves,
        prior_mean=mean,
        prior_precision=np.full_like(mean, FLAT),
        offset=offset,
        lower=lower,
    )
    return Shrunk(fit.theta, np.full((1, features.shape[0]), np.inf))


def empirical_bayes(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    centre: Floats,
    *,
    offset: Floats | None = None,
    lower: Floats | None = None,
    tau: Floats | None = None,
) -> Shrunk:
    """Shrink every leaf towards ``centre`` ((D,), or (K, D) for one centre per leaf).

    Parameters
    ----------
    features : (D, n) array
        Regressors of each row, the constant included where wanted.
    y, weight, leaf : (n,) arrays
        Labels in [0, 1], weights (None for ones) and leaf numbers.
    n_leaves : int
    centre : array
        Prior mean.
    offset : (n,) array, optional
    lower : (D,) array, optional
        Lower bounds of the parameters.
    tau : (D,) array, optional
        Prior standard deviations; given, they are used as they are and nothing is estimated.

    Returns
    -------
    Shrunk
    """
    size = features.shape[0]
    mean = np.broadcast_to(centre, (n_leaves, size)).copy()
    occupied = np.bincount(leaf, weights=weight, minlength=n_leaves) > 0
    tau2 = np.full(size, FIRST_TAU2) if tau is None else np.maximum(np.asarray(tau, float) ** 2, 1e-18)

    def precision(likelihood: Expansion) -> Floats:
        nonlocal tau2
        if tau is None:
            tau2 = _solve_tau2(likelihood, mean, occupied, lower, tau2)
        return np.broadcast_to(1.0 / tau2, mean.shape)

    fit = fit_leaves(
        features,
        y,
        weight,
        leaf,
        n_leaves,
        prior_mean=mean,
        prior_precision=precision,
        offset=offset,
        lower=lower,
    )
    return Shrunk(fit.theta, np.sqrt(tau2)[None, :])


def _solve_tau2(
    likelihood: Expansion, mean: Floats, occupied: NDArray[np.bool_], lower: Floats | None, tau2: Floats
) -> Floats:
    """MacKay's rounds on the quadratic likelihood from a first guess."""
    for _ in range(ROUNDS):
        fit = likelihood.posterior(mean, np.broadcast_to(1.0 / tau2, mean.shape), lower)
        squares = ((fit.theta - mean) ** 2)[occupied].sum(axis=0)
        determined = (1.0 - fit.variance / tau2)[occupied].sum(axis=0)
        new = np.maximum(squares / np.maximum(determined, 1e-9), SMALLEST_TAU2)
        moved = np.abs(np.log(new / tau2)).max()
        tau2 = new
        if moved < TOLERANCE:
            break
    return tau2


def nested_bayes(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    ancestors: Leaves,
    centre: Floats,
    *,
    offset: Floats | None = None,
    lower: Floats | None = None,
) -> Shrunk:
    """Shrink each node towards its parent, level by level from the root.

    ``ancestors`` is (levels, K): row d holds, for every leaf, the number of its ancestor at level d; the last row
    is the leaf itself.
    """
    levels, n_leaves = ancestors.shape
    parent_theta = np.broadcast_to(centre, (n_leaves, features.shape[0]))  # of the ancestor, seen from each leaf
    taus = []
    for level in range(levels):
        node_of_leaf = ancestors[level]
        count = int(node_of_leaf.max()) + 1
        node_mean = np.zeros((count, features.shape[0]))
        node_mean[node_of_leaf] = parent_theta  # leaves of one node share the parent's parameters
        shrunk = empirical_bayes(features, y, weight, node_of_leaf[leaf], count, node_mean, offset=offset, lower=lower)
        parent_theta = shrunk.theta[node_of_leaf]
        taus.append(shrunk.tau[0])
    return Shrunk(parent_theta.copy(), np.array(taus))
