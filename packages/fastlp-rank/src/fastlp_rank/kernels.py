# mypy: allow-untyped-defs, allow-untyped-calls
r"""Column generation on K + 1 rows, compiled: the exact solver behind every public function.

.. math:: \max \sum_p \alpha_p c(p) \;\; \text{s.t.} \;\; \sum_p \alpha_p A_k(p) = r_k,\; L_k \le r_k \le U_k,\;
          \sum_p \alpha_p = 1,\; \alpha \ge 0

over all rankings p, with :math:`c(p) = \sum_j v_j u_{p(j)}` and :math:`A_k(p) = \sum_j v_j a_{k,p(j)}`. A basis
has K + 1 columns: rankings, and row activities r_k ("logicals"). Rankings enter from a pool of those seen so far
and, when none of the pool improves, from the pricing problem

.. math:: h(\lambda) = \max_p c(p) - \sum_k \lambda_k A_k(p) = \sum_j v_j \operatorname{key}_{(j)}(\lambda),\qquad
          \operatorname{key}_i(\lambda) = u_i - \sum_k \lambda_k a_{ki},

one selection of the m largest keys. :math:`G(\lambda) = h(\lambda) + \sum_k \max(\lambda_k, 0) U_k +
\min(\lambda_k, 0) L_k` bounds the optimum from above for every admissible λ; prices are smoothed towards the
best λ seen (Wentges 1997). Leaving the bounds [L, U] costs M_k a unit: a finite box |λ_k| <= M_k, raised when it
binds, then replaced by a proof (phase 1, c = 0) that the rows contradict each other or by hard bounds.

Where all slots weigh the same, `fastlp_rank.selection` is asked first; this method answers what it leaves, and begins
with phase 1 where it finds the rows contradictory.

Everything lives in two flat workspace arrays that the caller owns; nothing is allocated here. Scores and rows are
scaled so that c and A stay within [-1, 1]. No status leaves before `prove_kernel`'s arithmetic has confirmed it from
the arrays as given; what it does not confirm, and data that one scale does not suit, is for `fastlp_rank.untidy`.

Numba looks at the time of this file alone when it decides whether to compile again: touch it after a change of a file
that it imports from.
"""

import numpy as np
from numba import njit

from fastlp_rank import selection
from fastlp_rank.inversion import invert
from fastlp_rank.proof import PROVEN, PROVEN_GAP, keys, prove, top

OPTIMAL, INFEASIBLE, LIMIT, NUMERICAL = 0, 1, 2, 3
BAD_SCORES, BAD_ROWS, BAD_SHAPES, BAD_SLOTS, BAD_BOUNDS, TOO_LARGE_SCORES, TOO_LARGE_ROWS = -1, -2, -3, -4, -5, -6, -7

HEAD = 4
"""Leading results: floats objective, bound, largest violation, m-th largest score; ints number of rankings, pricings,
pivots, -."""

_SCORES_AND_BOX, _PHASE_1, _HARD = 0, 1, 2
_TINY = 1e-12  # a scaled reduced cost, step or violation below this is rounding
_SINGULAR = 1e-13  # a smaller pivot makes no basis


@njit(cache=True, nogil=True)
def workspace_sizes(n, m, K, pool):
    """Return how many floats and ints `solve_kernel` needs."""
    K1 = K + 1
    selection_floats, selection_ints = selection.sizes(n, K)
    floats = HEAD + K1 + 3 * K + K1 * K1 * 3 + 6 * K1 + 8 * K + (K1 + 2) * pool + 2 * n + m
    ints = HEAD + K1 * m + 2 * K1 + K + m + 2 * n + pool + pool * m
    return floats + selection_floats, ints + selection_ints


