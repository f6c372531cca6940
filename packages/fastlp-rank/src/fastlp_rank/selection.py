# mypy: allow-untyped-defs, allow-untyped-calls
r"""Equal slot weights, compiled: a dual simplex over which items are shown, on the few items that matter.

.. math:: \max \sum_i u_i x_i \;\; \text{s.t.} \;\; \sum_i a_{ki} x_i = r_k,\; L_k \le r_k \le U_k,\;
          \sum_i x_i = m,\; 0 \le x \le 1

A basis has K + 1 columns: items, and row activities r_k (column -e_k, "logicals"). Every item has two bounds, so each
basis is dual feasible once the items whose reduced score has the wrong sign have gone to their other bound. It starts
with the m best items, the last of them and all logicals basic. The row of largest infeasibility² / ‖e_r B⁻¹‖² leaves
(steepest edge with exact weights: Forrest and Goldfarb 1992); the column enters at which the dual's slope turns, every
one before it flips its bound (long step rule: Fourer 1994, Maros 2003).

Only a **near set** is looked at, the best m + 4 (K + 1) items, kept as a dense block. At its optimum all items are
priced once, those that would enter come in, and it goes on (sifting: Bixby et al. 1992). A vertex with F fractional
items has F - 1 tight rows or more, and systematic sampling (Madow 1949) makes it a lottery of at most F lists.

Scores and rows are scaled to 1. Whatever stops this method (rows that contradict each other, a vanishing pivot, too
many steps) is left to the column generation in `fastlp_rank.kernels`, and nothing that it finds is believed before
`fastlp_rank.proof`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fastlp_rank.inversion import invert

_TINY = 1e-12  # a scaled reduced score or step below this is rounding
_INFEASIBLE = 1e-11  # a scaled violation above this makes a row leave
_PIVOT = 1e-9  # smaller entries of the pivot row are none
_WEAK, _FIRM = 1e-7, 1e-5  # a pivot below the first gives way to an earlier one above the second
_RESIDUAL = 1e-8  # a larger one asks for a new factorisation
_LIGHTEST = 1e-4  # floor of the steepest edge weights
_REFACTOR = 400  # pivots between factorisations
_WHOLE = 1e-13  # a basic item this close to 0 or 1 is there
_SINGULAR = 1e-12
_BLUR = 1e-6  # size of the perturbation against cycling
_BLURS = 5  # how often it is tried

_AT_LOWER, _AT_UPPER, _BASIC = 0, 1, 2


class Scratch(NamedTuple):
    """Arrays of the method: c is a place in the near set, i a place in the basis, k a row (K: the count)."""

    near: NDArray[np.int64]
    """Item at place c."""
    is_near: NDArray[np.int64]
    side: NDArray[np.float64]
    """1 shown, -1 not shown, 0 basic, by c."""
    reduced: NDArray[np.float64]
    """u_c - y · a_c."""
    entries: NDArray[np.float64]
    """Pivot row, by c."""
    columns: NDArray[np.float64]
    """Scaled rows of the near set, (K, places)."""
    keys: NDArray[np.float64]
    """By item."""
    buffer: NDArray[np.float64]
    ratio: NDArray[np.float64]
    slope: NDArray[np.float64]
    """By how much the dual's slope falls behind each ratio."""
    candidate: NDArray[np.int64]
    """c of an item, -1 - k of a logical."""
    basis: NDArray[np.int64]
    """As candidates."""
    value: NDArray[np.float64]
    edge: NDArray[np.float64]
    inverse: NDArray[np.float64]
    """[k, i]: the basis' inverse, transposed."""
    work: NDArray[np.float64]
    price: NDArray[np.float64]
    at: NDArray[np.int64]
    """Where each logical is."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    unit: NDArray[np.float64]
    """What scales a row."""
    pivot_row: NDArray[np.float64]
    """e_r B⁻¹, by k."""
    pivot_column: NDArray[np.float64]
    """B⁻¹ a, by i."""
    product: NDArray[np.float64]
    shift: NDArray[np.float64]
    """Change of the right-hand side, by k."""
    factor: NDArray[np.float64]
    which: NDArray[np.int64]


@njit(cache=True, nogil=True)
def sizes(n, K):
    """Return how many floats and ints `carve` takes."""
    K1 = K + 1
    return 5 * n + K * n + 2 * (n + K1) + 2 * K1 * K1 + 8 * K1 + 3 * K, 2 * n + (n + K1) + 2 * K1 + K


@njit(cache=True, nogil=True, inline="always")
def carve(fw, iw, n, K):
    """Lay the arrays out in workspaces."""
    K1 = K + 1
    f = 0
    side, reduced, entries = fw[0:n], fw[n : 2 * n], fw[2 * n : 3 * n]
    keys, buffer = fw[3 * n : 4 * n], fw[4 * n : 5 * n]
    f = 5 * n
    columns = fw[f : f + K * n].reshape((K, n))
    f += K * n
    ratio, slope = fw[f : f + n + K1], fw[f + n + K1 : f + 2 * (n + K1)]
    f += 2 * (n + K1)
    inverse = fw[f : f + K1 * K1].reshape((K1, K1))
    f += K1 * K1
    work = fw[f : f + K1 * K1].reshape((K1, K1))
    f += K1 * K1
    by_row = fw[f : f + 8 * K1].reshape((8, K1))
    f += 8 * K1
    low, high, unit = fw[f : f + K], fw[f + K : f + 2 * K], fw[f + 2 * K : f + 3 * K]
    g = 2 * n + n + K1
    return Scratch(
        iw[0:n],
        iw[n : 2 * n],
        side,
        reduced,
        entries,
        columns,
        keys,
        buffer,
        ratio,
        slope,
        iw[2 * n : g],
        iw[g : g + K1],
        by_row[0],
        by_row[1],
        inverse,
        work,
        by_row[2],
        iw[g + 2 * K1 : g + 2 * K1 + K],
        low,
        high,
        unit,
        by_row[3],
        by_row[4],
        by_row[5],
        by_row[6],
        by_row[7],
        iw[g + K1 : g + 2 * K1],
    )


@njit(cache=True, nogil=True, inline="always")
def _add1(out, a, p):
    for i in range(out.size):
        out[i] += p * a[i]


@njit(cache=True, nogil=True)
def _add4(out, a, b, c, d, p, q, r, s):
    for i in range(out.size):
        out[i] += p * a[i] + q * b[i] + r * c[i] + s * d[i]


@njit(cache=True, nogil=True)
def _combine(out, rows, index, factor, count):
    """Add Σ_c factor_c rows[index_c] to `out`, as many entries as it has."""
    w = out.size
    c = 0
    while c + 3 < count:
        _add4(
            out,
            rows[index[c], :w],
            rows[index[c + 1], :w],
            rows[index[c + 2], :w],
            rows[index[c + 3], :w],
            factor[c],
            factor[c + 1],
            factor[c + 2],
            factor[c + 3],
        )
        c += 4
    while c < count:
        _add1(out, rows[index[c], :w], factor[c])
        c += 1


@njit(cache=True, nogil=True)
def largest(values, place, buffer):
    """Value of the place-th largest (quickselect on a copy)."""
    for i in range(values.size):
        buffer[i] = values[i]
    first = 0
    last = values.size - 1
    while first < last:
        middle = buffer[(first + last) >> 1]
        i = first
        j = last
        while i <= j:
            while buffer[i] > middle:
                i += 1
            while buffer[j] < middle:
                j -= 1
            if i <= j:
                buffer[i], buffer[j] = buffer[j], buffer[i]
                i += 1
                j -= 1
        if place - 1 <= j:
            last = j
        elif place - 1 >= i:
            first = i
        else:
            break
    return buffer[place - 1]


@njit(cache=True, nogil=True)
def _invert(columns, basis, work, inverse):
    """Invert the transposed basis; False when it is numerically singular."""
    K1 = basis.size
    K = K1 - 1
    for i in range(K1):
        b = basis[i]
        if b < 0:
            for k in range(K1):
                work[i, k] = 0.0
            work[i, -1 - b] = -1.0
        else:
            for k in range(K):
                work[i, k] = columns[k, b]
            work[i, K] = 1.0
    return invert(work, inverse, _SINGULAR)


@njit(cache=True, nogil=True, inline="always")
def _start(u, A, m, score_unit, s):
    """Fill the near set, and the basis of all logicals and the m-th best item; return the number of places."""
    near, is_near, side, reduced, columns, buffer = s.near, s.is_near, s.side, s.reduced, s.columns, s.buffer
    basis, value, edge, inverse, price, at = s.basis, s.value, s.edge, s.inverse, s.price, s.at
    unit = s.unit
    K, n = A.shape
    wanted = min(n, m + max(4 * (K + 1), 32))
    least = largest(u, wanted, buffer)
    places = np.int64(0)
    for i in range(n):
        near[places] = i
        chosen = 1 if u[i] >= least else 0
        is_near[i] = chosen
        places += chosen
    for c in range(places):
        reduced[c] = u[near[c]] / score_unit
    theta = largest(reduced[:places], m, buffer)
    left = m
    for c in range(places):
        if reduced[c] > theta:
            side[c] = 1.0
            left -= 1
        else:
            side[c] = -1.0
    last = 0
    for c in range(places):
        if left > 0 and reduced[c] == theta:
            side[c] = 1.0
            left -= 1
            last = c
        reduced[c] -= theta
    inverse[:, :] = 0.0
    for k in range(K):
        row = A[k]
        column = columns[k]
        total = 0.0
        for c in range(places):
            a = row[near[c]] * unit[k]
            column[c] = a
            total += a * (side[c] + 1.0)
        a = column[last]
        inverse[k, k] = -1.0
        inverse[K, k] = a
        edge[k] = 1.0 + a * a
        value[k] = 0.5 * total
        basis[k] = -1 - k
        at[k] = _BASIC
        price[k] = 0.0
    side[last] = 0.0
    reduced[last] = 0.0
    inverse[K, K] = 1.0
    edge[K] = 1.0
    value[K] = 1.0
    basis[K] = last
    price[K] = theta
    return places


@njit(cache=True, nogil=True, inline="always")
def _leaving(basis, value, edge, low, high):
    """Return the place in the basis that leaves (-1: all is feasible), by how much it is off, and whether above."""
    leaving = -1
    best = 0.0
    off = 0.0
    above = False
    for i in range(basis.size):
        b = basis[i]
        x = value[i]
        least = low[-1 - b] if b < 0 else 0.0
        most = high[-1 - b] if b < 0 else 1.0
        excess = max(x - most, least - x)
        if excess > _INFEASIBLE and excess * excess > best * edge[i]:
            best = excess * excess / edge[i]
            leaving = i
            off = excess
            above = x > most
    return leaving, off, above


@njit(cache=True, nogil=True, inline="always")
def _candidates(s, places, leaving, sign):
    """Compute the pivot row; list what may enter with its ratio and slope; return how many, and the sum of slopes."""
    side, reduced, entries, columns, ratio, slope = s.side, s.reduced, s.entries, s.columns, s.ratio, s.slope
    candidate, inverse, price, at, low, high = s.candidate, s.inverse, s.price, s.at, s.low, s.high
    pivot_row, factor, index = s.pivot_row, s.factor, s.which
    K = at.size
    entries = entries[:places]
    count = np.int64(0)
    for k in range(K + 1):
        pivot_row[k] = inverse[k, leaving]
        if k < K and pivot_row[k] != 0.0:
            index[count] = k
            factor[count] = pivot_row[k]
            count += 1
    for c in range(places):
        entries[c] = pivot_row[K]
    _combine(entries, columns, index, factor, count)
    q = np.int64(0)
    for c in range(places):
        candidate[q] = c
        q += 1 if sign * entries[c] * side[c] > _PIVOT else 0
    total = 0.0
    for j in range(q):
        c = candidate[j]
        a = abs(entries[c])
        ratio[j] = abs(reduced[c]) / a
        slope[j] = a
        total += a
    for k in range(K):
        if at[k] != _BASIC and high[k] > low[k]:
            a = -sign * pivot_row[k]
            if a < -_PIVOT if at[k] == _AT_LOWER else a > _PIVOT:
                candidate[q] = -1 - k
                ratio[q] = max(price[k] / a, 0.0)
                slope[q] = abs(a) * (high[k] - low[k])
                total += slope[q]
                q += 1
    return q, total


@njit(cache=True, nogil=True)
def _turning(ratio, slope, candidate, q, off):
    """Place of the smallest ratio up to which the slopes sum up to more than `off` (quickselect by weight)."""
    first = 0
    last = q - 1
    while first < last:
        middle = ratio[(first + last) >> 1]
        i = first
        j = last
        while i <= j:
            while ratio[i] < middle:
                i += 1
            while ratio[j] > middle:
                j -= 1
            if i <= j:
                ratio[i], ratio[j] = ratio[j], ratio[i]
                slope[i], slope[j] = slope[j], slope[i]
                candidate[i], candidate[j] = candidate[j], candidate[i]
                i += 1
                j -= 1
        before = 0.0
        for c in range(first, j + 1):
            before += slope[c]
        if before > off:
            last = j
            continue
        off -= before
        if i - j == 2:  # one in between, equal to the middle
            if slope[j + 1] > off:
                return j + 1
            off -= slope[j + 1]
        first = i
    return min(first, q - 1)


@njit(cache=True, nogil=True, inline="always")
def _entering(s, q, off):
    """Choose among the candidates: where the slope turns, of the largest pivot among equals."""
    ratio, slope, candidate = s.ratio, s.slope, s.candidate
    e = _turning(ratio, slope, candidate, q, off)
    at = ratio[e]
    size = _size(s, candidate[e])
    for c in range(q):
        if abs(ratio[c] - at) <= _TINY:
            a = _size(s, candidate[c])
            if a > size:
                size = a
                e = c
    if size < _WEAK:
        best = -1.0
        for c in range(q):
            if best < ratio[c] <= at and _size(s, candidate[c]) > _FIRM:
                best = ratio[c]
                e = c
    return e


@njit(cache=True, nogil=True, inline="always")
def _size(s, candidate):
    """Size of the pivot row's entry of a candidate."""
    entries, pivot_row = s.entries, s.pivot_row
    return abs(entries[candidate]) if candidate >= 0 else abs(pivot_row[-1 - candidate])


