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
theta13 (a Halton sequence: the same for every point, worker and order), each followed downhill by Levenberg-Marquardt.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.stats import qmc

from nu_physics.constants import PHASE_km_per_MeV
from nu_physics.oscillation.parameters import OscillationParameters
from nu_physics.oscillation.scalar_nsi import ScalarNSI
from nu_physics.reactor.experiment import Experiment

__all__ = ["Landscape", "landscape_of"]

Array = NDArray[np.float64]

# the vector that the compiled model reads
_PLAIN = (
    "sin2_theta12",
    "sin2_theta13",
    "sin2_theta23",
    "dm21_eV2",
    "dm31_eV2",
    "delta_cp",
    "m_lightest_eV",
    "alpha1",
    "alpha2",
)
_ETA = ("eta_ee", "eta_mm", "eta_tt", "eta_em", "eta_em_imag", "eta_et", "eta_et_imag", "eta_mt", "eta_mt_imag")
_INDEX = {name: k for k, name in enumerate((*_PLAIN, *_ETA))}
_SCALE_AT, _FACTOR_AT, _LENGTH = len(_INDEX), len(_INDEX) + 1, len(_INDEX) + 2
_DM21, _DM31 = _INDEX["dm21_eV2"], _INDEX["dm31_eV2"]

_LARGEST_SPLITTING_eV2, _STEP_eV2 = 6.0e-3, 1.0e-5  # beyond, the oscillation is faster than the resolution
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
    """

    def __init__(
        self,
        experiment: Experiment,
        variance: Array,
        templates: Array,
        pulls: tuple[str, ...],
        reference: OscillationParameters,
        reference_snsi: ScalarNSI | None = None,
    ) -> None:
        self._density, self._pulls = experiment.site.density_g_cm3, pulls
        self._white = _Whitening(variance, templates)
        bands = [experiment.response.band, *(experiment.response.derivative_band(name) for name in pulls)]
        values, slopes, constant = _response_of_a_splitting(experiment, bands)
        values, slopes, constant = self._white(values), self._white(slopes), self._white(constant)
        _, size, rows = np.linalg.svd(values[0], full_matrices=False)
        self._rows = rows[size > _KEPT_SIGMA * np.sqrt(len(values[0]))]
        self._table = np.ascontiguousarray(values @ self._rows.T)  # (bands, splittings, directions)
        self._slope = np.ascontiguousarray(slopes @ self._rows.T)
        self._constant = np.ascontiguousarray(constant @ self._rows.T)  # (bands, directions)
        self._at_reference = self._copy(reference, reference_snsi)[0]

    def _copy(self, parameters: OscillationParameters, snsi: ScalarNSI | None) -> Array:
        """The copy's counts and what the pulls add to them, shape (bands, directions)."""
        out, product, splitting = self._constant.copy(), np.empty(3), np.empty(3)
        _pairs(self._vector(parameters, snsi), np.empty(3), np.empty(3), product, splitting)
        _counts(product, splitting, self._table, self._slope, out)
        return out

    def _vector(self, parameters: OscillationParameters, snsi: ScalarNSI | None) -> Array:
        eta = snsi or ScalarNSI()
        out = np.empty(_LENGTH)
        out[: len(_PLAIN)] = [getattr(parameters, name) for name in _PLAIN]
        for name in _ETA:
            value = complex(getattr(eta, name[4:6]))
            out[_INDEX[name]] = value.imag if name.endswith("_imag") else value.real
        out[_SCALE_AT] = -1.0 if eta.scale == "atm" else float(eta.scale)
        out[_FACTOR_AT] = eta.density_factor(self._density)
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
            Start from half to 1.3 times the centre's dm31, in place of 5 % about it.
        """
        index = np.array([_INDEX[name] for name in free], dtype=np.int64)
        known = [priors.get(name, (0.0, np.inf)) for name in free]
        mean, weight = np.array([m for m, _ in known]), np.array([1.0 / sigma for _, sigma in known])
        low, high = (np.array(edge, dtype=np.float64) for edge in zip(*limits, strict=True))
        target = self._rows @ self._white(residual[None])[0] + self._at_reference
        base = self._vector(centre, snsi)
        points = np.hstack(
            [_starts(base[index], free, low, high, starts, wide), np.zeros((starts + 2, len(self._pulls)))]
        )
        values = _race(points, base, index, low, high, mean, weight, target, self._table, self._slope, self._constant)
        span = np.array([_NEAR.get(name, 1e-3) for name in free])
        distinct: list[tuple[float, Array]] = []
        for k in np.argsort(values):
            point = points[k]
            fresh = all((np.abs(point - other)[: len(free)] > span).any() for _, other in distinct)
            if math.isfinite(values[k]) and fresh:
                distinct.append((float(values[k]), point))
        return distinct


@functools.lru_cache(maxsize=4)
def landscape_of(
    experiment: Experiment,
    reference: OscillationParameters,
    reference_snsi: ScalarNSI | None,
    pulls: tuple[str, ...],
) -> Landscape:
    """The landscape with the covariance at a reference, made once."""
    templates = np.array(list(experiment.templates(reference, reference_snsi).values()))
    variance = experiment.expected(reference, reference_snsi) + experiment.shape_variance(reference, reference_snsi)
    stack = templates.reshape(-1, experiment.binning.size)
    return Landscape(experiment, variance, stack, pulls, reference, reference_snsi)


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
    for k, name in enumerate(free):
        u = draws[:, k]
        if name == "sin2_theta12":
            a, b = max(low[k], 0.01), min(high[k], 0.99)
            points[2:, k] = a + (b - a) * u
            mirrored[k] = min(max(1.0 - centre[k], low[k]), high[k])
        elif name == "sin2_theta23":
            points[2:, k] = 0.01 + 0.98 * u
        elif name == "sin2_theta13":
            points[2:, k] = 0.003 + 0.05 * u
        elif name == "dm21_eV2":
            points[2:, k] = 1.0e-5 * 40.0**u
        elif name == "dm31_eV2":
            points[2:, k] = centre[k] * (0.5 + 0.8 * u if wide else 0.95 + 0.1 * u)
        elif name.startswith("eta_"):
            points[2:, k] = centre[k] + 0.06 * (u - 0.5)
        elif name == "m_lightest_eV":
            points[2:, k] = 0.1 * u
        else:
            points[2:, k] = centre[k] + 2.0 * math.pi * u
    points[0], points[1] = centre, mirrored
    return np.ascontiguousarray(np.clip(points, low, high))


class _Whitening:
    """V^(-1/2) for V = diag(v) + B^T B: counts divided by sigma, then shrunk along the templates."""

    def __init__(self, variance: Array, templates: Array) -> None:
        self._inverse = 1.0 / np.sqrt(variance)
        _, size, rows = np.linalg.svd(templates * self._inverse, full_matrices=False)
        self._rows, self._shrink = rows, 1.0 - 1.0 / np.sqrt(1.0 + size**2)

    def __call__(self, counts: Array) -> Array:
        scaled = counts * self._inverse
        return np.asarray(scaled - (scaled @ self._rows.T) * self._shrink @ self._rows)


def _response_of_a_splitting(experiment: Experiment, bands: list[Array]) -> tuple[Array, Array, Array]:
    """F(x) and dF/dx of every band, each of shape (bands, n, bins), and the counts without oscillation."""
    splitting = np.arange(0.0, _LARGEST_SPLITTING_eV2 + 1.5 * _STEP_eV2, _STEP_eV2)
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


# -- compiled ----------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _levels(p, lam, w):  # type: ignore[no-untyped-def]
    """Ascending levels of X and the electron's weights, by the eigenvalues of X and of its minor without e."""
    s12, s13, s23 = math.sqrt(p[0]), math.sqrt(p[1]), math.sqrt(p[2])
    c12, c13, c23 = math.sqrt(1.0 - p[0]), math.sqrt(1.0 - p[1]), math.sqrt(1.0 - p[2])
    dm21, dm31, light = p[3], p[4], p[6] * p[6]
    phase = complex(math.cos(p[5]), math.sin(p[5]))
    base = light if dm31 > 0 else light - dm31
    m1 = math.sqrt(base)
    m2 = math.sqrt(base + dm21) * complex(math.cos(p[7]), math.sin(p[7]))
    m3 = math.sqrt(max(base + dm31, 0.0)) * complex(math.cos(p[8]), math.sin(p[8]))
    u = np.empty((3, 3), dtype=np.complex128)
    u[0, 0], u[0, 1], u[0, 2] = c12 * c13, s12 * c13, s13 * phase.conjugate()
    u[1, 0] = -s12 * c23 - c12 * s23 * s13 * phase
    u[1, 1] = c12 * c23 - s12 * s23 * s13 * phase
    u[1, 2] = s23 * c13
    u[2, 0] = s12 * s23 - c12 * c23 * s13 * phase
    u[2, 1] = -c12 * s23 - s12 * c23 * s13 * phase
    u[2, 2] = c23 * c13
    scale = (math.sqrt(abs(dm31)) if p[18] < 0 else p[18]) * p[19]
    eta = np.zeros((3, 3), dtype=np.complex128)
    eta[0, 0], eta[1, 1], eta[2, 2] = p[9], p[10], p[11]
    eta[0, 1], eta[0, 2], eta[1, 2] = complex(p[12], p[13]), complex(p[14], p[15]), complex(p[16], p[17])
    eta[1, 0], eta[2, 0], eta[2, 1] = eta[0, 1].conjugate(), eta[0, 2].conjugate(), eta[1, 2].conjugate()
    mass = np.empty((3, 3), dtype=np.complex128)
    for a in range(3):
        for b in range(3):
            value = u[a, 0] * m1 * u[b, 0].conjugate() + u[a, 1] * m2 * u[b, 1].conjugate()
            mass[a, b] = value + u[a, 2] * m3 * u[b, 2].conjugate() + scale * eta[a, b]
    x = np.empty((3, 3), dtype=np.complex128)
    for a in range(3):
        for b in range(3):
            value = 0.0j
            for c in range(3):
                value += mass[a, c] * mass[b, c].conjugate()
            x[a, b] = value
    d1, d2, d3 = x[0, 0].real, x[1, 1].real, x[2, 2].real
    s1, s2, s3 = abs(x[0, 1]) ** 2, abs(x[0, 2]) ** 2, abs(x[1, 2]) ** 2
    twist = 2.0 * (x[0, 1] * x[1, 2] * x[2, 0]).real
    mean = (d1 + d2 + d3) / 3.0
    h1, h2, h3 = d1 - mean, d2 - mean, d3 - mean
    radius = math.sqrt((h1 * h1 + h2 * h2 + h3 * h3 + 2.0 * (s1 + s2 + s3)) / 6.0)
    if radius == 0.0:
        lam[:] = 0.0
        w[:] = 1.0 / 3.0
        return
    q = 0.5 * (h1 * h2 * h3 - s1 * h3 - s2 * h2 - s3 * h1 + twist)
    angle = math.acos(max(-1.0, min(1.0, q / radius**3))) / 3.0
    high = 2.0 * radius * math.cos(angle)
    least = 2.0 * radius * math.cos(angle + 2.0943951023931957)
    lam[0], lam[1], lam[2] = least, -least - high, high
    half, gap = 0.5 * (h2 + h3), math.sqrt(0.25 * (h2 - h3) ** 2 + s3)
    total = 0.0
    for i in range(3):
        above = (lam[i] - half - gap) * (lam[i] - half + gap)
        below = 1.0
        for j in range(3):
            if j != i:
                below *= lam[i] - lam[j]
        w[i] = max(above / below, 0.0) if below != 0.0 else 1.0 / 3.0
        total += w[i]
    for i in range(3):
        w[i] /= total


