"""Antineutrinos of a reactor core per fission: Huber-Mueller, spent fuel and non-equilibrium.

phi(E) = W / sum_k f_k e_k  *  sum_k f_k S_k(E) (1 + c_k(E)) (1 + c_snf(E)),      S_k(E) = exp(sum_p a_pk E^p)

W is the thermal power, f_k the fission fractions and e_k the energy per fission.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nu_physics.constants import GIGAWATT_MeV_per_s
from nu_physics.errors import InvalidInput, MissingExtra, check_choice, check_energies, check_range

__all__ = ["ISOTOPES", "FluxModel", "HuberMueller", "HuberMuellerTable", "mean_energy_per_fission_MeV"]

ISOTOPES = ("U235", "U238", "Pu239", "Pu241")
Array = NDArray[np.float64]


@functools.cache
def packaged(name: str) -> dict[str, Any]:
    """Read one of the packaged TOML files."""
    text = resources.files("nu_physics.data").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


class FluxModel(Protocol):
    """Anything that gives a spectrum per fission."""

    def per_fission(self, isotope: str, energy_MeV: Array) -> Array:
        """Antineutrinos per fission per MeV."""
        ...


@dataclass(frozen=True)
class HuberMueller:
    """The polynomial of Huber (U235, Pu239, Pu241) and Mueller (U238).

    Parameters
    ----------
    above_8_MeV : {"log-linear", "zero"}
        The polynomials were fitted from 2 to 8 MeV and turn up wildly above; ``"log-linear"`` continues the
        slope that each has at 8 MeV. Below 2 MeV, down to the threshold at 1.8, the polynomial itself is used.

    Examples
    --------
    >>> flux = HuberMueller()
    >>> [round(float(v), 4) for v in flux.per_fission("U235", np.array([2.0, 4.0, 6.0]))]
    [1.3214, 0.2923, 0.0381]
    """

    above_8_MeV: Literal["log-linear", "zero"] = "log-linear"

    def __post_init__(self) -> None:
        check_choice("above_8_MeV", self.above_8_MeV, ("log-linear", "zero"))

    def per_fission(self, isotope: str, energy_MeV: Array) -> Array:
        """Antineutrinos per fission per MeV at ``energy_MeV``."""
        check_choice("isotope", isotope, ISOTOPES)
        energy = check_energies("energy_MeV", energy_MeV)
        polynomial = np.polynomial.Polynomial(packaged("flux")["huber_mueller"][isotope])
        inside = np.minimum(energy, 8.0)
        exponent = polynomial(inside) + polynomial.deriv()(8.0) * (energy - inside)
        values = np.exp(exponent)
        return np.asarray(np.where(energy > 8.0, 0.0, values) if self.above_8_MeV == "zero" else values)


@dataclass(frozen=True)
class HuberMuellerTable:
    """The 50-keV tables of the Daya Bay data release (extra ``dayabay``), log-linear between the points.

    Unlike the polynomial it keeps the measured 250-keV structure of the ILL beta spectra; the two agree to about 4 %
    between 2.5 and 6 MeV.
    """

    def per_fission(self, isotope: str, energy_MeV: Array) -> Array:
        """Antineutrinos per fission per MeV at ``energy_MeV``."""
        check_choice("isotope", isotope, ISOTOPES)
        energy = check_energies("energy_MeV", energy_MeV)
        knots, density = _daya_bay_table(isotope)
        inside = np.interp(energy, knots, np.log(density))
        slope = np.log(density[-1] / density[-2]) / (knots[-1] - knots[-2])
        return np.asarray(np.exp(inside + np.maximum(energy - knots[-1], 0.0) * slope))


@functools.cache
def _daya_bay_table(isotope: str) -> tuple[Array, Array]:
    try:
        from dayabay_data_official import get_path_data
    except ImportError:
        raise MissingExtra("dayabay", "the Huber-Mueller table") from None
    with np.load(get_path_data("npz") / "reactor_antineutrino_spectra_hm.npz") as tables:
        table = tables[isotope]
        keep = table["N_density"] > 0
        return np.array(table["E_MeV"][keep]), np.array(table["N_density"][keep])


def check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the four fission fractions; refuse unknown isotopes and sums away from one."""
    for name, value in fractions.items():
        check_choice("isotope", name, ISOTOPES)
        check_range(f"fission fraction of {name}", value, 0.0, 1.0)
    total = sum(fractions.values())
    if abs(total - 1.0) > 0.01:
        raise InvalidInput(f"fission fractions sum to {total:.4f}; the allowed range is [0.99, 1.01]")
    return {name: float(fractions.get(name, 0.0)) for name in ISOTOPES}


def mean_energy_per_fission_MeV(fractions: Mapping[str, float]) -> float:
    """Return sum_k f_k e_k in MeV.

    Examples
    --------
    >>> round(mean_energy_per_fission_MeV({"U235": 0.58, "U238": 0.07, "Pu239": 0.30, "Pu241": 0.05}), 2)
    205.84
    """
    energies = packaged("flux")["energy_per_fission_MeV"]
    return sum(share * float(energies[name][0]) for name, share in check_fractions(fractions).items())


@dataclass(frozen=True)
class CoreSpectrum:
    """Antineutrinos per second per GW per MeV, split into what a fit may scale."""

    energy_MeV: Array
    equilibrium: Array
    non_equilibrium: Array
    spent_fuel: Array

    @property
    def total(self) -> Array:
        """Sum of the three parts."""
        return self.equilibrium + self.non_equilibrium + self.spent_fuel


def core_spectrum(energy_MeV: Array, fractions: Mapping[str, float], model: FluxModel | None = None) -> CoreSpectrum:
    """Return the spectrum of a core of 1 GW thermal power, 1/(s MeV).

    Examples
    --------
    >>> grid = np.linspace(1.85, 9.0, 1000)
    >>> rate = core_spectrum(grid, {"U235": 0.58, "U238": 0.07, "Pu239": 0.30, "Pu241": 0.05}).total
    >>> f"{float(((rate[1:] + rate[:-1]) / 2 * np.diff(grid)).sum()):.2e}"
    '5.60e+19'
    """
    flux = model or HuberMueller()
    shares = check_fractions(fractions)
    fissions_per_s = GIGAWATT_MeV_per_s / mean_energy_per_fission_MeV(fractions)
    table = packaged("flux")["corrections"]
    knots = np.asarray(table["energy_MeV"])
    equilibrium = np.zeros_like(energy_MeV)
    extra = np.zeros_like(energy_MeV)
    for name, share in shares.items():
        spectrum = share * flux.per_fission(name, energy_MeV)
        equilibrium += spectrum
        extra += spectrum * np.interp(energy_MeV, knots, table[name], right=0.0)
    spent = equilibrium * np.interp(energy_MeV, knots, table["spent_fuel"], right=0.0)
    return CoreSpectrum(energy_MeV, fissions_per_s * equilibrium, fissions_per_s * extra, fissions_per_s * spent)
