"""Muons of neutrinos on their way to a detector: energy loss, range, and the flux through a plane or from a volume.

dE/dX = -(a(E) + b(E) E),   R(E, E_th) = int_{E_th}^{E} dE' / (a + b E')   in g/cm2
flux = N_A sum_{nu, nubar} int dE Phi(E) int dE_mu (d sigma_CC / dE_mu) R(E_mu, E_th)      (isoscalar target)

a is the Bethe formula for water (I = 79.7 eV; density effect of Sternheimer, Berger & Seltzer, At. Data Nucl. Data
Tables 30 (1984) 261); b is bremsstrahlung, pair production and photonuclear loss in water as computed with PROPOSAL
(Koehne et al., Comput. Phys. Commun. 184 (2013) 2070), at knots. The mean loss is used: no straggling.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid

from nu_physics.constants import AVOGADRO_per_mol, ELECTRON_MASS_MeV
from nu_physics.errors import InvalidInput, check_energies, check_range
from nu_physics.solar.cross_sections import TARGETS, cross_sections

__all__ = ["contained_per_cm3", "energy_loss", "muon_range_g_cm2", "muons_per_neutrino"]

Array = NDArray[np.float64]

_MUON_MeV = 105.6583755
_B_KNOTS_GeV = (1.0e2, 3.162e2, 1.0e3, 3.162e3, 1.0e4, 3.162e4, 1.0e5, 1.0e6)
_B_cm2_g = (2.312e-6, 2.692e-6, 2.99e-6, 3.206e-6, 3.357e-6, 3.466e-6, 3.555e-6, 3.723e-6)
_LEAST_GeV, _MOST_GeV = 1.0, 1.0e6


def energy_loss(energy_GeV: Array) -> Array:
    """Return the mean dE/dX of a muon in water, GeV cm2/g; b is continued below 100 GeV along its logarithm.

    Examples
    --------
    >>> (energy_loss(np.array([1.0, 100.0])) * 1e3).round(2)  # MeV cm2/g
    array([2.08, 2.96])
    """
    energy = check_energies("energy_GeV", energy_GeV)
    slope = (_B_cm2_g[1] - _B_cm2_g[0]) / math.log(_B_KNOTS_GeV[1] / _B_KNOTS_GeV[0])
    below = np.maximum(_B_cm2_g[0] + slope * np.log(energy / _B_KNOTS_GeV[0]), 0.0)
    b = np.where(energy < _B_KNOTS_GeV[0], below, np.interp(np.log(energy), np.log(_B_KNOTS_GeV), _B_cm2_g))
    return np.asarray(_ionisation(energy) + b * energy)


def _ionisation(energy_GeV: Array) -> Array:
    """Bethe formula for water, GeV cm2/g."""
    gamma = energy_GeV * 1.0e3 / _MUON_MeV
    beta2 = 1.0 - 1.0 / gamma**2
    ratio = ELECTRON_MASS_MeV / _MUON_MeV
    most = 2.0 * ELECTRON_MASS_MeV * beta2 * gamma**2 / (1.0 + 2.0 * gamma * ratio + ratio**2)
    x = np.log10(np.sqrt(beta2) * gamma)
    density = 2.0 * math.log(10.0) * x - 3.5017 + 0.09116 * np.maximum(2.8004 - x, 0.0) ** 3.4773
    mean_excitation = 79.7e-6
    bracket = 0.5 * np.log(2.0 * ELECTRON_MASS_MeV * beta2 * gamma**2 * most / mean_excitation**2) - beta2
    spin = 0.125 * (most / (energy_GeV * 1.0e3)) ** 2
    return np.asarray(0.307075e-3 * 0.55509 / beta2 * (bracket - 0.5 * density + spin))


@functools.cache
def _travelled() -> tuple[Array, Array]:
    """Energies and the range from the least of them."""
    energy = np.logspace(math.log10(_LEAST_GeV), math.log10(_MOST_GeV), 2401)
    travelled = cumulative_trapezoid(energy / energy_loss(energy), np.log(energy), initial=0.0)
    energy.setflags(write=False)
    travelled.setflags(write=False)
    return energy, travelled


def muon_range_g_cm2(energy_GeV: object, threshold_GeV: float = 1.0) -> Array:
    """Return how far a muon gets before it falls below the threshold; zero if it starts there.

    Parameters
    ----------
    energy_GeV : array
        Up to 1e6.
    threshold_GeV : float
        At least 1.

    Examples
    --------
    >>> round(float(muon_range_g_cm2(1000.0)) / 1e5, 1)  # km of water
    2.5
    """
    threshold = check_range("threshold_GeV", threshold_GeV, _LEAST_GeV, _MOST_GeV)
    energy = check_energies("energy_GeV", energy_GeV, positive=False)
    if energy.max() > _MOST_GeV:
        raise InvalidInput(f"energy_GeV = {energy.max():g} leaves the range table, 0 to {_MOST_GeV:g} GeV")
    grid, travelled = _travelled()
    reach = np.interp(np.log(np.maximum(energy, _LEAST_GeV)), np.log(grid), travelled)
    return np.maximum(reach - np.interp(math.log(threshold), np.log(grid), travelled), 0.0)


def muons_per_neutrino(energy_GeV: Array, threshold_GeV: float, *, antineutrino: bool) -> Array:
    """Return the muons above the threshold that cross a plane per muon neutrino that heads for it."""
    return _folded(energy_GeV, antineutrino, lambda muon: muon_range_g_cm2(muon, threshold_GeV))


def contained_per_cm3(
    energy_GeV: Array, threshold_GeV: float, *, antineutrino: bool, density_g_cm3: float = 1.0
) -> Array:
    """Return the muons above the threshold that start in one cm3 per muon neutrino and cm2."""
    above = _folded(energy_GeV, antineutrino, lambda muon: (muon > threshold_GeV).astype(np.float64))
    return above * density_g_cm3


def _folded(energy_GeV: Array, antineutrino: bool, weight: Callable[[Array], Array]) -> Array:
    """N_A int dE_mu (d sigma / dE_mu) weight(E_mu)."""
    tables = cross_sections()
    out = np.zeros(np.shape(energy_GeV))
    for k, energy in enumerate(energy_GeV):
        muon = (1.0 - tables.y) * energy
        value = weight(muon)
        for target in TARGETS:
            density = tables.inelasticity(energy, antineutrino=antineutrino, target=target)
            sigma = float(tables.total(energy, antineutrino=antineutrino, target=target))
            out[k] += 0.5 * sigma * float(np.mean(density * value))
    return out * AVOGADRO_per_mol