@njit(cache=True, error_model="numpy")
def _pairs(p, lam, w, product, splitting):  # type: ignore[no-untyped-def]
    """-4 w_i w_j and |lambda_i - lambda_j| of the three pairs of levels."""
    _levels(p, lam, w)
    k = 0
    for i in range(3):
        for j in range(i + 1, 3):
            product[k] = -4.0 * w[i] * w[j]
            splitting[k] = abs(lam[i] - lam[j])
            k += 1


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _counts(product, splitting, table, slope, out):  # type: ignore[no-untyped-def]
    """Add -4 sum w_i w_j F to the whitened counts of every band; F by cubic Hermite interpolation."""
    last = table.shape[1] - 1
    for pair in range(3):
        place = splitting[pair] / _STEP_eV2
        low = int(place)
        if low >= last:
            low, t = last - 1, 1.0
        else:
            t = place - low
        amount = product[pair]
        a = (1.0 + 2.0 * t) * (1.0 - t) ** 2 * amount
        b = t * t * (3.0 - 2.0 * t) * amount
        c = t * (1.0 - t) ** 2 * _STEP_eV2 * amount
        d = -t * t * (1.0 - t) * _STEP_eV2 * amount
        for band in range(len(out)):
            for k in range(out.shape[1]):
                out[band, k] += (
                    a * table[band, low, k]
                    + b * table[band, low + 1, k]
                    + c * slope[band, low, k]
                    + d * slope[band, low + 1, k]
                )


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _functions(splitting, pulls, table, slope, value, change):  # type: ignore[no-untyped-def]
    """F and dF/dx of the three pairs at these pulls, each of shape (3, directions)."""
    last = table.shape[1] - 1
    value[:] = 0.0
    change[:] = 0.0
    for pair in range(3):
        place = splitting[pair] / _STEP_eV2
        low = int(place)
        inside = low < last
        if not inside:
            low, t = last - 1, 1.0
        else:
            t = place - low
        a, b = (1.0 + 2.0 * t) * (1.0 - t) ** 2, t * t * (3.0 - 2.0 * t)
        c, d = t * (1.0 - t) ** 2 * _STEP_eV2, -t * t * (1.0 - t) * _STEP_eV2
        e = 6.0 * t * (1.0 - t) / _STEP_eV2 if inside else 0.0
        f = (1.0 - t) * (1.0 - 3.0 * t) if inside else 0.0
        g = t * (3.0 * t - 2.0) if inside else 0.0
        for band in range(len(pulls) + 1):
            size = 1.0 if band == 0 else pulls[band - 1]
            if size == 0.0:
                continue
            for k in range(value.shape[1]):
                f0, f1 = table[band, low, k], table[band, low + 1, k]
                g0, g1 = slope[band, low, k], slope[band, low + 1, k]
                value[pair, k] += size * (a * f0 + b * f1 + c * g0 + d * g1)
                change[pair, k] += size * (e * (f1 - f0) + f * g0 + g * g1)


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _residuals(p, pulls, index, mean, weight, target, bands, out):  # type: ignore[no-untyped-def]
    """Counts, priors and pulls as one vector; returns its square."""
    size, n = len(target), len(index)
    for k in range(size):
        value = bands[0, k] - target[k]
        for b in range(len(pulls)):
            value += pulls[b] * bands[b + 1, k]
        out[k] = value
    for k in range(n):
        out[size + k] = (p[index[k]] - mean[k]) * weight[k]
    for b in range(len(pulls)):
        out[size + n + b] = pulls[b]
    total = 0.0
    for k in range(len(out)):
        total += out[k] * out[k]
    return total