@njit(cache=True, nogil=True, inline="always")
def _flip_item(s, c):
    """Send an item to its other bound."""
    side, columns, at, shift = s.side, s.columns, s.at, s.shift
    step = -side[c]
    side[c] = step
    for k in range(at.size):
        shift[k] -= columns[k, c] * step
    shift[at.size] -= step


@njit(cache=True, nogil=True, inline="always")
def _flip_row(s, k):
    """Send a logical to its other bound."""
    at, low, high, shift = s.at, s.low, s.high, s.shift
    width = high[k] - low[k]
    shift[k] += width if at[k] == _AT_LOWER else -width
    at[k] = _AT_UPPER if at[k] == _AT_LOWER else _AT_LOWER


@njit(cache=True, nogil=True, inline="always")
def _apply_shift(s):
    """Move the basic values by B⁻¹ shift."""
    value, inverse, shift = s.value, s.inverse, s.shift
    for k in range(shift.size):
        if shift[k] != 0.0:
            _add1(value, inverse[k], shift[k])


@njit(cache=True, nogil=True, inline="always")
def _pivot(s, places, q, chosen, leaving, sign):
    """Flip what the step passes, then exchange the chosen candidate and the leaving variable; False: no pivot."""
    side, reduced, entries, columns, ratio, candidate = s.side, s.reduced, s.entries, s.columns, s.ratio, s.candidate
    basis, value, inverse, price, at, low = s.basis, s.value, s.inverse, s.price, s.at, s.low
    high, pivot_row, column, shift = s.high, s.pivot_row, s.pivot_column, s.shift
    K = at.size
    entering = candidate[chosen]
    step_length = ratio[chosen]
    shift[:] = 0.0
    flipped = False
    for c in range(q):
        other = candidate[c]
        if ratio[c] < step_length and other != entering:
            if other >= 0:
                _flip_item(s, other)
                flipped = True
            elif high[-1 - other] - low[-1 - other] < np.inf:
                _flip_row(s, -1 - other)
                flipped = True
    column[:] = 0.0
    if entering >= 0:
        for k in range(K):
            a = columns[k, entering]
            if a != 0.0:
                _add1(column, inverse[k], a)
        _add1(column, inverse[K], 1.0)
    else:
        _add1(column, inverse[-1 - entering], -1.0)
    pivot = column[leaving]
    if abs(pivot) < _PIVOT:
        return False
    if flipped:
        _apply_shift(s)
    left = basis[leaving]
    target = 1.0 if sign < 0.0 else 0.0
    if left < 0:
        target = high[-1 - left] if sign < 0.0 else low[-1 - left]
    step = (value[leaving] - target) / pivot
    dual_step = step_length * sign
    _add1(reduced[:places], entries[:places], -dual_step)
    _add1(price, pivot_row, dual_step)
    if left >= 0:
        reduced[left] = -dual_step
        side[left] = 1.0 if sign < 0.0 else -1.0
    else:
        price[-1 - left] = -dual_step
        at[-1 - left] = _AT_UPPER if sign < 0.0 else _AT_LOWER
    if entering >= 0:
        new = (1.0 if side[entering] > 0.0 else 0.0) + step
        side[entering] = 0.0
        reduced[entering] = 0.0
    else:
        k = -1 - entering
        new = (high[k] if at[k] == _AT_UPPER else low[k]) + step
        at[k] = _BASIC
        price[k] = 0.0
    _add1(value, column, -step)
    value[leaving] = new
    basis[leaving] = entering
    _update_inverse(s, leaving, pivot)
    return True


