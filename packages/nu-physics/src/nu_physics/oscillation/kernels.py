"""Compiled oscillation kernels in the mass basis of X = (M + dM)(M + dM)^dagger.

Electron survival at constant density is a rank-one problem: 2 E H = diag(lambda) + a u u^T with u_i = |U_ei| and
a = 2 E V. With z_i its eigenvalues,

    P_ee = 1 - 4 sum_{i>j} R_i R_j sin^2((z_i - z_j) L / 4E),
    R_i = (u . w_i)^2 / w_i^2,      w_ik = u_k prod_{j != k} (z_i - lambda_j).

Each root is found as its distance delta_i from lambda_i (Newton on the characteristic polynomial in product form), so
that z_i - lambda_k = delta_i + (lambda_i - lambda_k) keeps its digits however close two levels are, and nothing is
divided by a difference of eigenvalues. Every scalar NSI is in (lambda, u): it costs nothing per energy.

The 3 x 3 amplitude uses Newton's divided differences of exp(-i phi z), which need no eigenvectors and no special case
at degenerate levels: S = f[z1] + f[z1,z3](T - z1) + f[z1,z2,z3](T - z1)(T - z3).

Energies in MeV, baselines in km, splittings in eV^2. Reference: rank-one updates, Golub, SIAM Rev. 15 (1973) 318;
divided differences of the exponential, Higham, Functions of Matrices, section 1.2.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nu_physics.constants import PHASE_km_per_MeV

_PI_HIGH = 3.1415926218032837  # 24 leading bits of pi, so that n * _PI_HIGH is exact
_PI_MIDDLE = 3.1786509424591713e-08
_PI_LOW = 1.2246467991473532e-16 - (3.1415926218032837 + 3.1786509424591713e-08 - math.pi)
_INVERSE_PI = 1.0 / math.pi
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding and subtracting it rounds to the nearest integer
_LARGEST_ARGUMENT = 1.0e7  # n * _PI_HIGH stays exact up to here

_PHASE = PHASE_km_per_MeV
_BLOCK = 512


@njit(cache=True, error_model="numpy", inline="always")
def _sine_reduced(x):  # type: ignore[no-untyped-def]
    """sin(x - n pi) for the n nearest to x / pi: sin(x) up to its sign, branch-free so that loops vectorise."""
    n = (x * _INVERSE_PI + _ROUND) - _ROUND
    r = ((x - n * _PI_HIGH) - n * _PI_MIDDLE) - n * _PI_LOW
    s = r * r
    # Taylor series to r^21: the remainder at |r| = pi/2 is 1e-18.
    p = 1.0 / 51090942171709440000.0
    p = p * s - 1.0 / 121645100408832000.0
    p = p * s + 1.0 / 355687428096000.0
    p = p * s - 1.0 / 1307674368000.0
    p = p * s + 1.0 / 6227020800.0
    p = p * s - 1.0 / 39916800.0
    p = p * s + 1.0 / 362880.0
    p = p * s - 1.0 / 5040.0
    p = p * s + 1.0 / 120.0
    p = p * s - 1.0 / 6.0
    return r + r * s * p


@njit(cache=True, error_model="numpy", inline="always")
def _sine_squared_and_product(x):  # type: ignore[no-untyped-def]
    """(sin^2 x, sin x cos x) with one reduction; both are periodic in pi."""
    n = (x * _INVERSE_PI + _ROUND) - _ROUND
    r = ((x - n * _PI_HIGH) - n * _PI_MIDDLE) - n * _PI_LOW
    s = r * r
    p = 1.0 / 51090942171709440000.0
    p = p * s - 1.0 / 121645100408832000.0
    p = p * s + 1.0 / 355687428096000.0
    p = p * s - 1.0 / 1307674368000.0
    p = p * s + 1.0 / 6227020800.0
    p = p * s - 1.0 / 39916800.0
    p = p * s + 1.0 / 362880.0
    p = p * s - 1.0 / 5040.0
    p = p * s + 1.0 / 120.0
    p = p * s - 1.0 / 6.0
    sine = r + r * s * p
    q = 1.0 / 1124000727777607680000.0
    q = q * s - 1.0 / 2432902008176640000.0
    q = q * s + 1.0 / 6402373705728000.0
    q = q * s - 1.0 / 20922789888000.0
    q = q * s + 1.0 / 87178291200.0
    q = q * s - 1.0 / 479001600.0
    q = q * s + 1.0 / 3628800.0
    q = q * s - 1.0 / 40320.0
    q = q * s + 1.0 / 720.0
    q = q * s - 1.0 / 24.0
    q = q * s + 0.5
    cosine = 1.0 - s * q
    return sine * sine, sine * cosine


_NEWTON_STEPS = 60  # three or four are enough but where two roots nearly meet: there each halves the distance


@njit(cache=True, error_model="numpy")
def _root_near(lam, w2, k, delta):  # type: ignore[no-untyped-def]
    """Newton for det(lam_k + delta - diag(lam) - a W) = 0 in product form; w2 packs a W_ii and |a W_ij|^2."""
    d1, d2, d3, s12, s13, s23, twist = w2
    e1 = lam[k] - lam[0] - d1
    e2 = lam[k] - lam[1] - d2
    e3 = lam[k] - lam[2] - d3
    for _ in range(_NEWTON_STEPS):
        p1 = delta + e1
        p2 = delta + e2
        p3 = delta + e3
        value = p1 * p2 * p3 - s12 * p3 - s13 * p2 - s23 * p1 - twist
        slope = p1 * p2 + p1 * p3 + p2 * p3 - s12 - s13 - s23
        if slope == 0.0:
            break
        step = value / slope
        delta -= step
        if abs(step) <= 1e-16 * abs(delta):
            break
    return delta


@njit(cache=True, error_model="numpy")
def _sorted_roots(lam, w2):  # type: ignore[no-untyped-def]
    """Ascending eigenvalues of diag(lam) + a W by the trigonometric solution of the centred cubic."""
    d1, d2, d3, s12, s13, s23, twist = w2
    mean = (lam[0] + lam[1] + lam[2] + d1 + d2 + d3) / 3.0
    h1 = lam[0] + d1 - mean
    h2 = lam[1] + d2 - mean
    h3 = lam[2] + d3 - mean
    p = (h1 * h1 + h2 * h2 + h3 * h3 + 2.0 * (s12 + s13 + s23)) / 6.0
    q = 0.5 * (h1 * h2 * h3 - s12 * h3 - s13 * h2 - s23 * h1 + twist)
    radius = math.sqrt(p)
    if radius == 0.0:
        return mean, mean, mean
    angle = math.acos(max(-1.0, min(1.0, q / (p * radius)))) / 3.0
    high = 2.0 * radius * math.cos(angle)
    low = 2.0 * radius * math.cos(angle + 2.0943951023931957)
    return mean + low, mean - low - high, mean + high


@njit(cache=True, error_model="numpy", inline="always")
def _rank_one_root(x, a, rk, gi, ri, gj, rj):  # type: ignore[no-untyped-def]
    """Newton for x in x (x + g_i)(x + g_j) = a [r_k (x + g_i)(x + g_j) + r_i x (x + g_j) + r_j x (x + g_i)]."""
    rest = ri + rj
    for _ in range(4):
        pi = x + gi
        pj = x + gj
        product = pi * pj
        base = product - a * (ri * pj + rj * pi)
        slope = base + x * (pi + pj - a * rest) - a * rk * (pi + pj)
        step = (x * base - a * rk * product) / slope
        x -= step
        if abs(step) <= 1e-9 * abs(x):  # quadratic convergence: the next step would be below rounding
            break
    return x


@njit(cache=True, error_model="numpy")
def _shifts(lam, a, u2, narrow):  # type: ignore[no-untyped-def]
    """Distances delta_i of the eigenvalues of diag(lam) + a u u^T from lam_i (lam ascending, u2 sums to one)."""
    r1, r2, r3 = u2[0], u2[1], u2[2]
    g21 = lam[1] - lam[0]
    g31 = lam[2] - lam[0]
    g32 = lam[2] - lam[1]
    if abs(a) < 0.1 * narrow:
        # second-order perturbation theory starts Newton within 1e-2 of the root's distance
        i21 = a / g21
        i31 = a / g31
        i32 = a / g32
        x1 = _rank_one_root(a * r1 * (1.0 - (r2 * i21 + r3 * i31)), a, r1, -g21, r2, -g31, r3)
        x2 = _rank_one_root(a * r2 * (1.0 + (r1 * i21 - r3 * i32)), a, r2, g21, r1, -g32, r3)
        x3 = _rank_one_root(a * r3 * (1.0 + (r1 * i31 + r2 * i32)), a, r3, g31, r1, g32, r2)
        return x1, x2, x3
    aa = a * a
    w2 = (a * r1, a * r2, a * r3, aa * r1 * r2, aa * r1 * r3, aa * r2 * r3, 2.0 * aa * a * r1 * r2 * r3)
    z1, z2, z3 = _sorted_roots(lam, w2)
    return (
        _root_near(lam, w2, 0, z1 - lam[0]),
        _root_near(lam, w2, 1, z2 - lam[1]),
        _root_near(lam, w2, 2, z3 - lam[2]),
    )


@njit(cache=True, error_model="numpy")
def _jacobi(t, v):  # type: ignore[no-untyped-def]
    """Diagonalise the real symmetric 3 x 3 matrix t in place, eigenvectors in the columns of v (cyclic Jacobi)."""
    for i in range(3):
        for j in range(3):
            v[i, j] = 1.0 if i == j else 0.0
    for _ in range(30):
        off = t[0, 1] ** 2 + t[0, 2] ** 2 + t[1, 2] ** 2
        if off == 0.0:
            return
        for p in range(2):
            for q in range(p + 1, 3):
                if t[p, q] == 0.0:
                    continue
                theta = (t[q, q] - t[p, p]) / (2.0 * t[p, q])
                s = 1.0 if theta >= 0 else -1.0
                tangent = s / (abs(theta) + math.sqrt(theta * theta + 1.0)) if abs(theta) < 1e150 else 0.5 / theta
                c = 1.0 / math.sqrt(1.0 + tangent * tangent)
                s = tangent * c
                for k in range(3):
                    a = t[k, p]
                    b = t[k, q]
                    t[k, p] = c * a - s * b
                    t[k, q] = s * a + c * b
                for k in range(3):
                    a = t[p, k]
                    b = t[q, k]
                    t[p, k] = c * a - s * b
                    t[q, k] = s * a + c * b
                t[p, q] = 0.0
                t[q, p] = 0.0
                for k in range(3):
                    a = v[k, p]
                    b = v[k, q]
                    v[k, p] = c * a - s * b
                    v[k, q] = s * a + c * b


@njit(cache=True, error_model="numpy")
def matter_levels(lam, u, matter_per_MeV, energy, gap21, gap31, weight):  # type: ignore[no-untyped-def]
    """Fill splittings z2 - z1, z3 - z1 and the electron weights R_1..3 for each energy.

    Parameters are lam (3,) ascending in eV^2, u (3,) with unit norm, 2 V in eV^2 per MeV (negative for antineutrinos).
    """
    u2 = u * u
    narrow = min(lam[1] - lam[0], lam[2] - lam[1])
    for n in range(energy.size):
        a = matter_per_MeV * energy[n]
        if a == 0.0:
            gap21[n] = lam[1] - lam[0]
            gap31[n] = lam[2] - lam[0]
            weight[0, n] = u2[0]
            weight[1, n] = u2[1]
            weight[2, n] = u2[2]
            continue
        delta = _shifts(lam, a, u2, narrow)
        gap21[n] = (lam[1] - lam[0]) + (delta[1] - delta[0])
        gap31[n] = (lam[2] - lam[0]) + (delta[2] - delta[0])
        total = 0.0
        for k in range(3):
            d1 = delta[k] + (lam[k] - lam[0])
            d2 = delta[k] + (lam[k] - lam[1])
            d3 = delta[k] + (lam[k] - lam[2])
            w1 = d2 * d3
            w2 = d1 * d3
            w3 = d1 * d2
            norm = u2[0] * w1 * w1 + u2[1] * w2 * w2 + u2[2] * w3 * w3
            along = u2[0] * w1 + u2[1] * w2 + u2[2] * w3
            r = along * along / norm if norm > 0.0 else 0.0
            weight[k, n] = r
            total += r
        if not abs(total - 1.0) < 1e-11:
            t = np.empty((3, 3))
            v = np.empty((3, 3))
            for i in range(3):
                for j in range(3):
                    t[i, j] = a * u[i] * u[j]
                t[i, i] += lam[i]
            _jacobi(t, v)
            gap21[n] = t[1, 1] - t[0, 0]
            gap31[n] = t[2, 2] - t[0, 0]
            for k in range(3):
                along = u[0] * v[0, k] + u[1] * v[1, k] + u[2] * v[2, k]
                weight[k, n] = along * along


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _weak_levels(lam, u, matter_per_MeV, energy, gap21, gap31, w1, w2, w3):  # type: ignore[no-untyped-def]
    """matter_levels for |a| below 1/20 of the smallest gap: no branch, so that the loop runs in vector registers.

    Second-order perturbation theory is good to (a / gap)^2, two Newton steps then to rounding. The third shift follows
    from the trace and the third weight from unitarity; the weights are the residues Q(z) / D'(z) of the resolvent.
    """
    r1 = u[0] * u[0]
    r2 = u[1] * u[1]
    r3 = u[2] * u[2]
    g21 = lam[1] - lam[0]
    g31 = lam[2] - lam[0]
    g32 = lam[2] - lam[1]
    c1 = r2 / g21 + r3 / g31
    c2 = r1 / g21 - r3 / g32
    for n in range(energy.size):
        a = matter_per_MeV * energy[n]
        x = a * r1 * (1.0 - a * c1)
        for _ in range(2):
            p = x - g21
            q = x - g31
            base = p * q - a * (r2 * q + r3 * p)
            slope = base + x * (p + q - a * (r2 + r3)) - a * r1 * (p + q)
            x -= (x * base - a * r1 * p * q) / slope
        p = x - g21
        q = x - g31
        base = p * q - a * (r2 * q + r3 * p)
        slope = base + x * (p + q - a * (r2 + r3)) - a * r1 * (p + q)
        first = (r1 * p * q + x * (r2 * q + r3 * p)) / slope
        y = a * r2 * (1.0 + a * c2)
        for _ in range(2):
            p = y + g21
            q = y - g32
            base = p * q - a * (r1 * q + r3 * p)
            slope = base + y * (p + q - a * (r1 + r3)) - a * r2 * (p + q)
            y -= (y * base - a * r2 * p * q) / slope
        p = y + g21
        q = y - g32
        base = p * q - a * (r1 * q + r3 * p)
        slope = base + y * (p + q - a * (r1 + r3)) - a * r2 * (p + q)
        second = (r2 * p * q + y * (r1 * q + r3 * p)) / slope
        gap21[n] = g21 + (y - x)
        gap31[n] = g31 + (a - y - 2.0 * x)
        w1[n] = first
        w2[n] = second
        w3[n] = 1.0 - first - second


@njit(cache=True, error_model="numpy")
def _levels(lam, u, matter_per_MeV, energy, gap21, gap31, weight):  # type: ignore[no-untyped-def]
    """Choose between the vector path and the general one for a block of energies."""
    strongest = 0.0
    for n in range(energy.size):
        strongest = max(strongest, energy[n])
    narrow = min(lam[1] - lam[0], lam[2] - lam[1])
    if abs(matter_per_MeV) * strongest < 0.05 * narrow:
        _weak_levels(lam, u, matter_per_MeV, energy, gap21, gap31, weight[0], weight[1], weight[2])
    else:
        matter_levels(lam, u, matter_per_MeV, energy, gap21, gap31, weight)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _survival_block(k21, k31, k32, r21, r31, r32, length, row):  # type: ignore[no-untyped-def]
    for n in range(row.size):
        s21 = _sine_reduced(k21[n] * length)
        s31 = _sine_reduced(k31[n] * length)
        s32 = _sine_reduced(k32[n] * length)
        value = 1.0 - (r21[n] * s21 * s21 + (r31[n] * s31 * s31 + r32[n] * s32 * s32))
        row[n] = min(max(value, 0.0), 1.0)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _phases_block(gap21, gap31, weight, energy, k21, k31, k32):  # type: ignore[no-untyped-def]
    w1, w2, w3 = weight[0], weight[1], weight[2]
    for n in range(energy.size):
        scale = _PHASE / energy[n]
        k21[n] = gap21[n] * scale
        k31[n] = gap31[n] * scale
        k32[n] = (gap31[n] - gap21[n]) * scale
        a, b, c = w1[n], w2[n], w3[n]
        w1[n] = 4.0 * a * b
        w2[n] = 4.0 * a * c
        w3[n] = 4.0 * b * c


@njit(cache=True, error_model="numpy")
def survival_grid(lam, u, matter_per_MeV, energy, baseline, out):  # type: ignore[no-untyped-def]
    """P_ee for every baseline (rows) and energy (columns); the levels are solved once per energy.

    Energies go in blocks that fit the first-level cache.
    """
    gap21 = np.empty(_BLOCK)
    gap31 = np.empty(_BLOCK)
    weight = np.empty((3, _BLOCK))
    k21 = np.empty(_BLOCK)
    k31 = np.empty(_BLOCK)
    k32 = np.empty(_BLOCK)
    for first in range(0, energy.size, _BLOCK):
        last = min(first + _BLOCK, energy.size)
        size = last - first
        part = energy[first:last]
        _levels(lam, u, matter_per_MeV, part, gap21, gap31, weight)
        _phases_block(gap21, gap31, weight, part, k21, k31, k32)
        for m in range(baseline.size):
            _survival_block(
                k21[:size], k31[:size], k32[:size], weight[0], weight[1], weight[2], baseline[m], out[m, first:last]
            )


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def survival_weighted(lam, u, matter_per_MeV, energy, baseline, share, out):  # type: ignore[no-untyped-def]
    """sum_m share_m P_ee(E_n, L_m): the only thing that a detector with many cores needs."""
    size = energy.size
    gap21 = np.empty(size)
    gap31 = np.empty(size)
    weight = np.empty((3, size))
    _levels(lam, u, matter_per_MeV, energy, gap21, gap31, weight)
    k21 = np.empty(size)
    k31 = np.empty(size)
    k32 = np.empty(size)
    q21 = np.zeros(size)
    q31 = np.zeros(size)
    q32 = np.zeros(size)
    for n in range(size):
        scale = _PHASE / energy[n]
        k21[n] = gap21[n] * scale
        k31[n] = gap31[n] * scale
        k32[n] = (gap31[n] - gap21[n]) * scale
    total = 0.0
    for m in range(baseline.size):
        length = baseline[m]
        portion = share[m]
        total += portion
        for n in range(size):
            s21 = _sine_reduced(k21[n] * length)
            s31 = _sine_reduced(k31[n] * length)
            s32 = _sine_reduced(k32[n] * length)
            q21[n] += portion * s21 * s21
            q31[n] += portion * s31 * s31
            q32[n] += portion * s32 * s32
    for n in range(size):
        a, b, c = weight[0, n], weight[1, n], weight[2, n]
        out[n] = total - 4.0 * (a * b * q21[n] + (a * c * q31[n] + b * c * q32[n]))


@njit(cache=True, error_model="numpy", inline="always")
def _mixing_term(ci, cj, ri, rj, rk, s_ij, s_ik, s_jk, gap, limit, small):  # type: ignore[no-untyped-def]
    """4 c_i c_j [(R_i - R_j) S_ij - R_k (S_ik - S_jk)] / (z_i - z_j), ``limit`` for the quotient at a zero gap."""
    if small:
        return -4.0 * ci * cj * rk * limit
    return 4.0 * ci * cj * ((ri - rj) * s_ij - rk * (s_ik - s_jk)) / gap


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def survival_weighted_gradient(lam, u, matter_per_MeV, energy, baseline, share, out, grad):  # type: ignore[no-untyped-def]
    """Weighted P_ee and its derivatives with respect to (G_11, G_22, G_33, G_12, G_13, G_23, 2V).

    G = Re(V^dagger dX V) is a change of X in its own eigenbasis (X = V diag(lam) V^dagger, electron row of V real):
    dP = sum_kl K_kl G_kl. With the amplitude A = sum_i R_i e^{-i phi z_i} and eigenvectors W of diag(lam) + a u u^T,

        dA = sum_ij c_i c_j (W^T G W)_ij f[z_i, z_j],      f = exp(-i phi z), c_i = u . W_i

    f[z_i, z_j] = -i phi e^{-i phi (z_i + z_j) / 2} sinc(phi (z_i - z_j) / 2) (Daleckii-Krein). Summed over baselines,
    every term is a weight times sum_m share_m L_m sin cos(...) and sum_m share_m sin sin, so the trigonometric work is
    that of the probability itself.
    """
    size = energy.size
    u2 = u * u
    narrow = min(lam[1] - lam[0], lam[2] - lam[1])
    gap21 = np.empty(size)
    gap31 = np.empty(size)
    weight = np.empty((3, size))
    _levels(lam, u, matter_per_MeV, energy, gap21, gap31, weight)
    k21 = np.empty(size)
    k31 = np.empty(size)
    k32 = np.empty(size)
    q = np.zeros((6, size))
    for n in range(size):
        scale = _PHASE / energy[n]
        k21[n] = gap21[n] * scale
        k31[n] = gap31[n] * scale
        k32[n] = (gap31[n] - gap21[n]) * scale
    total = 0.0
    longest = 0.0
    q0, q1, q2, q3, q4, q5 = q[0], q[1], q[2], q[3], q[4], q[5]
    for m in range(baseline.size):
        length = baseline[m]
        portion = share[m]
        total += portion
        longest = max(longest, length)
        stretched = portion * length
        for n in range(size):
            s21, p21 = _sine_squared_and_product(k21[n] * length)
            s31, p31 = _sine_squared_and_product(k31[n] * length)
            s32, p32 = _sine_squared_and_product(k32[n] * length)
            q0[n] += portion * s21
            q1[n] += portion * s31
            q2[n] += portion * s32
            q3[n] += stretched * p21
            q4[n] += stretched * p31
            q5[n] += stretched * p32
    vec = np.empty((3, 3))
    full = np.empty((3, 3))
    c = np.empty(3)
    for n in range(size):
        a = matter_per_MeV * energy[n]
        r1, r2, r3 = weight[0, n], weight[1, n], weight[2, n]
        out[n] = total - 4.0 * (r1 * r2 * q0[n] + (r1 * r3 * q1[n] + r2 * r3 * q2[n]))
        # eigenvectors of diag(lam) + a u u^T
        if a == 0.0:
            for i in range(3):
                for j in range(3):
                    vec[i, j] = 1.0 if i == j else 0.0
        else:
            delta = _shifts(lam, a, u2, narrow)
            for k in range(3):
                d1 = delta[k] + (lam[k] - lam[0])
                d2 = delta[k] + (lam[k] - lam[1])
                d3 = delta[k] + (lam[k] - lam[2])
                w1 = u[0] * d2 * d3
                w2 = u[1] * d1 * d3
                w3 = u[2] * d1 * d2
                norm = math.sqrt(w1 * w1 + w2 * w2 + w3 * w3)
                inverse = 1.0 / norm if norm > 0.0 else 0.0
                vec[0, k] = w1 * inverse
                vec[1, k] = w2 * inverse
                vec[2, k] = w3 * inverse
        for k in range(3):
            c[k] = u[0] * vec[0, k] + u[1] * vec[1, k] + u[2] * vec[2, k]
        if not abs(c[0] * c[0] + c[1] * c[1] + c[2] * c[2] - 1.0) < 1e-11:
            for i in range(3):
                for j in range(3):
                    full[i, j] = a * u[i] * u[j]
                full[i, i] += lam[i]
            _jacobi(full, vec)
            for k in range(3):
                c[k] = u[0] * vec[0, k] + u[1] * vec[1, k] + u[2] * vec[2, k]
        # dP = sum_ij B_ij (W^T G W)_ij with B diagonal from the phases, off-diagonal from sinc
        scale = _PHASE / energy[n]
        b11 = -4.0 * scale * r1 * (-r2 * q3[n] - r3 * q4[n]) * 2.0
        b22 = -4.0 * scale * r2 * (r1 * q3[n] - r3 * q5[n]) * 2.0
        b33 = -4.0 * scale * r3 * (r1 * q4[n] + r2 * q5[n]) * 2.0
        g21 = gap21[n]
        g31 = gap31[n]
        g32 = gap31[n] - gap21[n]
        # B_ij for i != j; S_ij = sum share sin^2. At a vanishing gap the quotient of S becomes its derivative.
        tiny = 1e-7 / (scale * longest)
        b12 = _mixing_term(c[0], c[1], r1, r2, r3, q0[n], q1[n], q2[n], -g21, -2.0 * scale * q4[n], abs(g21) < tiny)
        b13 = _mixing_term(c[0], c[2], r1, r3, r2, q1[n], q0[n], q2[n], -g31, -2.0 * scale * q3[n], abs(g31) < tiny)
        b23 = _mixing_term(c[1], c[2], r2, r3, r1, q2[n], q0[n], q1[n], -g32, 2.0 * scale * q3[n], abs(g32) < tiny)
        col = 0
        for k in range(3):
            v1, v2, v3 = vec[k, 0], vec[k, 1], vec[k, 2]
            grad[col, n] = (
                b11 * v1 * v1 + b22 * v2 * v2 + b33 * v3 * v3 + 2.0 * (b12 * v1 * v2 + b13 * v1 * v3 + b23 * v2 * v3)
            )
            col += 1
        for k in range(2):
            for m in range(k + 1, 3):
                x1, x2, x3 = vec[k, 0], vec[k, 1], vec[k, 2]
                y1, y2, y3 = vec[m, 0], vec[m, 1], vec[m, 2]
                grad[col, n] = 2.0 * (
                    b11 * x1 * y1
                    + b22 * x2 * y2
                    + b33 * x3 * y3
                    + b12 * (x1 * y2 + x2 * y1)
                    + b13 * (x1 * y3 + x3 * y1)
                    + b23 * (x2 * y3 + x3 * y2)
                )
                col += 1
        # a u u^T changes with 2V: G = E u u^T, i.e. (W^T G W)_ij = E c_i c_j
        grad[6, n] = energy[n] * (
            b11 * r1 + b22 * r2 + b33 * r3 + 2.0 * (b12 * c[0] * c[1] + b13 * c[0] * c[2] + b23 * c[1] * c[2])
        )


@njit(cache=True, error_model="numpy")
def _block_levels(lam, potential, matter_per_MeV, energy, lowest, widening, gap21, gap31):  # type: ignore[no-untyped-def]
    """Shift of the lowest level, growth of the widest gap, and two gaps of diag(lam) + a potential."""
    q1 = potential[0, 0].real
    q2 = potential[1, 1].real
    q3 = potential[2, 2].real
    p12 = potential[0, 1]
    p13 = potential[0, 2]
    p23 = potential[1, 2]
    m12 = p12.real**2 + p12.imag**2
    m13 = p13.real**2 + p13.imag**2
    m23 = p23.real**2 + p23.imag**2
    twist = 2.0 * (p12 * p23 * p13.conjugate()).real
    g21 = lam[1] - lam[0]
    g31 = lam[2] - lam[0]
    g32 = lam[2] - lam[1]
    size = math.sqrt(q1 * q1 + q2 * q2 + q3 * q3 + 2.0 * (m12 + m13 + m23))
    strongest = 0.0
    for n in range(energy.size):
        strongest = max(strongest, energy[n])
    if abs(matter_per_MeV) * strongest * size < 0.05 * min(g21, g32):
        c1 = m12 / g21 + m13 / g31
        c2 = m12 / g21 - m23 / g32
        trace = q1 + q2 + q3
        for n in range(energy.size):
            a = matter_per_MeV * energy[n]
            aa = a * a
            s12 = aa * m12
            s13 = aa * m13
            s23 = aa * m23
            t = aa * a * twist
            d1 = a * q1
            d2 = a * q2
            d3 = a * q3
            x = d1 - aa * c1
            for _ in range(2):
                e1 = x - d1
                e2 = x - g21 - d2
                e3 = x - g31 - d3
                slope = e1 * e2 + e1 * e3 + e2 * e3 - s12 - s13 - s23
                x -= (e1 * e2 * e3 - s12 * e3 - s13 * e2 - s23 * e1 - t) / slope
            y = d2 + aa * c2
            for _ in range(2):
                e1 = y + g21 - d1
                e2 = y - d2
                e3 = y - g32 - d3
                slope = e1 * e2 + e1 * e3 + e2 * e3 - s12 - s13 - s23
                y -= (e1 * e2 * e3 - s12 * e3 - s13 * e2 - s23 * e1 - t) / slope
            lowest[n] = x
            widening[n] = a * trace - y - 2.0 * x
            gap21[n] = g21 + (y - x)
            gap31[n] = g31 + (a * trace - y - 2.0 * x)
        return
    for n in range(energy.size):
        a = matter_per_MeV * energy[n]
        aa = a * a
        w2 = (a * q1, a * q2, a * q3, aa * m12, aa * m13, aa * m23, aa * a * twist)
        if a == 0.0:
            x, y, z = 0.0, 0.0, 0.0
        else:
            # from outside Newton comes to the outermost roots, however near the middle one is; the trace gives that
            r1, _, r3 = _sorted_roots(lam, w2)
            margin = 1e-7 * (r3 - r1)
            x = _root_near(lam, w2, 0, r1 - lam[0] - margin)
            z = _root_near(lam, w2, 2, r3 - lam[2] + margin)
            y = a * (q1 + q2 + q3) - x - z
        lowest[n] = x
        widening[n] = z - x
        gap21[n] = g21 + (y - x)
        gap31[n] = g31 + (z - x)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _amplitudes_block(h, hh, span, matter_per_MeV, energy, length, lowest, widening, gap21, gap31, planes):  # type: ignore[no-untyped-def]
    """|S|^2 with S = 1 + f[z1, z3] (H - z1) + f[z1, z2, z3] (H - z1)(H - z3), one plane per channel.

    ``h`` holds A = X - lambda1 and P, ``hh`` the powers of a in (A + a P)(A + a P - lambda31): the nine real numbers
    (11, 22, 33, Re 12, Im 12, Re 13, Im 13, Re 23, Im 23) each. The leading term is A (A - lambda31) = -lambda21
    lambda32 v2 v2^dagger, as small as it has to be, so that the large divided difference multiplies no rounding error.
    With z measured from z1, exp(-i x) sin(x) = sin x cos x - i sin^2 x gives the divided differences.
    """
    for n in range(energy.size):
        a = matter_per_MeV * energy[n]
        kappa = _PHASE * length / energy[n]
        g1 = gap21[n]
        g2 = gap31[n]
        x = kappa * g1
        y = kappa * g2
        sx, px = _sine_squared_and_product(x)
        sy, py = _sine_squared_and_product(y)
        # a vanishing gap multiplies a vanishing matrix: any bounded quotient will do there
        inverse = 2.0 * kappa * x / (x * x + 1e-30)
        f1r = -sx * inverse
        f1i = -px * inverse
        inverse = 2.0 * kappa * (y - x) / ((y - x) * (y - x) + 1e-30)
        spread = g2 / (g2 * g2 + 1e-60)
        f2r = ((sx - sy) * inverse - f1r) * spread
        f2i = ((px - py) * inverse - f1i) * spread
        inverse = 2.0 * kappa * y / (y * y + 1e-30)
        f1r = -sy * inverse
        f1i = -py * inverse
        delta = lowest[n]
        both = 2.0 * delta + widening[n]
        product = delta * (span + delta + widening[n])
        h0 = h[0, 0] + a * h[1, 0]
        h1 = h[0, 1] + a * h[1, 1]
        h2 = h[0, 2] + a * h[1, 2]
        u = h[0, 3] + a * h[1, 3]
        v = h[0, 4] + a * h[1, 4]
        k0 = hh[0, 0] + a * (hh[1, 0] + a * hh[2, 0]) - both * h0 + product
        k1 = hh[0, 1] + a * (hh[1, 1] + a * hh[2, 1]) - both * h1 + product
        k2 = hh[0, 2] + a * (hh[1, 2] + a * hh[2, 2]) - both * h2 + product
        h0 -= delta
        h1 -= delta
        h2 -= delta
        re = 1.0 + f1r * h0 + f2r * k0
        im = f1i * h0 + f2i * k0
        planes[0, n] = re * re + im * im
        re = 1.0 + f1r * h1 + f2r * k1
        im = f1i * h1 + f2i * k1
        planes[4, n] = re * re + im * im
        re = 1.0 + f1r * h2 + f2r * k2
        im = f1i * h2 + f2i * k2
        planes[8, n] = re * re + im * im
        # off-diagonal: H_ij = u + i v, K_ij = s + i t; S_ij = f1 H_ij + f2 K_ij, S_ji = f1 H_ij* + f2 K_ij*
        s = hh[0, 3] + a * (hh[1, 3] + a * hh[2, 3]) - both * u
        t = hh[0, 4] + a * (hh[1, 4] + a * hh[2, 4]) - both * v
        ar = f1r * u + f2r * s
        ai = f1i * u + f2i * s
        br = f1i * v + f2i * t
        bi = f1r * v + f2r * t
        planes[3, n] = (ar - br) ** 2 + (ai + bi) ** 2
        planes[1, n] = (ar + br) ** 2 + (ai - bi) ** 2
        u = h[0, 5] + a * h[1, 5]
        v = h[0, 6] + a * h[1, 6]
        s = hh[0, 5] + a * (hh[1, 5] + a * hh[2, 5]) - both * u
        t = hh[0, 6] + a * (hh[1, 6] + a * hh[2, 6]) - both * v
        ar = f1r * u + f2r * s
        ai = f1i * u + f2i * s
        br = f1i * v + f2i * t
        bi = f1r * v + f2r * t
        planes[6, n] = (ar - br) ** 2 + (ai + bi) ** 2
        planes[2, n] = (ar + br) ** 2 + (ai - bi) ** 2
        u = h[0, 7] + a * h[1, 7]
        v = h[0, 8] + a * h[1, 8]
        s = hh[0, 7] + a * (hh[1, 7] + a * hh[2, 7]) - both * u
        t = hh[0, 8] + a * (hh[1, 8] + a * hh[2, 8]) - both * v
        ar = f1r * u + f2r * s
        ai = f1i * u + f2i * s
        br = f1i * v + f2i * t
        bi = f1r * v + f2r * t
        planes[7, n] = (ar - br) ** 2 + (ai + bi) ** 2
        planes[5, n] = (ar + br) ** 2 + (ai - bi) ** 2


@njit(cache=True, error_model="numpy")
def probability_grid(lam, potential, h, hh, matter_per_MeV, energy, baseline, out):  # type: ignore[no-untyped-def]
    """P(alpha -> beta) of shape (baseline, energy, 9) for 2 E H = V (diag(lam) + a potential) V^dagger.

    ``potential`` is V^dagger (diag(1, 0, 0) + epsilon) V: any Hermitian matrix, so vector NSI cost nothing extra.
    ``h`` and ``hh`` hold the same matrix in the flavour basis, see _amplitudes_block.
    """
    lowest = np.empty(_BLOCK)
    widening = np.empty(_BLOCK)
    gap21 = np.empty(_BLOCK)
    gap31 = np.empty(_BLOCK)
    planes = np.empty((9, _BLOCK))
    span = lam[2] - lam[0]
    for first in range(0, energy.size, _BLOCK):
        last = min(first + _BLOCK, energy.size)
        part = energy[first:last]
        _block_levels(lam, potential, matter_per_MeV, part, lowest, widening, gap21, gap31)
        for m in range(baseline.size):
            _amplitudes_block(h, hh, span, matter_per_MeV, part, baseline[m], lowest, widening, gap21, gap31, planes)
            for n in range(part.size):
                for c in range(9):
                    out[m, first + n, c] = min(max(planes[c, n], 0.0), 1.0)
