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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import (
    InvalidInput,
    MissingExtra,
    check_choice,
    check_counts,
    check_edges,
    check_energies,
    check_range,
    freeze,
    real_array,
)

__all__ = ["ARCA_LATITUDE_deg", "ARCA_LONGITUDE_deg", "EffectiveArea", "arca", "read_gadf_area", "sun_zenith_shares"]

Array = NDArray[np.float64]

ARCA_LATITUDE_deg, ARCA_LONGITUDE_deg = 36.27, 16.10
SELECTIONS = ("upgoing", "all")


@dataclass(frozen=True, eq=False)
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

    Raises
    ------
    InvalidInput
        Edges that do not rise, zenith outside [0, 180], an area that is negative, no number or zero everywhere, shares
        that do not sum to one, shapes that do not fit.
    """

    energy_edges_GeV: Array
    zenith_edges_deg: Array
    area_m2: Array
    sun_share: Array
    origin: str

    def __post_init__(self) -> None:
        energies = check_edges("energy_edges_GeV", self.energy_edges_GeV).size - 1
        zenith = real_array("zenith_edges_deg", self.zenith_edges_deg)
        if zenith.ndim != 1 or zenith.size < 2 or not (zenith[0] >= 0 and zenith[-1] <= 180.0 + 1.0e-4):
            raise InvalidInput(f"zenith_edges_deg = {zenith!r}: at least two edges inside [0, 180] degrees are needed")
        if not np.all(np.diff(zenith) > 0):
            raise InvalidInput("zenith_edges_deg must rise; 0 is overhead")
        bands = zenith.size - 1
        area = check_counts("area_m2", self.area_m2, (bands, energies), "zenith bands by bins of energy")
        if area.ndim != 2 or not area.any():
            raise InvalidInput("area_m2 is zero in every bin: such a telescope sees nothing; check the table")
        share = check_counts("sun_share", self.sun_share, (bands,), "zenith bands")
        if abs(share.sum() - 1.0) > 1.0e-6:
            raise InvalidInput(f"sun_share sums to {share.sum():.9g}, not 1; divide it by that number")
        freeze(self, "energy_edges_GeV", "zenith_edges_deg", "area_m2", "sun_share")

    def range_GeV(self, selection: str = "upgoing") -> tuple[float, float]:
        """Return the energies between which the Sun is seen with an area.

        Raises
        ------
        InvalidInput
            If the selection leaves no area at all.
        """
        positive = np.flatnonzero(self._mean_m2(selection) > 0)
        if not positive.size:
            raise InvalidInput(
                f"selection = {selection!r}: {self.origin} has no area in a zenith band that lies whole in it; "
                "take selection='all', or a response with a band edge at 90 degrees"
            )
        return float(self.energy_edges_GeV[positive[0]]), float(self.energy_edges_GeV[positive[-1] + 1])

    def _mean_m2(self, selection: str) -> Array:
        """Mean over the year of the area, by bin of energy."""
        check_choice("selection", selection, SELECTIONS)
        least = 90.0 - 1.0e-6 if selection == "upgoing" else 0.0
        used = self.zenith_edges_deg[:-1] >= least
        return np.asarray(self.sun_share[used] @ self.area_m2[used])

    def mean_cm2(self, energy_GeV: Array, selection: str = "upgoing") -> Array:
        """Return the area averaged over the year, zero in bins of energy without area and outside :meth:`range_GeV`.

        Parameters
        ----------
        energy_GeV : array
        selection : {"upgoing", "all"}
            The Sun below the horizon only, or always; time outside the selection counts with no area.
        """
        mean, (low, high) = self._mean_m2(selection), self.range_GeV(selection)
        centres = np.sqrt(self.energy_edges_GeV[1:] * self.energy_edges_GeV[:-1])
        positive = mean > 0
        energy = check_energies("energy_GeV", energy_GeV)
        log_area = _interpolate(np.log(energy), np.log(centres[positive]), np.log(mean[positive]))
        bins = np.clip(np.searchsorted(self.energy_edges_GeV, energy, side="right") - 1, 0, mean.size - 1)
        seen = positive[bins] | (energy == high)  # nothing is interpolated across a bin that states no area
        return np.where((energy >= low) & (energy <= high) & seen, np.exp(log_area) * 1.0e4, 0.0)


def _interpolate(x: Array, knots: Array, values: Array) -> Array:
    """Linear, continued over the half bins at the ends; one knot is a constant."""
    if knots.size == 1:
        return np.full_like(x, values[0])
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

    Energies, angles and areas are read in the units that their columns state; zenith angles that the response leaves
    out count with no area.

    Raises
    ------
    MissingExtra
        astropy is not installed.
    InvalidInput
        No such table in the file, a column missing, without a unit or in a unit of something else, bins with gaps.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise MissingExtra("sky", "reading a FITS response") from None
    try:
        with fits.open(path) as file:
            tables = [hdu for hdu in file if hdu.header.get("HDUCLAS4") == "AEFF_2D"]
            if not tables:
                raise InvalidInput(f"{path} holds no table of class AEFF_2D; take a GADF effective area")
            low, high, left, right, area = (
                _column(tables[0], name, unit, path)
                for name, unit in (
                    ("ENERG_LO", "GeV"),
                    ("ENERG_HI", "GeV"),
                    ("THETA_LO", "deg"),
                    ("THETA_HI", "deg"),
                    ("EFFAREA", "m2"),
                )
            )
    except OSError as error:
        raise InvalidInput(f"{path} is no FITS file that can be read ({error})") from None
    energy, zenith = _edges("ENERG", low, high, path), _edges("THETA", left, right, path)
    if area.size != (zenith.size - 1) * (energy.size - 1):
        raise InvalidInput(f"{path}: EFFAREA has {area.size} values for {zenith.size - 1} x {energy.size - 1} bins")
    area = area.reshape(zenith.size - 1, energy.size - 1)
    if zenith[0] > 1.0e-4:  # angles that the response leaves out count with no area
        zenith, area = np.append(0.0, zenith), np.vstack([np.zeros(energy.size - 1), area])
    if zenith[-1] < 180.0 - 1.0e-4:
        zenith, area = np.append(zenith, 180.0), np.vstack([area, np.zeros(energy.size - 1)])
    share = sun_zenith_shares(zenith, latitude_deg, longitude_deg, year=year)
    return EffectiveArea(energy, zenith, area, share, f"{Path(path).name}, Sun of {year}")


def _column(table: Any, name: str, unit: str, path: Path) -> Array:
    """First row of a column, converted to ``unit``."""
    from astropy import units

    if name not in table.columns.names:
        raise InvalidInput(
            f"{path} has no column {name}; a GADF effective area has ENERG, THETA (_LO, _HI) and EFFAREA"
        )
    stated = table.columns[name].unit
    if not stated:
        raise InvalidInput(f"{path}: column {name} states no unit (TUNIT); write it into the file, such as {unit!r}")
    try:
        scale = float(units.Unit(stated).to(units.Unit(unit)))
    except (ValueError, TypeError, units.UnitConversionError):
        raise InvalidInput(f"{path}: {name} is in {stated!r}, which is no unit like {unit!r}") from None
    return np.atleast_1d(np.asarray(table.data[0][name], dtype=np.float64)) * scale


def _edges(name: str, low: Array, high: Array, path: Path) -> Array:
    """Edges of bins that touch."""
    if low.shape != high.shape or low.ndim != 1 or not np.allclose(low[1:], high[:-1], rtol=1.0e-5, atol=1.0e-9):
        raise InvalidInput(f"{path}: {name}_LO and {name}_HI are no bins without gaps; rebin the response")
    return np.append(low, high[-1])


def sun_zenith_shares(zenith_edges_deg: Array, latitude_deg: float, longitude_deg: float, *, year: int = 2026) -> Array:
    """Return the share of the year that the Sun spends in each band of zenith angle; needs the extra ``sky``."""
    latitude = check_range("latitude_deg", latitude_deg, -90.0, 90.0)
    zenith = _sun_zenith_deg(latitude, check_range("longitude_deg", longitude_deg, -180.0, 360.0), year)
    edges = np.asarray(zenith_edges_deg, dtype=np.float64)
    counts = np.histogram(zenith, edges)[0]
    if counts.sum() < zenith.size:
        raise InvalidInput(
            f"zenith_edges_deg from {edges[0]:g} to {edges[-1]:g} degrees leave out "
            f"{1 - counts.sum() / zenith.size:.0%} of the Sun's year; give bands from 0 to 180 degrees, "
            "with no area where the telescope sees nothing"
        )
    return np.asarray(counts / counts.sum())


@functools.lru_cache(maxsize=8)
def _sun_zenith_deg(latitude_deg: float, longitude_deg: float, year: int) -> Array:
    """The Sun's zenith angle every half hour of a year."""
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
        place = EarthLocation(lat=latitude_deg * units.deg, lon=longitude_deg * units.deg)
        zenith = np.asarray(90.0 - get_sun(times).transform_to(AltAz(obstime=times, location=place)).alt.deg)
    zenith.setflags(write=False)
    return zenith