@njit(cache=True, nogil=True, inline="always")
def _update_inverse(s, leaving, pivot):
    """Exchange the leaving column in B⁻¹ and in the steepest edge weights."""
    edge, inverse, pivot_row, column, product = s.edge, s.inverse, s.pivot_row, s.pivot_column, s.product
    product[:] = 0.0
    for k in range(product.size):
        if pivot_row[k] != 0.0:
            _add1(product, inverse[k], pivot_row[k])
    own = edge[leaving]
    scale = 1.0 / pivot
    for i in range(edge.size):
        share = column[i] * scale
        edge[i] = max(edge[i] - 2.0 * share * product[i] + share * share * own, _LIGHTEST)
    edge[leaving] = max(own * scale * scale, _LIGHTEST)
    column[leaving] -= 1.0
    for k in range(product.size):
        if pivot_row[k] != 0.0:
            _add1(inverse[k], column, -pivot_row[k] * scale)


@njit(cache=True, nogil=True)
def _price_all(u, A, m, score_unit, s):
    """Price all items; return the key down to which they belong into the near set, inf where nothing would enter."""
    is_near, keys, price, unit, factor, index = s.is_near, s.keys, s.price, s.unit, s.factor, s.which
    K, n = A.shape
    count = 0
    for k in range(K):
        if price[k] != 0.0:
            index[count] = k
            factor[count] = -price[k] * unit[k] * score_unit
            count += 1
    theta = price[K] * score_unit
    for i in range(n):
        keys[i] = u[i] - theta
    _combine(keys, A, index, factor, count)
    entering = 0
    for i in range(n):
        entering += 1 - is_near[i] if keys[i] > _TINY * score_unit else 0
    return min(0.0, largest(keys, min(n, m + max(4 * (K + 1), 32)), s.buffer)) if entering > 0 else np.inf


