"""The full Daya Bay data release, fitted for theta13 and dm32 from the ratio of the far to the near halls.

For each period p and each of 26 bins i of reconstructed energy

    F_pi  =  R_pi(theta13, dm32) N_pi,      R = predicted far / predicted near,

with F and N the background-subtracted counts of EH3 and of EH1 + EH2. Flux, cross section and everything that the
detectors share cancel in R. The residual F - R N has the variance of its counts and low-rank terms for what does not
cancel: relative efficiency and energy scale of each detector, background rates, core powers, solar parameters.

Data: "Full Data Release of the Daya Bay Reactor Neutrino Experiment", DOI 10.5281/zenodo.17587229 (pip package
``dayabay-data-official``, CC BY 4.0); published result: PRL 130 (2023) 161802, sin^2 2theta13 = 0.0851 +- 0.0024,
dm32 = (2.466 +- 0.060)e-3 eV^2 (normal ordering).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr

from nu_physics.constants import DAY_s, ELECTRON_MASS_MeV
from nu_physics.errors import MissingExtra
from nu_physics.oscillation.parameters import Ordering, OscillationParameters
from nu_physics.oscillation.probability import survival
from nu_physics.reactor.flux import ISOTOPES, HuberMueller
from nu_physics.reactor.ibd import THRESHOLD_MeV, positron_nodes

__all__ = ["DayaBay", "DayaBayResult", "load_dayabay"]

Array = NDArray[np.float64]

CITATION = (
    "Daya Bay Collaboration, Full Data Release of the Daya Bay Reactor Neutrino Experiment, Zenodo, "
    "DOI:10.5281/zenodo.17587229 (2025); F. P. An et al., Phys. Rev. Lett. 130, 161802 (2023)"
)
PERIODS = {"6AD": 6, "8AD": 8, "7AD": 7}
NEAR = ("AD11", "AD12", "AD21", "AD22")
FAR = ("AD31", "AD32", "AD33", "AD34")
CORES = ("R1", "R2", "R3", "R4", "R5", "R6")
DENSITY_g_cm3 = 2.6


@dataclass(frozen=True)
class Period:
    """Counts and exposure of one detector configuration."""

    name: str
    detectors: tuple[str, ...]
    counts: dict[str, Array]
    background: dict[str, dict[str, Array]]
    background_error: dict[str, dict[str, float]]
    exposure: dict[str, Array]
    live_days: dict[str, float]


@dataclass(frozen=True)
class DayaBayResult:
    """Best fit of the far-to-near ratio."""

    sin2_2theta13: float
    sin2_2theta13_error: float
    dm32_eV2: float
    dm32_error_eV2: float
    correlation: float
    chi2: float
    ndf: int
    ordering: Ordering
    candidates: int


def _package() -> Path:
    try:
        from dayabay_data_official import get_path_data
    except ImportError:
        raise MissingExtra("dayabay", "the Daya Bay data") from None
    return Path(get_path_data("npz"))


def _parameters(root: Path, name: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtra("dayabay", "reading the Daya Bay parameters") from None
    with (root / "parameters" / f"{name}.yaml").open(encoding="utf-8") as stream:
        return yaml.safe_load(stream)["parameters"]


def _rebin(fine_edges: Array, counts: Array, edges: Array) -> Array:
    """Sum 50-keV bins into the analysis bins, whose edges are all on the fine grid."""
    position = np.searchsorted(fine_edges, edges - 1e-6)
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(cumulative[position])


class DayaBay:
    """The prepared data set; build it with :func:`load_dayabay`.

    Attributes
    ----------
    edges_MeV : array of shape (27,)
        Analysis bins of reconstructed energy.
    periods : tuple of Period
    """

    def __init__(self, root: Path, step_MeV: float = 0.02) -> None:
        self.edges_MeV = np.loadtxt(root / "parameters" / "final_erec_bin_edges.tsv", skiprows=1)
        self._load_exposure(root)
        self._baselines_m = _parameters(root, "baselines")["baseline"]
        protons = _parameters(root, "detector_n_protons_correction")["n_protons_correction"]
        self._protons = {name: float(value) for name, value in protons.items()}
        fractions = _parameters(root, "reactor_fission_fractions")["fission_fractions"]
        edges = np.arange(THRESHOLD_MeV, 12.0, step_MeV)
        self.energy_MeV = 0.5 * (edges[1:] + edges[:-1])
        flux = HuberMueller()
        density = sum(
            (fractions[k] * flux.per_fission(k, self.energy_MeV) for k in ISOTOPES),
            np.zeros_like(self.energy_MeV),
        )
        positron, weight = positron_nodes(self.energy_MeV, 5)
        self._spectrum = density / density.sum()
        self._response = self._build_response(root, positron, weight, 1.0)
        self._scaled = self._build_response(root, positron, weight, 1.002)
        self.periods = tuple(self._load_period(root, name) for name in PERIODS)
        self._distances = np.array([[self._baselines_m[d][r] for r in CORES] for d in NEAR + FAR]) * 1e-3

    # -- loading ---------------------------------------------------------------------------------------------------

    def _load_exposure(self, root: Path) -> None:
        """Neutrinos per core times effective live time of each detector, period by period."""
        with np.load(root / "dayabay_dataset" / "dayabay_daily_detector_data.npz") as daily:
            tables = {name: daily[name] for name in NEAR + FAR}
        with np.load(root / "neutrino_rate.npz") as weekly:
            rates = {}
            days = len(tables["AD11"])
            for core in CORES:
                week = weekly[core]
                rate = np.zeros(days)
                for row in week:
                    rate[row["day"] : min(int(row["day"]) + int(row["n_days"]), days)] = row["neutrino_rate_per_s"]
                rates[core] = rate
        self._daily, self._daily_rates = tables, rates

    def _load_period(self, root: Path, name: str) -> Period:
        with np.load(root / "dayabay_dataset" / f"dayabay_ibd_spectra_{name}.npz") as spectra:
            table = {key.removeprefix("ibd_spectrum_"): spectra[key] for key in spectra.files}
        with np.load(root / "dayabay_dataset" / f"dayabay_background_spectra_{name}.npz") as shapes:
            shape = {key.removeprefix("spectrum_shape_"): shapes[key]["N"] for key in shapes.files}
        correlated = _parameters(root, "background_rates_correlated")
        uncorrelated = _parameters(root, "background_rates_uncorrelated")
        counts, background, error, exposure, live = {}, {}, {}, {}, {}
        detectors = tuple(d for d in NEAR + FAR if d in table)
        fine = np.append(table[detectors[0]]["E_min_MeV"], table[detectors[0]]["E_max_MeV"][-1])
        for d in detectors:
            daily = self._daily[d]
            inside = daily["n_det"] == PERIODS[name]
            effective = np.where(inside, daily["eff_livetime"], 0.0)
            counts[d] = _rebin(fine, table[d]["N"], self.edges_MeV)
            exposure[d] = np.array([float(self._daily_rates[core] @ effective) for core in CORES])
            live[d] = float(effective.sum()) / DAY_s
            numbers = {"accidentals": (float(daily["rate_accidentals"] @ effective) / DAY_s, 0.01)}
            for group in (correlated, uncorrelated):
                for kind, values in group.items():
                    rate, sigma = values[name][d]
                    numbers[kind] = (rate * live[d], sigma / rate)
            background[d] = {
                kind: number * _rebin(fine, shape[f"{kind}_{d}"], self.edges_MeV)
                for kind, (number, _) in numbers.items()
            }
            error[d] = {kind: relative for kind, (_, relative) in numbers.items()}
        return Period(name, detectors, counts, background, error, exposure, live)

    def _build_response(self, root: Path, positron: Array, weight: Array, scale: float) -> Array:
        """Neutrino cells to analysis bins: recoil, acrylic vessel, non-linearity, resolution; shape (26, n)."""
        fine = np.linspace(0.0, 12.0, 241)
        deposit = np.zeros((240, self.energy_MeV.size))
        # each Gauss-Legendre node is spread over the cell width, so that 50-keV bins are filled without aliasing
        width = self.energy_MeV[1] - self.energy_MeV[0]
        for shift in (-1.0 / 3.0, 0.0, 1.0 / 3.0):
            energy = np.maximum(positron + shift * width, ELECTRON_MASS_MeV) + ELECTRON_MASS_MeV
            position = np.clip(np.searchsorted(fine, energy, side="right") - 1, 0, 239)
            for node in range(energy.shape[1]):
                np.add.at(deposit, (position[:, node], np.arange(energy.shape[0])), weight[:, node] / 3.0)
        with np.load(root / "detector_iav_matrix.npz") as archive:
            vessel = archive["iav_matrix"]
        with np.load(root / "detector_lsnl_curves.npz") as archive:
            knots, factor = archive["nominal"]["E_MeV"], archive["nominal"]["f"]
        resolution = _parameters(root, "detector_eres")["eres"]
        a, b, c = (resolution[key][0] for key in ("a_nonuniform", "b_stat", "c_noise"))
        inner = (np.arange(5) + 0.5) / 5.0
        smear = np.zeros((self.edges_MeV.size - 1, 240))
        for share in inner:
            energy = fine[:-1] + 0.05 * share
            visible = scale * energy * np.interp(energy, knots, factor)
            sigma = np.sqrt(a**2 * visible**2 + b**2 * visible + c**2)
            smear += np.diff(ndtr((self.edges_MeV[:, None] - visible) / sigma), axis=0) / inner.size
        return np.asarray(smear @ (vessel @ deposit))

    # -- expectation -----------------------------------------------------------------------------------------------

    def _survival(self, parameters: OscillationParameters) -> Array:
        """P_ee of shape (8 detectors, 6 cores, energies)."""
        return survival(self.energy_MeV, self._distances, parameters, density_g_cm3=DENSITY_g_cm3)

    def expected(
        self, parameters: OscillationParameters, power: Array | None = None, scaled: str | None = None
    ) -> dict[tuple[str, str], Array]:
        """Return expected signal per (period, detector) in analysis bins, up to one common factor."""
        probability = self._survival(parameters)
        solid = 1.0 / self._distances**2
        factors = np.ones(6) if power is None else power
        out: dict[tuple[str, str], Array] = {}
        for period in self.periods:
            for name in period.detectors:
                i = (NEAR + FAR).index(name)
                flux = (period.exposure[name] * factors * solid[i]) @ probability[i]
                response = self._scaled if name == scaled else self._response
                out[period.name, name] = self._protons[name] * (response @ (self._spectrum * flux))
        return out

    def _hall(self, values: dict[tuple[str, str], Array], period: Period, names: tuple[str, ...]) -> Array:
        return np.asarray(
            sum((values[period.name, d] for d in names if d in period.detectors), np.zeros(self.edges_MeV.size - 1))
        )

    def ratio(
        self,
        parameters: OscillationParameters,
        power: Array | None = None,
        scaled: str | None = None,
        efficiency: dict[str, float] | None = None,
    ) -> Array:
        """Predicted far/near ratio, periods one after another, shape (78,)."""
        values = self.expected(parameters, power, scaled)
        for (period, name), counts in values.items():
            values[period, name] = counts * (efficiency or {}).get(name, 1.0)
        return np.concatenate([self._hall(values, p, FAR) / self._hall(values, p, NEAR) for p in self.periods])

    def _observed(self, kind_scale: Callable[[Period, str, str], float] | None = None) -> tuple[Array, Array]:
        """Background-subtracted far and near counts."""
        sides = []
        for names in (FAR, NEAR):
            parts = []
            for p in self.periods:
                total = np.zeros(self.edges_MeV.size - 1)
                for d in names:
                    if d not in p.detectors:
                        continue
                    total = total + p.counts[d]
                    for kind, counts in p.background[d].items():
                        total = total - counts * (1.0 if kind_scale is None else kind_scale(p, d, kind))
                parts.append(total)
            sides.append(np.concatenate(parts))
        return sides[0], sides[1]

    def observed_ratio(self) -> tuple[Array, Array]:
        """Measured far/near ratio and its statistical error, shape (78,)."""
        far, near = self._observed()
        raw_far, raw_near = self._raw()
        value = far / near
        return value, np.sqrt(raw_far + value**2 * raw_near) / near

    def _raw(self) -> tuple[Array, Array]:
        return (
            np.concatenate([self._hall_counts(p, FAR) for p in self.periods]),
            np.concatenate([self._hall_counts(p, NEAR) for p in self.periods]),
        )

    def _hall_counts(self, period: Period, names: tuple[str, ...]) -> Array:
        return np.asarray(
            sum((period.counts[d] for d in names if d in period.detectors), np.zeros(self.edges_MeV.size - 1))
        )

    @property
    def candidates(self) -> int:
        """Number of inverse-beta-decay candidates between 0.7 and 12 MeV."""
        far, near = self._raw()
        return int(far.sum() + near.sum())

    # -- fit -------------------------------------------------------------------------------------------------------

    def _templates(self, parameters: OscillationParameters) -> Array:
        """One-sigma changes of F - R N for everything that does not cancel in the ratio."""
        far, near = self._observed()
        base = self.ratio(parameters)
        rows = []
        for name in NEAR + FAR:
            # relative efficiency 0.106 % and energy scale 0.2 % of each detector, correlation 0.545
            by_efficiency = (self.ratio(parameters, efficiency={name: 1.00106}) - base) * near
            by_scale = (self.ratio(parameters, scaled=name) - base) * near
            rows.append(by_scale + 0.545 * by_efficiency)
            rows.append(math.sqrt(1.0 - 0.545**2) * by_efficiency)
        for k in range(6):
            power = np.ones(6)
            power[k] = 1.005
            rows.append((self.ratio(parameters, power=power) - base) * near)
        for kind, grouped in (
            ("lithium_helium", "hall"),
            ("fast_neutrons", "hall"),
            ("amc", "all"),
            ("alpha_neutron", "each"),
            ("accidentals", "each"),
        ):
            groups = {"hall": ("AD1", "AD2", "AD3"), "all": ("AD",), "each": NEAR + FAR}[grouped]
            for prefix in groups:

                def scale(p: Period, d: str, k: str, kind: str = kind, prefix: str = prefix) -> float:
                    return 1.0 + p.background_error[d][k] if k == kind and d.startswith(prefix) else 1.0

                moved_far, moved_near = self._observed(scale)
                rows.append((moved_far - far) - base * (moved_near - near))
        for change in ({"dm21_eV2": 0.18e-5}, {"sin2_theta12": 0.013}):
            name, step = next(iter(change.items()))
            other = parameters.replace(**{name: getattr(parameters, name) + step})
            rows.append((self.ratio(other) - base) * near)
        return np.array(rows)

    def fit(self, ordering: Ordering = "normal", *, systematics: bool = True) -> DayaBayResult:
        """Return the least-squares estimate of sin^2 2theta13 and dm32.

        Parameters
        ----------
        ordering : {"normal", "inverted"}
        systematics : bool
            False uses statistical errors only.
        """
        sign = 1.0 if ordering == "normal" else -1.0
        far, near = self._observed()
        raw_far, raw_near = self._raw()

        def parameters(x: Array) -> OscillationParameters:
            sin2 = 0.5 * (1.0 - math.sqrt(max(1.0 - 0.1 * float(x[0]), 0.0)))
            return OscillationParameters(0.307, sin2, 0.5, 7.53e-5, sign * 2.5e-3 * float(x[1]) + 7.53e-5)

        start = np.array([0.85, 1.0])
        base = self.ratio(parameters(start))
        variance = raw_far + base**2 * raw_near
        covariance = np.diag(variance)
        if systematics:
            rows = self._templates(parameters(start))
            covariance = covariance + rows.T @ rows
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        result = least_squares(lambda x: whiten @ (far - self.ratio(parameters(x)) * near), start, x_scale=(0.02, 0.02))
        spread = np.linalg.inv(result.jac.T @ result.jac)
        error = np.sqrt(np.diag(spread))
        return DayaBayResult(
            sin2_2theta13=0.1 * float(result.x[0]),
            sin2_2theta13_error=0.1 * float(error[0]),
            dm32_eV2=sign * 2.5e-3 * float(result.x[1]),
            dm32_error_eV2=2.5e-3 * float(error[1]),
            correlation=float(spread[0, 1] / (error[0] * error[1])),
            chi2=2.0 * float(result.cost),
            ndf=far.size - 2,
            ordering=ordering,
            candidates=self.candidates,
        )


def load_dayabay() -> DayaBay:
    """Read the installed data release and prepare the far-to-near fit (about a second).

    Raises
    ------
    MissingExtra
        The extra ``dayabay`` is not installed.

    Examples
    --------
    >>> round(load_dayabay().fit().sin2_2theta13, 4)
    0.0855
    """
    return DayaBay(_package())
