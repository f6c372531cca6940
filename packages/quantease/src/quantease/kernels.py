# mypy: allow-untyped-defs, allow-untyped-calls
"""Row by row on the CPU: compiled twins of what grid, gptq and coordinate_descent do with whole tensors.

Rows of a layer do not see each other, so a row's gradient stays in the cache while it is worked on, and a column costs
something only where its code changes. All arrays are C-contiguous; numbers are of the type of the arrays.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["descend", "quantise_block", "search_grid"]


@njit(cache=True, nogil=True)
def descend(gradient, codes, scale, group, sigma, order, largest, gains, moves, free):
    """Coordinate descent in place, each row until nothing changes or the sweeps are used up.

    ``gradient`` and ``codes`` are (q, p), ``scale`` (q, groups), ``group`` (p,) the group of each column, ``sigma``
    (p, p), ``order`` (p,); ``free`` is (q, p) or empty.
    ``gains`` and ``moves`` (sweeps,) receive the decrease of f and the number of code changes of each sweep.
    """
    rows, columns = codes.shape
    zero = largest - largest
    inverse = (largest / largest) / np.diag(sigma)
    masked = free.size > 0
    for i in range(rows):
        g, code = gradient[i], codes[i]
        for sweep in range(len(gains)):
            moved = 0
            for j in order:
                s = scale[i, group[j]]
                shift = g[j] * inverse[j] / s
                off_grid = masked and free[i, j]
                if not off_grid and -0.5 <= shift <= 0.5:
                    continue
                best = code[j] + shift
                if not off_grid:
                    best = min(max(code[j] + np.rint(shift), zero), largest)
                    if best == code[j]:
                        continue
                    moved += 1
                change = best - code[j]
                gains[sweep] += s * s * sigma[j, j] * change * (2 * shift - change)
                code[j] = best
                pull, row = change * s, sigma[j]
                for k in range(columns):
                    g[k] -= pull * row[k]
            moves[sweep] += moved
            if moved == 0:
                break


@njit(cache=True, nogil=True)
def quantise_block(current, target, codes, residual, scale, zero, group, factor, largest, start, stop, free):
    """Columns ``start`` to ``stop`` of the nearest-plane recursion of ``gptq``, in place.

    ``current``, ``target`` and ``codes`` are (q, p), ``residual`` (q, block), ``scale`` and ``zero`` (q, groups),
    ``group`` (p,) the group of each column, ``factor`` (p, p) with unit diagonal; ``free`` is (q, p) or empty.
    """
    lowest = largest - largest
    masked = free.size > 0
    for i in range(len(current)):
        for j in range(start, stop):
            s, z = scale[i, group[j]], zero[i, group[j]]
            code = min(max(np.rint(current[i, j] / s) + z, lowest), largest)
            codes[i, j] = code
            value = current[i, j] if masked and free[i, j] else (code - z) * s
            left = target[i, j] - value
            residual[i, j - start] = left
            for k in range(j + 1, stop):
                current[i, k] += left * factor[j, k]


@njit(cache=True, nogil=True, fastmath=True)
def _weighted_error(weight, importance, scale, zero, largest):
    """sum_j d_j (w_j - Q(w_j))^2."""
    inverse, low, high = 1 / scale, -zero, largest - zero
    total = scale - scale
    for j in range(len(weight)):
        position = weight[j] * inverse
        residual = min(max(np.rint(position), low), high) - position
        total += importance[j] * residual * residual
    return total * scale * scale


@njit(cache=True, nogil=True, fastmath=True)
def _least_squares_scale(weight, importance, scale, zero, largest):
    """The scale that serves best the codes that ``scale`` gives."""
    inverse, low, high = 1 / scale, -zero, largest - zero
    across, along = scale - scale, scale - scale
    for j in range(len(weight)):
        code = min(max(np.rint(weight[j] * inverse), low), high)
        across += importance[j] * weight[j] * code
        along += importance[j] * code * code
    return across / along if along > 0 and across > 0 else scale


@njit(cache=True, nogil=True)
def search_grid(weight, importance, scale, zero, zero_steps, shrinks, rounds, largest):
    """The search of ``fit_grid`` in place: ``scale`` and ``zero`` (rows,) hold the min/max grid.

    ``weight`` is (rows, size); row i has the importance of row i modulo the rows of ``importance``.
    """
    for i in range(len(weight)):
        w, d = weight[i], importance[i % len(importance)]
        widest, middle = scale[i], zero[i]
        lowest = _weighted_error(w, d, widest, middle, largest)
        for step in zero_steps:
            z = middle + step
            if z < 0 or z > largest:
                continue
            for shrink in shrinks:
                s = widest * shrink
                error = _weighted_error(w, d, s, z, largest)
                if error < lowest:
                    lowest, scale[i], zero[i] = error, s, z
        for _ in range(rounds):
            s = _least_squares_scale(w, d, scale[i], zero[i], largest)
            error = _weighted_error(w, d, s, zero[i], largest)
            if error < lowest:
                lowest, scale[i] = error, s
