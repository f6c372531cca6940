"""The vector of numbers that the search reads, the levels and weights that it gives, and the step that moves it.

X = (M + dM)(M + dM)^dagger has the levels lambda_i and the electron the weights w_i in its states: without matter they
are all that P_ee depends on. Mixing angles move as angles, for in their squared sines the spectrum has no slope at 0
and 90 degrees.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "ANGLES",
    "DM21",
    "DM31",
    "ETA",
    "FACTOR_AT",
    "INDEX",
    "LENGTH",
    "PLAIN",
    "SCALE_AT",
    "damped",
    "levels_of",
    "put",
]

PLAIN = (
    "sin2_theta12",
    "sin2_theta13",
    "sin2_theta23",
    "dm21_eV2",
    "dm31_eV2",
    "delta_cp",
    "m_lightest_eV",
    "alpha1",
    "alpha2",
)
ETA = ("eta_ee", "eta_mm", "eta_tt", "eta_em", "eta_em_imag", "eta_et", "eta_et_imag", "eta_mt", "eta_mt_imag")
INDEX = {name: k for k, name in enumerate((*PLAIN, *ETA))}
SCALE_AT, FACTOR_AT, LENGTH = len(INDEX), len(INDEX) + 1, len(INDEX) + 2
DM21, DM31 = INDEX["dm21_eV2"], INDEX["dm31_eV2"]
ANGLES = (
    3  # the first three are squared sines; descents move in their angles, for at 0 and 90 degrees the slope is zero
)


@njit(cache=True, error_model="numpy")
def levels_of(p, lam, w):  # type: ignore[no-untyped-def]
    """Ascending levels of X and the electron's weights, by the eigenvalues of X and of its minor without e."""
    s12, s13, s23 = math.sqrt(p[0]), math.sqrt(p[1]), math.sqrt(p[2])
    c12, c13, c23 = math.sqrt(1.0 - p[0]), math.sqrt(1.0 - p[1]), math.sqrt(1.0 - p[2])
    dm21, dm31, light = p[3], p[4], p[6] * p[6]
    phase = complex(math.cos(p[5]), math.sin(p[5]))
    base = light if dm31 > 0 else light - dm31
    m1 = math.sqrt(base)
    m2 = math.sqrt(base + dm21) * complex(math.cos(p[7]), math.sin(p[7]))
    m3 = math.sqrt(max(base + dm31, 0.0)) * complex(math.cos(p[8]), math.sin(p[8]))
    u = np.empty((3, 3), dtype=np.complex128)
    u[0, 0], u[0, 1], u[0, 2] = c12 * c13, s12 * c13, s13 * phase.conjugate()
    u[1, 0] = -s12 * c23 - c12 * s23 * s13 * phase
    u[1, 1] = c12 * c23 - s12 * s23 * s13 * phase
    u[1, 2] = s23 * c13
    u[2, 0] = s12 * s23 - c12 * c23 * s13 * phase
    u[2, 1] = -c12 * s23 - s12 * c23 * s13 * phase
    u[2, 2] = c23 * c13
    scale = (math.sqrt(abs(dm31)) if p[18] < 0 else p[18]) * p[19]
    eta = np.zeros((3, 3), dtype=np.complex128)
    eta[0, 0], eta[1, 1], eta[2, 2] = p[9], p[10], p[11]
    eta[0, 1], eta[0, 2], eta[1, 2] = complex(p[12], p[13]), complex(p[14], p[15]), complex(p[16], p[17])
    eta[1, 0], eta[2, 0], eta[2, 1] = eta[0, 1].conjugate(), eta[0, 2].conjugate(), eta[1, 2].conjugate()
    mass = np.empty((3, 3), dtype=np.complex128)
    for a in range(3):
        for b in range(3):
            value = u[a, 0] * m1 * u[b, 0].conjugate() + u[a, 1] * m2 * u[b, 1].conjugate()
            mass[a, b] = value + u[a, 2] * m3 * u[b, 2].conjugate() + scale * eta[a, b]
    x = np.empty((3, 3), dtype=np.complex128)
    for a in range(3):
        for b in range(3):
            value = 0.0j
            for c in range(3):
                value += mass[a, c] * mass[b, c].conjugate()
            x[a, b] = value
    d1, d2, d3 = x[0, 0].real, x[1, 1].real, x[2, 2].real
    s1, s2, s3 = abs(x[0, 1]) ** 2, abs(x[0, 2]) ** 2, abs(x[1, 2]) ** 2
    twist = 2.0 * (x[0, 1] * x[1, 2] * x[2, 0]).real
    mean = (d1 + d2 + d3) / 3.0
    h1, h2, h3 = d1 - mean, d2 - mean, d3 - mean
    radius = math.sqrt((h1 * h1 + h2 * h2 + h3 * h3 + 2.0 * (s1 + s2 + s3)) / 6.0)
    if radius == 0.0:
        lam[:] = 0.0
        w[:] = 1.0 / 3.0
        return
    q = 0.5 * (h1 * h2 * h3 - s1 * h3 - s2 * h2 - s3 * h1 + twist)
    angle = math.acos(max(-1.0, min(1.0, q / radius**3))) / 3.0
    high = 2.0 * radius * math.cos(angle)
    least = 2.0 * radius * math.cos(angle + 2.0943951023931957)
    lam[0], lam[1], lam[2] = least, -least - high, high
    half, gap = 0.5 * (h2 + h3), math.sqrt(0.25 * (h2 - h3) ** 2 + s3)
    total = 0.0
    for i in range(3):
        above = (lam[i] - half - gap) * (lam[i] - half + gap)
        below = 1.0
        for j in range(3):
            if j != i:
                below *= lam[i] - lam[j]
        w[i] = max(above / below, 0.0) if below != 0.0 else 1.0 / 3.0
        total += w[i]
    for i in range(3):
        w[i] /= total


@njit(cache=True, error_model="numpy")
def put(p, index, values):  # type: ignore[no-untyped-def]
    """Write the free values, mixing angles as their squared sines; m3 may touch m2, not pass it."""
    for k in range(len(index)):
        p[index[k]] = math.sin(values[k]) ** 2 if index[k] < ANGLES else values[k]
    if 0.0 < p[DM31] < p[DM21]:
        p[DM21] = p[DM31]


@njit(cache=True, error_model="numpy")
def damped(h, g, x, low, high, damping):  # type: ignore[no-untyped-def]
    """One step of Levenberg-Marquardt inside the limits, which only the first of x have."""
    m, rhs = h.copy(), -g
    for a in range(len(x)):
        stuck = a < len(low) and ((x[a] <= low[a] and g[a] > 0.0) or (x[a] >= high[a] and g[a] < 0.0))
        if stuck or h[a, a] == 0.0:
            m[a, :] = 0.0
            m[:, a] = 0.0
            m[a, a] = 1.0
            rhs[a] = 0.0
        else:
            m[a, a] *= 1.0 + damping
    moved = x + np.linalg.solve(m, rhs)
    for a in range(len(low)):
        moved[a] = min(max(moved[a], low[a]), high[a])
    return moved
