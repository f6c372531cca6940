"""Where the minima of a reactor fit lie: every fit starts from a search on a fast copy of chi2.

Without matter P_ee depends on the parameters through the levels lambda_i of X = (M + dM)(M + dM)^dagger and the
electron's weights w_i alone, and the counts through one function of one splitting for each band of the response:

    T = T_0 - 4 sum_{i<j} w_i w_j F(|lambda_i - lambda_j|),
    F(x) = (R + sum_k a_k R_k) [N sum_c share_c sin^2(x L_c / 4E)]

with R_k what the pull a_k changes. F is tabulated, whitened with the covariance of the data and cut to the directions
in which it ever points, so that chi2 costs microseconds. Matter moves T by a few sigma: its effect at the reference is
added to the copy. The copy only says where to look: every minimum that is reported was reached, and is compared, on the
exact chi2.

Search: starts in both octants of theta12, both signs of dm31, all wraps of the fast phase and all sizes of dm21 and
theta13 (a Halton sequence: the same for every point, worker and order), and the parameters behind the minima of the
data (:mod:`nu_physics.statistics.preimages`), each followed downhill by Levenberg-Marquardt. The first steps are taken
on a copy with one band, in which the pulls are templates of the covariance.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from nu_physics.constants import PHASE_km_per_MeV
from nu_physics.oscillation.parameters import OscillationParameters
from nu_physics.oscillation.scalar_nsi import ScalarNSI
from nu_physics.reactor.experiment import Experiment
from nu_physics.statistics.descent import STEP_eV2, add_counts, descend, next_wraps, pairs_of, race
from nu_physics.statistics.levels import (
    ANGLES,
    DM21,
    DM31,
    ETA,
    FACTOR_AT,
    INDEX,
    LENGTH,
    PLAIN,
    SCALE_AT,
    levels_of,
    put,
)
from nu_physics.statistics.preimages import Targets, preimages, standard_points

__all__ = ["FASTEST_eV2", "Landscape", "USUAL_eV2", "landscape_of"]

Array = NDArray[np.float64]

# Largest splittings tabulated: of most fits, and of all within the limits of dm31. Where the fast oscillation is nearly
# averaged out chi2 still has its wraps, and excluded points their lowest minimum.
USUAL_eV2, FASTEST_eV2 = 6.0e-3, 2.5e-2
_WRAP = 0.06  # of the fast splitting: one turn of its phase at the middle of JUNO's spectrum
_WRAPS_OF = 2  # of the lowest minima the neighbours a turn of the fast phase away are looked at
_TURNS = (1.0, 1.4)  # of the mean energy's phase; the wraps of the spectrum lie between
_SAME = np.array([3e-3, 3e-3, 3e-7, 3e-6])  # effective parameters nearer than this are one minimum
_TARGETS_WITHIN = 150.0  # of the lowest chi2
_KEPT_SIGMA = 0.02  # directions in which the table never moves by more than this are cut


class Landscape:
    """The fast copy of chi2 for one experiment and one covariance.

    Parameters
    ----------
    experiment : Experiment
    variance : array of shape (bins,)
    templates : array of shape (k, bins)
        One-sigma changes of the counts.
    pulls : tuple of str
        Pulls that move events in energy, fitted with the parameters.
    reference : OscillationParameters
    reference_snsi : ScalarNSI, optional
    largest_eV2 : float
        Splitting up to which counts are tabulated; beyond, they stay as they are there.
    """

    def __init__(
        self,
        experiment: Experiment,
        variance: Array,
        templates: Array,
        pulls: tuple[str, ...],
        reference: OscillationParameters,
        reference_snsi: ScalarNSI | None = None,
        largest_eV2: float = USUAL_eV2,
    ) -> None:
        self._density, self._pulls = experiment.site.density_g_cm3, pulls
        mean_MeV = float(np.average(experiment.energy_MeV, weights=experiment.events))
        length_km = float(experiment.site.baseline_km @ experiment.site.flux_share)
        self._turn_eV2 = np.pi * mean_MeV / (PHASE_km_per_MeV * length_km)
        self._reference = self._vector(reference, reference_snsi)
        bands = [experiment.response.band, *(experiment.response.derivative_band(name) for name in pulls)]
        splittings = _response_of_a_splitting(experiment, pulls, largest_eV2)
        self._full = _Copy(variance, templates, splittings, self._reference)
        # what the pulls add at the reference, as templates: one band in place of five for the first steps
        source = experiment.events * experiment.survival(reference, reference_snsi)
        moved = np.array([experiment.response.apply(source, band) for band in bands[1:]]).reshape(-1, variance.size)
        first = tuple(part[:1] for part in splittings)
        self._quick = _Copy(variance, np.vstack([templates, moved]), first, self._reference)

    def _vector(self, parameters: OscillationParameters, snsi: ScalarNSI | None) -> Array:
        eta = snsi or ScalarNSI()
        out = np.empty(LENGTH)
        out[: len(PLAIN)] = [getattr(parameters, name) for name in PLAIN]
        for name in ETA:
            value = complex(getattr(eta, name[4:6]))
            out[INDEX[name]] = value.imag if name.endswith("_imag") else value.real
        out[SCALE_AT] = -1.0 if eta.scale == "atm" else float(eta.scale)
        out[FACTOR_AT] = eta.density_factor(self._density)
        return out

    def minima(
        self,
        residual: Array,
        centre: OscillationParameters,
        snsi: ScalarNSI | None,
        free: tuple[str, ...],
        limits: Sequence[tuple[float, float]],
        priors: Mapping[str, tuple[float, float]],
        *,
        starts: int,
        wide: bool = False,
        targets: Targets | None = None,
        followed: int = 0,
    ) -> list[tuple[float, Array]]:
        """Return distinct minima as (chi2 with priors up to a constant, values of ``free`` and pulls), lowest first.

        Parameters
        ----------
        residual : array of shape (bins,)
            Data minus the exact expectation at the reference.
        centre : OscillationParameters
            Values of what is not free; dm31 keeps its sign.
        limits : sequence of (low, high)
            Of each free parameter.
        priors : mapping of name to (mean, sigma)
        starts : int
            Besides the centre and its mirror.
        wide : bool
            Start from half to 1.3 times the centre's dm31, in place of 5 % about it, and every other one anywhere.
        targets : tuple, optional
            From :meth:`targets`: more starts, where the effective parameters are those that the data want.
        followed : int
            Starts that are followed to the targets.
        """
        index = np.array([INDEX[name] for name in free], dtype=np.int64)
        known = [priors.get(name, (0.0, np.inf)) for name in free]
        mean, weight = np.array([m for m, _ in known]), np.array([1.0 / sigma for _, sigma in known])
        low, high = (np.array(edge, dtype=np.float64) for edge in zip(*limits, strict=True))
        base = self._vector(centre, snsi)
        points = np.hstack(
            [_starts(base[index], free, low, high, starts, wide), np.zeros((starts + 2, len(self._pulls)))]
        )
        angle, edges = np.flatnonzero(index < ANGLES), (low.copy(), high.copy())
        for values in (points.T, low, high):
            values[angle] = np.arcsin(np.sqrt(values[angle]))
        seeded = 0
        if targets is not None:
            first = _starts(base[index], free, *edges, followed, not priors or wide)
            first[:, angle] = np.arcsin(np.sqrt(first[:, angle]))
            first = np.vstack([first, standard_points(targets, index, base, low, high)])
            reached = preimages(first, base, index, low, high, mean, weight, *targets)
            seeded = len(reached)
            points = np.vstack([np.hstack([reached, np.zeros((seeded, len(self._pulls)))]), points])
        quick, full = self._quick.search(residual), self._full.search(residual)
        values = race(points, seeded, base, index, low, high, mean, weight, quick, full)
        for k in np.argsort(values)[:_WRAPS_OF]:
            for turns in _TURNS if math.isfinite(values[k]) else ():
                point, turn = points[k].copy(), turns * self._turn_eV2
                found = next_wraps(point, values[k], turn, base, index, low, high, mean, weight, full)
                if found < values[k]:  # beside the one it came from, for the exact chi2 may differ
                    points, values = np.vstack([points, point]), np.append(values, found)
        points[:, angle] = np.sin(points[:, angle]) ** 2
        span = np.array([_NEAR.get(name, 1e-3) for name in free])
        distinct: list[tuple[float, Array]] = []
        for k in np.argsort(values):
            point = points[k]
            fresh = all((np.abs(point - other)[: len(free)] > span).any() for _, other in distinct)
            if math.isfinite(values[k]) and fresh:
                distinct.append((float(values[k]), point))
        return distinct

    def targets(self, residual: Array) -> Targets:
        """Return the minima of the data in the effective parameters: chi2, place and shape of each, lowest first.

        They are looked for about the reference, with the levels the other way up, with the weights of the near pair of
        levels exchanged, and some turns of the fast phase away.

        Parameters
        ----------
        residual : array of shape (bins,)
            As in :meth:`minima`.

        Returns
        -------
        chi2 : array of shape (n,)
        place : array of shape (n, 4)
            Weights of the lowest and the middle level, and the two steps between the levels.
        shape : array of shape (n, 4, 4)
            Lower Cholesky factor of chi2's half curvature there, pulls profiled.
        """
        index, base = np.array([0, 1, DM21, DM31], dtype=np.int64), self._vector(OscillationParameters(), None)
        lam, w = np.empty(3), np.empty(3)
        levels_of(self._reference, lam, w)
        flat, tables = np.zeros(4), self._full.search(residual)
        found: list[tuple[float, Array, Array]] = []
        for weights, levels in ((w.copy(), lam - lam[0]), (w[::-1].copy(), lam[2] - lam[::-1])):
            near = 0 if levels[1] < levels[2] - levels[1] else 1
            swapped = weights.copy()
            swapped[near], swapped[near + 1] = weights[near + 1], weights[near]
            for (w1, w2, w3), turns in itertools.product((weights, swapped), range(-2, 3)):
                steps = np.diff(levels)
                steps[1 - near] *= 1.0 + turns * _WRAP
                angles = np.arcsin(np.sqrt([w2 / (w1 + w2), w3]))
                point = np.array([*angles, steps[0], steps.sum(), *([0.0] * len(self._pulls))])
                low = np.array([3e-4, 3e-4, 1e-7, point[3] * (1.0 - 1.5 * _WRAP)])
                high = np.array([1.5705, 1.5705, 2e-2, point[3] * (1.0 + 1.5 * _WRAP)])
                value = descend(point, 60, base, index, low, high, flat, flat, *tables)
                if not ((low < point[:4]) & (point[:4] < high)).all():
                    continue
                vector = base.copy()
                put(vector, index, point[:4])
                levels_of(vector, lam, w)
                place = np.array([w[0], w[1], lam[1] - lam[0], lam[2] - lam[1]])
                if all((np.abs(place - other[1]) > _SAME).any() for other in found):
                    found.append((value, place, self._shape(place, point[4:])))
        found.sort(key=lambda one: one[0])
        found = [one for one in found if one[0] < found[0][0] + _TARGETS_WITHIN]
        chi2, places, shapes = (np.array(part) for part in zip(*found, strict=True))
        return chi2, places, shapes

    def _shape(self, place: Array, pulls: Array) -> Array:
        """Lower Cholesky factor of the half curvature of chi2 over the effective parameters, pulls profiled."""
        step = np.array([1e-5, 1e-5, 1e-9, 1e-9])
        sides = np.array([[self._bands(place + sign * step * row) for row in np.eye(4)] for sign in (1.0, -1.0)])
        slopes = (sides[0] - sides[1]) / (2.0 * step[:, None, None])
        jacobian = slopes[:, 0] + np.einsum("b,kbi->ki", pulls, slopes[:, 1:])
        pulled = self._bands(place)[1:]
        inner = np.eye(len(pulled)) + pulled @ pulled.T
        cross = jacobian @ pulled.T
        curvature = jacobian @ jacobian.T - cross @ np.linalg.solve(inner, cross.T)
        unit = np.sqrt(np.diag(curvature))
        return np.asarray(unit[:, None] * np.linalg.cholesky(curvature / np.outer(unit, unit) + 1e-9 * np.eye(4)))

    def _bands(self, place: Array) -> Array:
        """The copy's bands at weights and steps of the levels."""
        w1, w2, first, second = place
        product = -4.0 * np.array([w1 * w2, w1 * (1 - w1 - w2), w2 * (1 - w1 - w2)])
        out = self._full.constant.copy()
        add_counts(product, np.array([first, first + second, second]), self._full.table, self._full.slope, out)
        return out


