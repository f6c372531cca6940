"""Logistic regressions in all leaves at once.

In leaf k the parameters theta_k minimise

    sum_{i in k} w_i [ log(1 + exp(eta_i)) - y_i eta_i ] + 1/2 (theta_k - m_k)' diag(q_k) (theta_k - m_k),
    eta_i = o_i + x_i' theta_k,

by Newton's method. One pass over the rows expands the first sum of every leaf to second order (``bincount`` over the
leaf number); the D x D systems are solved as one batch, and a leaf whose objective rose halves its step. The prior's
precision q may be a function of that expansion: empirical Bayes costs no passes of its own then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetcal.links import Floats

__all__ = ["Expansion", "LeafFit", "fit_leaves"]

MAX_STEPS = 60
TOLERANCE = 1e-5  # Newton converges quadratically: the step after one of 1e-5 is about 1e-10
BLOCK = 16_384  # rows whose temporaries fit in the second-level cache
Leaves = NDArray[np.intp]


@dataclass(frozen=True)
class LeafFit:
    """Parameters (K, D) of every leaf and their posterior variances (K, D), those without bounds."""

    theta: Floats
    variance: Floats


@dataclass(frozen=True)
class Expansion:
    """Loss (K,), gradient (K, D) and Hessian (K, D, D) of the likelihood of every leaf about theta (K, D)."""

    theta: Floats
    loss: Floats
    gradient: Floats
    hessian: Floats

    def objective(self, mean: Floats, precision: Floats) -> Floats:
        """Loss and prior of every leaf at theta, (K,)."""
        return np.asarray(self.loss + 0.5 * (precision * (self.theta - mean) ** 2).sum(axis=1))

    def posterior(self, mean: Floats, precision: Floats, lower: Floats | None = None) -> LeafFit:
        """Mode and variances of the quadratic with its prior.

        A parameter that ends below its bound is fixed there and the others are solved again. It keeps the variance
        that it has without the bound: one that vanished at the bound would leave tau^2 without a fixed point.
        """
        curvature = self.hessian.copy()
        diagonal = range(self.theta.shape[1])
        curvature[:, diagonal, diagonal] += precision
        inverse = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
        slope = self.gradient + precision * (self.theta - mean)
        theta = self.theta - (inverse @ slope[..., None])[..., 0]
        variance = inverse[:, diagonal, diagonal]
        if lower is None or (theta >= lower).all():
            return LeafFit(theta, variance)
        fixed = np.zeros(theta.shape, dtype=bool)
        while (below := ~fixed & (theta < lower)).any():
            fixed |= below
            held = np.where(fixed, lower - self.theta, 0.0)
            pull = np.where(fixed, 0.0, slope + (curvature @ held[..., None])[..., 0])
            system = np.where(fixed[:, :, None] | fixed[:, None, :], 0.0, curvature)
            system[:, diagonal, diagonal] += fixed
            step = np.linalg.solve(system, pull[..., None])[..., 0]
            theta = np.where(fixed, lower, self.theta - step)
        return LeafFit(theta, variance)

    def where(self, keep: NDArray[np.bool_], other: Expansion) -> Expansion:
        """Its own leaves where ``keep`` says so, those of the other expansion elsewhere."""
        if keep.all():
            return self
        one = keep[:, None]
        return Expansion(
            np.where(one, self.theta, other.theta),
            np.where(keep, self.loss, other.loss),
            np.where(one, self.gradient, other.gradient),
            np.where(one[..., None], self.hessian, other.hessian),
        )


def fit_leaves(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    *,
    prior_mean: Floats,
    prior_precision: Floats | Callable[[Expansion], Floats],
    offset: Floats | None = None,
    lower: Floats | None = None,
) -> LeafFit:
    """Fit all leaves.

    Parameters
    ----------
    features : (D, n) array
    y, weight, leaf : (n,) arrays
        Labels in [0, 1], weights (None for ones) and leaf numbers.
    n_leaves : int
    prior_mean : (K, D) array
        Also where the iteration starts.
    prior_precision : (K, D) array, or a function from the likelihood's ``Expansion`` to one
    offset : (n,) array, optional
    lower : (D,) array, optional
        Lower bounds of the parameters.
    """
    theta, share = prior_mean, np.ones((n_leaves, 1))
    best: Expansion | None = None
    precision = np.empty(0)
    for _ in range(MAX_STEPS):
        here = _expand(features, y, weight, leaf, n_leaves, offset, theta)
        if best is None:
            best = here
        else:  # a leaf that got worse goes half the way back; the others take a new Newton step from here
            before = best.objective(prior_mean, precision)
            better = here.objective(prior_mean, precision) <= before + 1e-12 * np.abs(before)
            best, share = here.where(better, best), np.where(better[:, None], 1.0, 0.5 * share)
        precision = prior_precision(best) if callable(prior_precision) else prior_precision
        fit = best.posterior(prior_mean, precision, lower)
        step = share * (fit.theta - best.theta)
        theta = best.theta + step
        if np.abs(step).max() <= TOLERANCE:
            break
    return LeafFit(theta, fit.variance)


def _expand(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    offset: Floats | None,
    theta: Floats,
) -> Expansion:
    """The expansion about theta in one pass over the rows, by blocks that stay in cache."""
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
    return Expansion(theta, loss, gradient.T.copy(), hessian.transpose(2, 0, 1).copy())