@njit(cache=True, error_model="numpy")
def _put(p, index, values):  # type: ignore[no-untyped-def]
    """Write the free values; m3 may touch m2, not pass it."""
    for k in range(len(index)):
        p[index[k]] = values[k]
    if 0.0 < p[_DM31] < p[_DM21]:
        p[_DM21] = p[_DM31]


@njit(cache=True, error_model="numpy")
def _descend(x, steps, base, index, low, high, mean, weight, target, table, slope, constant):  # type: ignore[no-untyped-def]
    """At most ``steps`` of Levenberg-Marquardt from x (free values, then pulls), in place; returns chi2 with priors."""
    n, pulls, length = len(index), len(constant) - 1, len(target)
    both, size = n + pulls, length + n + pulls
    p, lam, w = base.copy(), np.empty(3), np.empty(3)
    product, splitting, product_h, splitting_h = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    r, trial, bands = np.empty(size), np.empty(size), np.empty(constant.shape)
    function, change = np.empty((3, length)), np.empty((3, length))
    jacobian = np.zeros((both, size))
    _put(p, index, x)
    _pairs(p, lam, w, product, splitting)
    bands[:] = constant
    _counts(product, splitting, table, slope, bands)
    value = _residuals(p, x[n:], index, mean, weight, target, bands, r)
    damping, quiet = 1e-3, 0
    for _ in range(steps):
        _functions(splitting, x[n:], table, slope, function, change)
        for k in range(n):
            width = 1e-6 * max(abs(x[k]), 1e-5 if index[k] == _DM21 or index[k] == _DM31 else 1e-3)
            if x[k] + width > high[k]:
                width = -width
            p[index[k]] = x[k] + width
            if 0.0 < p[_DM31] < p[_DM21]:
                p[_DM21] = p[_DM31]
            _pairs(p, lam, w, product_h, splitting_h)
            for i in range(length):
                total = 0.0
                for pair in range(3):
                    total += (product_h[pair] - product[pair]) * function[pair, i]
                    total += product[pair] * (splitting_h[pair] - splitting[pair]) * change[pair, i]
                jacobian[k, i] = total / width
            jacobian[k, length + k] = weight[k]
            _put(p, index, x)
        for b in range(pulls):
            jacobian[n + b, :length] = bands[b + 1]
            jacobian[n + b, length + n + b] = 1.0
        g = jacobian @ r
        h = jacobian @ jacobian.T
        improved = False
        new = value
        for _ in range(8):
            m, rhs = h.copy(), -g
            for a in range(both):
                stuck = a < n and ((x[a] <= low[a] and g[a] > 0.0) or (x[a] >= high[a] and g[a] < 0.0))
                if stuck or h[a, a] == 0.0:
                    m[a, :] = 0.0
                    m[:, a] = 0.0
                    m[a, a] = 1.0
                    rhs[a] = 0.0
                else:
                    m[a, a] *= 1.0 + damping
            moved = x + np.linalg.solve(m, rhs)
            for a in range(n):
                moved[a] = min(max(moved[a], low[a]), high[a])
            _put(p, index, moved)
            _pairs(p, lam, w, product_h, splitting_h)
            bands[:] = constant
            _counts(product_h, splitting_h, table, slope, bands)
            new = _residuals(p, moved[n:], index, mean, weight, target, bands, trial)
            if new < value:
                improved = True
                break
            damping = max(damping * 5.0, 1e-6)
        if not improved:
            break
        gained = value - new
        x[:] = moved
        r[:] = trial
        product[:] = product_h
        splitting[:] = splitting_h
        value = new
        damping = max(damping * 0.2, 1e-9)
        quiet = quiet + 1 if gained < 1e-3 + 1e-4 * value else 0
        if quiet >= 2:
            break
    return value


