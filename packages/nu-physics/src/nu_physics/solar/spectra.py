"""Neutrinos per annihilation at the Sun's centre: from the shipped table, live generation, or a line.

The table holds what :mod:`nu_physics.solar.production` counted, by channel, mass and x = E / m. Annihilation products
are neutral in every charge, so that neutrino and antineutrino spectra are equal; electron and muon flavours differ by
lepton masses alone and are averaged. Between two masses of the table a yield is interpolated at fixed x, linearly in
ln m. Monte-Carlo errors come from the spread between annihilations; of averaged flavours as if these were independent.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_edges
from nu_physics.solar.channels import FLAVOURS, MONOCHROMATIC, check_open
from nu_physics.solar.production import X_EDGES, YieldSample
from nu_physics.solar.propagation import ENERGY_EDGES_GeV

__all__ = ["SourceSpectrum", "SpectrumTable", "source_spectrum", "spectrum_table"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SourceSpectrum:
    """Neutrinos per annihilation by flavour and bin of energy.

    Parameters
    ----------
    channel : str
    mass_GeV : float
    edges_GeV : array of shape (n + 1,)
    number : array of shape (6, n)
        Flavours as in ``channels.FLAVOURS``.
    error : array of shape (6, n)
        Monte-Carlo standard error.
    """

    channel: str
    mass_GeV: float
    edges_GeV: Array
    number: Array
    error: Array


@dataclass(frozen=True, eq=False)
class SpectrumTable:
    """Yields by channel.

    Parameters
    ----------
    masses_GeV : dict of channel to array of shape (k,)
    light, tau : dict of channel to array of shape (k, 80)
        Neutrinos per annihilation in bins of x: nu_e or nu_mu, and nu_tau (each, and the same of antineutrinos).
    light_error, tau_error : dict of channel to array of shape (k, 80)
        Their Monte-Carlo standard errors.
    events : dict of channel to array of shape (k,)
    origin : str
        Generator, versions and settings.
    """

    masses_GeV: dict[str, Array]
    light: dict[str, Array]
    tau: dict[str, Array]
    light_error: dict[str, Array]
    tau_error: dict[str, Array]
    events: dict[str, Array]
    origin: str

    def __post_init__(self) -> None:
        for part in (self.masses_GeV, self.light, self.tau, self.light_error, self.tau_error, self.events):
            for array in part.values():
                array.setflags(write=False)

    def at(self, channel: str, mass_GeV: float) -> tuple[Array, Array]:
        """Return yields and their errors over x, each of shape (2, 80): light and tau flavour."""
        check_open(channel, mass_GeV)
        masses = self.masses_GeV[channel]
        if not masses[0] <= mass_GeV <= masses[-1]:
            raise InvalidInput(
                f"mass_GeV = {mass_GeV:g} is outside the shipped spectra of {channel!r}, {masses[0]:g} to "
                f"{masses[-1]:g} GeV; generate it live with nu_physics.solar.production.generate"
            )
        position = np.interp(np.log(mass_GeV), np.log(masses), np.arange(masses.size))
        low = min(int(position), masses.size - 2)
        share = position - low
        weights = np.array([1.0 - share, share])
        yields = [weights @ table[channel][low : low + 2] for table in (self.light, self.tau)]
        variances = [weights**2 @ table[channel][low : low + 2] ** 2 for table in (self.light_error, self.tau_error)]
        return np.stack(yields), np.sqrt(np.stack(variances))


@functools.cache
def spectrum_table() -> SpectrumTable:
    """Return the shipped table."""
    source = resources.files("nu_physics.data") / "solar_spectra.npz"
    with source.open("rb") as stream, np.load(stream) as table:
        names = [str(name) for name in table["channels"]]

        def part(key: str) -> dict[str, Array]:
            return {name: table[f"{name}_{key}"].astype(np.float64) for name in names}

        return SpectrumTable(
            part("masses_GeV"),
            part("light"),
            part("tau"),
            part("light_error"),
            part("tau_error"),
            part("events"),
            str(table["origin"]),
        )


def source_spectrum(
    channel: str, mass_GeV: float, *, sample: YieldSample | None = None, edges_GeV: Array = ENERGY_EDGES_GeV
) -> SourceSpectrum:
    """Return the spectrum at production.

    Parameters
    ----------
    channel : str
        One of ``channels.CHANNELS``; a neutrino channel is a line at E = m, shared by two bins.
    mass_GeV : float
    sample : YieldSample, optional
        A live sample of this channel and mass instead of the table.
    edges_GeV : array
        Bins; those of the propagation matrix by default. Neutrinos below the first edge are left out.

    Raises
    ------
    InvalidInput
        Channel closed or unknown, mass outside the table, or a sample of something else.

    Examples
    --------
    >>> spectrum = source_spectrum("tautau", 1000.0)
    >>> round(float(spectrum.number[2].sum()), 1)  # about one nu_tau per annihilation
    1.0
    """
    check_open(channel, mass_GeV)
    edges = check_edges("edges_GeV", edges_GeV)
    if channel in MONOCHROMATIC:
        return _line(channel, mass_GeV, edges)
    if sample is not None:
        if (sample.channel, sample.mass_GeV) != (channel, float(mass_GeV)):
            raise InvalidInput(
                f"sample holds {sample.channel!r} at {sample.mass_GeV:g} GeV, not {channel!r} at {mass_GeV:g} GeV"
            )
        number, error = sample.number, sample.error
    else:
        flavour = [0, 0, 1, 0, 0, 1]
        number, error = (part[flavour] for part in spectrum_table().at(channel, mass_GeV))
    return SourceSpectrum(
        channel,
        mass_GeV,
        edges,
        _rebin(number, mass_GeV, edges),
        np.sqrt(_rebin(error**2, mass_GeV, edges)),
    )


def _line(channel: str, mass_GeV: float, edges: Array) -> SourceSpectrum:
    """One neutrino and one antineutrino of E = m, shared by the two bins whose centres enclose ln m.

    What is linear in ln E from one centre to the next is then right for every mass, and nothing jumps at an edge.
    """
    if not edges[0] <= mass_GeV <= edges[-1]:
        raise InvalidInput(
            f"mass_GeV = {mass_GeV:g}: the line of {channel!r} is outside the bins, {edges[0]:g} to {edges[-1]:g} GeV"
        )
    number = np.zeros((len(FLAVOURS), edges.size - 1))
    centres = 0.5 * np.log(edges[1:] * edges[:-1])
    position = float(np.interp(np.log(mass_GeV), centres, np.arange(centres.size)))
    low = min(int(position), max(centres.size - 2, 0))
    for row in (MONOCHROMATIC[channel], MONOCHROMATIC[channel] + 3):
        number[row, low] = 1.0 - (position - low)
        number[row, low + 1 :][:1] = position - low
    return SourceSpectrum(channel, mass_GeV, edges, number, np.zeros_like(number))


def _rebin(number: Array, mass_GeV: float, edges: Array) -> Array:
    """Counts in bins of x to counts in bins of energy, uniform in ln E inside a bin of x."""
    above = np.concatenate([np.zeros((len(number), 1)), np.cumsum(number, axis=1)], axis=1)
    at = np.stack([np.interp(np.log(edges), np.log(X_EDGES * mass_GeV), row) for row in above])
    return np.asarray(np.diff(at, axis=1))
