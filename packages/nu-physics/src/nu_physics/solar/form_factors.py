"""Nuclear form factors |F(E_R)|^2 of spin-independent scattering.

Exponential: exp(-E_R / E_0), E_0 = 3 / (2 m R^2), R = [0.91 (m / GeV)^(1/3) + 0.3] fm   (Gould 1987; DarkSUSY's radius)
Helm: [3 j_1(q r_n) / (q r_n)]^2 exp(-q^2 s^2), q^2 = 2 m E_R, r_n^2 = c^2 + 7/3 pi^2 a^2 - 5 s^2,
c = 1.23 A^(1/3) - 0.60 fm, a = 0.52 fm, s = 0.9 fm   (Lewin & Smith, Astropart. Phys. 6 (1996) 87)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn

from nu_physics.constants import HBAR_C_eV_m

__all__ = ["FORM_FACTORS", "exponential_energy_GeV", "helm"]

Array = NDArray[np.float64]

FORM_FACTORS = ("exponential", "helm")
ATOMIC_MASS_GeV = 0.93149410242
_HBAR_C_GeV_fm = HBAR_C_eV_m * 1.0e-9 * 1.0e15


def exponential_energy_GeV(mass_number: Array) -> Array:
    """Return E_0 of the exponential form factor.

    Examples
    --------
    >>> round(float(exponential_energy_GeV(np.array(56.0))) * 1e6)  # keV, iron
    82
    """
    mass_GeV = ATOMIC_MASS_GeV * np.asarray(mass_number)
    radius_fm = 0.91 * np.cbrt(mass_GeV) + 0.3
    return np.asarray(1.5 * _HBAR_C_GeV_fm**2 / (mass_GeV * radius_fm**2))


def helm(recoil_GeV: Array, mass_number: float) -> Array:
    """Return Helm's |F|^2 at recoil energies E_R.

    Examples
    --------
    >>> helm(np.array([0.0, 30e-6]), 131.3).round(2)  # xenon at 0 and 30 keV
    array([1. , 0.2])
    """
    q_per_fm = np.sqrt(2.0 * ATOMIC_MASS_GeV * mass_number * np.asarray(recoil_GeV)) / _HBAR_C_GeV_fm
    c, a, s = 1.23 * np.cbrt(mass_number) - 0.60, 0.52, 0.9
    radius = np.sqrt(c * c + 7.0 / 3.0 * (np.pi * a) ** 2 - 5.0 * s * s)
    x = np.maximum(q_per_fm * radius, 1.0e-4)
    return np.asarray((3.0 * spherical_jn(1, x) / x) ** 2 * np.exp(-((q_per_fm * s) ** 2)))
