"""Neutrino-nucleon cross sections on a grid: totals and spectra of the outgoing lepton, shipped with the package.

Computed by :mod:`nu_physics.solar.deep_inelastic` at leading order from NNPDF 3.1 NNLO parton densities (member 0 of
``NNPDF31_nnlo_as_0118_luxqed``, as distributed with Pythia 8.317), 1 GeV to 20 TeV. They describe deep inelastic
scattering: below 10 GeV take them as an order of magnitude.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_choice, check_energies, freeze
from nu_physics.solar.deep_inelastic import PartonDensities, inelasticity_spectrum

__all__ = ["CrossSections", "compute", "cross_sections"]

Array = NDArray[np.float64]

# Rows of the tables: charged current of a light lepton, charged current of a tau, neutral current.
KINDS = ("CC", "CC tau", "NC")
TARGETS = ("proton", "neutron")
_ENERGY_GeV: Array = np.logspace(0.0, 4.3, 87)
_Y: Array = np.linspace(0.005, 0.995, 100)


@dataclass(frozen=True, eq=False)
class CrossSections:
    """Tables over energy.

    Parameters
    ----------
    energy_GeV : array of shape (n,)
    y : array of shape (k,)
        Centres of equal bins of inelasticity.
    total_cm2 : array of shape (3, 2, 2, n)
        By kind (``KINDS``), neutrino or antineutrino, target (``TARGETS``), energy.
    y_density : array of shape (3, 2, 2, n, k)
        (1 / sigma) d sigma / dy.
    """

    energy_GeV: Array
    y: Array
    total_cm2: Array
    y_density: NDArray[np.float32]

    def __post_init__(self) -> None:
        freeze(self, "energy_GeV", "y", "total_cm2", "y_density")

    def total(self, energy_GeV: object, *, kind: str = "CC", antineutrino: bool, target: str) -> Array:
        """Return the cross section in cm2, interpolated in the logarithms of energy and sigma / E.

        Raises
        ------
        InvalidInput
            An energy outside the table; nothing is extrapolated.

        Examples
        --------
        >>> table = cross_sections()
        >>> sigma = [table.total(100.0, antineutrino=False, target=t) for t in ("proton", "neutron")]
        >>> f"{float(sum(sigma)) / 2 / 100:.3g} cm2/GeV"
        '6.99e-39 cm2/GeV'
        """
        energy = self._inside(energy_GeV)
        row = self.total_cm2[self._row(kind, antineutrino, target)]
        open_ = row > 0
        slope = np.interp(np.log(energy), np.log(self.energy_GeV[open_]), np.log(row[open_] / self.energy_GeV[open_]))
        return np.where(energy >= self.energy_GeV[open_][0], energy * np.exp(slope), 0.0)

    def isoscalar(self, energy_GeV: object, *, kind: str = "CC", antineutrino: bool) -> Array:
        """Return the mean of proton and neutron in cm2."""
        per_target = [self.total(energy_GeV, kind=kind, antineutrino=antineutrino, target=t) for t in TARGETS]
        return np.asarray(0.5 * (per_target[0] + per_target[1]))

    def inelasticity(self, energy_GeV: float, *, kind: str = "CC", antineutrino: bool, target: str) -> Array:
        """Return (1 / sigma) d sigma / dy at ``self.y``, interpolated in the logarithm of energy; its mean is one."""
        energy = float(self._inside(energy_GeV))
        position = np.interp(np.log(energy), np.log(self.energy_GeV), np.arange(self.energy_GeV.size))
        low = min(int(position), self.energy_GeV.size - 2)
        share = position - low
        rows = self.y_density[self._row(kind, antineutrino, target)]
        return np.asarray((1.0 - share) * rows[low] + share * rows[low + 1], dtype=np.float64)

    def write_nusquids_text(self, folder: Path, target: str, z_points: int = 120) -> str:
        """Write the tables of one target in the text layout that nuSQuIDS reads, and return its prefix.

        Files ``<prefix><flavour>_<nu|nubar>_<sigma|dsde>_<CC|NC>.dat``; columns E sigma, or E z E dsigma/dE' with
        z = (E' - E_min) / (E - E_min), in GeV and cm2. (Version 1.13 divides the third column by E.)
        """
        prefix = str(folder / f"{target}_")
        z = np.linspace(0.0, 1.0, z_points)
        for flavour in ("electron", "muon", "tau"):
            for current in ("CC", "NC"):
                kind = "CC tau" if (current, flavour) == ("CC", "tau") else current
                for antineutrino, particle in ((False, "nu"), (True, "nubar")):
                    row = self._row(kind, antineutrino, target)
                    sigma = np.maximum(self.total_cm2[row], 1.0e-60)
                    stem = f"{prefix}{flavour}_{particle}"
                    np.savetxt(f"{stem}_sigma_{current}.dat", np.column_stack([self.energy_GeV, sigma]))
                    np.savetxt(f"{stem}_dsde_{current}.dat", self._outgoing(row, sigma, z))
        return prefix

    def _outgoing(self, row: tuple[int, int, int], sigma: Array, z: Array) -> Array:
        """Rows of E, z, E d sigma / dE'."""
        least = self.energy_GeV[0]
        rows = []
        for energy, value, density in zip(self.energy_GeV, sigma, self.y_density[row], strict=True):
            outgoing = least + z * (energy - least)
            shape = np.interp(1.0 - outgoing / energy, self.y, density)
            rows.append(np.column_stack([np.full(z.size, energy), z, value * shape]))
        return np.concatenate(rows)

    def _inside(self, energy_GeV: object) -> Array:
        energy = check_energies("energy_GeV", energy_GeV)
        low, high = self.energy_GeV[0], self.energy_GeV[-1]
        if energy.min() < low or energy.max() > high:
            raise InvalidInput(
                f"energy_GeV from {energy.min():g} to {energy.max():g} leaves the cross-section table, "
                f"{low:g} to {high:g} GeV; nothing is extrapolated"
            )
        return energy

    @staticmethod
    def _row(kind: str, antineutrino: bool, target: str) -> tuple[int, int, int]:
        check_choice("kind", kind, KINDS)
        check_choice("target", target, TARGETS)
        return KINDS.index(kind), int(antineutrino), TARGETS.index(target)


@functools.cache
def cross_sections() -> CrossSections:
    """Return the shipped tables."""
    source = resources.files("nu_physics.data") / "deep_inelastic.npz"
    with source.open("rb") as stream, np.load(stream) as table:
        return CrossSections(table["energy_GeV"], table["y"], table["total_cm2"], table["y_density"])


def compute(densities: PartonDensities) -> CrossSections:
    """Compute the tables from parton densities; half a minute on one core."""
    total = np.zeros((len(KINDS), 2, len(TARGETS), _ENERGY_GeV.size))
    shape = np.zeros((*total.shape, _Y.size), dtype=np.float32)
    for index in np.ndindex(total.shape):
        kind, antineutrino, target, energy = index
        spectrum = inelasticity_spectrum(
            densities,
            float(_ENERGY_GeV[energy]),
            _Y,
            antineutrino=bool(antineutrino),
            current="NC" if KINDS[kind] == "NC" else "CC",
            flavour=2 if KINDS[kind] == "CC tau" else 1,
            target=TARGETS[target],
        )
        total[index] = spectrum.mean()
        if total[index] > 0:
            shape[index] = spectrum / total[index]
    return CrossSections(_ENERGY_GeV, _Y, total, shape)