@njit(cache=True, nogil=True)
def _admit(A, score_unit, s, places, cut):
    """Let the items in whose keys reach the cut, at the bound that their keys ask for; return the number of places."""
    near, is_near, side, reduced, columns, keys = s.near, s.is_near, s.side, s.reduced, s.columns, s.keys
    unit, shift = s.unit, s.shift
    K, n = A.shape
    shift[:] = 0.0
    old = places
    for i in range(n):
        if is_near[i] == 0 and keys[i] >= cut:
            near[places] = i
            is_near[i] = 1
            reduced[places] = keys[i] / score_unit
            side[places] = 1.0 if keys[i] > 0.0 else -1.0
            shift[K] -= 1.0 if keys[i] > 0.0 else 0.0
            places += 1
    for k in range(K):
        row = A[k]
        column = columns[k]
        total = 0.0
        for c in range(old, places):
            a = row[near[c]] * unit[k]
            column[c] = a
            total += a * (side[c] + 1.0)
        shift[k] -= 0.5 * total
    _apply_shift(s)
    return places


@njit(cache=True, nogil=True)
def _refine(s, places, m):
    """One step of iterative refinement of the basic values, on a new inverse where the old one is too worn."""
    side, entries, columns, basis, value, inverse = s.side, s.entries, s.columns, s.basis, s.value, s.inverse
    work, at, low, high, shift = s.work, s.at, s.low, s.high, s.shift
    K = at.size
    x = entries[:places]
    for _ in range(2):
        for c in range(places):
            x[c] = 0.5 * (side[c] + 1.0) if side[c] != 0.0 else 0.0
        for i in range(K + 1):
            if basis[i] >= 0:
                x[basis[i]] = value[i]
        total = float(m)
        for c in range(places):
            total -= x[c]
        shift[K] = total
        worst = abs(total)
        for k in range(K):
            column = columns[k]
            total = 0.0
            for c in range(places):
                total += column[c] * x[c]
            if at[k] != _BASIC:
                total -= low[k] if at[k] == _AT_LOWER else high[k]
            shift[k] = -total
        for i in range(K + 1):
            if basis[i] < 0:
                shift[-1 - basis[i]] += value[i]
        for k in range(K):
            worst = max(worst, abs(shift[k]))
        _apply_shift(s)
        if worst < _RESIDUAL:
            return True
        if not _invert(columns, basis, work, inverse):
            return False
    return False