@functools.lru_cache(maxsize=8)
def landscape_of(
    experiment: Experiment,
    reference: OscillationParameters,
    reference_snsi: ScalarNSI | None,
    pulls: tuple[str, ...],
    largest_eV2: float = USUAL_eV2,
) -> Landscape:
    """The landscape with the covariance at a reference, made once."""
    templates = np.array(list(experiment.templates(reference, reference_snsi).values()))
    variance = experiment.expected(reference, reference_snsi) + experiment.shape_variance(reference, reference_snsi)
    stack = templates.reshape(-1, experiment.binning.size)
    return Landscape(experiment, variance, stack, pulls, reference, reference_snsi, largest_eV2)


# two minima nearer than this in every parameter are one
_NEAR = {
    "sin2_theta12": 0.01,
    "sin2_theta13": 0.003,
    "dm21_eV2": 1.0e-6,
    "dm31_eV2": 6.0e-6,
    "delta_cp": 0.3,
    "m_lightest_eV": 3e-3,
}


def _starts(centre: Array, free: tuple[str, ...], low: Array, high: Array, count: int, wide: bool) -> Array:
    """The centre, its mirror in theta12, and a Halton sequence over the region."""
    draws = qmc.Halton(len(free), scramble=False).random(count + 1)[1:] if free else np.empty((0, 0))
    mirrored = centre.copy()
    points = np.empty((count + 2, len(free)))
    far = wide & (np.arange(count) % 2 == 1)
    for k, name in enumerate(free):
        u = draws[:, k]
        if name == "sin2_theta12":
            a, b = max(low[k], 0.01), min(high[k], 0.99)
            points[2:, k] = np.where(far, np.clip(np.sin(0.5 * np.pi * u) ** 2, low[k], high[k]), a + (b - a) * u)
            mirrored[k] = min(max(1.0 - centre[k], low[k]), high[k])
        elif name == "sin2_theta23":
            points[2:, k] = 0.01 + 0.98 * u
        elif name == "sin2_theta13":
            points[2:, k] = np.where(far, 0.003 * 200.0**u, 0.003 + 0.05 * u)
        elif name == "dm21_eV2":
            points[2:, k] = 1.0e-5 * np.where(far, 200.0, 40.0) ** u
        elif name == "dm31_eV2":
            near = centre[k] * (0.5 + 0.8 * u if wide else 0.95 + 0.1 * u)
            points[2:, k] = np.where(far, math.copysign(1.0, centre[k]) * 5.0e-4 * 30.0**u, near)
        elif name.startswith("eta_"):
            points[2:, k] = centre[k] + 0.06 * (u - 0.5)
        elif name == "m_lightest_eV":
            points[2:, k] = 0.1 * u
        else:
            points[2:, k] = centre[k] + 2.0 * math.pi * u
    points[0], points[1] = centre, mirrored
    return np.ascontiguousarray(np.clip(points, low, high))


