"""Inverse beta decay, anti-nu_e + p -> e+ + n: cross sections at three orders and the positron's energy.

Zeroth order    sigma = 2 pi^2 hbar^3 c^2 / (m_e^5 f tau_n) E_e p_e,     E_e = E - Delta
First order     the angular distribution of Vogel and Beacom with E_e1(cos) to 1/M
Full            d sigma / d E_e of Strumia and Vissani, all orders in E / M, with radiative correction

Energies in MeV, cross sections in cm^2; exactly zero below the threshold of 1.806 MeV. References: P. Vogel, J. F.
Beacom, PRD 60 (1999) 053003; A. Strumia, F. Vissani, PLB 564 (2003) 42 (astro-ph/0302055).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

from nu_physics.constants import (
    FINE_STRUCTURE,
    ELECTRON_MASS_MeV,
    FERMI_per_GeV2,
    HBAR_C_eV_m,
    HBAR_MeV_s,
    NEUTRON_LIFETIME_s,
    NEUTRON_MASS_MeV,
    NEUTRON_PROTON_MeV,
    PROTON_MASS_MeV,
)
from nu_physics.errors import check_choice, check_energies

__all__ = [
    "CROSS_SECTIONS",
    "THRESHOLD_MeV",
    "cross_section",
    "cross_section_approximate",
    "cross_section_first_order",
    "cross_section_strumia_vissani",
    "cross_section_zeroth_order",
    "differential_strumia_vissani",
    "differential_vogel_beacom",
    "positron_energy_limits",
]

Array = NDArray[np.float64]

AXIAL = 1.2701  # g_A, PDG 2012-2020 mean used by Daya Bay's ibd_constants.yaml
MAGNETIC = 3.706  # f_2, anomalous isovector magnetic moment
PHASE_SPACE = 1.71465  # f of the neutron decay, D. H. Wilkinson, with Coulomb and radiative corrections
COS_CABIBBO = 0.9746  # Strumia and Vissani; the same in two public implementations of their cross section
NUCLEON_MeV = 0.5 * (NEUTRON_MASS_MeV + PROTON_MASS_MeV)
THRESHOLD_MeV = ((NEUTRON_MASS_MeV + ELECTRON_MASS_MeV) ** 2 - PROTON_MASS_MeV**2) / (2.0 * PROTON_MASS_MeV)
_CM2_PER_MeV2 = (HBAR_C_eV_m * 1e-6 * 1e2) ** 2  # (hbar c)^2 in MeV^2 cm^2
_SIGMA0_cm2 = 2.0 * math.pi**2 * HBAR_MeV_s / (ELECTRON_MASS_MeV**5 * PHASE_SPACE * NEUTRON_LIFETIME_s) * _CM2_PER_MeV2


def _momentum(energy: Array) -> Array:
    """Positron momentum, zero below its rest mass."""
    return np.sqrt(np.maximum(energy**2 - ELECTRON_MASS_MeV**2, 0.0))


def cross_section_zeroth_order(energy_MeV: object) -> Array:
    """Return sigma_0 E_e p_e with E_e = E - Delta, normalised to the neutron lifetime.

    Examples
    --------
    >>> f"{cross_section_zeroth_order(4.0):.3e}"
    '6.936e-43'
    """
    energy = check_energies("energy_MeV", energy_MeV)
    positron = energy - NEUTRON_PROTON_MeV
    value = _SIGMA0_cm2 * positron * _momentum(positron)
    return np.where(energy > THRESHOLD_MeV, np.maximum(value, 0.0), 0.0)


def positron_energy_first_order(energy_MeV: Array, cosine: Array) -> Array:
    """E_e to first order in 1/M: E_e0 [1 - E/M (1 - v_e0 cos)] - (Delta^2 - m_e^2) / 2M."""
    zeroth = energy_MeV - NEUTRON_PROTON_MeV
    velocity = _momentum(zeroth) / np.maximum(zeroth, ELECTRON_MASS_MeV)
    square = 0.5 * (NEUTRON_PROTON_MeV**2 - ELECTRON_MASS_MeV**2)
    recoil = energy_MeV / NUCLEON_MeV * (1.0 - velocity * cosine)
    return zeroth * (1.0 - recoil) - square / NUCLEON_MeV


def differential_vogel_beacom(energy_MeV: object, cosine: object) -> Array:
    """Return d sigma / d cos(theta) in cm^2 to first order in 1/M (Vogel and Beacom, equation 12).

    Parameters
    ----------
    energy_MeV, cosine : array
        Broadcast against each other.
    """
    energy = check_energies("energy_MeV", energy_MeV)
    cos = np.asarray(cosine, dtype=np.float64)
    delta, mass = NEUTRON_PROTON_MeV, NUCLEON_MeV
    vector, axial, f2 = 1.0, AXIAL, MAGNETIC
    e0 = energy - delta
    p0 = _momentum(e0)
    v0 = p0 / np.maximum(e0, ELECTRON_MASS_MeV)
    e1 = positron_energy_first_order(energy, cos)
    p1 = _momentum(e1)
    v1 = p1 / np.maximum(e1, ELECTRON_MASS_MeV)
    norm = _SIGMA0_cm2 / (vector**2 + 3.0 * axial**2)
    leading = 0.5 * norm * ((vector**2 + 3 * axial**2) + (vector**2 - axial**2) * v1 * cos) * e1 * p1
    gamma = (
        2.0
        * (vector + f2)
        * axial
        * ((2.0 * e0 + delta) * (1.0 - v0 * cos) - ELECTRON_MASS_MeV**2 / np.maximum(e0, ELECTRON_MASS_MeV))
        + (vector**2 + axial**2) * (delta * (1.0 + v0 * cos) + ELECTRON_MASS_MeV**2 / np.maximum(e0, ELECTRON_MASS_MeV))
        + (vector**2 + 3.0 * axial**2) * ((e0 + delta) * (1.0 - cos * v0) - delta)
        + (vector**2 - axial**2) * ((e0 + delta) * (1.0 - cos * v0) - delta) * v0 * cos
    )
    value = leading - 0.5 * norm * gamma / mass * e0 * p0
    return np.where((energy > THRESHOLD_MeV) & (e1 > ELECTRON_MASS_MeV), np.maximum(value, 0.0), 0.0)


def cross_section_first_order(energy_MeV: object) -> Array:
    """Return the integral of :func:`differential_vogel_beacom` over the angle.

    Examples
    --------
    >>> f"{cross_section_first_order(4.0):.3e}"
    '6.744e-43'
    """
    energy = check_energies("energy_MeV", energy_MeV)
    nodes, weights = leggauss(8)
    return np.asarray(differential_vogel_beacom(energy[..., None], nodes) @ weights)


def cross_section_approximate(energy_MeV: object) -> Array:
    """Return Strumia and Vissani's closed form, their equation 25, good to a per cent below 300 MeV.

    sigma = 1e-43 cm^2 p_e E_e E^(-0.07056 + 0.02018 ln E - 0.001953 ln^3 E), E_e = E - Delta.

    Examples
    --------
    >>> f"{cross_section_approximate(4.0):.3e}"
    '6.733e-43'
    """
    energy = check_energies("energy_MeV", energy_MeV)
    positron = energy - NEUTRON_PROTON_MeV
    log = np.log(energy)
    value = 1e-43 * positron * _momentum(positron) * energy ** (-0.07056 + 0.02018 * log - 0.001953 * log**3)
    return np.where(energy > THRESHOLD_MeV, np.maximum(value, 0.0), 0.0)


def positron_energy_limits(energy_MeV: object) -> tuple[Array, Array]:
    """Return the least and largest positron energy allowed by kinematics; both E - Delta below the threshold.

    E_e = E - delta - (E / sqrt s) (E_cm +- p_cm), delta = (m_n^2 - m_p^2 - m_e^2) / 2 m_p.
    """
    energy = check_energies("energy_MeV", energy_MeV)
    offset = (NEUTRON_MASS_MeV**2 - PROTON_MASS_MeV**2 - ELECTRON_MASS_MeV**2) / (2.0 * PROTON_MASS_MeV)
    square = PROTON_MASS_MeV**2 + 2.0 * PROTON_MASS_MeV * energy
    root = np.sqrt(square)
    e_cm = (square - NEUTRON_MASS_MeV**2 + ELECTRON_MASS_MeV**2) / (2.0 * root)
    p_cm = _momentum(e_cm)
    low = energy - offset - energy / root * (e_cm + p_cm)
    high = energy - offset - energy / root * (e_cm - p_cm)
    return low, high


def differential_strumia_vissani(energy_MeV: object, positron_MeV: object) -> Array:
    """Return d sigma / d E_e in cm^2 / MeV, all orders in E/M (Strumia and Vissani, equations 3, 5, 11, 14).

    d sigma / d E_e = 2 m_p G_F^2 cos^2(theta_C) / (2 pi (s - m_p^2)^2) (A - (s-u) B + (s-u)^2 C) (1 + radiative).
    """
    energy = check_energies("energy_MeV", energy_MeV)
    positron = np.asarray(positron_MeV, dtype=np.float64)
    f1, f2, g1 = 1.0, MAGNETIC, -AXIAL
    m_e2 = ELECTRON_MASS_MeV**2
    mass, delta = NUCLEON_MeV, NEUTRON_PROTON_MeV
    t = NEUTRON_MASS_MeV**2 - PROTON_MASS_MeV**2 - 2.0 * PROTON_MASS_MeV * (energy - positron)
    s_minus_u = 2.0 * PROTON_MASS_MeV * (energy + positron) - m_e2
    a = (
        mass**2 * (f1**2 - g1**2) * (t - m_e2)
        - mass**2 * delta**2 * (f1**2 + g1**2)
        - 2.0 * m_e2 * mass * delta * g1 * (f1 + f2)
    )
    b = t * g1 * (f1 + f2)
    c = 0.25 * (f1**2 + g1**2)
    fermi = FERMI_per_GeV2 * 1e-6
    safe = np.maximum(positron, ELECTRON_MASS_MeV)
    radiative = 1.0 + FINE_STRUCTURE / math.pi * (
        6.0 + 1.5 * np.log(PROTON_MASS_MeV / (2.0 * safe)) + 1.2 * (ELECTRON_MASS_MeV / safe) ** 1.5
    )
    prefactor = (
        2.0 * PROTON_MASS_MeV * fermi**2 * COS_CABIBBO**2 / (2.0 * math.pi * (2.0 * PROTON_MASS_MeV * energy) ** 2)
    )
    value = _CM2_PER_MeV2 * prefactor * (a - s_minus_u * b + s_minus_u**2 * c) * radiative
    low, high = positron_energy_limits(energy)
    inside = (energy > THRESHOLD_MeV) & (positron >= low) & (positron <= high)
    return np.where(inside, np.maximum(value, 0.0), 0.0)


def positron_nodes(energy_MeV: Array, count: int = 8) -> tuple[Array, Array]:
    """Gauss-Legendre nodes in E_e and their cross-section weights (cm^2), each of shape (n, count)."""
    nodes, weights = leggauss(count)
    low, high = positron_energy_limits(energy_MeV)
    half = 0.5 * (high - low)
    positron = (0.5 * (high + low))[:, None] + half[:, None] * nodes
    density = differential_strumia_vissani(energy_MeV[:, None], positron)
    return positron, density * half[:, None] * weights


def cross_section_strumia_vissani(energy_MeV: object) -> Array:
    """Return the full Strumia-Vissani cross section, the integral of :func:`differential_strumia_vissani`.

    Examples
    --------
    >>> f"{cross_section_strumia_vissani(4.0):.3e}"
    '6.756e-43'
    """
    energy = check_energies("energy_MeV", energy_MeV)
    _, weights = positron_nodes(energy.ravel(), 8)
    return np.asarray(weights.sum(axis=1).reshape(energy.shape))


CROSS_SECTIONS = {
    "zeroth-order": cross_section_zeroth_order,
    "first-order": cross_section_first_order,
    "approximate": cross_section_approximate,
    "strumia-vissani": cross_section_strumia_vissani,
}


def cross_section(energy_MeV: object, order: str = "strumia-vissani") -> Array:
    """Return the total cross section at the named order: one of ``CROSS_SECTIONS``."""
    return CROSS_SECTIONS[check_choice("order", order, CROSS_SECTIONS)](energy_MeV)
