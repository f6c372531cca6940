"""The Sun: structure and composition by shell from a standard solar model.

v_esc(r)^2 = 2 G M / R + 2 int_r^R G M(r') / r'^2 dr',   phi(r) = [v_esc(0)^2 - v_esc(r)^2] / 2
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid, trapezoid

from nu_physics.errors import InvalidInput, check_choice, check_counts, check_energies, freeze

__all__ = ["SOLAR_MODELS", "SolarModel", "solar_model"]

Array = NDArray[np.float64]

# G M_sun, IAU 2015 nominal; radius, IAU 2015 nominal; age of the solar models; astronomical unit (IAU 2012).
GM_SUN_cm3_s2 = 1.3271244e26
SUN_MASS_g = 1.98841e33
SUN_RADIUS_cm = 6.957e10
SUN_AGE_s = 4.57e9 * 365.25 * 86400.0
ASTRONOMICAL_UNIT_cm = 1.495978707e13

SOLAR_MODELS = {"b16-agss09": "sun_b16_agss09.npz", "b16-gs98": "sun_b16_gs98.npz"}

# Mass number of each column of the tables: the isotope's, or the element's standard atomic weight.
_ISOTOPES = "H1 He4 He3 C12 C13 N14 N15 O16 O17 O18 Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni"
_WEIGHTS = (
    "1 4 3 12 13 14 15 16 17 18 20.180 22.990 24.305 26.982 28.085 30.974 32.06 35.45 39.948 39.098 40.078 44.956 "
    "47.867 50.942 51.996 54.938 55.845 58.933 58.693"
)
_MASS_NUMBER = dict(zip(_ISOTOPES.split(), map(float, _WEIGHTS.split()), strict=True))


@dataclass(frozen=True, eq=False)
class SolarModel:
    """A solar model on its shells, from the centre outwards.

    Parameters
    ----------
    name : str
    radius : array of shape (n,)
        In units of the Sun's.
    mass : array of shape (n,)
        Enclosed, in units of the Sun's.
    temperature_K, density_g_cm3 : arrays of shape (n,)
    isotopes : tuple of str
        Isotopes and, from neon on, elements.
    mass_fraction : array of shape (isotopes, n)
    """

    name: str
    radius: Array
    mass: Array
    temperature_K: Array
    density_g_cm3: Array
    isotopes: tuple[str, ...]
    mass_fraction: Array

    def __post_init__(self) -> None:
        shells = self.radius.shape
        for name in ("radius", "mass", "temperature_K", "density_g_cm3"):
            found = check_energies(name, getattr(self, name), positive=False).shape
            if found != shells or len(shells) != 1:
                raise InvalidInput(f"{name} has shape {found}; one value a shell is needed, like radius: {shells}")
        unknown = [name for name in self.isotopes if name not in _MASS_NUMBER]
        if unknown:
            raise InvalidInput(f"isotope {unknown[0]!r} is not known; known: {', '.join(_MASS_NUMBER)}")
        check_counts("mass_fraction", self.mass_fraction, (len(self.isotopes), *shells), "isotopes by shells")
        freeze(self, "radius", "mass", "temperature_K", "density_g_cm3", "mass_fraction")

    @property
    def radius_cm(self) -> Array:
        """Radius of each shell."""
        return self.radius * SUN_RADIUS_cm

    @property
    def mass_number(self) -> Array:
        """Mass number of each isotope, shape (isotopes,)."""
        return np.array([_MASS_NUMBER[name] for name in self.isotopes])

    @functools.cached_property
    def escape_speed_km_s(self) -> Array:
        """Escape speed from each shell."""
        pull = GM_SUN_cm3_s2 * self.mass / self.radius_cm**2
        inwards = cumulative_trapezoid(pull[::-1], -self.radius_cm[::-1], initial=0.0)[::-1]
        outside = 2.0 * GM_SUN_cm3_s2 * self.mass[-1] / self.radius_cm[-1]
        speed = np.sqrt(outside + 2.0 * inwards) * 1.0e-5
        speed.setflags(write=False)
        return np.asarray(speed)

    @property
    def potential_km2_s2(self) -> Array:
        """Gravitational potential above that of the innermost shell."""
        return np.asarray(0.5 * (self.escape_speed_km_s[0] ** 2 - self.escape_speed_km_s**2))

    def volume_integral(self, values: Array) -> Array:
        """Return the integral of 4 pi r^2 f(r) dr in cm3 over the last axis, by the trapezoid rule on the shells.

        Examples
        --------
        >>> sun = solar_model()
        >>> round(float(sun.volume_integral(sun.density_g_cm3)) / 1.98841e33, 2)  # solar masses
        1.0
        """
        r = self.radius_cm
        return np.asarray(trapezoid(4.0 * np.pi * r**2 * values, r, axis=-1))

    @functools.cached_property
    def column_g_cm2(self) -> float:
        """Column density from the centre to the surface."""
        r = np.concatenate([[0.0], self.radius_cm])
        density = np.concatenate([self.density_g_cm3[:1], self.density_g_cm3])
        return float(trapezoid(density, r))


@functools.cache
def solar_model(name: str = "b16-agss09") -> SolarModel:
    """Return a packaged model: ``"b16-agss09"`` or ``"b16-gs98"``, 2000 shells x 29 isotopes.

    Source: Vinyoles et al., Astrophys. J. 835 (2017) 202 (arXiv:1611.09867), tables as distributed with captngen (MIT).

    Raises
    ------
    InvalidInput
        The name is not known.

    Examples
    --------
    >>> sun = solar_model("b16-agss09")
    >>> [round(float(v)) for v in sun.escape_speed_km_s[[0, -1]]]
    [1381, 618]
    """
    check_choice("solar model", name, SOLAR_MODELS)
    source = resources.files("nu_physics.data") / SOLAR_MODELS[name]
    with source.open("rb") as stream, np.load(stream) as table:
        return SolarModel(
            name,
            table["radius"],
            table["mass"],
            table["temperature_K"],
            table["density_g_cm3"],
            tuple(str(isotope) for isotope in table["isotope"]),
            table["mass_fraction"],
        )
