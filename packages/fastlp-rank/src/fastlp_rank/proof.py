# mypy: allow-untyped-defs, allow-untyped-calls
r"""What a claim is worth on the arrays as given, compiled: `fastlp_rank.certificate` without fractions.

.. math:: \operatorname{key}_i(\lambda) = u_i - \sum_k \lambda_k a_{ki},\qquad
          h(\lambda) = \sum_j v_j \operatorname{key}_{(j)}(\lambda)

The sizes that make a violation and a gap unit-free are defined there. Nothing is allocated here.
"""

import numpy as np
from numba import njit

UNPROVEN, PROVEN, NEARLY_FEASIBLE = 0, 1, 2

PROVEN_GAP = 1e-9  # a gap below this fraction of the scores' size is none
_ROUNDING = 16.0 * 2.0**-52  # what the last bits of a bound or score may hide, relative to it
_CANCELLED = 4.0 * 2.0**-52  # rounding of a key, relative to its parts
_FEWEST = 3  # other items that define a size, at least


@njit(cache=True, nogil=True)
def _axpy1(key, a, p):
    for i in range(key.size):
        key[i] -= p * a[i]


@njit(cache=True, nogil=True)
def _axpy3(key, a, b, c, p, q, r):
    for i in range(key.size):
        key[i] -= p * a[i] + q * b[i] + r * c[i]


@njit(cache=True, nogil=True)
def keys(u, A, price, with_scores, key):
    """key_i = u_i - sum_k price_k a_ki."""
    for i in range(key.size):
        key[i] = u[i] if with_scores else 0.0
    K = A.shape[0]
    k = 0
    while k + 2 < K:
        _axpy3(key, A[k], A[k + 1], A[k + 2], price[k], price[k + 1], price[k + 2])
        k += 3
    while k < K:
        _axpy1(key, A[k], price[k])
        k += 1


@njit(cache=True, nogil=True)
def top(key, order, best, member):
    """Put the m items of largest key (ties: smaller index) into `order`, best first, starting from its old content.

    The old content gives a threshold that few other items pass, and is nearly sorted already.
    """
    m = order.size
    for j in range(m):
        item = order[j]
        value = key[item]
        place = j
        while place > 0 and (best[place - 1] < value or (best[place - 1] == value and order[place - 1] > item)):
            best[place] = best[place - 1]
            order[place] = order[place - 1]
            place -= 1
        best[place] = value
        order[place] = item
    threshold = best[m - 1]
    for i in range(key.size):
        if key[i] >= threshold and member[i] == 0:
            value = key[i]
            if value == threshold and order[m - 1] < i:
                continue
            member[order[m - 1]] = 0
            member[i] = 1
            place = m - 1
            while place > 0 and (best[place - 1] < value or (best[place - 1] == value and order[place - 1] > i)):
                best[place] = best[place - 1]
                order[place] = order[place - 1]
                place -= 1
            best[place] = value
            order[place] = i
            threshold = best[m - 1]


@njit(cache=True, nogil=True)
def _counts_as_none(error, values, centre, tol, m):
    """Whether error <= tol times the size of `values` about `centre`, or hides in the centre's last bits.

    The size is that of `certificate.size_about`: how far the max(m, 3)-th nearest value is from the nearest one.
    """
    blur = _ROUNDING * abs(centre)
    if error <= blur:
        return True
    nearest = values[0]
    for i in range(1, values.size):
        if abs(values[i] - centre) < abs(nearest - centre):
            nearest = values[i]
    blur = max(blur, _ROUNDING * abs(nearest))
    reach = error / tol if tol > 0.0 else np.inf
    near = 0
    different = 0
    for i in range(values.size):
        distance = abs(values[i] - nearest)
        different += distance > blur
        near += blur < distance < reach
    if different == 0:
        return error <= tol * max(abs(centre), abs(nearest))
    return near < min(max(m, _FEWEST), different)


@njit(cache=True, nogil=True)
def _sum_and_rest(v):
    """Σ v_j as a float and what rounding left out of it (Knuth's two-sum)."""
    total = 0.0
    rest = 0.0
    for j in range(v.size):
        new = total + v[j]
        part = new - total
        rest += (total - (new - part)) + (v[j] - part)
        total = new
    return total, rest


@njit(cache=True, nogil=True)
def _remainder(bound, centre, exposure, rest):
    """Subtract centre · (exposure + rest) from a bound that nearly equals it (Dekker's two-product)."""
    product = centre * exposure
    split = 134217729.0 * centre
    high = split - (split - centre)
    low = centre - high
    split = 134217729.0 * exposure
    wide = split - (split - exposure)
    narrow = exposure - wide
    lost = ((high * wide - product) + high * narrow + low * wide) + low * narrow
    remainder = ((bound - product) - lost) - centre * rest
    return remainder if abs(remainder) < np.inf else bound - product


@njit(cache=True, nogil=True)
def _exposures(v, weight, ranking, expected, shown):
    """Expected exposure e_i of every item; put those with some into `shown`, and return how many they are."""
    expected[:] = 0.0
    count = 0
    for r in range(weight.size):
        for j in range(v.size):
            part = weight[r] * v[j]
            if part > 0.0:
                item = ranking[r, j]
                if expected[item] == 0.0:
                    shown[count] = item
                    count += 1
                expected[item] += part
    return count