class _Copy:
    """Whitened counts as a function of the splittings, and where the reference lies in it."""

    def __init__(self, variance: Array, templates: Array, splittings: tuple[Array, ...], reference: Array) -> None:
        self._white = _Whitening(variance, templates)
        values, slopes, constant = (self._white(part) for part in splittings)
        square, rows = np.linalg.eigh(values[0].T @ values[0])  # columns; many more splittings than bins
        self._rows = rows.T[square > _KEPT_SIGMA**2 * len(values[0])][::-1]
        self.table = np.ascontiguousarray(values @ self._rows.T)  # (bands, splittings, directions)
        self.slope = np.ascontiguousarray(slopes @ self._rows.T)
        self.constant = np.ascontiguousarray(constant @ self._rows.T)  # (bands, directions)
        self.at_reference = self.bands(reference)[0]

    def bands(self, vector: Array) -> Array:
        """The copy's counts and what the pulls add to them, shape (bands, directions)."""
        out, product, splitting = self.constant.copy(), np.empty(3), np.empty(3)
        pairs_of(vector, np.empty(3), np.empty(3), product, splitting)
        add_counts(product, splitting, self.table, self.slope, out)
        return out

    def search(self, residual: Array) -> tuple[Array, Array, Array, Array]:
        """What a descent reads: the data in the copy's directions, and the tables."""
        target = self._rows @ self._white(residual[None])[0] + self.at_reference
        return target, self.table, self.slope, self.constant


