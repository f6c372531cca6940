"""From the Sun's centre to the Earth: oscillation, absorption, neutral currents and tau regeneration as one matrix.

Transport is linear in the spectrum, so that one matrix does it for every particle, mass and channel:

    N_1AU[a, i] = sum_{b, j} K[a, i; b, j] N_source[b, j]

with a, b the six flavours and i, j bins of energy, N in neutrinos per bin. The matrix shipped was computed by nuSQuIDS
(Argüelles, Salvado & Weaver, Comput. Phys. Commun. 277 (2022) 108346) in the B16-AGSS09 Sun with the cross sections of
:mod:`nu_physics.solar.cross_sections` and normal ordering; beyond the surface the neutrinos travel one astronomical
unit, and oscillations too fast for the energy bins and the orbit's eccentricity are averaged out.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, MissingExtra, check_choice, check_counts, check_edges, freeze
from nu_physics.oscillation.parameters import OscillationParameters
from nu_physics.solar.channels import FLAVOURS
from nu_physics.solar.cross_sections import TARGETS, cross_sections
from nu_physics.solar.sun import ASTRONOMICAL_UNIT_cm, SolarModel, SUN_RADIUS_cm, solar_model

__all__ = ["ENERGY_EDGES_GeV", "NusquidsTransport", "PropagationMatrix", "propagation_matrix"]

Array = NDArray[np.float64]

# 30 bins a decade from 5 GeV to 10 TeV.
ENERGY_EDGES_GeV: Array = np.logspace(0.7, 4.0, 100)

# An oscillation that turns more often than this between the surface and 1 AU is averaged: the Earth's distance changes
# by 3.4 % in a year, so that 30 turns become one turn's spread.
_AVERAGED_ABOVE_TURNS = 30.0


@dataclass(frozen=True, eq=False)
class PropagationMatrix:
    """The linear map from neutrinos produced in the centre to neutrinos at the Earth.

    Parameters
    ----------
    edges_GeV : array of shape (n + 1,)
    elements : array of shape (6, n, 6, n)
        Neutrinos in flavour a and bin i at 1 AU per neutrino produced in flavour b and bin j; flavours as in
        ``channels.FLAVOURS``.
    origin : str
        How it was computed, with versions.
    """

    edges_GeV: Array
    elements: NDArray[np.float32]
    origin: str

    def __post_init__(self) -> None:
        check_edges("edges_GeV", self.edges_GeV)
        size = self.edges_GeV.size - 1
        if self.elements.shape != (len(FLAVOURS), size, len(FLAVOURS), size):
            raise InvalidInput(f"elements has shape {self.elements.shape}; {size} bins need (6, {size}, 6, {size})")
        freeze(self, "edges_GeV", "elements")

    @property
    def centres_GeV(self) -> Array:
        """Geometric centres of the bins."""
        return np.sqrt(self.edges_GeV[1:] * self.edges_GeV[:-1])

    def apply(self, produced: Array) -> Array:
        """Propagate spectra.

        Parameters
        ----------
        produced : array of shape (..., 6, n)
            Neutrinos per annihilation by flavour and bin of ``edges_GeV``.

        Returns
        -------
        array of shape (..., 6, n)
            Neutrinos per annihilation that reach the distance of the Earth, over the whole sphere.

        Raises
        ------
        InvalidInput
            Wrong shape, or a value that is negative or no number.
        """
        size = self.edges_GeV.size - 1
        source = check_counts("produced", produced, (len(FLAVOURS), size), "flavours of channels.FLAVOURS by bins")
        flat = self.elements.reshape(len(FLAVOURS) * size, -1).astype(np.float64)
        arrived = source.reshape(*source.shape[:-2], -1) @ flat.T
        return np.asarray(arrived.reshape(source.shape))


@functools.cache
def propagation_matrix() -> PropagationMatrix:
    """Return the shipped matrix."""
    source = resources.files("nu_physics.data") / "sun_to_earth.npz"
    with source.open("rb") as stream, np.load(stream) as table:
        return PropagationMatrix(table["edges_GeV"], table["elements"], str(table["origin"]))


class NusquidsTransport:
    """Live transport through nuSQuIDS, for a matrix of one's own and for checks.

    Parameters
    ----------
    parameters : OscillationParameters, optional
    sun : SolarModel, optional
    interactions : bool
        Absorption, neutral currents and tau regeneration; without them only oscillation.
    oscillations : bool

    Raises
    ------
    MissingExtra
        nuSQuIDS is not installed.
    InvalidInput
        nuSQuIDS was imported before with other tables: it reads their folder once, at import.

    Notes
    -----
    nuSQuIDS 1.13 ignores what Python adds to a cross-section library and takes targets only from its data folder, so
    the tables are written to a temporary one under the names that it looks for.
    """

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def __init__(
        self,
        parameters: OscillationParameters | None = None,
        sun: SolarModel | None = None,
        *,
        interactions: bool = True,
        oscillations: bool = True,
    ) -> None:
        self._module, self._library, folder = self._load()
        self.parameters = parameters or OscillationParameters()
        self.interactions = interactions
        self.oscillations = oscillations
        model = sun or solar_model()
        columns = np.zeros((model.radius.size, 7))  # nuSQuIDS reads columns 1, 3 and 6: radius, density, hydrogen
        columns[:, 1], columns[:, 3] = model.radius, model.density_g_cm3
        columns[:, 6] = model.mass_fraction[model.isotopes.index("H1")]
        self._sun_file = folder / f"{model.name}.dat"
        np.savetxt(self._sun_file, columns)

    @classmethod
    def _load(cls) -> tuple[Any, Any, Path]:
        if cls._folder is None:
            if "nuSQuIDS" in sys.modules:
                raise InvalidInput(
                    "nuSQuIDS is already imported with its own data folder; create NusquidsTransport before that"
                )
            cls._folder = tempfile.TemporaryDirectory(prefix="nu-physics-nusquids-")
            tables = Path(cls._folder.name) / "xsections"
            tables.mkdir()
            for target in TARGETS:
                prefix = cross_sections().write_nusquids_text(tables, target)
                for file in tables.glob(f"{target}_*"):
                    file.rename(tables / f"csms_{target}.h5{file.name.removeprefix(Path(prefix).name)}")
            os.environ["NUSQUIDS_DATA_PATH"] = cls._folder.name
        try:
            import nuSQuIDS
        except ImportError:
            raise MissingExtra("nusquids", "live transport through the Sun") from None
        return nuSQuIDS, nuSQuIDS.loadDefaultCrossSections(), Path(cls._folder.name)

    def propagate(self, energy_GeV: Array, source: Array, *, to: str = "earth") -> Array:
        """Evolve spectra from the Sun's centre.

        Parameters
        ----------
        energy_GeV : array of shape (n,)
            Nodes, rising.
        source : array of shape (6, n)
            dN/dE at the nodes, of order one.
        to : {"surface", "earth"}

        Returns
        -------
        array of shape (6, n)
        """
        check_choice("to", to, ("surface", "earth"))
        nsq, energy = self._module, np.asarray(energy_GeV, dtype=np.float64)
        unit = nsq.Const()
        solver = nsq.nuSQUIDS(energy * unit.GeV, 3, nsq.NeutrinoType.both, self.interactions, self._library)
        p = self.parameters
        mixing = {(0, 1): p.sin2_theta12, (0, 2): p.sin2_theta13, (1, 2): p.sin2_theta23}
        for (i, j), sin2 in mixing.items():
            solver.Set_MixingAngle(i, j, float(np.arcsin(np.sqrt(sin2))) if self.oscillations else 0.0)
        solver.Set_CPPhase(0, 2, p.delta_cp if self.oscillations else 0.0)
        solver.Set_SquareMassDifference(1, p.dm21_eV2)
        solver.Set_SquareMassDifference(2, p.dm31_eV2)
        solver.Set_TauRegeneration(self.interactions)
        solver.Set_rel_error(1.0e-6)
        solver.Set_abs_error(1.0e-6)
        solver.Set_ProgressBar(False)
        solver.Set_Body(nsq.Sun(str(self._sun_file)))
        solver.Set_Track(nsq.Sun.Track(0.0, SUN_RADIUS_cm * 1.0e-5 * unit.km))
        state = np.asarray(source, dtype=np.float64).reshape(2, 3, energy.size).transpose(2, 0, 1)
        solver.Set_initial_state(np.ascontiguousarray(state), nsq.Basis.flavor)
        solver.EvolveState()
        if to == "surface":
            evaluate: Callable[[int, int, int], float] = lambda f, i, r: solver.EvalFlavorAtNode(f, i, r)  # noqa: E731
        else:
            solver.Set_Body(nsq.Vacuum())
            solver.Set_Track(nsq.Vacuum.Track(0.0, ASTRONOMICAL_UNIT_cm * 1.0e-5 * unit.km))
            solver.EvolveState()
            turns = 2.0 * np.pi * _AVERAGED_ABOVE_TURNS
            evaluate = lambda f, i, r: solver.EvalFlavor(  # noqa: E731
                f, float(energy[i] * unit.GeV), r, turns, [False] * 3
            )
        out = [[[evaluate(f, i, r) for i in range(energy.size)] for f in range(3)] for r in range(2)]
        return np.asarray(out).reshape(6, energy.size)

    def column(self, flavour: int, energy_bin: int, edges_GeV: Array = ENERGY_EDGES_GeV) -> Array:
        """Return one column of the matrix, shape (6, n): what becomes of one neutrino of this flavour and bin."""
        widths = np.diff(edges_GeV)
        centres = np.sqrt(edges_GeV[1:] * edges_GeV[:-1])
        used = max(energy_bin + 1, 2)  # nothing gains energy
        source = np.zeros((6, used))
        source[flavour, energy_bin] = 1.0
        arrived = self.propagate(centres[:used], source) * widths[:used] / widths[energy_bin]
        out = np.zeros((6, centres.size))
        out[:, :used] = np.maximum(arrived, 0.0)  # rounding of the integrator below its tolerance
        return out