@njit(cache=True, nogil=True)
def _blur(s, places, seed):
    """Move the reduced scores away from 0, at random, so that no step has length 0; return the generator's state."""
    side, reduced = s.side, s.reduced
    for c in range(places):
        seed ^= seed << np.uint64(13)
        seed ^= seed >> np.uint64(7)
        seed ^= seed << np.uint64(17)
        reduced[c] += side[c] * _BLUR * (0.5 + np.float64(seed >> np.uint64(12)) / 4503599627370496.0)
    return seed


@njit(cache=True, nogil=True)
def _sharpen(u, score_unit, s, places):
    """Take prices and reduced scores from the true scores; what has the wrong sign flips. False: a row cannot."""
    near, side, reduced, columns, basis, inverse = s.near, s.side, s.reduced, s.columns, s.basis, s.inverse
    price, at, low, high, shift, factor = s.price, s.at, s.low, s.high, s.shift, s.factor
    index = s.which
    K = at.size
    for k in range(K + 1):
        total = 0.0
        for i in range(K + 1):
            if basis[i] >= 0:
                total += u[near[basis[i]]] / score_unit * inverse[k, i]
        price[k] = total if k == K or at[k] != _BASIC else 0.0
    for k in range(K):
        index[k] = k
        factor[k] = -price[k]
    for c in range(places):
        reduced[c] = u[near[c]] / score_unit - price[K]
    _combine(reduced[:places], columns, index, factor, K)
    shift[:] = 0.0
    for i in range(K + 1):
        if basis[i] >= 0:
            reduced[basis[i]] = 0.0
    for c in range(places):
        if side[c] * reduced[c] < -_TINY:
            _flip_item(s, c)
    for k in range(K):
        wrong = price[k] > _TINY if at[k] == _AT_LOWER else price[k] < -_TINY
        if at[k] != _BASIC and wrong and high[k] > low[k]:
            if high[k] - low[k] == np.inf:
                return False
            _flip_row(s, k)
    _apply_shift(s)
    return True


