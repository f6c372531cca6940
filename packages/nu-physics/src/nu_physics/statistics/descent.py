"""Descents on the fast copy of chi2: counts as a function of three splittings, and many starts followed downhill."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nu_physics.statistics.levels import ANGLES, DM21, DM31, damped, levels_of, put

__all__ = ["STEP_eV2", "add_counts", "descend", "next_wraps", "pairs_of", "race"]

STEP_eV2 = 1.0e-5  # of the table of splittings


@njit(cache=True, error_model="numpy")
def pairs_of(p, lam, w, product, splitting):  # type: ignore[no-untyped-def]
    """-4 w_i w_j and |lambda_i - lambda_j| of the three pairs of levels."""
    levels_of(p, lam, w)
    k = 0
    for i in range(3):
        for j in range(i + 1, 3):
            product[k] = -4.0 * w[i] * w[j]
            splitting[k] = abs(lam[i] - lam[j])
            k += 1


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def add_counts(product, splitting, table, slope, out):  # type: ignore[no-untyped-def]
    """Add -4 sum w_i w_j F to the whitened counts of every band; F by cubic Hermite interpolation."""
    last = table.shape[1] - 1
    for pair in range(3):
        place = splitting[pair] / STEP_eV2
        low = int(place)
        if low >= last:
            low, t = last - 1, 1.0
        else:
            t = place - low
        amount = product[pair]
        a = (1.0 + 2.0 * t) * (1.0 - t) ** 2 * amount
        b = t * t * (3.0 - 2.0 * t) * amount
        c = t * (1.0 - t) ** 2 * STEP_eV2 * amount
        d = -t * t * (1.0 - t) * STEP_eV2 * amount
        for band in range(len(out)):
            for k in range(out.shape[1]):
                out[band, k] += (
                    a * table[band, low, k]
                    + b * table[band, low + 1, k]
                    + c * slope[band, low, k]
                    + d * slope[band, low + 1, k]
                )


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _functions(splitting, pulls, table, slope, value, change):  # type: ignore[no-untyped-def]
    """F and dF/dx of the three pairs at these pulls, each of shape (3, directions)."""
    last = table.shape[1] - 1
    value[:] = 0.0
    change[:] = 0.0
    for pair in range(3):
        place = splitting[pair] / STEP_eV2
        low = int(place)
        inside = low < last
        if not inside:
            low, t = last - 1, 1.0
        else:
            t = place - low
        a, b = (1.0 + 2.0 * t) * (1.0 - t) ** 2, t * t * (3.0 - 2.0 * t)
        c, d = t * (1.0 - t) ** 2 * STEP_eV2, -t * t * (1.0 - t) * STEP_eV2
        e = 6.0 * t * (1.0 - t) / STEP_eV2 if inside else 0.0
        f = (1.0 - t) * (1.0 - 3.0 * t) if inside else 0.0
        g = t * (3.0 * t - 2.0) if inside else 0.0
        for band in range(len(pulls) + 1):
            size = 1.0 if band == 0 else pulls[band - 1]
            if size == 0.0:
                continue
            for k in range(value.shape[1]):
                f0, f1 = table[band, low, k], table[band, low + 1, k]
                g0, g1 = slope[band, low, k], slope[band, low + 1, k]
                value[pair, k] += size * (a * f0 + b * f1 + c * g0 + d * g1)
                change[pair, k] += size * (e * (f1 - f0) + f * g0 + g * g1)


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _residuals(p, pulls, index, mean, weight, target, bands, out):  # type: ignore[no-untyped-def]
    """Counts, priors and pulls as one vector; returns its square."""
    size, n = len(target), len(index)
    for k in range(size):
        value = bands[0, k] - target[k]
        for b in range(len(pulls)):
            value += pulls[b] * bands[b + 1, k]
        out[k] = value
    for k in range(n):
        out[size + k] = (p[index[k]] - mean[k]) * weight[k]
    for b in range(len(pulls)):
        out[size + n + b] = pulls[b]
    total = 0.0
    for k in range(len(out)):
        total += out[k] * out[k]
    return total


@njit(cache=True, error_model="numpy")
def descend(x, steps, base, index, low, high, mean, weight, target, table, slope, constant):  # type: ignore[no-untyped-def]
    """At most ``steps`` of Levenberg-Marquardt from x (free values, then pulls), in place; returns chi2 with priors."""
    n, pulls, length = len(index), len(constant) - 1, len(target)
    both, size = n + pulls, length + n + pulls
    p, lam, w = base.copy(), np.empty(3), np.empty(3)
    product, splitting, product_h, splitting_h = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    r, trial, bands = np.empty(size), np.empty(size), np.empty(constant.shape)
    function, change = np.empty((3, length)), np.empty((3, length))
    jacobian = np.zeros((both, size))
    put(p, index, x)
    pairs_of(p, lam, w, product, splitting)
    bands[:] = constant
    add_counts(product, splitting, table, slope, bands)
    value = _residuals(p, x[n:], index, mean, weight, target, bands, r)
    damping, quiet = 1e-3, 0
    for _ in range(steps):
        _functions(splitting, x[n:], table, slope, function, change)
        for k in range(n):
            width = 1e-6 * max(abs(x[k]), 1e-5 if index[k] == DM21 or index[k] == DM31 else 1e-3)
            if x[k] + width > high[k]:
                width = -width
            moved_k, x[k] = x[k], x[k] + width
            put(p, index, x)
            x[k] = moved_k
            pairs_of(p, lam, w, product_h, splitting_h)
            for i in range(length):
                total = 0.0
                for pair in range(3):
                    total += (product_h[pair] - product[pair]) * function[pair, i]
                    total += product[pair] * (splitting_h[pair] - splitting[pair]) * change[pair, i]
                jacobian[k, i] = total / width
            jacobian[k, length + k] = weight[k] * (math.sin(2.0 * x[k]) if index[k] < ANGLES else 1.0)
            put(p, index, x)
        for b in range(pulls):
            jacobian[n + b, :length] = bands[b + 1]
            jacobian[n + b, length + n + b] = 1.0
        g = jacobian @ r
        h = jacobian @ jacobian.T
        improved = False
        new = value
        for _ in range(8):
            moved = damped(h, g, x, low, high, damping)
            put(p, index, moved)
            pairs_of(p, lam, w, product_h, splitting_h)
            bands[:] = constant
            add_counts(product_h, splitting_h, table, slope, bands)
            new = _residuals(p, moved[n:], index, mean, weight, target, bands, trial)
            if new < value:
                improved = True
                break
            damping = max(damping * 5.0, 1e-6)
        if not improved:
            break
        gained = value - new
        x[:] = moved
        r[:] = trial
        product[:] = product_h
        splitting[:] = splitting_h
        value = new
        damping = max(damping * 0.2, 1e-9)
        quiet = quiet + 1 if gained < 1e-3 + 1e-4 * value else 0
        if quiet >= 2:
            break
    return value


@njit(cache=True, error_model="numpy")
def _aim(x, share, base, index, low, high):  # type: ignore[no-untyped-def]
    """Move a start's dm31 a share of the way to where the fast phase is the one that it stood for.

    A scalar term shifts that phase by many wraps, and no descent crosses one.
    The fast phase is the distance of the state with the least electron content from the mean of the other two.
    """
    place = -1
    for k in range(len(index)):
        if index[k] == DM31:
            place = k
    if place < 0:
        return
    p, lam, w = base.copy(), np.empty(3), np.empty(3)
    first = x[place]
    wanted = abs(first)
    for _ in range(6):
        put(p, index, x)
        levels_of(p, lam, w)
        third = np.argmin(w)
        seen = 0.0
        for i in range(3):
            if i != third:
                seen += w[i] * abs(lam[third] - lam[i]) / (1.0 - w[third])
        moved = abs(x[place]) + wanted - seen
        x[place] = min(max(moved if x[place] > 0.0 else -moved, low[place]), high[place])
    x[place] = first + share * (x[place] - first)


@njit(cache=True, error_model="numpy", nogil=True)
def race(points, seeded, base, index, low, high, mean, weight, quick, full):  # type: ignore[no-untyped-def]
    """Follow every point downhill for a while, the better ones further; in place. Returns chi2, inf where dropped."""
    value, n = np.empty(len(points)), len(index)
    for s in range(len(points)):
        if s >= seeded:
            # every other start all the way, the rest somewhere between: priors may hold dm31 back
            t = s - seeded
            _aim(points[s], 1.0 if t % 2 == 0 else (0.6180339887498949 * t) % 1.0, base, index, low, high)
        value[s] = descend(points[s, :n], 6, base, index, low, high, mean, weight, *quick)
    for kept, steps in ((2, 12), (3, 60)):
        order = np.argsort(value)
        for rank in range(len(points)):
            s = order[rank]
            if rank < max(len(points) // kept, 4):
                value[s] = descend(points[s], steps, base, index, low, high, mean, weight, *full)
            else:
                value[s] = np.inf
    return value


@njit(cache=True, error_model="numpy", nogil=True)
def next_wraps(x, value, turn, base, index, low, high, mean, weight, full):  # type: ignore[no-untyped-def]
    """Go from a minimum to those a turn of the fast phase away, as long as they are lower; in place, returns chi2.

    A ridge stands between them that no descent crosses; one of two that differ by little may have been left early.
    """
    place = -1
    for k in range(len(index)):
        if index[k] == DM31:
            place = k
    if place < 0:
        return value
    for sign in (1.0, -1.0):
        while True:
            trial = x.copy()
            trial[place] = min(max(x[place] + sign * turn, low[place]), high[place])
            if trial[place] == x[place]:
                break
            found = descend(trial, 60, base, index, low, high, mean, weight, *full)
            if not found < value - 1e-6 * abs(value):
                break
            value = found
            x[:] = trial
    return value