@njit(cache=True, nogil=True)
def _room(bound, row, exposure, rest, expected, shown):
    """Subtract Σ_i a_i e_i from a bound, item by item about the bound per unit of exposure.

    So an offset costs no digits. Also return the sum of the parts' sizes, which tells how many digits cancelled.
    """
    centre = bound / exposure
    room = 0.0
    parts = 0.0
    for item in shown:
        part = expected[item] * (centre - row[item])
        room += part
        parts += abs(part)
    return room + _remainder(bound, centre, exposure, rest), parts


@njit(cache=True, nogil=True)
def _shifted_keys(u, A, lower, upper, exposure, theta, multiplier, with_scores, key):
    """key_i up to a constant, every score about theta and every row about the bound that its multiplier prices."""
    for i in range(key.size):
        key[i] = u[i] - theta if with_scores else 0.0
    for k in range(multiplier.size):
        price = multiplier[k]
        if price != 0.0:
            centre = (upper[k] if price > 0.0 else lower[k]) / exposure
            for i in range(key.size):
                key[i] -= price * (A[k, i] - centre)


@njit(cache=True, nogil=True)
def prove(
    u, A, lower, upper, v, out, weight, price, ray, ranking, infeasible, gap_tol, feasibility_tol, shifted, key, order,
    best, member, expected, shown,
):  # fmt: skip
    r"""Recompute objective, bound and largest violation from the arrays as given; return whether they prove the claim.

    .. math:: G(\lambda) - f = \sum_r \alpha_r \sum_j v_j (\operatorname{key}_{(j)} - \operatorname{key}_{\pi_r(j)})
              + \sum_k |\lambda_k| \, s_k

    with s_k the room between row k's activity and the bound that λ_k prices: no large numbers cancel. Where a lottery
    counts as feasible, the bound is that over the lotteries that violate no row by more than it does. The sizes that
    make violation and gap unit-free are those of `fastlp_rank.certificate`. NEARLY_FEASIBLE: the rows contradict each
    other, but by so little that all might be met to `feasibility_tol`. `order` and `member` hold any m items.
    """
    K = A.shape[0]
    m = v.size
    exposure, rest = _sum_and_rest(v)
    objective = 0.0
    for r in range(weight.size):
        total = 0.0
        for j in range(m):
            total += v[j] * u[ranking[r, j]]
        objective += weight[r] * total
    out[0] = objective
    out[1] = np.inf
    shown = shown[: _exposures(v, weight, ranking, expected, shown)]
    multiplier = ray if infeasible else price
    feasible = True
    admissible = True
    largest = 0.0
    violation = 0.0
    room = 0.0  # Σ |λ_k| s_k, where s_k is negative for a violated bound
    unused = 0.0  # its positive part, without what hides in the bound's last bits
    usable = 0.0  # its positive part
    blur = 0.0
    error = 0.0  # what rounding may have done to the keys of the items shown
    for k in range(K):
        above = np.inf
        below = np.inf
        parts_above = 0.0
        parts_below = 0.0
        if upper[k] < np.inf:
            above, parts_above = _room(upper[k], A[k], exposure, rest, expected, shown)
        if lower[k] > -np.inf:
            below, parts_below = _room(lower[k], A[k], exposure, rest, expected, shown)
            below = -below
        excess = -min(above, below)
        lost = 0.0 if infeasible else (parts_above if above < below else parts_below) * _CANCELLED
        if excess + lost > 0.0:
            centre = (upper[k] if above < below else lower[k]) / exposure
            allowed = feasibility_tol * K if infeasible else feasibility_tol
            feasible = feasible and _counts_as_none((excess + lost) / exposure, A[k], centre, allowed, m)
        if excess > 0.0:
            largest = max(largest, excess)
            violation += excess if excess > _ROUNDING * abs(centre) * exposure else 0.0
        if multiplier[k] != 0.0:
            spare = above if multiplier[k] > 0.0 else below
            admissible = admissible and spare < np.inf and abs(multiplier[k]) < np.inf
            if infeasible:
                admissible = admissible and abs(multiplier[k]) <= 1.0 + 1e-9
            bits = _ROUNDING * abs(upper[k] if multiplier[k] > 0.0 else lower[k])
            room += abs(multiplier[k]) * spare
            usable += abs(multiplier[k]) * max(spare, 0.0)
            unused += abs(multiplier[k]) * (spare if spare > bits else 0.0)
            blur += abs(multiplier[k]) * bits
            error += abs(multiplier[k]) * (parts_above if multiplier[k] > 0.0 else parts_below) * _CANCELLED
    out[2] = largest
    if infeasible:
        out[1] = -np.inf
    if not admissible:
        return UNPROVEN
    if shifted or infeasible:
        _shifted_keys(u, A, lower, upper, exposure, out[3], multiplier, not infeasible, key)
    else:
        keys(u, A, multiplier, not infeasible, key)
    top(key, order, best, member)
    if infeasible:
        least = 0.0
        for j in range(m):
            least -= v[j] * best[j]
        if least > blur + error and violation - least <= gap_tol * violation + blur:
            return NEARLY_FEASIBLE if feasible else PROVEN
        return UNPROVEN
    shortfall = 0.0
    for r in range(weight.size):
        total = 0.0
        for j in range(m):
            total += v[j] * (best[j] - key[ranking[r, j]])
        shortfall += weight[r] * total
    if not feasible:
        out[1] = objective + (shortfall + room)
        return UNPROVEN
    out[1] = objective + (shortfall + usable)
    gap = (shortfall + unused + error) / exposure
    mean = objective / exposure - out[3]
    if gap <= max(-gap_tol * mean, _ROUNDING * abs(mean)):
        return PROVEN
    return PROVEN if _counts_as_none(gap, u, out[3], gap_tol, m) else UNPROVEN
