"""KM3NeT-ARCA's effective area under the Sun's track, and other telescopes by their GADF response.

events = T sum_z share(z) int dE [Phi_nu(E) + Phi_nubar(E)] A(E, z)

with share(z) the part of the year that the Sun spends in the zenith band z, Phi of muon flavour. The area is the one
after the selection of tracks, and holds the Earth's absorption and the muons' range.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, MissingExtra, check_choice, check_range

__all__ = ["ARCA_LATITUDE_deg", "ARCA_LONGITUDE_deg", "EffectiveArea", "arca", "read_gadf_area", "sun_zenith_shares"]

Array = NDArray[np.float64]

ARCA_LATITUDE_deg, ARCA_LONGITUDE_deg = 36.27, 16.10
SELECTIONS = ("upgoing", "all")


@dataclass(frozen=True)
class EffectiveArea:
    """Effective area for muon neutrinos and the time that the Sun spends in each band of zenith angle.

    Parameters
    ----------
    energy_edges_GeV : array of shape (n + 1,)
    zenith_edges_deg : array of shape (k + 1,)
        0 is overhead: the Sun at 0 sends neutrinos down, at 180 up.
    area_m2 : array of shape (k, n)
    sun_share : array of shape (k,)
        Share of the year; sums to one.
    origin : str
    """

    energy_edges_GeV: Array
    zenith_edges_deg: Array
    area_m2: Array
    sun_share: Array
    origin: str

    def mean_cm2(self, energy_GeV: Array, selection: str = "upgoing") -> Array:
        """Return the area averaged over the year, zero outside the response's energies.

        Parameters
        ----------
        energy_GeV : array
        selection : {"upgoing", "all"}
            The Sun below the horizon only, or always; time outside the selection counts with no area.
        """
        check_choice("selection", selection, SELECTIONS)
        least = 90.0 - 1.0e-6 if selection == "upgoing" else 0.0
        used = self.zenith_edges_deg[:-1] >= least
        mean = self.sun_share[used] @ self.area_m2[used]
        centres = np.sqrt(self.energy_edges_GeV[1:] * self.energy_edges_GeV[:-1])
        positive = mean > 0
        energy = np.asarray(energy_GeV, dtype=np.float64)
        inside = (energy >= self.energy_edges_GeV[:-1][positive][0]) & (energy <= self.energy_edges_GeV[-1])
        log_area = _interpolate(np.log(energy), np.log(centres[positive]), np.log(mean[positive]))
        return np.where(inside, np.exp(log_area) * 1.0e4, 0.0)


def _interpolate(x: Array, knots: Array, values: Array) -> Array:
    """Linear, continued over the half bins at the ends."""
    first = values[0] + (x - knots[0]) * (values[1] - values[0]) / (knots[1] - knots[0])
    last = values[-1] + (x - knots[-1]) * (values[-1] - values[-2]) / (knots[-1] - knots[-2])
    inner = np.interp(x, knots, values)
    return np.where(x < knots[0], first, np.where(x > knots[-1], last, inner))


@functools.cache
def arca() -> EffectiveArea:
    """Return ARCA: area of km3irf 0.4.0 (BSD-3, KM3NeT collaboration), the Sun's year of 2026 by astropy.

    Examples
    --------
    >>> telescope = arca()
    >>> round(float(telescope.sun_share[telescope.zenith_edges_deg[:-1] >= 89.9].sum()), 1)  # below the horizon
    0.5
    """
    source = resources.files("nu_physics.data") / "arca_area.npz"
    with source.open("rb") as stream, np.load(stream) as table:
        return EffectiveArea(
            table["energy_edges_GeV"],
            table["zenith_edges_deg"],
            table["area_m2"],
            table["sun_share"],
            str(table["origin"]),
        )


def read_gadf_area(path: Path, latitude_deg: float, longitude_deg: float, *, year: int = 2026) -> EffectiveArea:
    """Read a response in the GADF format (HDU class AEFF_2D) and put it at a site; needs the extra ``sky`` (astropy).

    Raises
    ------
    MissingExtra
        astropy is not installed.
    InvalidInput
        No such table in the file.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise MissingExtra("sky", "reading a FITS response") from None
    with fits.open(path) as file:
        tables = [hdu for hdu in file if hdu.header.get("HDUCLAS4") == "AEFF_2D"]
        if not tables:
            raise InvalidInput(f"{path} holds no table of class AEFF_2D; take a GADF effective area")
        row = tables[0].data[0]
        unit = tables[0].columns["EFFAREA"].unit
        if unit != "m2":
            raise InvalidInput(f"{path}: EFFAREA is in {unit!r}, not m2")
        energy = np.append(row["ENERG_LO"], row["ENERG_HI"][-1]).astype(np.float64)
        zenith = np.rad2deg(np.append(row["THETA_LO"], row["THETA_HI"][-1]).astype(np.float64))
        area = np.asarray(row["EFFAREA"], dtype=np.float64)
    share = sun_zenith_shares(zenith, latitude_deg, longitude_deg, year=year)
    return EffectiveArea(energy, zenith, area, share, f"{Path(path).name}, Sun of {year}")


def sun_zenith_shares(zenith_edges_deg: Array, latitude_deg: float, longitude_deg: float, *, year: int = 2026) -> Array:
    """Return the share of the year that the Sun spends in each band of zenith angle; needs the extra ``sky``."""
    latitude = check_range("latitude_deg", latitude_deg, -90.0, 90.0)
    longitude = check_range("longitude_deg", longitude_deg, -180.0, 360.0)
    try:
        from astropy import units
        from astropy.coordinates import AltAz, EarthLocation, get_sun
        from astropy.time import Time
        from astropy.utils import iers
    except ImportError:
        raise MissingExtra("sky", "the Sun's track") from None
    # no download: the Earth's rotation to a second is enough for bands of degrees
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
    ):
        times = Time(f"{year}-01-01") + np.arange(0.0, 365.0, 1.0 / 48.0) * units.day
        place = EarthLocation(lat=latitude * units.deg, lon=longitude * units.deg)
        zenith = 90.0 - get_sun(times).transform_to(AltAz(obstime=times, location=place)).alt.deg
    counts = np.histogram(zenith, zenith_edges_deg)[0]
    return np.asarray(counts / counts.sum())