@njit(cache=True, nogil=True)
def _survey(x):
    """Return max |x_i| (inf when any x_i is not finite), and whether one scale without offset suits all of x.

    It does unless sizes differ by more than 2^20, or everything lies within a percent of one number that is not 0. The
    bits of |x| as integers order like |x|.
    """
    bits = x.view(np.int64)
    top = np.int64(0)
    least = np.int64(0x7FFFFFFFFFFFFFFF)
    least_but_0 = np.int64(0x7FFFFFFFFFFFFFFF)
    any_sign = np.int64(0)
    all_signs = np.int64(-1)
    for i in range(bits.size):
        b = bits[i] & np.int64(0x7FFFFFFFFFFFFFFF)
        top = max(top, b)
        least = min(least, b)
        least_but_0 = min(least_but_0, (b - 1) & np.int64(0x7FFFFFFFFFFFFFFF))
        any_sign |= bits[i]
        all_signs &= bits[i]
    if top >= np.int64(0x7FF0000000000000):
        return np.inf, False
    offset = (any_sign ^ all_signs) >= 0 and 0 < top - least < np.int64(1) << np.int64(45)
    mixed = top > 0 and top - least_but_0 > np.int64(20) << np.int64(52)
    extreme = top > np.int64(0x6000000000000000) or 0 < top < np.int64(0x2000000000000000)
    largest = np.int64(top)
    return largest.view(np.float64), not (offset or mixed or extreme)


@njit(cache=True, nogil=True)
def _locate(x, basis, region, low, high):
    """Assign every basic variable to below (-1), within (0) or above (+1) its bounds."""
    for i in range(basis.size):
        region[i] = 0
        if basis[i] >= 0:
            if x[i] < -_TINY:
                region[i] = -1
        else:
            k = -1 - basis[i]
            if x[i] < low[k] - _TINY:
                region[i] = -1
            elif x[i] > high[k] + _TINY:
                region[i] = 1


@njit(cache=True, nogil=True)
def _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x):
    """Rebuild B and its inverse from the columns, and the basic values x = B^-1 (b - N x_N)."""
    K1 = basis.size
    K = K1 - 1
    for i in range(K1):
        if basis[i] >= 0:
            for k in range(K1):
                B[k, i] = pool_A[k, basis[i]]
        else:
            for k in range(K1):
                B[k, i] = 0.0
            B[-1 - basis[i], i] = -1.0
    for i in range(K1):
        for k in range(K1):
            work[k, i] = B[k, i]
    if not invert(work, Binv, _SINGULAR):
        return False
    for i in range(K1):
        total = Binv[i, K]
        for k in range(K):
            if nonbasic_at[k] < 0:
                total += Binv[i, k] * low[k]
            elif nonbasic_at[k] > 0:
                total += Binv[i, k] * high[k]
        x[i] = total
    return True


@njit(cache=True, nogil=True)
def _break_at(variable, region, d, low, high):
    """Return the value at which a basic variable moving by -d changes its slope, and whether there is one."""
    if variable >= 0:
        if d > 0.0:
            return 0.0, region == 0
        return 0.0, region < 0
    k = -1 - variable
    if d > 0.0:
        if region > 0:
            return high[k], True
        return low[k], region == 0 and low[k] > -np.inf
    if region < 0:
        return low[k], True
    return high[k], region == 0 and high[k] < np.inf