@njit(cache=True, nogil=True)
def select(u, A, lower, upper, m, slot_weight, score_unit, row_sizes, max_pricings, s):
    """Find an optimal vertex in the scratch arrays; return its places, pricings and pivots.

    No places (0): not found. -1: the rows seem to contradict each other.
    ``row_sizes`` are max_i |a_ki| times what all slots weigh; the scratch must be carved for this n and K.
    """
    columns, ratio, basis, value, edge, inverse = s.columns, s.ratio, s.basis, s.value, s.edge, s.inverse
    work, low, high, unit = s.work, s.low, s.high, s.unit
    K, n = A.shape
    for k in range(K):
        unit[k] = m * slot_weight / row_sizes[k]
        low[k] = lower[k] / slot_weight * unit[k]
        high[k] = upper[k] / slot_weight * unit[k]
    places = _start(u, A, m, score_unit, s)
    pricings = 0
    pivots = 0
    exact = True  # basic values are those of the basis, not updated ones
    idle = 0
    blurred = False
    blurs = 0
    seed = np.uint64(88172645463325252)
    while pivots < 20 * (K + 1) + 500:
        leaving, off, above = _leaving(basis, value, edge, low, high)
        if leaving < 0:
            if blurred:
                blurred = False
                exact = False
                if not _sharpen(u, score_unit, s, places):
                    break
                continue
            if not exact:
                if not _refine(s, places, m):
                    break
                exact = True
                continue
            if places == n and pricings > 0:
                return places, pricings, pivots
            if pricings >= max_pricings:
                break
            pricings += 1
            cut = np.inf if places == n else _price_all(u, A, m, score_unit, s)
            if cut == np.inf:
                return places, pricings, pivots
            places = _admit(A, score_unit, s, places, cut)
            exact = False
            continue
        if idle > 20 + K and not blurred and blurs < _BLURS:
            blurred = True
            blurs += 1
            idle = 0
            seed = _blur(s, places, seed)
        sign = -1.0 if above else 1.0
        q, total = _candidates(s, places, leaving, sign)
        if total <= off - _TINY:
            if places == n:
                return -1, pricings, pivots
            if pricings >= max_pricings:
                break
            pricings += 1
            _price_all(u, A, m, score_unit, s)
            places = _admit(A, score_unit, s, places, -np.inf)
            exact = False
            continue
        chosen = _entering(s, q, off)
        idle = idle + 1 if ratio[chosen] <= _TINY else 0
        if not _pivot(s, places, q, chosen, leaving, sign):
            break
        pivots += 1
        exact = False
        if pivots % _REFACTOR == 0 and not _invert(columns, basis, work, inverse):
            break
    return 0, pricings, pivots


