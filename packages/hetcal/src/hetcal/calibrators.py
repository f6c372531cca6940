"""The map from base logit to probability inside a leaf.

Logistic families, p = sigmoid(offset + x(z)' theta), x(z) the family's features of the logit z:

    platt        x = (1, z - c)                   two parameters
    temperature  x = (z)                          slope alone: cannot mend a base rate
    shift        x = (1), offset = b0 z           intercept alone, on the global slope
    beta         x = (1, log s, -log(1 - s))      s = sigmoid(z); Kull et al. 2017

and step or piecewise-linear families, isotonic (pool adjacent violators) and histogram (equal mass), both mixed
with the global Platt curve by n / (n + m), which is their shrinkage. c, the mean logit weighted by p (1 - p), is
where level and slope are estimated independently, as the prior on (a, b) takes them to be. With ``monotone`` every
slope is kept positive, so the ranking inside a leaf is the base model's own; a histogram alone follows the data
wherever they go.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hetcal.leafwise import Leaves
from hetcal.links import Floats, log1pexp, logit, sigmoid
from hetcal.shrinkage import Shrunk, empirical_bayes, nested_bayes, no_shrinkage

__all__ = ["CALIBRATORS", "CurveMap", "LeafMap", "LogisticMap", "fit_leaf_map", "platt"]

LOGISTIC = ("platt", "temperature", "shift", "beta")
CALIBRATORS = (*LOGISTIC, "isotonic", "histogram", "identity")
SLOPE_FLOOR = 0.02  # a monotone leaf keeps at least this share of the global slope, hence its order
STRICT = 1e-6  # weight of the global curve that makes a step function strictly increasing
HISTOGRAM_BINS = 10
PRIOR_PRECISION = np.array([1.0, 4.0])  # of Platt's level and log slope: base models are off by about so much
DOUBT = 4.0  # of D, which is 2 in the mean when the logits are exact
PLATT_STEPS, PLATT_TOLERANCE = 50, 1e-8


def platt(z: Floats, y: Floats, weight: Floats | None = None) -> tuple[float, float]:
    """Platt scaling on logits as a maximum a posteriori fit around the identity; intercept and slope, which is > 0.

    a + b z = c + t + exp(beta) (z - c) with t ~ N(0, 1), beta ~ N(0, 1/4) and c the mean logit weighted by p (1 - p).
    The mode (t, beta) is then drawn back to the identity by the evidence against it, 2 (l(t, beta) - l(0, 0)) = D,

        (t, beta) <- max(0, 1 - (DOUBT / D)^2) (t, beta),

    since even a fit to exact logits costs 1 / n of log-loss. ``weight`` is what each row is worth in independent
    rows (``rows.worth``); few such rows leave the logits as they are, many make this logistic regression.
    """
    centre = _centre(z, weight, 0.0, 1.0)
    away = z - centre
    theta, start, mode = np.zeros(2), 0.0, 0.0

    def expand(at: Floats) -> tuple[float, Floats, Floats]:
        """Loss without the prior, gradient and Gauss-Newton Hessian with it."""
        tilted = np.exp(at[1]) * away
        eta = centre + at[0] + tilted
        p = sigmoid(eta)
        loss, residual, spread = log1pexp(eta) - y * eta, p - y, p * (1.0 - p)
        if weight is not None:
            loss, residual, spread = loss * weight, residual * weight, spread * weight
        cross = float(spread @ tilted)
        gradient = np.array([residual.sum(), residual @ tilted]) + PRIOR_PRECISION * at
        hessian = np.array([[spread.sum(), cross], [cross, (spread * tilted) @ tilted]]) + np.diag(PRIOR_PRECISION)
        return float(loss.sum()), gradient, hessian

    start, gradient, hessian = expand(theta)
    mode = start
    for _ in range(PLATT_STEPS):
        step = -np.linalg.solve(hessian, gradient)
        share = 1.0
        while True:  # the objective is not convex in beta, so a step that raises it is halved
            trial = theta + share * step
            loss, new_gradient, new_hessian = expand(trial)
            if loss + 0.5 * PRIOR_PRECISION @ trial**2 <= mode + 0.5 * PRIOR_PRECISION @ theta**2 + 1e-12 * abs(mode):
                break
            share *= 0.5
            if share < 1e-6:
                trial = theta
                break
        moved = np.abs(trial - theta).max()
        if share >= 1e-6:
            theta, mode, gradient, hessian = trial, loss, new_gradient, new_hessian
        if moved <= PLATT_TOLERANCE:
            break
    evidence = 2.0 * (start - mode)
    theta = theta * (max(0.0, 1.0 - (DOUBT / evidence) ** 2) if evidence > 0 else 0.0)
    slope = float(np.exp(theta[1]))
    return float(centre + theta[0] - slope * centre), slope


@dataclass(frozen=True)
class LogisticMap:
    """p = sigmoid(slope z + x(z)' theta_k), ``slope`` being the fixed offset of the shift family."""

    family: str
    theta: Floats
    centre: float
    slope: float
    tau: Floats = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def n_leaves(self) -> int:
        """Leaves that have a map."""
        return int(self.theta.shape[0])

    def logits(self, z: Floats, leaf: Leaves) -> Floats:
        """Calibrated logit of each row."""
        if self.family == "platt":
            level, slope = np.ascontiguousarray(self.theta.T)
            return np.asarray(level.take(leaf) + slope.take(leaf) * (z - self.centre))
        eta = self.slope * z
        for d, feature in enumerate(logistic_features(self.family, z, self.centre)):
            eta = eta + self.theta[leaf, d] * feature
        return np.asarray(eta)


@dataclass(frozen=True)
class CurveMap:
    """p = share_k curve_k(z) + (1 - share_k) sigmoid(a0 + b0 z), curve_k linear or constant between knots."""

    family: str
    knots: tuple[Floats, ...]
    values: tuple[Floats, ...]
    share: Floats
    intercept: float
    slope: float

    @property
    def n_leaves(self) -> int:
        """Leaves that have a map."""
        return len(self.knots)

    def logits(self, z: Floats, leaf: Leaves) -> Floats:
        """Calibrated logit of each row."""
        p = np.zeros_like(z)
        order = np.argsort(leaf, kind="stable")
        bounds = np.searchsorted(leaf[order], np.arange(self.n_leaves + 1))
        for k in range(self.n_leaves):
            rows = order[bounds[k] : bounds[k + 1]]
            if rows.size and self.knots[k].size:
                if self.family == "histogram":
                    p[rows] = self.values[k][np.searchsorted(self.knots[k], z[rows], side="right")]
                else:
                    p[rows] = np.interp(z[rows], self.knots[k], self.values[k])
        share = self.share[leaf]
        return logit(share * p + (1 - share) * sigmoid(self.intercept + self.slope * z))


LeafMap = LogisticMap | CurveMap


def logistic_features(family: str, z: Floats, centre: float) -> list[Floats]:
    """x(z) of a logistic family."""
    one = np.ones_like(z)
    if family == "platt":
        return [one, z - centre]
    if family == "temperature":
        return [z]
    if family == "shift":
        return [one]
    if family == "beta":
        return [one, -log1pexp(-z), log1pexp(z)]
    return []


def fit_leaf_map(
    family: str,
    z: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    *,
    shrinkage: str | float = "eb",
    monotone: bool = True,
    ancestors: Leaves | None = None,
    overall: tuple[float, float] | None = None,
    strict: bool = True,
) -> LeafMap:
    """Fit one map per leaf.

    Parameters
    ----------
    family : str
        One of ``CALIBRATORS``.
    z, y, weight, leaf : (n,) arrays
    n_leaves : int
    shrinkage : {"eb", "hierarchy", "none"} or float
        Empirical Bayes towards the global fit; level by level along ``ancestors``; none; or, for a number m, the
        global curve counted as m rows (curves) or a prior of precision m (logistic families).
    monotone : bool
        Keep the slopes positive.
    ancestors : (levels, K) array, optional
        Needed by "hierarchy".
    overall : (intercept, slope), optional
        The global Platt fit, when it is known already.
    strict : bool
        Make isotonic strictly increasing.
    """
    a0, b0 = overall if overall is not None else platt(z, y, weight)
    if family in ("isotonic", "histogram"):
        m = float(shrinkage) if isinstance(shrinkage, int | float) else 0.0 if shrinkage == "none" else 50.0
        return _fit_curves(family, z, y, weight, leaf, n_leaves, m, (a0, b0), strict)
    if family == "identity":
        return LogisticMap("identity", np.empty((n_leaves, 0)), 0.0, 1.0)
    centre = _centre(z, weight, a0, b0) if family == "platt" else 0.0
    features = np.stack(logistic_features(family, z, centre))
    slope, offset = (b0, b0 * z) if family == "shift" else (0.0, None)
    mean, lower = _global_parameters(family, features, y, weight, offset, (a0 + b0 * centre, b0), monotone)
    shrunk = _shrink(features, y, weight, leaf, n_leaves, mean, offset, lower, shrinkage, ancestors)
    return LogisticMap(family, shrunk.theta, centre, slope, shrunk.tau)


def _centre(z: Floats, weight: Floats | None, intercept: float, slope: float) -> float:
    """Mean logit by what a row tells, p (1 - p): there the global fit's level and slope are independent."""
    p = sigmoid(intercept + slope * z)
    information = p * (1.0 - p) + 1e-12  # the plain mean where no row tells anything
    return float(np.average(z, weights=information if weight is None else weight * information))


def _shrink(
    features: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    mean: Floats,
    offset: Floats | None,
    lower: Floats | None,
    shrinkage: str | float,
    ancestors: Leaves | None,
) -> Shrunk:
    if isinstance(shrinkage, int | float):
        tau = np.full(features.shape[0], 1.0 / np.sqrt(max(float(shrinkage), 1e-12)))
        return empirical_bayes(features, y, weight, leaf, n_leaves, mean, offset=offset, lower=lower, tau=tau)
    if shrinkage == "none":
        return no_shrinkage(features, y, weight, leaf, n_leaves, mean, offset=offset, lower=lower)
    if shrinkage == "hierarchy" and ancestors is not None:
        return nested_bayes(features, y, weight, leaf, ancestors, mean, offset=offset, lower=lower)
    return empirical_bayes(features, y, weight, leaf, n_leaves, mean, offset=offset, lower=lower)


def _global_parameters(
    family: str,
    features: Floats,
    y: Floats,
    weight: Floats | None,
    offset: Floats | None,
    known: tuple[float, float],
    monotone: bool,
) -> tuple[Floats, Floats | None]:
    """The global fit of the family, and the lower bounds that keep a leaf's slope positive."""
    slopes = {"platt": [1], "temperature": [0], "shift": [], "beta": [1, 2]}[family]
    if family == "platt":
        mean = np.array(known)
    else:
        one = np.zeros(y.size, dtype=np.intp)
        bound = np.full(features.shape[0], -np.inf)
        bound[slopes] = 0.0
        start = np.array([1.0] * features.shape[0]) if family != "shift" else np.zeros(1)
        if family == "beta":
            start[0] = 0.0
        mean = no_shrinkage(features, y, weight, one, 1, start, offset=offset, lower=bound if monotone else None).theta[
            0
        ]
    if not monotone or not slopes:
        return mean, None
    lower = np.full(mean.size, -np.inf)
    lower[slopes] = SLOPE_FLOOR * np.maximum(mean[slopes], 1e-3)
    mean[slopes] = np.maximum(mean[slopes], lower[slopes])
    return mean, lower


def _fit_curves(
    family: str,
    z: Floats,
    y: Floats,
    weight: Floats | None,
    leaf: Leaves,
    n_leaves: int,
    m: float,
    overall: tuple[float, float],
    strict: bool,
) -> CurveMap:
    w = np.ones_like(z) if weight is None else weight
    order = np.argsort(leaf, kind="stable")
    bounds = np.searchsorted(leaf[order], np.arange(n_leaves + 1))
    knots, values, share = [], [], np.zeros(n_leaves)
    for k in range(n_leaves):
        rows = order[bounds[k] : bounds[k + 1]]
        rows = rows[w[rows] > 0]
        if rows.size == 0:
            knots.append(np.empty(0))
            values.append(np.empty(0))
            continue
        fit = _isotonic if family == "isotonic" else _histogram
        x, v = fit(z[rows], y[rows], w[rows], strict)
        knots.append(x)
        values.append(v)
        n = float(w[rows].sum())
        share[k] = n / (n + m)
    if strict and family == "isotonic":
        share = np.minimum(share, 1.0 - STRICT)
    return CurveMap(family, tuple(knots), tuple(values), share, *overall)


def _isotonic(z: Floats, y: Floats, w: Floats, strict: bool) -> tuple[Floats, Floats]:
    """Thresholds of scikit-learn's isotonic fit, or its blocks' centres, between which the curve rises."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0).fit(z, y, sample_weight=w)
    if not strict:
        return model.X_thresholds_, model.y_thresholds_
    fitted = model.predict(z)
    blocks, block = np.unique(fitted, return_inverse=True)
    mass = np.bincount(block, weights=w)
    return np.bincount(block, weights=w * z) / mass, blocks


def _histogram(z: Floats, y: Floats, w: Floats, strict: bool) -> tuple[Floats, Floats]:
    del strict  # a histogram is a step function by definition
    edges = np.unique(np.quantile(z, np.arange(1, HISTOGRAM_BINS) / HISTOGRAM_BINS))
    bins = np.searchsorted(edges, z, side="right")
    mass = np.bincount(bins, weights=w, minlength=edges.size + 1)
    total = np.bincount(bins, weights=w * y, minlength=edges.size + 1)
    return edges, np.where(mass > 0, total / np.maximum(mass, 1e-300), np.average(y, weights=w))
