"""Slow and obvious twins of what hetcal computes fast."""

import numpy as np
from scipy.optimize import minimize


def auc_by_pairs(y, scores, weight=None):
    """Every (positive, negative) pair, ties counted half."""
    weight = np.ones(len(y)) if weight is None else weight
    won = total = 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            pair = weight[i] * weight[j]
            total += pair
            won += pair * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return won / total


def penalised_logistic(features, y, weight, mean, precision, lower=None):
    """One leaf's fit by a general optimiser; features (D, n)."""

    def objective(theta):
        eta = theta @ features
        loss = np.sum(weight * (np.logaddexp(0.0, eta) - y * eta))
        gradient = features @ (weight * (1 / (1 + np.exp(-eta)) - y))
        away = theta - mean
        return loss + 0.5 * np.sum(precision * away**2), gradient + precision * away

    bounds = None if lower is None else [(None if np.isinf(b) else b, None) for b in lower]
    method = "L-BFGS-B" if bounds else "BFGS"
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000} if bounds else {"gtol": 1e-9}
    return minimize(objective, mean, jac=True, method=method, bounds=bounds, options=options).x


def platt_by_hand(z, y, weight, doubt=4.0):
    """The posterior mode of level and log slope about the identity, drawn back by the evidence against it."""
    p = 1 / (1 + np.exp(-z))
    information = weight * (p * (1 - p) + 1e-12)
    centre = np.sum(information * z) / np.sum(information)

    def loss(theta):
        eta = centre + theta[0] + np.exp(theta[1]) * (z - centre)
        return np.sum(weight * (np.logaddexp(0.0, eta) - y * eta))

    def objective(theta):
        return loss(theta) + theta[0] ** 2 / 2 + theta[1] ** 2 / (2 * 0.5**2)

    starts = [np.array([t, beta]) for t in (-1.0, 0.0, 1.0) for beta in (-1.0, 0.0, 1.0)]
    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}
    fits = [minimize(objective, start, method="Nelder-Mead", options=options) for start in starts]
    mode = min(fits, key=lambda fit: fit.fun).x
    evidence = 2 * (loss(np.zeros(2)) - loss(mode))
    mode = mode * max(0.0, 1 - (doubt / evidence) ** 2) if evidence > 0 else 0 * mode
    return centre + mode[0] - np.exp(mode[1]) * centre, np.exp(mode[1])


def cumulative_error(y, p, weight):
    """Range of the running sum of w (y - p) / sum w in the order of p."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    path, at = [0.0], 0.0
    for i in order:
        at += weight[i] * (y[i] - p[i]) / np.sum(weight)
        path.append(at)
    return max(path) - min(path)


def beta_calibration(p, y):
    """Kull et al. 2017: logistic regression on log p and -log(1 - p) with an intercept, unpenalised."""
    features = np.stack([np.ones_like(p), np.log(p), -np.log1p(-p)])
    theta = penalised_logistic(
        features, y, np.ones_like(p), np.array([0.0, 1.0, 1.0]), np.zeros(3), (-np.inf, 0.0, 0.0)
    )
    return 1 / (1 + np.exp(-theta @ features))


def walk(tree, row):
    """Follow one row down a FlatTree."""
    node = 0
    while tree.feature[node] >= 0:
        value = np.float32(row[tree.feature[node]])
        left = tree.missing_left[node] if np.isnan(value) else value <= tree.threshold[node]
        node = tree.left[node] if left else tree.right[node]
    return tree.leaf[node]


def empirical_bayes_by_em(z, y, leaf, leaves, centre, rounds=20_000):
    """theta and tau^2 at the fixed point of plain EM: every leaf solved to the end, one round after the other."""
    rows = [leaf == k for k in range(leaves)]
    data = [(np.column_stack([np.ones(r.sum()), z[r]]), y[r]) for r in rows]
    theta, tau2 = np.tile(centre, (leaves, 1)), np.full(2, 0.25)
    for _ in range(rounds):
        variance = np.empty_like(theta)
        for k, (x, label) in enumerate(data):
            for _ in range(50):
                p = 1 / (1 + np.exp(-x @ theta[k]))
                hessian = (x.T * (p * (1 - p))) @ x + np.diag(1 / tau2)
                step = np.linalg.solve(hessian, x.T @ (p - label) + (theta[k] - centre) / tau2)
                theta[k] -= step
                if np.abs(step).max() < 1e-9:
                    break
            variance[k] = np.diag(np.linalg.inv(hessian))
        new = np.mean((theta - centre) ** 2 + variance, axis=0)
        moved = np.abs(np.log(new / tau2)).max()
        tau2 = new
        if moved < 1e-9:
            break
    return theta, tau2
