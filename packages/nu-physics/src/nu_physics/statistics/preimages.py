"""The parameters whose effective parameters are those that the data want.

P_ee with a scalar term is that of four effective parameters y(x): two weights of the electron and two steps between
levels. chi2 over y does not know the scalar term, so its minima y_m are found once for a data set, and

    (y(x) - y_m)^T H_m (y(x) - y_m) + priors(x)

has none of the wraps of chi2 over x: Levenberg-Marquardt reaches the parameters behind a minimum from far away, at the
cost of the levels of X alone. Without priors a fit ends in the minimum of the data where such parameters exist.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nu_physics.statistics.levels import ANGLES, DM21, DM31, damped, levels_of, put

__all__ = ["PAIR", "Targets", "preimages", "standard_points"]

Array = NDArray[np.float64]
Targets = tuple[Array, Array, Array]  # chi2, place and shape of each minimum
PAIR = 2  # minima that all starts are followed to: the lowest and, but for matter, its equal with the levels reversed


def standard_points(targets: Targets, index: NDArray[np.int64], base: Array, low: Array, high: Array) -> Array:
    """What the free parameters would be without a scalar term, for the targets that dm31's sign lets be told apart."""
    rows = []
    for w1, w2, first, second in targets[1][:PAIR]:
        w3 = 1.0 - w1 - w2
        row = np.empty(len(base))
        row[:] = base
        if base[DM31] > 0.0:  # the levels are 1, 2, 3 upwards
            row[[0, 1, DM21, DM31]] = w2 / (w1 + w2), w3, first, first + second
        else:  # 3, 1, 2
            row[[0, 1, DM21, DM31]] = w3 / (w2 + w3), w1, second, -first
        rows.append(row[index])
    points = np.array(rows)
    angle = index < ANGLES
    points[:, angle] = np.arcsin(np.sqrt(points[:, angle]))
    return np.clip(points, low, high)


# -- compiled ----------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _gap(p, x, index, mean, weight, place, shape, out):  # type: ignore[no-untyped-def]
    """shape^T (effective parameters at x - place) and the priors as one vector; returns its square."""
    lam, w = np.empty(3), np.empty(3)
    put(p, index, x)
    levels_of(p, lam, w)
    y0, y1 = w[0] - place[0], w[1] - place[1]
    y2, y3 = lam[1] - lam[0] - place[2], lam[2] - lam[1] - place[3]
    total = 0.0
    for i in range(4):
        out[i] = shape[0, i] * y0 + shape[1, i] * y1 + shape[2, i] * y2 + shape[3, i] * y3
        total += out[i] * out[i]
    for k in range(len(index)):
        out[4 + k] = (p[index[k]] - mean[k]) * weight[k]
        total += out[4 + k] * out[4 + k]
    return total


@njit(cache=True, error_model="numpy")
def _follow(x, steps, p, index, low, high, mean, weight, place, shape):  # type: ignore[no-untyped-def]
    """Levenberg-Marquardt from x to where the effective parameters are the wanted ones, in place; returns the gap."""
    n = len(index)
    r, trial, jacobian = np.empty(4 + n), np.empty(4 + n), np.empty((n, 4 + n))
    value = _gap(p, x, index, mean, weight, place, shape, r)
    damping = 1e-3
    for _ in range(steps):
        for k in range(n):
            width = 1e-6 * max(abs(x[k]), 1e-5 if index[k] == DM21 or index[k] == DM31 else 1e-3)
            if x[k] + width > high[k]:
                width = -width
            kept, x[k] = x[k], x[k] + width
            _gap(p, x, index, mean, weight, place, shape, trial)
            x[k] = kept
            for i in range(4 + n):
                jacobian[k, i] = (trial[i] - r[i]) / width
        g = jacobian @ r
        h = jacobian @ jacobian.T
        new, moved = value, x
        for _ in range(8):
            moved = damped(h, g, x, low, high, damping)
            new = _gap(p, moved, index, mean, weight, place, shape, trial)
            if new < value:
                break
            damping = max(damping * 5.0, 1e-6)
        if not new < value:
            break
        gained = value - new
        x[:] = moved
        r[:] = trial
        value = new
        damping = max(damping * 0.2, 1e-9)
        if value < 1e-3 or gained < 1e-3 * value:
            break
    return value


@njit(cache=True, error_model="numpy")
def preimages(starts, base, index, low, high, mean, weight, chi2, places, shapes):  # type: ignore[no-untyped-def]
    """Distinct points whose effective parameters the data want, as near as limits and priors let them; lowest first."""
    pair = min(len(chi2), PAIR)
    found, value = np.empty((len(starts) * pair, len(index))), np.empty(len(starts) * pair)
    p, count = base.copy(), 0
    for m in range(pair):
        for s in range(len(starts)):
            found[count] = starts[s]
            gap = _follow(found[count], 40, p, index, low, high, mean, weight, places[m], shapes[m])
            value[count] = chi2[m] + gap
            count += 1
    order = np.argsort(value)
    least, kept = np.where((index == DM21) | (index == DM31), 0.0, 1e-3), 0
    out = np.empty((8, len(index)))
    for rank in range(count):
        x, fresh = found[order[rank]], True
        for other in out[:kept]:
            fresh = fresh and (np.abs(x - other) > 3e-3 * np.maximum(np.abs(x), least)).any()
        if fresh:
            out[kept] = x
            kept += 1
            if kept == len(out):
                break
    return out[:kept]
