"""Annihilation in the Sun's centre: capture against annihilation over the Sun's age.

dN/dt = C - C_A N^2,   Gamma = C_A N^2 / 2 = (C / 2) tanh^2(t / tau),   tau = 1 / sqrt(C C_A),
C_A = <sigma v> V_2 / V_1^2,   V_j = int 4 pi r^2 exp(-j m phi(r) / T) dr

for particles that are their own antiparticles, thermal at the core's temperature T. The effective volumes are
integrated over the potential of the solar model. (Griest & Seckel, Nucl. Phys. B 283 (1987) 681.)
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import simpson
from scipy.interpolate import PchipInterpolator

from nu_physics.constants import LIGHT_SPEED_m_s
from nu_physics.errors import check_choice, check_range
from nu_physics.solar.sun import GM_SUN_cm3_s2, SolarModel, SUN_AGE_s, SUN_MASS_g, SUN_RADIUS_cm, solar_model

__all__ = ["Annihilation", "EquilibriumWarning", "annihilation_rate", "effective_volume_cm3"]

Array = NDArray[np.float64]

THERMAL_cm3_s = 3.0e-26
_BOLTZMANN_GeV_K = 8.617333262e-14
_ASSUMED_WELL = 0.9


class EquilibriumWarning(UserWarning):
    """Equilibrium was assumed, and the Sun is too young for it."""


@dataclass(frozen=True)
class Annihilation:
    """How often captured particles annihilate.

    Parameters
    ----------
    rate_per_s : float
        Annihilations a second.
    equilibrium : float
        tanh^2(t / tau): the rate is this share of C / 2 (also where equilibrium was assumed).
    assumed : bool
        Whether the rate is C / 2 regardless.
    """

    rate_per_s: float
    equilibrium: float
    assumed: bool


def annihilation_rate(
    capture_per_s: float,
    mass_GeV: float,
    *,
    annihilation_cm3_s: float = THERMAL_cm3_s,
    equilibrium: str = "solve",
    age_s: float = SUN_AGE_s,
    sun: SolarModel | None = None,
) -> Annihilation:
    """Return the annihilation rate.

    Parameters
    ----------
    capture_per_s : float
        Captured particles a second.
    mass_GeV : float
    annihilation_cm3_s : float
        <sigma v>.
    equilibrium : {"solve", "assume"}
        ``"assume"`` takes C / 2 and warns where tanh^2 is below 0.9.
    age_s : float
        4.57 Gyr by default.
    sun : SolarModel, optional

    Warns
    -----
    EquilibriumWarning

    Examples
    --------
    >>> result = annihilation_rate(2.5e18, 1000.0)
    >>> round(result.equilibrium, 2)
    0.98
    """
    capture = check_range("capture_per_s", capture_per_s, 0.0)
    mass = check_range("mass_GeV", mass_GeV, 0.0, 1.0e9, open_low=True)
    sigma_v = check_range("annihilation_cm3_s", annihilation_cm3_s, 0.0, 1.0)
    age = check_range("age_s", age_s, 0.0)
    check_choice("equilibrium", equilibrium, ("solve", "assume"))
    model = sun or solar_model()
    per_pair = sigma_v * effective_volume_cm3(2, mass, model) / effective_volume_cm3(1, mass, model) ** 2
    reached = math.tanh(age * math.sqrt(capture * per_pair)) ** 2
    if equilibrium == "solve":
        return Annihilation(0.5 * capture * reached, reached, assumed=False)
    if reached < _ASSUMED_WELL:
        warnings.warn(
            f"equilibrium is assumed, but at mass_GeV = {mass:g} and capture_per_s = {capture:.3g} only the share "
            f"{reached:.3f} of C / 2 is reached; take equilibrium='solve'",
            EquilibriumWarning,
            stacklevel=2,
        )
    return Annihilation(0.5 * capture, reached, assumed=True)


def effective_volume_cm3(j: int, mass_GeV: float, sun: SolarModel | None = None) -> float:
    """Return V_j.

    Examples
    --------
    >>> f"{effective_volume_cm3(1, 20.0):.1e} cm3"
    '2.8e+28 cm3'
    """
    model = sun or solar_model()
    scale = j * mass_GeV * 1.0e10 / (LIGHT_SPEED_m_s * 1.0e2) ** 2  # per km2/s2
    scale /= _BOLTZMANN_GeV_K * float(model.temperature_K[0])
    density = float(model.density_g_cm3[0])
    curvature = 4.0 / 3.0 * math.pi * GM_SUN_cm3_s2 / SUN_MASS_g * density * 1.0e-10  # phi = curvature r^2 / 2
    width_cm = 1.0 / math.sqrt(curvature * scale)
    r = np.linspace(0.0, min(SUN_RADIUS_cm, 12.0 * width_cm), 4001)
    return float(simpson(4.0 * math.pi * r**2 * np.exp(-scale * _potential(model, r)), x=r))


def _potential(model: SolarModel, r_cm: Array) -> Array:
    """phi(r) - phi(0) in km2/s2, from the mass inside each shell as the density integrates to.

    (The tables round the enclosed mass to 1e-7 of the Sun's, which is all of it near the centre.)
    """
    r = np.concatenate([[0.0], model.radius_cm])
    density = np.concatenate([model.density_g_cm3[:1], model.density_g_cm3])
    shells = 4.0 / 3.0 * math.pi * 0.5 * (density[1:] + density[:-1]) * np.diff(r**3)
    mass = np.concatenate([[0.0], np.cumsum(shells)]) / SUN_MASS_g
    pull = np.concatenate([[0.0], GM_SUN_cm3_s2 * mass[1:] / r[1:] ** 2])
    return np.asarray(PchipInterpolator(r, pull).antiderivative()(r_cm) * 1.0e-10)
