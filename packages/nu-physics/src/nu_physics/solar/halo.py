"""Speeds of dark matter far from the Sun, in the Sun's frame.

Boosted Maxwell:  f(u) = u / (sqrt(pi) v_sun v_0) [exp(-((u - v_sun) / v_0)^2) - exp(-((u + v_sun) / v_0)^2)],

normalised over all u. With a galactic escape speed v_gal, speeds whose galactic-frame value exceeds it are cut: for
u > v_gal - v_sun only the directions with |u + v_sun| < v_gal remain, which replaces the second term by
exp(-(v_gal / v_0)^2), and the whole is normalised again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from nu_physics.errors import InvalidInput, check_range

__all__ = ["BoostedMaxwell", "Halo", "TabulatedSpeeds"]

Array = NDArray[np.float64]


class Halo(Protocol):
    """What capture needs of a halo: density, and the speeds of the particles far from the Sun."""

    @property
    def density_GeV_cm3(self) -> float:
        """Local density."""
        ...

    @property
    def fastest_km_s(self) -> float:
        """Speed above which there are no particles; infinite for an untruncated Maxwell."""
        ...

    def speed_density(self, speed_km_s: Array) -> Array:
        """Return f(u) in s/km, normalised to one."""
        ...


@dataclass(frozen=True)
class BoostedMaxwell:
    """Isothermal halo seen from the moving Sun.

    Parameters
    ----------
    density_GeV_cm3 : float
    sun_speed_km_s : float
        Of the Sun through the halo.
    most_probable_speed_km_s : float
        v_0; the three-dimensional rms is sqrt(3/2) v_0. The default is sqrt(2/3) x 270 km/s.
    escape_speed_km_s : float
        Galactic; infinite for no truncation.

    Examples
    --------
    >>> halo = BoostedMaxwell()
    >>> u = np.linspace(0.0, 2000.0, 20001)
    >>> round(float(np.sum(halo.speed_density(u)) * (u[1] - u[0])), 4)
    1.0
    """

    density_GeV_cm3: float = 0.3
    sun_speed_km_s: float = 220.0
    most_probable_speed_km_s: float = 270.0 * math.sqrt(2.0 / 3.0)
    escape_speed_km_s: float = math.inf

    def __post_init__(self) -> None:
        check_range("density_GeV_cm3", self.density_GeV_cm3, 0.0, 1.0e6, open_low=True)
        check_range("sun_speed_km_s", self.sun_speed_km_s, 1.0, 3.0e5)
        check_range("most_probable_speed_km_s", self.most_probable_speed_km_s, 1.0, 3.0e5)
        if math.isnan(self.escape_speed_km_s) or self.escape_speed_km_s <= self.sun_speed_km_s:
            raise InvalidInput(
                f"escape_speed_km_s = {self.escape_speed_km_s!r} must exceed sun_speed_km_s = {self.sun_speed_km_s!r}: "
                "the Sun is bound to the galaxy"
            )

    @property
    def fastest_km_s(self) -> float:
        """Fastest particle, met head on."""
        return self.escape_speed_km_s + self.sun_speed_km_s

    @property
    def norm(self) -> float:
        """Share of the untruncated distribution below the escape speed."""
        if math.isinf(self.escape_speed_km_s):
            return 1.0
        z = self.escape_speed_km_s / self.most_probable_speed_km_s
        return math.erf(z) - 2.0 / math.sqrt(math.pi) * z * math.exp(-z * z)

    def speed_density(self, speed_km_s: Array) -> Array:
        """Return f(u) in s/km."""
        u = np.asarray(speed_km_s, dtype=np.float64)
        v0, vs, cut = self.most_probable_speed_km_s, self.sun_speed_km_s, self.escape_speed_km_s
        slow = np.exp(-(((u - vs) / v0) ** 2))
        fast = np.exp(-((np.minimum(u + vs, cut) / v0) ** 2))
        inside = np.abs(u - vs) < cut
        return np.where(inside, u / (math.sqrt(math.pi) * vs * v0 * self.norm) * (slow - fast), 0.0)


@dataclass(frozen=True)
class TabulatedSpeeds:
    """Any isotropised distribution of speeds in the Sun's frame, on a grid, linear in between.

    Parameters
    ----------
    speed_km_s : sequence of floats
        Rising from zero.
    density_s_per_km : sequence of floats
        f(u) >= 0 at these speeds; it must integrate to one within 1e-3.
    density_GeV_cm3 : float
    """

    speed_km_s: tuple[float, ...]
    density_s_per_km: tuple[float, ...]
    density_GeV_cm3: float = 0.3

    def __post_init__(self) -> None:
        check_range("density_GeV_cm3", self.density_GeV_cm3, 0.0, 1.0e6, open_low=True)
        u, f = np.asarray(self.speed_km_s, dtype=float), np.asarray(self.density_s_per_km, dtype=float)
        if u.ndim != 1 or u.shape != f.shape or u.size < 3:
            raise InvalidInput(
                f"speed_km_s has shape {u.shape}, density_s_per_km {f.shape}; give one equal row of at least three each"
            )
        if not np.all(np.isfinite(u)) or u[0] < 0 or np.any(np.diff(u) <= 0):
            raise InvalidInput("speed_km_s must rise from 0 or above, without gaps or repeated values")
        if not np.all(np.isfinite(f)) or np.any(f < 0):
            raise InvalidInput("density_s_per_km holds a value that is negative or not finite")
        total = float(trapezoid(f, u))
        if abs(total - 1.0) > 1.0e-3:
            raise InvalidInput(f"density_s_per_km integrates to {total:.6g}, not 1; divide it by that number")

    @property
    def fastest_km_s(self) -> float:
        """Last speed of the table."""
        return float(self.speed_km_s[-1])

    def speed_density(self, speed_km_s: Array) -> Array:
        """Return f(u) in s/km."""
        return np.asarray(np.interp(speed_km_s, self.speed_km_s, self.density_s_per_km, left=0.0, right=0.0))
