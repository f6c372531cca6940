"""Oracle: P(alpha -> beta) = |exp(-i H L)|^2 by a 50-digit eigen-decomposition. Slow and obvious."""

import mpmath
import numpy as np

mpmath.mp.dps = 50
mp = mpmath.mp


def _constants():
    planck, light, charge = mp.mpf("6.62607015e-34"), mp.mpf(299792458), mp.mpf("1.602176634e-19")
    hbar_c = planck * light / (2 * mp.pi * charge)  # eV m
    fermi, avogadro = mp.mpf("1.1663787e-5"), mp.mpf("6.02214076e23")
    potential = mp.sqrt(2) * fermi * avogadro * (hbar_c * mp.mpf("1e-7")) ** 3 * mp.mpf("1e9")
    return hbar_c, potential


HBAR_C_eV_m, POTENTIAL_eV = _constants()


def mixing(s12, s13, s23, delta):
    s12, s13, s23 = (mp.sqrt(mp.mpf(v)) for v in (s12, s13, s23))
    c12, c13, c23 = (mp.sqrt(1 - v * v) for v in (s12, s13, s23))
    e = mp.expj(mp.mpf(delta))
    return mp.matrix(
        [
            [c12 * c13, s12 * c13, s13 / e],
            [-s12 * c23 - c12 * s23 * s13 * e, c12 * c23 - s12 * s23 * s13 * e, s23 * c13],
            [s12 * s23 - c12 * c23 * s13 * e, -c12 * s23 - s12 * c23 * s13 * e, c23 * c13],
        ]
    )


def hamiltonian(parameters, eta, epsilon, scale, energy_MeV, density, electron_fraction, antineutrino):
    """H in eV, straight from the definition, masses not shifted."""
    p = parameters
    dm21, dm31, light = mp.mpf(p.dm21_eV2), mp.mpf(p.dm31_eV2), mp.mpf(p.m_lightest_eV)
    if dm31 > 0:
        m1 = light
        m2, m3 = mp.sqrt(light**2 + dm21), mp.sqrt(light**2 + dm31)
    else:
        m3 = light
        m1 = mp.sqrt(light**2 - dm31)
        m2 = mp.sqrt(m1**2 + dm21)
    u = mixing(p.sin2_theta12, p.sin2_theta13, p.sin2_theta23, p.delta_cp)
    phases = [mp.mpf(1), mp.expj(mp.mpf(p.alpha1)), mp.expj(mp.mpf(p.alpha2))]
    diagonal = mp.diag([m1 * phases[0], m2 * phases[1], m3 * phases[2]])
    mass = u * diagonal * u.H
    s_m = mp.sqrt(abs(dm31)) if scale == "atm" else mp.mpf(scale)
    total = mass + s_m * mp.matrix(eta.tolist())
    h = total * total.H / (2 * mp.mpf(energy_MeV) * mp.mpf("1e6"))
    v = POTENTIAL_eV * mp.mpf(electron_fraction) * mp.mpf(density)
    matter = v * mp.matrix((np.diag([1.0, 0.0, 0.0]) + epsilon).tolist())
    if antineutrino:
        return h.conjugate() - matter.conjugate()
    return h + matter


def probability(
    parameters,
    energy_MeV,
    baseline_km,
    eta=None,
    epsilon=None,
    scale="atm",
    density=0.0,
    electron_fraction=0.5,
    antineutrino=True,
):
    """3 x 3 array, [alpha, beta] = P(alpha -> beta)."""
    zero = np.zeros((3, 3), dtype=complex)
    h = hamiltonian(
        parameters,
        zero if eta is None else eta,
        zero if epsilon is None else epsilon,
        scale,
        energy_MeV,
        density,
        electron_fraction,
        antineutrino,
    )
    values, vectors = mp.eighe((h + h.H) / 2)
    length = mp.mpf(baseline_km) * 1000 / HBAR_C_eV_m
    amplitude = vectors * mp.diag([mp.expj(-v * length) for v in values]) * vectors.H
    return np.array([[float(abs(amplitude[b, a]) ** 2) for b in range(3)] for a in range(3)])