@njit(cache=True, nogil=True)
def state_answer(score_unit, s, places, weight, ranking, multiplier):
    """Write the vertex as a lottery (systematic sampling of its fractional items) with prices; return its lists.

    Lists are in the order of the keys, ties by index. 0: the vertex is no selection of m items after all.
    """
    near, side, reduced, entries, candidate, basis = s.near, s.side, s.reduced, s.entries, s.candidate, s.basis
    value, price, unit, at, low, high = s.value, s.price, s.unit, s.at, s.low, s.high
    loose, ends, starts = s.which, s.factor, s.product
    K = unit.size
    m = ranking.shape[1]
    for k in range(K):
        # what rounding put on a logical, or on a bound that is none, would prove nothing
        idle = at[k] == _BASIC or (high[k] == np.inf if price[k] > 0.0 else low[k] == -np.inf)
        multiplier[k] = 0.0 if idle else price[k] * unit[k] * score_unit
    for i in range(K + 1):
        c = basis[i]
        if c >= 0 and value[i] > 1.0 - _WHOLE:
            side[c] = 1.0
        elif c >= 0 and value[i] < _WHOLE:
            side[c] = -1.0
        elif c >= 0:
            entries[c] = value[i]
    shown = ranking[0]
    order = candidate  # places of those shown
    fixed = 0
    for c in range(places):
        if side[c] > 0.0:
            if fixed == m:
                return 0
            key = reduced[c]
            j = fixed
            while j > 0 and (reduced[order[j - 1]] < key or (reduced[order[j - 1]] == key and shown[j - 1] > near[c])):
                order[j] = order[j - 1]
                shown[j] = shown[j - 1]
                j -= 1
            order[j] = c
            shown[j] = near[c]
            fixed += 1
    # the fractional ones, end to end: ends[f] is where the f-th ends, in a length of m - fixed
    F = 0
    total = 0.0
    for c in range(places):
        if side[c] == 0.0:
            loose[F] = near[c]
            total += entries[c]
            ends[F] = total
            F += 1
    if F == 0:
        weight[0] = 1.0
        return 1 if fixed == m else 0
    if fixed >= m or abs(total - (m - fixed)) > 1e-9:
        return 0
    ends[F - 1] = float(m - fixed)
    # a comb of teeth one apart picks the items that it hits: which ones changes where a tooth meets an end
    for f in range(F):
        start = ends[f] - np.floor(ends[f])
        j = f
        while j > 0 and starts[j - 1] > start:
            starts[j] = starts[j - 1]
            j -= 1
        starts[j] = start
    lists = 0
    for f in range(F):
        length = (starts[f + 1] if f + 1 < F else 1.0) - starts[f]
        if length <= _WHOLE:
            continue
        tooth = starts[f] + 0.5 * length
        j = fixed
        before = 0.0
        for g in range(F):
            teeth = np.floor(ends[g] - tooth) - np.floor(before - tooth)
            if teeth > 0.0 and j < m:
                ranking[lists, j] = loose[g]
                j += 1
            before = ends[g]
        if j != m:
            return 0
        weight[lists] = length
        lists += 1
    mass = 0.0
    for r in range(lists):
        mass += weight[r]
    for r in range(lists):
        weight[r] /= mass
        for j in range(fixed):
            ranking[r, j] = shown[j]
    return lists
