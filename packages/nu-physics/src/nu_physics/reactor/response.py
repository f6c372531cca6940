"""From neutrino energy to counts in bins of visible energy: recoil, non-linearity, resolution.

R_j(E) = integral dE_e (1/sigma) d sigma/d E_e [Phi((x_{j+1} - mu)/s) - Phi((x_j - mu)/s)],
mu = E_dep f(E_dep), E_dep = E_e + m_e, s = mu sqrt(a^2/mu + b^2 + c^2/mu^2)

with Phi the normal distribution: counts are integrated over each bin, never sampled at its centre, and what leaves the
analysis window is lost and counted as lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr

from nu_physics.constants import ELECTRON_MASS_MeV
from nu_physics.errors import InvalidInput, check_energies, check_range
from nu_physics.reactor.flux import packaged
from nu_physics.reactor.ibd import positron_nodes

__all__ = ["Binning", "NonLinearity", "Resolution", "Response"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Binning:
    """Edges of the visible-energy bins in MeV."""

    edges_MeV: Array

    def __post_init__(self) -> None:
        edges = check_energies("edges_MeV", self.edges_MeV)
        if edges.ndim != 1 or edges.size < 2:
            raise InvalidInput(f"edges_MeV has shape {edges.shape}; at least two edges in one dimension are needed")
        wrong = np.flatnonzero(np.diff(edges) <= 0)
        if wrong.size:
            i = int(wrong[0])
            raise InvalidInput(
                f"edges_MeV[{i + 1}] = {edges[i + 1]!r} does not exceed edges_MeV[{i}] = {edges[i]!r}; sort them"
            )
        object.__setattr__(self, "edges_MeV", edges)

    @classmethod
    def juno340(cls) -> Binning:
        """JUNO's 340 bins from 0.8 to 12 MeV: 140, 325 x 20, 9 x 40, 4 x 100 and 3800 keV wide.

        Examples
        --------
        >>> Binning.juno340().size
        340
        """
        edges = np.concatenate(
            [
                [0.8],
                np.linspace(0.94, 7.44, 326),
                np.linspace(7.48, 7.80, 9),
                np.linspace(7.9, 8.2, 4),
                [12.0],
            ]
        )
        return cls(edges)

    @property
    def size(self) -> int:
        """Number of bins."""
        return int(self.edges_MeV.size - 1)

    @property
    def widths_MeV(self) -> Array:
        """Width of each bin."""
        return np.diff(self.edges_MeV)

    @property
    def centres_MeV(self) -> Array:
        """Middle of each bin."""
        return np.asarray(0.5 * (self.edges_MeV[1:] + self.edges_MeV[:-1]))


@dataclass(frozen=True)
class Resolution:
    """sigma/E = sqrt(a^2/E + b^2 + c^2/E^2) with a in MeV^0.5, c in MeV.

    Examples
    --------
    >>> round(float(Resolution(0.0261, 0.0082, 0.0123).sigma_MeV(np.array([1.0]))[0]), 4)
    0.03
    """

    a: float
    b: float
    c: float
    uncertainty: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("a", "b", "c"):
            check_range(f"resolution {name}", getattr(self, name), 0.0, 1.0)
        if self.a == self.b == self.c == 0.0:
            raise InvalidInput("resolution a = b = c = 0: at least one term must be positive")

    @classmethod
    def juno(cls) -> Resolution:
        """JUNO's large photomultipliers, 2022."""
        table = packaged("juno_detector")["resolution"]
        a, b, c = (table[key] for key in "abc")
        return cls(a[0], b[0], c[0], (a[1], b[1], c[1]))

    def sigma_MeV(self, visible_MeV: Array) -> Array:
        """Standard deviation of the visible energy."""
        return np.sqrt(self.a**2 * visible_MeV + self.b**2 * visible_MeV**2 + self.c**2)

    def slope(self, visible_MeV: Array) -> Array:
        """D sigma / d E_vis."""
        return (0.5 * self.a**2 + self.b**2 * visible_MeV) / self.sigma_MeV(visible_MeV)

    def parameter_slopes(self, visible_MeV: Array) -> tuple[Array, Array, Array]:
        """D sigma / d (a, b, c)."""
        sigma = self.sigma_MeV(visible_MeV)
        return self.a * visible_MeV / sigma, self.b * visible_MeV**2 / sigma, self.c / sigma