@njit(cache=True, error_model="numpy")
def _aim(x, share, base, index, low, high):  # type: ignore[no-untyped-def]
    """Move a start's dm31 a share of the way to where the fast phase is the one that it stood for.

    A scalar term shifts that phase by many wraps, and no descent crosses one.
    The fast phase is the distance of the state with the least electron content from the mean of the other two.
    """
    place = -1
    for k in range(len(index)):
        if index[k] == _DM31:
            place = k
    if place < 0:
        return
    p, lam, w = base.copy(), np.empty(3), np.empty(3)
    first = x[place]
    wanted = abs(first)
    for _ in range(6):
        _put(p, index, x)
        _levels(p, lam, w)
        third = np.argmin(w)
        seen = 0.0
        for i in range(3):
            if i != third:
                seen += w[i] * abs(lam[third] - lam[i]) / (1.0 - w[third])
        moved = abs(x[place]) + wanted - seen
        x[place] = min(max(moved if x[place] > 0.0 else -moved, low[place]), high[place])
    x[place] = first + share * (x[place] - first)


@njit(cache=True, error_model="numpy", nogil=True)
def _race(points, base, index, low, high, mean, weight, target, table, slope, constant):  # type: ignore[no-untyped-def]
    """Follow every point downhill for a while, the better ones further; in place. Returns chi2, inf where dropped."""
    value = np.empty(len(points))
    for s in range(len(points)):
        # every other start all the way, the rest somewhere between: priors may hold dm31 back
        _aim(points[s], 1.0 if s % 2 == 0 else (0.6180339887498949 * s) % 1.0, base, index, low, high)
        value[s] = _descend(points[s], 6, base, index, low, high, mean, weight, target, table, slope, constant)
    for kept, steps in ((2, 12), (3, 60)):
        order = np.argsort(value)
        for rank in range(len(points)):
            s = order[rank]
            if rank < max(len(points) // kept, 4):
                value[s] = _descend(
                    points[s], steps, base, index, low, high, mean, weight, target, table, slope, constant
                )
            else:
                value[s] = np.inf
    return value