@njit(
    "int64(float64[::1], float64[:,::1], float64[::1], float64[::1], float64[::1], float64[::1], int64[::1],"
    " int64, int64, float64, float64, float64, float64, int64, int64, float64[::1])",
    cache=True,
    nogil=True,
    error_model="numpy",
)
def solve_kernel(
    u,
    A,
    lower,
    upper,
    v,
    fw,
    iw,
    pool_size,
    max_pricings,
    tol,
    feasibility_tol,
    smoothing,
    box,
    stall_limit,
    warm,
    units,
):
    """Solve one request; results are the heads of `fw` and `iw`.

    Returns OPTIMAL or INFEASIBLE (proven), LIMIT, NUMERICAL (not proven, or not tried: zero pricings) or one of the
    BAD_ codes (nothing was computed). `fw` then begins with objective, bound, largest violation, m-th largest score,
    weights[K + 1], prices[K], ray[K], rest[K] (0: the prices are what the proof used); `iw` with number of rankings,
    pricings, pivots, -, rankings[K + 1, m]. `warm` rankings already stand there on entry and join the pool. `units` is
    empty for data as a user states them; otherwise the data are centred and scaled already, and units[k] is row k's
    unit in the sum that phase 1 minimises.
    """
    K = A.shape[0]
    n = A.shape[1]
    m = v.size
    K1 = K + 1

    if u.size != n or lower.size != K or upper.size != K or m < 1 or m > n:
        return BAD_SHAPES
    floats, ints = workspace_sizes(n, m, K, pool_size)
    if fw.size < floats or iw.size < ints or pool_size < 2 * K1 + 2 or warm > K1:
        return BAD_SHAPES
    exposure = 0.0
    for j in range(m):
        exposure += v[j]
        if not (v[j] >= 0.0 and (j == 0 or v[j] <= v[j - 1])):
            return BAD_SLOTS
    if not 0.0 < exposure < np.inf:
        return BAD_SLOTS
    for k in range(K):
        if not (lower[k] <= upper[k] and lower[k] < np.inf and upper[k] > -np.inf):
            return BAD_BOUNDS

    # --- carve the workspace
    out = fw[0:HEAD]
    f = HEAD
    out_weight = fw[f : f + K1]
    f += K1
    out_price = fw[f : f + K]
    f += K
    out_ray = fw[f : f + K]
    f += K
    out_rest = fw[f : f + K]
    f += K
    B = fw[f : f + K1 * K1].reshape((K1, K1))
    f += K1 * K1
    work = fw[f : f + K1 * K1].reshape((K1, K1))
    f += K1 * K1
    Binv = fw[f : f + K1 * K1].reshape((K1, K1))
    f += K1 * K1
    x = fw[f : f + K1]
    f += K1
    d = fw[f : f + K1]
    f += K1
    cost = fw[f : f + K1]
    f += K1
    y = fw[f : f + K1]
    f += K1
    y_price = fw[f : f + K1]
    f += K1
    y_best = fw[f : f + K1]
    f += K1
    rho = fw[f : f + K]
    f += K
    low = fw[f : f + K]
    f += K
    high = fw[f : f + K]
    f += K
    true_low = fw[f : f + K]
    f += K
    true_high = fw[f : f + K]
    f += K
    penalty = fw[f : f + K]
    f += K
    raw_price = fw[f : f + K]
    f += K
    feasible_best = fw[f : f + K]
    f += K
    pool_A = fw[f : f + K1 * pool_size].reshape((K1, pool_size))
    f += K1 * pool_size
    pool_c = fw[f : f + pool_size]
    f += pool_size
    gain = fw[f : f + pool_size]
    f += pool_size
    key = fw[f : f + n]
    f += n
    best = fw[f : f + m]
    f += m
    expected = fw[f : f + n]
    f += n

    g = HEAD
    out_ranking = iw[g : g + K1 * m].reshape((K1, m))
    g += K1 * m
    basis = iw[g : g + K1]
    g += K1
    region = iw[g : g + K1]
    g += K1
    nonbasic_at = iw[g : g + K]
    g += K
    order = iw[g : g + m]
    g += m
    member = iw[g : g + n]
    g += n
    shown = iw[g : g + n]
    g += n
    in_basis = iw[g : g + pool_size]
    g += pool_size
    pool_ranking = iw[g : g + pool_size * m].reshape((pool_size, m))
    g += pool_size * m

    # --- scale
    score_size, tidy = _survey(u)
    if score_size == np.inf:
        return BAD_SCORES
    scale = score_size * exposure
    if not 4.0 * scale < np.inf:
        return TOO_LARGE_SCORES
    if scale == 0.0:
        scale = 1.0
    rho_max = 0.0
    for k in range(K):
        size, orderly = _survey(A[k])
        if size == np.inf:
            return BAD_ROWS
        if not 4.0 * size * exposure < np.inf:
            return TOO_LARGE_ROWS
        tidy = tidy and orderly
        rho[k] = size * exposure if size > 0.0 else 1.0
        rho_max = max(rho_max, rho[k] * (units[k] if units.size else 1.0))
        true_low[k] = lower[k] / rho[k]
        true_high[k] = upper[k] / rho[k]
        low[k] = true_low[k]
        high[k] = true_high[k]
        penalty[k] = box
        y_best[k] = 0.0

    iw[0] = 0
    iw[1] = 0
    if not tidy and units.size == 0:
        return NUMERICAL

    for i in range(n):
        member[i] = 0

    pricings = 0
    pivots = 0
    pooled = 0
    stage = _SCORES_AND_BOX
    with_scores = True
    bound = np.inf
    saved_bound = np.inf
    sigma = 0.0
    stalled = 0
    perturbed = 0
    widened = False
    since_factor = 0
    repairs = 0
    status = NUMERICAL
    started = False
    seed = np.uint64(88172645463325252)

    for w in range(warm):
        value = 0.0
        for j in range(m):
            value += v[j] * u[out_ranking[w, j]]
            pool_ranking[pooled, j] = out_ranking[w, j]
        pool_c[pooled] = value / scale
        for k in range(K):
            total = 0.0
            for j in range(m):
                total += v[j] * A[k, out_ranking[w, j]]
            pool_A[k, pooled] = total / rho[k]
        pool_A[K, pooled] = 1.0
        in_basis[pooled] = 0
        pooled += 1

    no = bool(0)  # not a literal, for which `prove` would be compiled once more
    if v[0] == v[m - 1]:
        scratch = selection.carve(fw[f:], iw[g:], n, K)
        places, sorts, exchanges = selection.select(
            u, A, lower, upper, m, v[0], scale / exposure, rho, max_pricings, scratch
        )
        lists = 0
        if places > 0:
            lists = selection.state_answer(scale / exposure, scratch, places, out_weight, out_ranking, out_price)
        if lists > 0:
            for j in range(m):
                order[j] = out_ranking[0, j]
                member[order[j]] = 1
            out[3] = selection.largest(u, m, key)
            for k in range(K):
                out_ray[k] = np.nan
                out_rest[k] = 0.0
            iw[0] = lists
            iw[1] = sorts
            iw[2] = exchanges
            verdict = prove(
                u, A, lower, upper, v, out, out_weight[:lists], out_price, out_ray, out_ranking, no,
                max(tol, PROVEN_GAP), feasibility_tol, no, key, order, best, member, expected, shown,
            )  # fmt: skip
            if verdict == PROVEN:
                return OPTIMAL
            for i in range(n):
                member[i] = 0
            iw[0] = 0
            iw[1] = 0
        if places < 0:  # no use in looking for the best list first
            stage = _PHASE_1
            with_scores = False
            bound = 0.0
            for k in range(K):
                feasible_best[k] = 0.0
                penalty[k] = rho[k] * (units[k] if units.size else 1.0) / rho_max

    for j in range(m):
        order[j] = j
        member[j] = 1

    while True:
        entering = -K1 - 1  # none
        direction = 1.0
        slope = 0.0
        if started:
            # --- prices of the current basis
            for i in range(K1):
                if basis[i] >= 0:
                    cost[i] = pool_c[basis[i]] if with_scores else 0.0
                    if region[i] < 0:
                        cost[i] += 1e4
                else:
                    cost[i] = -region[i] * penalty[-1 - basis[i]]
            for k in range(K1):
                total = 0.0
                for i in range(K1):
                    total += cost[i] * Binv[i, k]
                y[k] = total

            # --- the best improving column of those known
            slope = _TINY
            for k in range(K):
                if nonbasic_at[k] > 0:
                    if -y[k] > slope:
                        slope, entering, direction = -y[k], -1 - k, -1.0
                    if stage != _HARD and y[k] - penalty[k] > slope:
                        slope, entering, direction = y[k] - penalty[k], -1 - k, 1.0
                elif nonbasic_at[k] < 0:
                    if y[k] > slope:
                        slope, entering, direction = y[k], -1 - k, 1.0
                    if stage != _HARD and -y[k] - penalty[k] > slope:
                        slope, entering, direction = -y[k] - penalty[k], -1 - k, -1.0
            pool_gain = gain[:pooled]
            if with_scores:
                for p in range(pooled):
                    pool_gain[p] = pool_c[p] - y[K]
            else:
                for p in range(pooled):
                    pool_gain[p] = -y[K]
            for k in range(K):
                row = pool_A[k, :pooled]
                lam = y[k]
                for p in range(pooled):
                    pool_gain[p] -= lam * row[p]
            for p in range(pooled):
                if pool_gain[p] > slope:
                    slope, entering, direction = pool_gain[p], p, 1.0

        if entering >= -K1:
            # --- ratio test: pass a breakpoint while the objective still rises beyond it
            if entering >= 0:
                for i in range(K1):
                    total = 0.0
                    for k in range(K1):
                        total += Binv[i, k] * pool_A[k, entering]
                    d[i] = total
                own_range = np.inf
                value = 0.0
            else:
                k = -1 - entering
                for i in range(K1):
                    d[i] = -direction * Binv[i, k]
                value = high[k] if nonbasic_at[k] > 0 else low[k]
                own_range = np.inf
                if direction * nonbasic_at[k] < 0:
                    own_range = high[k] - low[k]
            own_region = 0
            if entering < 0 and own_range == np.inf and direction * nonbasic_at[-1 - entering] > 0:
                own_region = 1 if direction > 0 else -1
            step = 0.0
            leaving = -1
            while True:
                step = own_range
                leaving = -2
                pivot_size = 0.0
                for i in range(K1):
                    if abs(d[i]) < 1e-11:
                        continue
                    target, exists = _break_at(basis[i], region[i], d[i], low, high)
                    if exists:
                        t = max((x[i] - target) / d[i], 0.0)
                        if t < step - _TINY or (t <= step + _TINY and abs(d[i]) > pivot_size):
                            step = min(t, step)
                            leaving = i
                            pivot_size = abs(d[i])
                if leaving == -2:
                    if step == np.inf:
                        break
                    drop = penalty[-1 - entering] if stage != _HARD else np.inf
                elif basis[leaving] >= 0:
                    drop = 1e4 * pivot_size if region[leaving] < 0 else np.inf
                elif region[leaving] == 0 and stage == _HARD:
                    drop = np.inf
                else:
                    drop = penalty[-1 - basis[leaving]] * pivot_size
                if slope - drop <= _TINY:
                    break
                slope -= drop
                if leaving == -2:
                    own_range = np.inf
                    own_region = 1 if direction > 0 else -1
                elif d[leaving] > 0.0:
                    region[leaving] -= 1
                else:
                    region[leaving] += 1
            if step == np.inf:
                break  # an improving direction without end: only rounding can produce it

            # --- move, then exchange the columns
            for i in range(K1):
                x[i] -= step * d[i]
            if leaving == -2:
                nonbasic_at[-1 - entering] = -nonbasic_at[-1 - entering]
            else:
                left = basis[leaving]
                if left >= 0:
                    in_basis[left] = 0
                else:
                    # region tells which bound was met: from outside the near one, from within the one ahead
                    if region[leaving] < 0 or (region[leaving] == 0 and d[leaving] > 0.0):
                        nonbasic_at[-1 - left] = -1
                    else:
                        nonbasic_at[-1 - left] = 1
                basis[leaving] = entering
                region[leaving] = own_region
                x[leaving] = value + direction * step
                if entering >= 0:
                    in_basis[entering] = 1
                else:
                    nonbasic_at[-1 - entering] = 0
                inverse = 1.0 / (d[leaving] * direction)
                for k in range(K1):
                    Binv[leaving, k] *= inverse
                for i in range(K1):
                    if i != leaving:
                        factor = d[i] * direction
                        if factor != 0.0:
                            for k in range(K1):
                                Binv[i, k] -= factor * Binv[leaving, k]
                # an activity that came back within rounding of its bounds is inside (not after a degenerate step:
                # there the region is what the step achieved)
                for i in range(K1):
                    if region[i] != 0 and step > 1e-13:
                        target = 0.0
                        if basis[i] < 0:
                            target = low[-1 - basis[i]] if region[i] < 0 else high[-1 - basis[i]]
                        if abs(x[i] - target) <= 1e-13:
                            region[i] = 0
            pivots += 1
            since_factor += 1
            if since_factor >= 50:
                since_factor = 0
                if not _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x):
                    break
                _locate(x, basis, region, low, high)
            if step > 1e-13:
                stalled = 0
            else:
                stalled += 1
                if stalled > stall_limit and perturbed < 3:
                    # degenerate cycling: widen every row a little, at random; taken back before the end
                    stalled = 0
                    perturbed += 1
                    widened = True
                    for k in range(K):
                        seed ^= seed << np.uint64(13)
                        seed ^= seed >> np.uint64(7)
                        seed ^= seed << np.uint64(17)
                        size = 1e-8 * (0.5 + np.float64(seed >> np.uint64(12)) / 4503599627370496.0)
                        low[k] = true_low[k] - size
                        high[k] = true_high[k] + size
                    if not _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x):
                        break
                    _locate(x, basis, region, low, high)
            if pivots > 50 * max_pricings + 1000:
                break
            if stage != _PHASE_1:
                continue
            feasible = True
            for i in range(K1):
                if region[i] != 0:
                    feasible = False
            if not feasible:
                continue

        # --- the known columns are exhausted (or phase 1 has reached feasibility)
        primal = 0.0
        excess = 0.0
        if started:
            for i in range(K1):
                if basis[i] >= 0:
                    primal += x[i] * (pool_c[basis[i]] if with_scores else 0.0)
                    if region[i] < 0:
                        primal += 1e4 * x[i]
                        excess = max(excess, -x[i])
                elif region[i] != 0:
                    k = -1 - basis[i]
                    over = low[k] - x[i] if region[i] < 0 else x[i] - high[k]
                    primal -= penalty[k] * over
                    excess = max(excess, over)
        converged = started and bound - primal <= tol * abs(primal) + 1e-14
        if started and stage == _PHASE_1 and excess == 0.0:
            converged = True

        if not converged:
            if pricings >= max_pricings and started:
                status = LIMIT
                break
            # --- price at the smoothed point
            constant = 0.0
            if started:
                for k in range(K):
                    lam = sigma * y_best[k] + (1.0 - sigma) * y[k]
                    if (lam > 0.0 and true_high[k] == np.inf) or (lam < 0.0 and true_low[k] == -np.inf):
                        lam = 0.0
                    y_price[k] = lam
                    if lam > 0.0:
                        constant += lam * high[k]
                    elif lam < 0.0:
                        constant += lam * low[k]
                    raw_price[k] = lam * scale / rho[k]
            else:
                for k in range(K):
                    y_price[k] = 0.0
                    raw_price[k] = 0.0
            keys(u, A, raw_price, with_scores, key)
            top(key, order, best, member)
            if pricings == 0:
                out[3] = best[m - 1]
            pricings += 1
            slot = pooled
            if pooled < pool_size:
                pooled += 1
            else:
                slot = -1
                worst = np.inf
                for p in range(pooled):
                    if in_basis[p] == 0 and gain[p] < worst:
                        worst = gain[p]
                        slot = p
            total = 0.0
            for j in range(m):
                total += v[j] * u[order[j]]
                pool_ranking[slot, j] = order[j]
            pool_c[slot] = total / scale
            in_basis[slot] = 0
            value = pool_c[slot] if with_scores else 0.0
            reduced = value - y[K]
            height = value + constant
            for k in range(K):
                total = 0.0
                row = A[k]
                for j in range(m):
                    total += v[j] * row[order[j]]
                total /= rho[k]
                pool_A[k, slot] = total
                reduced -= y[k] * total
                height -= y_price[k] * total
            pool_A[K, slot] = 1.0
            if height < bound:
                bound = height
                for k in range(K):
                    y_best[k] = y_price[k]
            if not started:
                started = True
                for k in range(K):
                    basis[k] = -1 - k
                    nonbasic_at[k] = 0
                basis[K] = slot
                in_basis[slot] = 1
                if not _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x):
                    break
                _locate(x, basis, region, low, high)
                sigma = smoothing
                continue
            if reduced > _TINY:
                sigma = smoothing
                continue
            if sigma > 0.0:  # mis-priced: nothing new for this basis, come closer to its own prices
                sigma = sigma * 0.5 if sigma > 0.2 else 0.0
                continue
            # no ranking improves at the basis' own prices: optimal

        # --- optimal for this stage: clean numbers first
        if not _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x):
            break
        since_factor = 0
        if widened:
            widened = False
            for k in range(K):
                low[k] = true_low[k]
                high[k] = true_high[k]
            _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x)
            _locate(x, basis, region, low, high)
            bound = np.inf
            stalled = -1000 * K1
            sigma = 0.0
            continue
        worst = 0.0
        total_excess = 0.0
        negative = 0.0
        for i in range(K1):
            if basis[i] >= 0:
                negative = max(negative, -x[i])
            else:
                k = -1 - basis[i]
                over = max(max(low[k] - x[i], x[i] - high[k]), 0.0)
                worst = max(worst, over)
                total_excess += over * rho[k]
        if negative > 1e-11 and repairs < 20:
            repairs += 1
            _locate(x, basis, region, low, high)
            continue
        if worst <= 1e-11:
            if stage == _PHASE_1:
                stage = _HARD
                with_scores = True
                for k in range(K):
                    penalty[k] = 1e6
                    y_best[k] = feasible_best[k]
                bound = saved_bound
                sigma = smoothing
                _locate(x, basis, region, low, high)
                continue
            status = OPTIMAL
            break
        if stage == _HARD:
            if repairs < 20:
                repairs += 1
                _locate(x, basis, region, low, high)
                continue
            break
        if stage == _SCORES_AND_BOX:
            if penalty[0] < 100.0:
                # the box binds: widen it before paying for a proof
                for k in range(K):
                    penalty[k] *= 16.0
                sigma = smoothing
                continue
            saved_bound = bound
            for k in range(K):
                feasible_best[k] = y_best[k]
                penalty[k] = rho[k] * (units[k] if units.size else 1.0) / rho_max
                y_best[k] = 0.0
            stage = _PHASE_1
            with_scores = False
            bound = 0.0
            sigma = smoothing
            continue
        status = INFEASIBLE
        break

    # --- results in the caller's units
    if status != INFEASIBLE and stage == _PHASE_1:
        bound = saved_bound
        for k in range(K):
            y_best[k] = feasible_best[k]
    if since_factor > 0:
        _refactor(basis, pool_A, B, work, Binv, nonbasic_at, low, high, x)
    kept = 0
    mass = 0.0
    for i in range(K1):
        if basis[i] >= 0 and x[i] > 1e-13:
            out_weight[kept] = x[i]
            mass += x[i]
            for j in range(m):
                out_ranking[kept, j] = pool_ranking[basis[i], j]
            kept += 1
    for r in range(kept):
        out_weight[r] /= mass
    for k in range(K):
        out_rest[k] = 0.0
        if status == INFEASIBLE:
            out_price[k] = np.nan
            out_ray[k] = y_best[k] * rho_max / rho[k]
        else:
            out_price[k] = y_best[k] * scale / rho[k] if score_size > 0.0 else 0.0
            out_ray[k] = np.nan
    iw[0] = kept
    iw[1] = pricings
    iw[2] = pivots
    verdict = prove(
        u, A, lower, upper, v, out, out_weight[:kept], out_price, out_ray, out_ranking, status == INFEASIBLE,
        max(tol, PROVEN_GAP), feasibility_tol, no, key, order, best, member,
        expected, shown,
    )  # fmt: skip
    return status if verdict == PROVEN or status == LIMIT else NUMERICAL