@dataclass(frozen=True)
class NonLinearity:
    """E_vis = E_dep (f(E_dep) + sum_k a_k g_k(E_dep)) (1 + s), with one-sigma variations g_k and energy scale s.

    Parameters
    ----------
    parameters : (p0, p1, p2, p3)
        f(E) = (p0 + p3 E) / (1 + p1 exp(-p2 E)).
    pull_energy_MeV : array of shape (n,)
        Knots of the variations.
    pulls : array of shape (k, n)
        g_k at the knots, one standard deviation each; shape-preserving cubic in between, constant outside.
    scale_uncertainty : float
        Standard deviation of the energy scale s.

    Raises
    ------
    InvalidInput
        E_vis(E_dep) does not rise monotonically between 1.022 and 14 MeV.
    """

    parameters: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 0.0)
    pull_energy_MeV: tuple[float, ...] = ()
    pulls: tuple[tuple[float, ...], ...] = ()
    scale_uncertainty: float = 0.0

    def __post_init__(self) -> None:
        deposit = np.linspace(2.0 * ELECTRON_MASS_MeV, 14.0, 400)
        if np.any(np.diff(self.visible_MeV(deposit)) <= 0):
            raise InvalidInput(f"non-linearity {self.parameters} is not monotone between 1.022 and 14 MeV")

    @classmethod
    def juno(cls) -> NonLinearity:
        """JUNO's curve with the four Daya Bay variations."""
        table = packaged("juno_detector")["nonlinearity"]
        p0, p1, p2, p3 = table["parameters"]
        return cls(
            (p0, p1, p2, p3),
            tuple(table["pull_energy_MeV"]),
            tuple(tuple(row) for row in table["pulls"]),
            table["energy_scale_uncertainty"],
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pulls, each in standard deviations."""
        shape = tuple(f"nonlinearity_{k + 1}" for k in range(len(self.pulls)))
        return (*shape, "energy_scale") if self.scale_uncertainty > 0 else shape

    def curve(self, deposit_MeV: Array) -> Array:
        """f(E_dep) without pulls."""
        p0, p1, p2, p3 = self.parameters
        return np.asarray((p0 + p3 * deposit_MeV) / (1.0 + p1 * np.exp(-p2 * deposit_MeV)))

    def variations(self, deposit_MeV: Array) -> list[Array]:
        """D E_vis / d pull in MeV, one array for each of ``names``."""
        out = []
        for row in self.pulls:
            shape = PchipInterpolator(np.asarray(self.pull_energy_MeV), np.asarray(row))
            inside = np.clip(deposit_MeV, self.pull_energy_MeV[0], self.pull_energy_MeV[-1])
            out.append(np.asarray(deposit_MeV * shape(inside)))
        if self.scale_uncertainty > 0:
            out.append(np.asarray(self.scale_uncertainty * deposit_MeV * self.curve(deposit_MeV)))
        return out

    def visible_MeV(self, deposit_MeV: Array, pulls: dict[str, float] | None = None) -> Array:
        """E_vis at the given pulls (in standard deviations)."""
        visible = deposit_MeV * self.curve(deposit_MeV)
        if pulls:
            for name, variation in zip(self.names, self.variations(deposit_MeV), strict=True):
                visible = visible + pulls.get(name, 0.0) * variation
        return np.asarray(visible)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def banded_apply(start, pointer, band, source, out):  # type: ignore[no-untyped-def]
    """out_j = sum_n R_j(E_n) source_n with one contiguous run of bins per energy."""
    out[:] = 0.0
    for n in range(source.size):
        value = source[n]
        if value != 0.0:
            piece = band[pointer[n] : pointer[n + 1]]
            bins = out[start[n] : start[n] + piece.size]
            for k in range(piece.size):  # plain indices from zero: the loop runs in vector registers
                bins[k] += piece[k] * value


class Response:
    """Sparse linear map from events per neutrino-energy cell to counts per bin, and its derivatives.

    Parameters
    ----------
    energy_MeV : array of shape (n,)
        Neutrino energies of the cells.
    binning : Binning
    resolution : Resolution
    nonlinearity : NonLinearity
    nodes : int
        Gauss-Legendre nodes over the positron energy.
    pulls : dict, optional
        Non-linearity pulls at which the map is built; derivatives are taken there.

    Attributes
    ----------
    names : tuple of str
        Pulls for which :meth:`derivative` exists: non-linearity, energy scale, resolution a, b, c.
    """

    def __init__(
        self,
        energy_MeV: Array,
        binning: Binning,
        resolution: Resolution,
        nonlinearity: NonLinearity,
        nodes: int = 8,
        pulls: dict[str, float] | None = None,
    ) -> None:
        self.energy_MeV = energy_MeV
        self.binning = binning
        positron, weight = positron_nodes(energy_MeV, nodes)
        total = weight.sum(axis=1, keepdims=True)
        weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        deposit = np.maximum(positron, ELECTRON_MASS_MeV) + ELECTRON_MASS_MeV
        visible = nonlinearity.visible_MeV(deposit, pulls)
        sigma = resolution.sigma_MeV(visible)
        edges = binning.edges_MeV
        reach = 6.5
        low = np.searchsorted(edges, (visible - reach * sigma).min(axis=1), side="right") - 1
        high = np.searchsorted(edges, (visible + reach * sigma).max(axis=1), side="left")
        start = np.clip(low, 0, binning.size)
        stop = np.clip(high, start, binning.size)
        pointer = np.zeros(energy_MeV.size + 1, dtype=np.int64)
        np.cumsum(stop - start, out=pointer[1:])
        self.start = start.astype(np.int64)
        self.pointer = pointer
        variations = nonlinearity.variations(deposit)
        width_slopes = resolution.parameter_slopes(visible)
        broaden = resolution.slope(visible)
        resolution_names = ("resolution_a", "resolution_b", "resolution_c")
        self.names = (*nonlinearity.names, *resolution_names)
        self.band = np.empty(pointer[-1])
        self._derivatives = np.empty((len(self.names), pointer[-1]))
        root = math.sqrt(2.0 * math.pi)
        for n in range(energy_MeV.size):
            first, last = self.start[n], self.start[n] + pointer[n + 1] - pointer[n]
            if last == first:
                continue
            z = (edges[first : last + 1, None] - visible[n]) / sigma[n]
            piece = slice(pointer[n], pointer[n + 1])
            self.band[piece] = np.diff(ndtr(z), axis=0) @ weight[n]
            slope = -np.exp(-0.5 * z * z) / (root * sigma[n])
            shift = np.diff(slope * (1.0 + z * broaden[n]), axis=0)
            widen = np.diff(slope * z, axis=0)
            for k, variation in enumerate(variations):
                self._derivatives[k, piece] = shift @ (weight[n] * variation[n])
            for k in range(3):
                amount = resolution.uncertainty[k] * width_slopes[k][n]
                self._derivatives[len(variations) + k, piece] = widen @ (weight[n] * amount)

    def apply(self, source: Array, band: Array | None = None) -> Array:
        """Counts per bin for ``source`` events per energy cell."""
        out = np.empty(self.binning.size)
        banded_apply(self.start, self.pointer, self.band if band is None else band, source, out)
        return out

    def derivative_band(self, name: str) -> Array:
        """D band / d pull, per standard deviation."""
        return np.asarray(self._derivatives[self.names.index(name)])

    def derivative(self, name: str, source: Array) -> Array:
        """Change of the counts for one standard deviation of the named pull."""
        return self.apply(source, self.derivative_band(name))

    def dense(self) -> Array:
        """The map as a matrix of shape (bins, energies)."""
        out = np.zeros((self.binning.size, self.energy_MeV.size))
        for n in range(self.energy_MeV.size):
            piece = self.band[self.pointer[n] : self.pointer[n + 1]]
            out[self.start[n] : self.start[n] + piece.size, n] = piece
        return out


def shape_counts(knots_MeV: Array, density: Array, binning: Binning) -> Array:
    """Integrate a piecewise-linear density over the bins and normalise to one over all of them."""
    points = np.unique(np.concatenate([knots_MeV, binning.edges_MeV]))
    values = np.interp(points, knots_MeV, density, left=0.0, right=0.0)
    steps = 0.5 * (values[1:] + values[:-1]) * np.diff(points)
    integral = np.concatenate([[0.0], np.cumsum(steps)])
    counts = np.diff(np.interp(binning.edges_MeV, points, integral))
    total = float(counts.sum())
    if not total > 0:
        raise InvalidInput("background shape has no content inside the binning")
    return np.asarray(counts / total)


def detector_table() -> dict[str, Any]:
    """The packaged JUNO detector constants."""
    return packaged("juno_detector")
