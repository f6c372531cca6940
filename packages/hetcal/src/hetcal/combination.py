"""One calibrator from many boosted candidates g_k and the Platt logit P: how much each is worth, and how far to go.

    g      = sum_k w_k g_k      w_k ~ exp(-d_k^2 / 6): d_k says by how many standard errors k's log-loss is above the
                                best one's, so that equals share and a clear winner takes all
    f      = t0 + t1 g + t2 P   logistic stacking, t1, t2 >= 0, drawn to (1/2, 1/2) by what m = 200 rows would say
    answer = P + s (f - P)      s = 0 without a gain, else the larger of

        1 - (e / G)^2                                  James-Stein's positive part
        min(1, sqrt(B / V)) clip(2 G / e - 1, 0, 1)    a move that costs at most B if it is all noise

with G the gain of f over P in log-loss out of fold, less 1 / n for the weight that was fitted to it, e its standard
error, times sqrt(1 + 10 / m) for the m rows of the scarcer class, V = mean p (1 - p) (f - P)^2 / 2 what f costs if P is
right, and B = mean p (1 - p) / 200: a move of a tenth in the logits. Everything is counted in independent rows: rows of
a cluster share their worth, and standard errors are of clusters' sums.
"""

from __future__ import annotations

import numpy as np

from hetcal.leafwise import fit_leaves
from hetcal.links import Floats, logistic_loss, sigmoid
from hetcal.selection import Judge

__all__ = ["mix", "stack", "stacked", "trust"]

TEMPERATURE = 6.0
ALONE, TOGETHER = 50.0, 200.0  # rows that the pull to halves is worth, for one candidate and for their mean
TINY = 1e-6  # a column that does not vary tells nothing, and still has one answer
NOISE_BUDGET = 0.005  # mean square of the logits' move that may be noise, halved: 0.1^2 / 2
SCARCE = 10.0  # rows of the scarcer class at which a variance is as good as twice its estimate


def stack(columns: list[Floats], y: Floats, weight: Floats | None, mean: Floats, rows: float) -> Floats:
    """Intercept and non-negative weights of a logistic regression on logits, the last of them Platt's.

    ``mean`` is what the weights are drawn to, with the force of ``rows`` independent rows.
    """
    p = sigmoid(columns[-1])
    spread = p * (1.0 - p) * (1.0 if weight is None else weight)
    told = [np.average((c - np.average(c, weights=spread)) ** 2, weights=spread) for c in columns]
    each = spread.sum() / (y.size if weight is None else weight.sum())
    precision = np.array([[0.0, *(rows * each * variance + TINY for variance in told)]])
    lower = np.array([-np.inf, *([0.0] * len(columns))])
    features, leaf = np.stack([np.ones_like(y), *columns]), np.zeros(y.size, dtype=np.intp)
    start = np.array([[0.0, *mean]])
    fit = fit_leaves(features, y, weight, leaf, 1, prior_mean=start, prior_precision=precision, lower=lower)
    return np.asarray(fit.theta[0])


def stacked(column: Floats, platt: Floats, judge: Judge, rows: float) -> tuple[Floats, Floats]:
    """(t0, t1, t2) of one column beside the Platt logit, and the logits that they give."""
    t = stack([column, platt], judge.y, judge.weight, np.array([0.5, 0.5]), rows)
    return t, t[0] + t[1] * column + t[2] * platt


def mix(columns: list[Floats], platt: Floats, judge: Judge) -> tuple[Floats, Floats]:
    """The candidates' weights, which sum to 1, and their log-loss beside the Platt logit."""
    losses = [logistic_loss(judge.y, stacked(column, platt, judge, ALONE)[1]) for column in columns]
    means = np.array([np.average(loss, weights=judge.weight) for loss in losses])
    best = losses[int(np.argmin(means))]
    behind = np.zeros(len(columns))
    for k, loss in enumerate(losses):
        lost, error = judge.paired(loss - best)
        behind[k] = lost / error if error > 0 else 0.0
    share = np.exp(-(behind**2) / TEMPERATURE)
    return share / share.sum(), means


def trust(platt: Floats, moved: Floats, judge: Judge) -> tuple[float, float, float]:
    """How far to go from the Platt logits to the moved ones, in [0, 1]; the gain G and its standard error."""
    gain, error = judge.gain(platt, moved)
    gain -= 1.0 / judge.rows
    if gain <= 0 or error == 0:
        return float(gain > 0), gain, error
    p = sigmoid(platt)
    spread = p * (1.0 - p)
    cost = 0.5 * float(np.average(spread * (moved - platt) ** 2, weights=judge.weight))
    budget = NOISE_BUDGET * float(np.average(spread, weights=judge.weight))
    doubt = error * (1.0 + SCARCE / judge.scarcer) ** 0.5
    certain = 1.0 - (doubt / gain) ** 2
    small = min(1.0, (budget / cost) ** 0.5) if cost > 0 else 0.0
    return max(certain, small * min(1.0, max(0.0, 2.0 * gain / doubt - 1.0))), gain, error