@njit(cache=True, nogil=True)
def prove_kernel(u, A, lower, upper, v, fw, iw, infeasible, gap_tol, feasibility_tol):
    """Apply `proof.prove` to the results that stand in a workspace; for answers that were not found on these arrays."""
    K, n = A.shape
    m = v.size
    R = iw[0]
    weight = fw[HEAD : HEAD + R]
    price = fw[HEAD + K + 1 : HEAD + 2 * K + 1]
    ray = fw[HEAD + 2 * K + 1 : HEAD + 3 * K + 1]
    ranking = iw[HEAD : HEAD + (K + 1) * m].reshape((K + 1, m))
    member = np.zeros(n, dtype=np.int64)
    member[:m] = 1
    key = np.empty(n)
    best = np.empty(m)
    order = np.arange(m)
    for i in range(n):
        key[i] = u[i]
    top(key, order, best, member)
    fw[3] = best[m - 1]
    shifted = bool(1)
    return prove(
        u, A, lower, upper, v, fw[:HEAD], weight, price, ray, ranking, infeasible, gap_tol, feasibility_tol, shifted,
        key, order, best, member, np.empty(n), np.empty(n, dtype=np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True)  # compiled when first used, or by `warmup`
def batch_kernel(
    u, A, lower, upper, v, fw, iw, pool_size, max_pricings, tol, feasibility_tol, smoothing, box, stall_limit, units,
    status, floats, ints,
):  # fmt: skip
    """Solve request after request; row b of `floats` and `ints` becomes the head of the workspace after request b.

    `A`, `lower` and `upper` have one entry a request, or a single one for all.
    """
    for b in range(u.shape[0]):
        status[b] = solve_kernel(
            u[b],
            A[b % A.shape[0]],
            lower[b % lower.shape[0]],
            upper[b % upper.shape[0]],
            v,
            fw,
            iw,
            pool_size,
            max_pricings,
            tol,
            feasibility_tol,
            smoothing,
            box,
            stall_limit,
            0,
            units,
        )
        for i in range(floats.shape[1]):
            floats[b, i] = fw[i]
        for i in range(ints.shape[1]):
            ints[b, i] = iw[i]