class _Whitening:
    """V^(-1/2) for V = diag(v) + B^T B: counts divided by sigma, then shrunk along the templates."""

    def __init__(self, variance: Array, templates: Array) -> None:
        self._inverse = 1.0 / np.sqrt(variance)
        _, size, rows = np.linalg.svd(templates * self._inverse, full_matrices=False)
        self._rows, self._shrink = rows, 1.0 - 1.0 / np.sqrt(1.0 + size**2)

    def __call__(self, counts: Array) -> Array:
        scaled = counts * self._inverse
        return np.asarray(scaled - (scaled @ self._rows.T) * self._shrink @ self._rows)


@functools.lru_cache(maxsize=2)
def _response_of_a_splitting(
    experiment: Experiment, pulls: tuple[str, ...], largest_eV2: float
) -> tuple[Array, Array, Array]:
    """F(x) and dF/dx of every band, each of shape (bands, n, bins), and the counts without oscillation.

    They know no reference: every data set of an experiment shares them.
    """
    bands = [experiment.response.band, *(experiment.response.derivative_band(name) for name in pulls)]
    splitting = np.arange(0.0, largest_eV2 + 1.5 * STEP_eV2, STEP_eV2)
    energy, events, response = experiment.energy_MeV, experiment.events, experiment.response
    values, slopes = np.empty((2, len(bands), splitting.size, experiment.binning.size))
    per_core = PHASE_km_per_MeV * experiment.site.baseline_km[:, None] / energy
    share = experiment.site.flux_share
    for k, x in enumerate(splitting):
        sine, cosine = np.sin(per_core * x), np.cos(per_core * x)
        value, slope = events * (share @ sine**2), events * (share @ (2.0 * sine * cosine * per_core))
        for b, band in enumerate(bands):
            values[b, k], slopes[b, k] = response.apply(value, band), response.apply(slope, band)
    return values, slopes, np.array([response.apply(events, band) for band in bands])
