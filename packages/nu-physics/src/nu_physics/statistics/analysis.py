"""What a reactor analysis reports: mass ordering, precision, bounds on eta, contours, toys.

Every result says in which regime it was obtained. 2306.07343 v1 quotes bounds with the oscillation parameters fixed or
constrained; v4 finds that JUNO alone cannot constrain eta with them free. All of these are right, each in its regime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from nu_physics.errors import InvalidInput, check_choice, check_range, check_whole, real_array
from nu_physics.oscillation.parameters import OscillationParameters
from nu_physics.oscillation.probability import SURVIVAL_PARAMETERS
from nu_physics.oscillation.scalar_nsi import ScalarNSI
from nu_physics.reactor.experiment import Experiment
from nu_physics.statistics.fit import OSCILLATION, Fit, FitResult, Prior, Regime, Theta12Domain, with_values

__all__ = [
    "GLOBAL_FIT_WIDTHS",
    "THETA13_PRIOR",
    "BoundResult",
    "OrderingResult",
    "PrecisionResult",
    "ToyResult",
    "eta_bound",
    "eta_profile",
    "global_fit_priors",
    "mass_ordering",
    "precision",
    "toys",
]

Array = NDArray[np.float64]

ETA_NAMES = tuple(name for name in SURVIVAL_PARAMETERS if name.startswith("eta_"))

# one-sigma widths of a global fit without JUNO, rounded (NuFIT 5.2): the "prior" regime
GLOBAL_FIT_WIDTHS = {"sin2_theta12": 0.012, "sin2_theta13": 7e-4, "dm21_eV2": 2.0e-6, "dm31_eV2": 2.8e-5}
# PDG 2020, as in JUNO's ordering study
THETA13_PRIOR = Prior(0.0218, 0.0007)


def global_fit_priors(truth: OscillationParameters) -> dict[str, Prior]:
    """Return Gaussian priors of global-fit width centred on ``truth``."""
    return {name: Prior(float(getattr(truth, name)), width) for name, width in GLOBAL_FIT_WIDTHS.items()}


@dataclass(frozen=True)
class OrderingResult:
    """Both hypotheses fitted to the same data."""

    normal: FitResult
    inverted: FitResult
    true_ordering: str | None

    @property
    def delta_chi2(self) -> float:
        """chi2(inverted) - chi2(normal): positive favours the normal ordering."""
        return self.inverted.chi2 - self.normal.chi2

    @property
    def preference(self) -> float:
        """chi2(wrong) - chi2(true) if the truth is known, else the size of the difference."""
        if self.true_ordering is None:
            return abs(self.delta_chi2)
        return self.delta_chi2 if self.true_ordering == "normal" else -self.delta_chi2


def mass_ordering(
    experiment: Experiment,
    truth: OscillationParameters,
    true_snsi: ScalarNSI | None = None,
    fit_snsi: ScalarNSI | None = None,
    *,
    data: Array | None = None,
    priors: Mapping[str, Prior] | None = None,
    theta12_domain: Theta12Domain = "light",
    statistic: str = "gaussian",
    free: tuple[str, ...] = OSCILLATION,
) -> OrderingResult:
    """Fit both orderings to the Asimov data of ``truth`` (or to ``data``).

    Parameters
    ----------
    experiment : Experiment
    truth : OscillationParameters
        Source of the Asimov data, and of the starting points.
    true_snsi, fit_snsi : ScalarNSI, optional
        What nature has and what the fit assumes; a scalar term in nature only is what hides the ordering.
    data : array, optional
        Counts to fit instead.
    priors : dict, optional
        theta13 of PDG 2020 by default.
    theta12_domain : {"light", "dark", "both"}
        With both octants the two orderings are the same spectrum in vacuum (theta12 -> 90 deg - theta12,
        dm31 -> -dm32), so an ordering exists only once the octant is chosen.
    statistic, free
        As in :class:`Fit`; ``free`` holds dm31, whose sign is the hypothesis.

    Returns
    -------
    OrderingResult

    Raises
    ------
    InvalidInput
        dm31 is not free: there is no second ordering to fit.
    """
    counts = experiment.expected(truth, true_snsi) if data is None else data
    used = {"sin2_theta13": THETA13_PRIOR} if priors is None else dict(priors)
    fit = Fit(experiment, counts, truth, true_snsi, statistic=statistic, priors=used)
    results = {
        ordering: fit.best(truth, fit_snsi, free=free, orderings=(ordering,), theta12_domain=theta12_domain)
        for ordering in ("normal", "inverted")
    }
    return OrderingResult(results["normal"], results["inverted"], truth.ordering if data is None else None)


@dataclass(frozen=True)
class PrecisionResult:
    """One-sigma uncertainties from the curvature at the truth."""

    absolute: dict[str, float]
    relative_percent: dict[str, float]
    regime: Regime
    exposure_days: float


def precision(
    experiment: Experiment,
    truth: OscillationParameters,
    snsi: ScalarNSI | None = None,
    *,
    free: tuple[str, ...] = OSCILLATION,
    priors: Mapping[str, Prior] | None = None,
    statistic: str = "gaussian",
) -> PrecisionResult:
    """Return the expected uncertainties of the free parameters with the Asimov data of ``truth``."""
    fit = Fit(experiment, experiment.expected(truth, snsi), truth, snsi, statistic=statistic, priors=priors)
    result = fit.minimise(truth, snsi, free=free)
    values = result.values
    relative = {
        name: 100.0 * error / abs(values[name]) if values[name] != 0 else float("nan")
        for name, error in result.errors.items()
    }
    relative = {name: value for name, value in relative.items() if np.isfinite(value)}
    return PrecisionResult(result.errors, relative, result.regime, experiment.exposure_days)


def _regime_fit(
    experiment: Experiment, truth: OscillationParameters, regime: Regime, statistic: str
) -> tuple[Fit, tuple[str, ...]]:
    check_choice("regime", regime, ("fixed", "prior", "free"))
    priors = global_fit_priors(truth) if regime == "prior" else {}
    fit = Fit(experiment, experiment.expected(truth), truth, statistic=statistic, priors=priors)
    return fit, (() if regime == "fixed" else OSCILLATION)


def eta_profile(
    experiment: Experiment,
    truth: OscillationParameters,
    values: Array,
    *,
    name: str = "eta_ee",
    regime: Regime = "fixed",
    scale: float | None = None,
    statistic: str = "gaussian",
) -> Array:
    """Return chi2 of standard Asimov data as a function of one eta, minus its minimum of zero.

    Parameters
    ----------
    experiment, truth
    values : array
        Values of the named eta.
    name : str
        ``"eta_ee"``, ..., ``"eta_mt_imag"``.
    regime : {"fixed", "prior", "free"}
        Oscillation parameters held at the truth, free with global-fit priors, or free.
    scale : float, optional
        S_m in eV; sqrt(|dm31|) of the truth by default, not moved by the fit.
    """
    curve = _EtaCurve(experiment, truth, name, regime, scale, statistic)
    points = real_array("values", values)
    if points.ndim != 1 or not np.isfinite(points).all():
        raise InvalidInput(f"values has shape {points.shape} or entries that are not finite; give a row of numbers")
    return np.array([curve.chi2(float(value)) for value in points])


class _EtaCurve:
    """chi2 as a function of one eta, everything else at its best."""

    def __init__(
        self,
        experiment: Experiment,
        truth: OscillationParameters,
        name: str,
        regime: Regime,
        scale: float | None,
        statistic: str,
    ) -> None:
        self.fit, self.free = _regime_fit(experiment, truth, regime, statistic)
        self.truth, self.name, self.regime = truth, check_choice("eta", name, ETA_NAMES), regime
        self.scale = float(np.sqrt(abs(truth.dm31_eV2))) if scale is None else scale

    def chi2(self, value: float) -> float:
        _, snsi = with_values(self.truth, ScalarNSI(scale=self.scale), {self.name: value})
        assert snsi is not None
        if self.regime == "fixed":
            return self.fit.minimise(self.truth, snsi, free=()).chi2
        return self.fit.best(self.truth, snsi, free=self.free).chi2


@dataclass(frozen=True)
class BoundResult:
    """Interval of one eta at a number of standard deviations; None: not reached within the search range."""

    name: str
    low: float | None
    high: float | None
    sigmas: float
    regime: Regime
    ordering: str
    m_lightest_eV: float


def eta_bound(
    experiment: Experiment,
    truth: OscillationParameters,
    *,
    name: str = "eta_ee",
    regime: Regime = "fixed",
    sigmas: float = 3.0,
    search: float = 0.05,
    statistic: str = "gaussian",
) -> BoundResult:
    """Return where the chi2 of standard data crosses ``sigmas``^2 on each side of eta = 0, within +-``search``.

    Parameters
    ----------
    experiment : Experiment
    truth : OscillationParameters
        Source of the Asimov data, without a scalar term.
    name : str
        Which eta: ``"eta_ee"``, ``"eta_em"``, ...
    regime : {"fixed", "prior", "free"}
        What the fit does with the oscillation parameters.
    sigmas, search : float
        Confidence in standard deviations; largest absolute eta looked at.
    statistic : str
        As in :class:`Fit`.

    Returns
    -------
    BoundResult
        ``low`` and ``high`` are None where nothing is excluded within the search.

    Raises
    ------
    InvalidInput
        A value outside its range or an unknown name.

    Examples
    --------
    >>> from nu_physics import OscillationParameters, juno
    >>> bound = eta_bound(juno(), OscillationParameters())
    >>> round(bound.low, 5), round(bound.high, 5)
    (-0.00163, 0.00163)
    """
    check_range("sigmas", sigmas, 0.0, open_low=True)
    check_range("search", search, 0.0, 10.0, open_low=True)
    level = sigmas**2

    curve = _EtaCurve(experiment, truth, name, regime, None, statistic)
    edges: list[float | None] = []
    for sign in (-1.0, 1.0):
        seen: dict[float, float] = {}

        def excess(value: float, sign: float = sign, seen: dict[float, float] = seen) -> float:
            if value not in seen:
                seen[value] = curve.chi2(sign * value) - level
            return seen[value]

        inner, outer = 0.0, min(1e-5, search)
        crossed = False
        while not crossed and inner < search:
            if excess(outer) < 0:
                inner, outer = outer, min(1.4 * outer, search)
                continue
            crossed = True
        edges.append(sign * brentq(excess, inner, outer, xtol=1e-7, rtol=1e-4) if crossed else None)
    return BoundResult(name, edges[0], edges[1], sigmas, regime, truth.ordering, truth.m_lightest_eV)


@dataclass(frozen=True)
class ToyResult:
    """T = chi2(inverted) - chi2(normal) of simulated experiments."""

    statistic: Array
    asimov: float

    @property
    def mean(self) -> float:
        """Mean of T."""
        return float(self.statistic.mean())

    @property
    def width(self) -> float:
        """Standard deviation of T, 2 sqrt(|T0|) in the Gaussian approximation; 0 for a single toy."""
        return float(self.statistic.std(ddof=1)) if self.statistic.size > 1 else 0.0


def toys(
    experiment: Experiment,
    truth: OscillationParameters,
    snsi: ScalarNSI | None = None,
    *,
    count: int = 100,
    seed: int = 0,
    first: int = 0,
    event_level: bool = False,
    statistic: str = "gaussian",
) -> ToyResult:
    """Simulate experiments and return their ordering statistic.

    Toy i uses the i-th child of the seed, so that any split of the work gives the same numbers.

    Parameters
    ----------
    experiment, truth, snsi
    count, seed, first : int
        Toys ``first`` to ``first + count - 1`` of the stream.
    event_level : bool
        Draw every event (slower); otherwise Poisson counts in bins, which is the same distribution.
    statistic : str
    """
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("first", first, 0)):
        check_whole(name, value, least)
    base = mass_ordering(experiment, truth, snsi, statistic=statistic)
    expected = experiment.expected(truth, snsi)
    edges = experiment.binning.edges_MeV
    background = experiment.background
    out = np.empty(count)
    for i in range(count):
        sequence = np.random.SeedSequence([seed, first + i])
        generator = np.random.default_rng(sequence)
        if event_level:
            events = experiment.sample_events(truth, snsi, seed=int(sequence.generate_state(1)[0]))
            counts = np.histogram(events, edges)[0] + generator.poisson(background)
        else:
            counts = generator.poisson(expected)
        fit = Fit(
            experiment,
            counts.astype(np.float64),
            truth,
            snsi,
            statistic=statistic,
            priors={"sin2_theta13": THETA13_PRIOR},
        )
        low = {
            ordering: fit.best(truth, orderings=(ordering,), theta12_domain="light", tolerance=1e-5).chi2
            for ordering in ("normal", "inverted")
        }
        out[i] = low["inverted"] - low["normal"]
    return ToyResult(out, base.delta_chi2)
