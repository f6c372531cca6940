"""Logistic regressions in all leaves at once.

In leaf k the parameters theta_k minimise

    sum_{i in k} w_i [ log(1 + exp(eta_i)) - y_i eta_i ] + 1/2 (theta_k - m_k)' diag(q_k) (theta_k - m_k),
    eta_i = o_i + x_i' theta_k,

by Newton's method. Gradients and Hessians of all leaves come from one pass over the rows per step (``bincount``
over the leaf number), the D x D systems are solved as one batch, and a leaf whose objective rose halves its step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetcal.links import Floats

__all__ = ["LeafFit", "fit_leaves"]

MAX_STEPS = 60
BLOCK = 16_384  # rows whose temporaries fit in the second-level cache
Leaves = NDArray[np.intp]


@dataclass(frozen=True)
class LeafFit:
    """Parameters (K, D) of every leaf, and the inverse Hessian's diagonal (K, D)."""

    theta: Floats
    variance: Floats


def fit_leaves(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    *,
    prior_mean: Floats,
    prior_precision: Floats,
    offset: Floats | None = None,
    lower: Floats | None = None,
    start: Floats | None = None,
    tolerance: float = 1e-5,  # Newton converges quadratically: the step after one of 1e-5 is about 1e-10
    max_steps: int = MAX_STEPS,
) -> LeafFit:
    """Fit all leaves; ``features`` is (D, n), prior mean and precision (K, D), ``lower`` (D,) bounds theta from below.

    A bounded parameter that ends below its bound is fixed there and its leaf solved again (the problem is convex).
    """
    free = np.ones((n_leaves, features.shape[0]), dtype=bool)
    theta = prior_mean.copy() if start is None else start.copy()
    while True:
        theta, hessian = _newton(
            features, y, weight, leaf, n_leaves, prior_mean, prior_precision, offset, theta, free, tolerance, max_steps
        )
        violated = np.zeros_like(free) if lower is None else free & (theta < lower - 1e-12)
        if lower is None or not violated.any():
            break
        theta = np.where(violated, lower, theta)
        free &= ~violated
    variance = np.diagonal(np.linalg.inv(hessian), axis1=1, axis2=2).copy()
    return LeafFit(theta, np.where(free, variance, 0.0))


def _newton(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    prior_mean: Floats,
    prior_precision: Floats,
    offset: Floats | None,
    theta: Floats,
    free: NDArray[np.bool_],
    tolerance: float,
    max_steps: int,
) -> tuple[Floats, Floats]:
    best = theta
    best_objective = np.full(n_leaves, np.inf)
    step = np.zeros_like(theta)
    hessian = np.zeros((n_leaves, theta.shape[1], theta.shape[1]))
    for _ in range(max_steps):
        objective, gradient, curvature = _derivatives(features, y, weight, leaf, n_leaves, offset, theta)
        away = theta - prior_mean
        objective += 0.5 * (prior_precision * away**2).sum(axis=1)
        better = objective <= best_objective + 1e-12 * np.abs(best_objective)
        # a leaf that got worse goes half the way back; the others take a new Newton step from here
        gradient = np.where(free, gradient + prior_precision * away, 0.0)
        curvature[:, range(theta.shape[1]), range(theta.shape[1])] += prior_precision
        curvature = np.where(free[:, :, None] & free[:, None, :], curvature, 0.0)
        curvature[:, range(theta.shape[1]), range(theta.shape[1])] += ~free
        fresh = -np.linalg.solve(curvature, gradient[..., None])[..., 0]
        best = np.where(better[:, None], theta, best)
        best_objective = np.where(better, objective, best_objective)
        hessian = np.where(better[:, None, None], curvature, hessian)
        step = np.where(better[:, None], fresh, 0.5 * step)
        if np.abs(step).max() <= tolerance:
            break
        theta = best + step
    return best + np.where(np.abs(step) <= tolerance, step, 0.0), hessian


def _derivatives(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    offset: Floats | None,
    theta: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Loss (K,), gradient (K, D) and Hessian (K, D, D) of every leaf in one pass, by blocks that stay in cache."""
    size = theta.shape[1]
    loss = np.zeros(n_leaves)
    gradient = np.zeros((size, n_leaves))
    hessian = np.zeros((size, size, n_leaves))
    columns = np.ascontiguousarray(theta.T)
    for first in range(0, y.size, BLOCK):
        rows = slice(first, first + BLOCK)
        x, label, node = features[:, rows], y[rows], leaf[rows]
        eta = columns[0][node] * x[0]
        for d in range(1, size):
            eta += columns[d][node] * x[d]
        if offset is not None:
            eta += offset[rows]
        decay = np.exp(-np.abs(eta))
        p = np.where(eta >= 0, 1.0, decay) / (1.0 + decay)
        losses = np.maximum(eta, 0.0) + np.log1p(decay) - label * eta
        residual, spread = p - label, p * (1.0 - p)
        if weight is not None:
            losses, residual, spread = losses * weight[rows], residual * weight[rows], spread * weight[rows]
        loss += np.bincount(node, losses, n_leaves)
        for d in range(size):
            gradient[d] += np.bincount(node, residual * x[d], n_leaves)
            scaled = spread * x[d]
            for e in range(d + 1):
                hessian[d, e] += np.bincount(node, scaled * x[e], n_leaves)
    for d in range(size):
        for e in range(d):
            hessian[e, d] = hessian[d, e]
    return loss, gradient.T.copy(), hessian.transpose(2, 0, 1).copy()
