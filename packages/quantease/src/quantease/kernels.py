# mypy: allow-untyped-defs, allow-untyped-calls
"""Row by row on the CPU: compiled twins of what grid, gptq and coordinate_descent do with whole tensors.

Rows of a layer do not see each other, so a row's gradient stays in the cache while it is worked on, and a column costs
something only where its code changes. All arrays are C-contiguous; numbers are of the type of the arrays. Inner loops
run over contiguous memory and without branches, so that the compiler vectorises them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["UNMASKED", "count_moves", "descend", "grid_error", "quantise_block", "search_grid", "search_offsets"]

UNMASKED = np.empty((0, 0), np.bool_)  # free entries where there are none
ROWS_AT_ONCE = 256  # of a block, what fits in the cache
COLUMNS_AT_ONCE = 16
SUMMED_AT_ONCE = 128


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _overshoot(gradient, edge):
    """The largest |g_j| - edge_j: above 0 where some code is not the best one (or held by its bound)."""
    largest = gradient[0] - gradient[0]
    for j in range(len(gradient)):
        largest = max(largest, abs(gradient[j]) - edge[j])
    return largest


@njit(cache=True, nogil=True)
def descend(gradient, codes, scale, group, sigma, order, largest, gains, moves, free):
    """Coordinate descent in place, each row until nothing changes or the sweeps are used up.

    ``gradient`` and ``codes`` are (q, p), ``scale`` (q, groups), ``group`` (p,) the group of each column; ``sigma``
    (p, p) has its rows and columns in the order of ``order`` (p,); ``free`` is (q, p) or empty.
    ``gains`` and ``moves`` (sweeps,) receive the decrease of f and the number of code changes of each sweep.
    """
    rows, columns = codes.shape
    zero = largest - largest
    curvature = np.diag(sigma).copy()
    masked = free.size > 0
    g, s, edge = np.empty_like(curvature), np.empty_like(curvature), np.empty_like(curvature)
    for i in range(rows):
        for j in range(columns):
            g[j], s[j] = gradient[i, order[j]], scale[i, group[order[j]]]
        for j in range(columns):
            edge[j] = s[j] * curvature[j] / 2
        for sweep in range(len(gains)):
            moved = 0
            for start in range(0, columns, COLUMNS_AT_ONCE):
                stop = min(start + COLUMNS_AT_ONCE, columns)
                if not masked and _overshoot(g[start:stop], edge[start:stop]) <= zero:
                    continue
                for j in range(start, stop):
                    off_grid = masked and free[i, order[j]]
                    if not off_grid and abs(g[j]) <= edge[j]:
                        continue
                    code = codes[i, order[j]]
                    shift = g[j] / (s[j] * curvature[j])
                    best = code + shift
                    if not off_grid:
                        best = min(max(code + np.rint(shift), zero), largest)
                        if best == code:
                            continue
                        moved += 1
                    change = best - code
                    gains[sweep] += s[j] * s[j] * curvature[j] * change * (2 * shift - change)
                    codes[i, order[j]] = best
                    pull, row = change * s[j], sigma[j]
                    for k in range(columns):
                        g[k] -= pull * row[k]
            moves[sweep] += moved
            if moved == 0:
                break
        for j in range(columns):
            gradient[i, order[j]] = g[j]


@njit(cache=True, nogil=True)
def count_moves(gradient, codes, scale, group, curvature, largest, free):
    """Code changes that would lower f, and the most that one of them would; arrays of ``descend``, unsorted."""
    zero = largest - largest
    moves, highest = 0, 0.0
    edge = np.empty_like(curvature)
    for i in range(len(codes)):
        for j in range(len(edge)):
            edge[j] = scale[i, group[j]] * curvature[j] / 2
        if _overshoot(gradient[i], edge) <= zero:
            continue
        for j in range(len(edge)):
            if abs(gradient[i, j]) <= edge[j] or (free.size > 0 and free[i, j]):
                continue
            s, code = scale[i, group[j]], codes[i, j]
            shift = gradient[i, j] / (s * curvature[j])
            move = min(max(code + np.rint(shift), zero), largest) - code
            gain = s * s * curvature[j] * move * (2 * shift - move)
            moves += gain > 0
            highest = max(highest, gain)
    return moves, highest


@njit(cache=True, nogil=True)
def quantise_block(current, target, codes, residual, scale, zero, group, share, largest, free, real):
    """One block of columns in the nearest-plane recursion of ``gptq``, in place; the layer is transposed.

    ``current``, ``target``, ``codes`` and ``residual`` are (block, q), ``scale`` and ``zero`` (groups, q; any number
    where ``real``), ``group`` (block,); ``share[k, j]``, (block, block), is how much of the error of column j column k
    takes up; ``free`` is (block, q) or empty.
    """
    lowest = largest - largest
    columns, rows = current.shape
    masked = free.size > 0
    for first in range(0, rows, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, rows)
        for j in range(columns):
            u, code, left = current[j, first:last], codes[j, first:last], residual[j, first:last]
            s, z, wanted = scale[group[j], first:last], zero[group[j], first:last], target[j, first:last]
            if real:
                for i in range(last - first):
                    whole = np.rint(z[i])
                    code[i] = min(max(np.rint(u[i] / s[i] + (z[i] - whole)) + whole, lowest), largest)
            else:
                for i in range(last - first):
                    code[i] = min(max(np.rint(u[i] / s[i]) + z[i], lowest), largest)
            for i in range(last - first):
                left[i] = wanted[i] - (code[i] - z[i]) * s[i]
            if masked:
                for i in range(last - first):
                    if free[j, first + i]:
                        left[i] = wanted[i] - u[i]
            for k in range(j + 1, columns):
                part, taking = share[k, j], current[k, first:last]
                for i in range(last - first):
                    taking[i] += left[i] * part


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "nnan", "arcp"})
def _weighted_error(weight, importance, scale, zero, largest, limit):
    """sum_j d_j (w_j - Q(w_j))^2, or some number above ``limit`` as soon as the sum is above it."""
    inverse, low, high = 1 / scale, -zero, largest - zero
    total, bound = scale - scale, limit / (scale * scale)
    for start in range(0, len(weight), SUMMED_AT_ONCE):
        w, d = weight[start : start + SUMMED_AT_ONCE], importance[start : start + SUMMED_AT_ONCE]
        for j in range(len(w)):
            position = w[j] * inverse
            residual = min(max(np.rint(position), low), high) - position
            total += d[j] * residual * residual
        if total > bound:
            break
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
def grid_error(weight, importance, scale, zero, largest, error):
    """Weighted error of every row into ``error`` (rows,); the arrays are those of ``search_grid``."""
    for i in range(len(weight)):
        error[i] = _weighted_error(weight[i], importance[i % len(importance)], scale[i], zero[i], largest, np.inf)


@njit(cache=True, nogil=True)
def search_grid(weight, importance, scale, zero, zero_steps, shrinks, rounds, largest):
    """The search of ``fit_grid`` in place: ``scale`` and ``zero`` (rows,) hold the min/max grid.

    ``weight`` is (rows, size); row i has the importance of row i modulo the rows of ``importance``.
    """
    for i in range(len(weight)):
        w, d = weight[i], importance[i % len(importance)]
        widest, middle = scale[i], zero[i]
        lowest = _weighted_error(w, d, widest, middle, largest, np.inf)
        for step in zero_steps:
            z = middle + step
            if z < 0 or z > largest:
                continue
            for shrink in shrinks:
                s = widest * shrink
                error = _weighted_error(w, d, s, z, largest, lowest)
                if error < lowest:
                    lowest, scale[i], zero[i] = error, s, z
        for _ in range(rounds):
            s = _least_squares_scale(w, d, scale[i], zero[i], largest)
            error = _weighted_error(w, d, s, zero[i], largest, lowest)
            if error < lowest:
                lowest, scale[i] = error, s


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "nnan", "arcp"})
def _offset_error(weight, importance, scale, offset, largest, limit):
    """sum_j d_j (w_j - (s c_j + m))^2 of the nearest codes, or some number above ``limit``."""
    inverse, zero = 1 / scale, scale - scale
    total, bound = zero, limit / (scale * scale)
    for j in range(len(weight)):
        position = (weight[j] - offset) * inverse
        residual = min(max(np.rint(position), zero), largest) - position
        total += importance[j] * residual * residual
    return total * scale * scale if total <= bound else limit + 1


@njit(cache=True, nogil=True)
def _least_squares_line(weight, importance, scale, offset, largest):
    """Scale and offset that serve best the codes that these two give."""
    inverse, zero = 1 / scale, scale - scale
    d, dc, dcc, dw, dwc = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(len(weight)):
        code = min(max(np.rint((weight[j] - offset) * inverse), zero), largest)
        d += importance[j]
        dc += importance[j] * code
        dcc += importance[j] * code * code
        dw += importance[j] * weight[j]
        dwc += importance[j] * weight[j] * code
    determinant = d * dcc - dc * dc
    if determinant <= 1e-9 * d * dcc:  # one code for all
        return scale, offset
    slope = (d * dwc - dc * dw) / determinant
    if slope <= 0:
        return scale, offset
    return weight.dtype.type(slope), weight.dtype.type((dcc * dw - dc * dwc) / determinant)


@njit(cache=True, nogil=True)
def search_offsets(weight, importance, scale, offset, shrinks, places, rounds, largest):
    """Scale and offset of the smallest weighted error in place; they hold the whole range's.

    ``weight`` is (rows, size); row i has the importance of row i modulo the rows of ``importance``.
    """
    for i in range(len(weight)):
        w, d = weight[i], importance[i % len(importance)]
        low, widest = offset[i], scale[i]
        lowest = _offset_error(w, d, widest, low, largest, np.inf)
        for shrink in shrinks:
            for place in places:
                s = widest * shrink
                m = low + (widest - s) * largest * place
                s, m = _least_squares_line(w, d, s, m, largest)
                error = _offset_error(w, d, s, m, largest, lowest)
                if error < lowest:
                    lowest, scale[i], offset[i] = error, s, m
        for _ in range(rounds):
            s, m = _least_squares_line(w, d, scale[i], offset[i], largest)
            error = _offset_error(w, d, s, m, largest, lowest)
            if error < lowest:
                lowest, scale[i], offset[i] = error, s, m
