"""Fits of a reactor spectrum: Levenberg-Marquardt with exact derivatives, and the search for every minimum.

chi2(theta, a) = chi2_stat(theta, a; systematics profiled) + sum_k a_k^2 + sum_p ((theta_p - m_p) / s_p)^2

theta are oscillation and eta parameters, a the pulls that move events in energy. chi2 has one minimum for each wrap of
the fast phase (about 1 % of dm31), for each sign of dm31 and for each octant of theta12, and past the resonance of a
scalar term several more: :meth:`Fit.best` looks for all of them (:mod:`nu_physics.statistics.landscape`), and is how
every scan, profile, ordering, bound and toy is fitted.

Errors are the square roots of the inverse curvature's diagonal. Where the curvature has no inverse, the data leave a
direction open: its parameters have infinite errors, and :attr:`FitResult.open_directions` names it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_choice, check_range, real_array
from nu_physics.oscillation.parameters import Ordering, OscillationParameters
from nu_physics.oscillation.probability import SURVIVAL_PARAMETERS
from nu_physics.oscillation.scalar_nsi import EffectiveParameters, ScalarNSI, effective_parameters
from nu_physics.reactor.experiment import Experiment
from nu_physics.statistics.landscape import FASTEST_eV2, USUAL_eV2, landscape_of
from nu_physics.statistics.likelihood import likelihood
from nu_physics.statistics.preimages import Targets

__all__ = ["OSCILLATION", "THETA12_DOMAINS", "Fit", "FitResult", "Prior", "Regime"]

Array = NDArray[np.float64]
Theta12Domain = Literal["light", "dark", "both"]
Regime = Literal["fixed", "prior", "free"]
THETA12_DOMAINS = ("light", "dark", "both")
OSCILLATION = ("sin2_theta12", "sin2_theta13", "dm21_eV2", "dm31_eV2")

# step sizes of the fit in each direction, and what a value may be
_SCALE = {
    "sin2_theta12": 3e-3,
    "sin2_theta13": 1e-3,
    "sin2_theta23": 1e-2,
    "dm21_eV2": 3e-7,
    "dm31_eV2": 5e-6,
    "delta_cp": 0.1,
    "m_lightest_eV": 1e-3,
    "density_g_cm3": 0.1,
}
_EDGE = 1e-7


@dataclass(frozen=True)
class Prior:
    """External Gaussian knowledge of one parameter."""

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        check_range("prior mean", self.mean)
        check_range("prior sigma", self.sigma, 0.0, open_low=True)


@dataclass(frozen=True)
class FitResult:
    """One minimum, and what it was a minimum of.

    ``regime`` says how the oscillation parameters were treated: ``"fixed"`` (none free), ``"prior"`` (free with
    external knowledge) or ``"free"``. Vacuum and effective ordering are the signs of dm31 before and after the scalar
    term. An error is infinite where the data do not bound the parameter; ``open_directions`` holds, for each direction
    that they leave open, the change of every parameter along it in steps natural to each, the largest being one.
    """

    chi2: float
    parameters: OscillationParameters
    snsi: ScalarNSI | None
    pulls: dict[str, float]
    errors: dict[str, float]
    correlation: Array
    free: tuple[str, ...]
    fixed: tuple[str, ...]
    priors: dict[str, Prior]
    statistic: str
    theta12_domain: str
    converged: bool
    evaluations: int
    open_directions: tuple[dict[str, float], ...] = ()
    density_g_cm3: float | None = None

    @property
    def regime(self) -> Regime:
        """``"fixed"``, ``"prior"`` or ``"free"``: the treatment of the four oscillation parameters."""
        moving = [name for name in OSCILLATION if name in self.free]
        if not moving:
            return "fixed"
        return "prior" if all(name in self.priors for name in moving) else "free"

    @property
    def vacuum_ordering(self) -> Ordering:
        """Sign of the fitted dm31."""
        return self.parameters.ordering

    @property
    def effective_ordering(self) -> Ordering:
        """Sign of the effective dm31 of the fitted parameters with their scalar term."""
        return effective_parameters(self.parameters, self.snsi, self.density_g_cm3).effective_ordering

    @property
    def values(self) -> dict[str, float]:
        """Fitted values of the free parameters."""
        return {name: read_value(name, self.parameters, self.snsi) for name in self.free}

    def summary(self) -> dict[str, object]:
        """Return everything as plain numbers and strings, for JSON; an error without bound is None."""
        return {
            "chi2": self.chi2,
            "regime": self.regime,
            "values": self.values,
            "errors": {name: error if math.isfinite(error) else None for name, error in self.errors.items()},
            "open_directions": [dict(direction) for direction in self.open_directions],
            "pulls": self.pulls,
            "fixed": {name: read_value(name, self.parameters, self.snsi) for name in self.fixed},
            "priors": {name: [p.mean, p.sigma] for name, p in self.priors.items()},
            "vacuum_ordering": self.vacuum_ordering,
            "effective_ordering": self.effective_ordering,
            "theta12_domain": self.theta12_domain,
            "statistic": self.statistic,
            "converged": self.converged,
        }


def read_value(name: str, parameters: OscillationParameters, snsi: ScalarNSI | None) -> float:
    """Value of a named parameter."""
    if name.startswith("eta_"):
        value = complex(getattr(snsi or ScalarNSI(), name[4:6]))
        return value.imag if name.endswith("_imag") else value.real
    return float(getattr(parameters, name))


def with_values(
    parameters: OscillationParameters, snsi: ScalarNSI | None, values: Mapping[str, float]
) -> tuple[OscillationParameters, ScalarNSI | None]:
    """Return both objects with the named values put in."""
    plain: dict[str, float] = {}
    eta: dict[str, complex | float] = {}
    for name, value in values.items():
        check_choice("parameter", name, SURVIVAL_PARAMETERS)
        if not name.startswith("eta_"):
            plain[name] = value
            continue
        key = name[4:6]
        if key in ("ee", "mm", "tt"):
            eta[key] = value
        else:
            old = complex(eta.get(key, getattr(snsi or ScalarNSI(), key)))
            eta[key] = complex(old.real, value) if name.endswith("_imag") else complex(value, old.imag)
    moved = dataclasses.replace(parameters, **plain) if plain else parameters
    if eta:
        snsi = dataclasses.replace(snsi or ScalarNSI(), **eta)  # type: ignore[arg-type]
    return moved, snsi


class Fit:
    """A data set, a model and a statistic.

    Parameters
    ----------
    experiment : Experiment
    data : array of shape (bins,)
        Counts; an Asimov data set is ``experiment.expected(truth)``.
    reference : OscillationParameters
        Where covariance templates and variances are frozen: the same for every hypothesis that is compared.
    reference_snsi : ScalarNSI, optional
    statistic : {"gaussian", "cnp", "poisson"}
    priors : dict of name to Prior, optional
    response_pulls : bool
        Fit the pulls that move events in energy (non-linearity, energy scale).

    Examples
    --------
    >>> from nu_physics.reactor.experiment import juno
    >>> truth = OscillationParameters()
    >>> experiment = juno()
    >>> fit = Fit(experiment, experiment.expected(truth), truth)
    >>> result = fit.minimise(truth.replace(dm21_eV2=7.6e-5), free=("dm21_eV2", "sin2_theta12"))
    >>> result.chi2 < 1e-6, round(1e5 * result.parameters.dm21_eV2, 4), result.regime
    (True, 7.53, 'free')
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Array,
        reference: OscillationParameters,
        reference_snsi: ScalarNSI | None = None,
        *,
        statistic: str = "gaussian",
        priors: Mapping[str, Prior] | None = None,
        response_pulls: bool = True,
    ) -> None:
        counts = real_array("data", data)
        if counts.shape != (experiment.binning.size,):
            raise InvalidInput(f"data has shape {counts.shape}; ({experiment.binning.size},) is needed")
        self.experiment = experiment
        self.statistic = statistic
        if priors is not None and not isinstance(priors, Mapping):
            raise InvalidInput(f"priors is a {type(priors).__name__}; give a dict of name to Prior")
        self.priors = dict(priors or {})
        for name, prior in self.priors.items():
            check_choice("prior", name, [known for known in SURVIVAL_PARAMETERS if known != "density_g_cm3"])
            if not isinstance(prior, Prior):
                raise InvalidInput(f"prior of {name} = {prior!r}: give a Prior(mean, sigma)")
        self.pull_names = experiment.response_pulls() if response_pulls else ()
        templates = experiment.templates(reference, reference_snsi)
        self.template_names = tuple(templates)
        stack = np.array(list(templates.values())).reshape(-1, experiment.binning.size)
        at_reference = experiment.expected(reference, reference_snsi)
        shape = experiment.shape_variance(reference, reference_snsi)
        self.likelihood = likelihood(statistic, counts, at_reference, shape, stack)
        self._reference = reference, reference_snsi
        self._residual = counts - at_reference
        self._pull_bands = [experiment.response.derivative_band(name) for name in self.pull_names]
        self.evaluations = 0

    # -- one point -------------------------------------------------------------------------------------------------

    def _band(self, pulls: Array) -> Array:
        band = self.experiment.response.band
        for amount, derivative in zip(pulls, self._pull_bands, strict=True):
            if amount != 0.0:
                band = band + amount * derivative
        return band

    def _amounts(self, pulls: Mapping[str, float] | None) -> Array:
        """The named pulls, zero where not given."""
        named = {
            check_choice("pull", k, self.pull_names): check_range(f"pull {k}", v) for k, v in (pulls or {}).items()
        }
        return np.array([named.get(name, 0.0) for name in self.pull_names])

    def _penalty(self, names: Iterable[str], parameters: OscillationParameters, snsi: ScalarNSI | None) -> float:
        total = 0.0
        for name in names:
            prior = self.priors.get(name)
            if prior is not None:
                total += ((read_value(name, parameters, snsi) - prior.mean) / prior.sigma) ** 2
        return total

    def chi2(
        self,
        parameters: OscillationParameters,
        snsi: ScalarNSI | None = None,
        pulls: Mapping[str, float] | None = None,
    ) -> float:
        """Return chi2 at a point, covariance systematics profiled, energy pulls as given, all priors included."""
        amounts = self._amounts(pulls)
        source = self.experiment.events * self.experiment.survival(parameters, snsi)
        expected = self.experiment.response.apply(source, self._band(amounts)) + self.experiment.background
        value = self.likelihood.chi2(expected) + float(amounts @ amounts)
        return value + self._penalty(self.priors, parameters, snsi)

    def _linearise(
        self,
        names: tuple[str, ...],
        parameters: OscillationParameters,
        snsi: ScalarNSI | None,
        pulls: Array,
    ) -> tuple[float, Array, Array]:
        """chi2, half gradient and half curvature over (names, pulls)."""
        self.evaluations += 1
        experiment = self.experiment
        band = self._band(pulls)
        source, slopes = experiment.source_gradient(parameters, snsi, names)
        expected = experiment.response.apply(source, band) + experiment.background
        jacobian = np.empty((len(names) + len(pulls), expected.size))
        for k in range(len(names)):
            jacobian[k] = experiment.response.apply(slopes[k], band)
        for k, derivative in enumerate(self._pull_bands):
            jacobian[len(names) + k] = experiment.response.apply(source, derivative)
        value, gradient, curvature = self.likelihood.linearise(expected, jacobian)
        value += float(pulls @ pulls)
        gradient[len(names) :] += pulls
        curvature[np.arange(len(names), len(gradient)), np.arange(len(names), len(gradient))] += 1.0
        value += self._penalty(self.priors, parameters, snsi)
        for k, name in enumerate(names):
            prior = self.priors.get(name)
            if prior is not None:
                gradient[k] += (read_value(name, parameters, snsi) - prior.mean) / prior.sigma**2
                curvature[k, k] += 1.0 / prior.sigma**2
        return value, gradient, curvature

    @staticmethod
    def _check_free(free: tuple[str, ...], theta12_domain: str) -> None:
        if not isinstance(free, tuple):
            raise InvalidInput(f"free = {free!r}: give a tuple of names")
        for name in free:
            check_choice("free parameter", name, SURVIVAL_PARAMETERS)
            if free.count(name) > 1:
                raise InvalidInput(f"free parameter = {name!r} is given twice; keep one")
        check_choice("theta12_domain", theta12_domain, THETA12_DOMAINS)
        if "density_g_cm3" in free:
            raise InvalidInput("density_g_cm3 cannot be free in a fit; it belongs to the site")

    @staticmethod
    def _limits(name: str, start: float, theta12_domain: str) -> tuple[float, float]:
        """What a value may be; dm31 keeps the sign of ``start``."""
        if name == "sin2_theta12" and theta12_domain != "both":
            return (_EDGE, 0.5) if theta12_domain == "light" else (0.5, 1.0 - _EDGE)
        if name.startswith("sin2_"):
            return _EDGE, 1.0 - _EDGE
        if name == "dm21_eV2":
            return 1e-7, 2e-3
        if name == "dm31_eV2":
            return (5e-4, 2e-2) if start > 0 else (-2e-2, -5e-4)
        if name == "m_lightest_eV":
            return 0.0, 2.0
        return (-10.0, 10.0) if name.startswith("eta_") else (-math.inf, math.inf)

    @staticmethod
    def _inside(name: str, start: float, theta12_domain: str) -> tuple[float, float]:
        """The limits; a start beyond what a fit looks at is refused, for its end would be the limit and no minimum."""
        low, high = Fit._limits(name, start, theta12_domain)
        if not name.startswith("sin2_") and not (low <= start <= high) and start != 0.0:
            raise InvalidInput(
                f"{name} = {start!r} cannot be the start of a fit, which looks from {low:g} to {high:g}; hold it fixed"
            )
        return low, high

    # -- one minimum -----------------------------------------------------------------------------------------------

    def minimise(
        self,
        start: OscillationParameters,
        snsi: ScalarNSI | None = None,
        *,
        free: tuple[str, ...] = OSCILLATION,
        theta12_domain: Theta12Domain = "both",
        pulls: Mapping[str, float] | None = None,
        tolerance: float = 1e-9,
        iterations: int = 200,
    ) -> FitResult:
        """Return the minimum that Levenberg-Marquardt reaches from ``start``; dm31 keeps its sign.

        Parameters
        ----------
        start, snsi
            Starting point, and the values of everything that is not free.
        free : tuple of str
            Names out of ``SURVIVAL_PARAMETERS``.
        theta12_domain : {"light", "dark", "both"}
            Limits sin2_theta12 to below or above one half.
        tolerance : float
            Stop when the expected decrease of chi2 falls below it.
        """
        self._check_free(free, theta12_domain)
        scale = np.array([_SCALE.get(name, 1e-3) for name in free] + [1.0] * len(self.pull_names))
        angle = np.array([name.startswith("sin2_") for name in free] + [False] * len(self.pull_names), dtype=bool)
        low, high = np.empty(len(scale)), np.empty(len(scale))
        low[:], high[:] = -np.inf, np.inf
        x = np.zeros(len(scale))
        for k, name in enumerate(free):
            x[k] = read_value(name, start, snsi)
            low[k], high[k] = self._inside(name, x[k], theta12_domain)
        x[len(free) :] = self._amounts(pulls)
        x = np.clip(x, low, high)
        # steps are taken in the angles: at 0 and 90 degrees the spectrum has no slope in their squared sines
        for values in (x, low, high):
            values[angle] = np.arcsin(np.sqrt(values[angle]))

        def point(values: Array) -> tuple[OscillationParameters, ScalarNSI | None]:
            plain = np.where(angle, np.sin(values) ** 2, values)
            named = dict(zip(free, (float(v) for v in plain[: len(free)]), strict=True))
            atmospheric = named.get("dm31_eV2", start.dm31_eV2)
            if "dm21_eV2" in named and 0.0 < atmospheric < named["dm21_eV2"]:
                named["dm21_eV2"] = atmospheric  # m3 may touch m2 on the way, not pass it
            elif "dm31_eV2" in named and 0.0 < atmospheric < start.dm21_eV2 and "dm21_eV2" not in named:
                named["dm31_eV2"] = start.dm21_eV2
            return with_values(start, snsi, named)

        before = self.evaluations
        value, gradient, curvature = self._linearise(free, *point(x), x[len(free) :])
        damping, converged = 1e-4, False
        # what Gauss and Newton's curvature leaves out, learnt from the gradients (symmetric rank one)
        missing, plain_until = np.zeros((len(x), len(x))), LEARN_AFTER
        for number in range(iterations):
            unit = scale * np.where(angle, np.sin(2.0 * x), 1.0)
            g = gradient * unit
            h = curvature * np.outer(unit, unit)
            plain = h
            if number >= plain_until:
                h = _positive(h + missing)
            active = ((x <= low) & (g > 0)) | ((x >= high) & (g < 0))
            move = ~active
            if not move.any():
                converged = True
                break
            hm, gm = h[np.ix_(move, move)], g[move]
            step = np.zeros(len(x))
            step[move] = -np.linalg.lstsq(hm + damping * np.diag(np.diag(hm) + 1e-12), gm, rcond=None)[0]
            decrease = float(-(2.0 * g @ step + step @ h @ step))
            trial = np.clip(x + step * scale, low, high)
            new = self._linearise(free, *point(trial), trial[len(free) :])
            if math.isfinite(new[0]) and new[0] <= value + 1e-13 * abs(value):
                gained = value - new[0]
                moved = (trial - x) / scale
                x, (value, gradient, curvature) = trial, new
                unit = scale * np.where(angle, np.sin(2.0 * x), 1.0)
                seen = gradient * unit - g
                rest = seen - (curvature * np.outer(unit, unit) + missing) @ moved
                if abs(rest @ moved) > 1e-8 * np.linalg.norm(rest) * np.linalg.norm(moved):
                    missing += np.outer(rest, rest) / (rest @ moved)
                damping = max(damping * 0.1, 1e-12)
                if decrease < tolerance and gained < tolerance:
                    left = g[move] @ np.linalg.lstsq(plain[np.ix_(move, move)], g[move], rcond=None)[0]
                    if number < plain_until or left < SADDLE * tolerance:
                        converged = True
                        break
                    missing[:], plain_until, damping = 0.0, number + 1 + LEARN_AFTER, 1e-4
            else:
                damping *= 10.0
                if damping > 1e12 or decrease < 1e-3 * tolerance:
                    converged = decrease < tolerance
                    break
        width, correlation, open_ = _errors(curvature, scale)
        parameters, fitted = point(x)
        fixed = tuple(name for name in OSCILLATION if name not in free)
        return FitResult(
            chi2=value,
            parameters=parameters,
            snsi=fitted,
            pulls=dict(zip(self.pull_names, (float(v) for v in x[len(free) :]), strict=True)),
            errors={name: float(width[k]) for k, name in enumerate(free)},
            correlation=correlation[: len(free), : len(free)],
            free=free,
            fixed=fixed,
            priors={name: prior for name, prior in self.priors.items() if name in free},
            statistic=self.statistic,
            theta12_domain=theta12_domain,
            converged=converged,
            evaluations=self.evaluations - before,
            open_directions=tuple(dict(zip(free, (float(v) for v in row[: len(free)]), strict=True)) for row in open_),
            density_g_cm3=self.experiment.site.density_g_cm3,
        )

    # -- every minimum ---------------------------------------------------------------------------------------------

    def best(
        self,
        start: OscillationParameters,
        snsi: ScalarNSI | None = None,
        *,
        free: tuple[str, ...] = OSCILLATION,
        orderings: tuple[Ordering, ...] = ("normal", "inverted"),
        theta12_domain: Theta12Domain = "both",
        tolerance: float = 1e-9,
    ) -> FitResult:
        """Return the lowest minimum over the named orderings, the octants of the domain and everything else.

        Parameters
        ----------
        start, snsi
            Values of everything that is not free, and the first of the search's own starting points for what is.
        free, theta12_domain, tolerance
            As in :meth:`minimise`.
        orderings : tuple of {"normal", "inverted"}
            Signs of dm31 to look at; where dm31 is not free, its own must be among them.

        Returns
        -------
        FitResult
            A function of the arguments alone: it depends on no earlier fit.

        Raises
        ------
        InvalidInput
            No ordering, or none that a fixed dm31 has; a name that cannot be free; a start beyond what a fit looks at.
        """
        self._check_free(free, theta12_domain)
        if not orderings:
            raise InvalidInput("orderings is empty; name normal, inverted or both")
        centres = [start.with_ordering(name) for name in orderings]
        if "dm31_eV2" not in free and start.ordering not in orderings:
            raise InvalidInput(
                f"orderings = {orderings!r}, but dm31_eV2 = {start.dm31_eV2!r} is not free and has {start.ordering} "
                "ordering; free it, or give a start of the ordering that is asked for"
            )
        for name in free:
            self._inside(name, read_value(name, start, snsi), theta12_domain)
        if not free:
            return self.minimise(start, snsi, free=())
        if "dm31_eV2" not in free:
            centres = [start]
        else:  # where the data are, not where a scalar term in nature has moved the start
            size = effective_parameters(*self._reference, self.experiment.site.density_g_cm3)
            centres = [_about(centre, size) for centre in centres]
        priors = {name: (prior.mean, prior.sigma) for name, prior in self.priors.items()}
        scalar = snsi is not None or any(name.startswith("eta_") for name in free)
        targets = self._targets if scalar else None
        regions = []
        for centre in centres:
            limits = [self._limits(name, centre.dm31_eV2, theta12_domain) for name in free]
            regions.append((self._least_penalty(free, limits), centre, limits))
        regions.sort(key=lambda region: region[0])
        bound_by_priors = set(free) <= set(self.priors)
        enough = SEARCH_AGAIN_ABOVE
        if targets is not None and not bound_by_priors:  # nothing keeps the fit from the data's own minimum
            enough = min(enough, float(targets[0][0]) + LEFT_OVER)
        best: FitResult | None = None
        for starts, followed, wide in ((*(STARTS if bound_by_priors else STARTS_WITHOUT_PRIORS), False), STARTS_AGAIN):
            largest = FASTEST_eV2 if wide else USUAL_eV2
            copy = landscape_of(self.experiment, *self._reference, self.pull_names, largest)
            for penalty, centre, limits in regions:
                if best is not None and best.chi2 <= penalty:
                    continue  # the priors alone cost more there
                found = copy.minima(
                    self._residual,
                    centre,
                    snsi,
                    free,
                    limits,
                    priors,
                    starts=starts,
                    wide=wide,
                    targets=targets,
                    followed=followed,
                )
                near = [point for value, point in found if value < found[0][0] * 1.05 + COPY_ERROR]
                for point in near[:LARGEST_POLISHED]:
                    result = self._from(point, centre, snsi, free, theta12_domain, tolerance)
                    result = self._off_the_edges(result, centre, theta12_domain, tolerance)
                    if best is None or result.chi2 < best.chi2:
                        best = result
            if best is not None and best.chi2 < enough:
                break
        assert best is not None
        if best.chi2 > SEARCH_AGAIN_ABOVE:
            for name in free:
                if name.startswith("sin2_"):  # what lies on the other side of such a ridge
                    best = self._lower_of(best, name, 0.0, theta12_domain, tolerance, iterations=EDGE_STEPS)
        return best

    def _off_the_edges(
        self, result: FitResult, centre: OscillationParameters, theta12_domain: Theta12Domain, tolerance: float
    ) -> FitResult:
        """The result, or what is lower beyond the ridge that stands before a mixing angle of 0 or 90 degrees.

        Counts change with the angle there, hence with the root of its squared sine, and priors with the squared sine:
        whatever they ask for, a fit that came near such an edge may stay.
        """
        for name in result.free:
            if not name.startswith("sin2_") or ON_EDGE < read_value(name, result.parameters, None) < 1.0 - ON_EDGE:
                continue
            prior = self.priors.get(name)
            inside = prior.mean if prior is not None else read_value(name, centre, None)
            result = self._lower_of(result, name, inside, theta12_domain, tolerance)
        return result

    def _lower_of(
        self,
        result: FitResult,
        name: str,
        value: float,
        theta12_domain: Theta12Domain,
        tolerance: float,
        iterations: int = 200,
    ) -> FitResult:
        """The lower of a result and of what a descent finds from it with one value changed."""
        low, high = self._limits(name, value, theta12_domain)
        again = self.minimise(
            result.parameters.replace(**{name: min(max(value, low), high)}),
            result.snsi,
            free=result.free,
            theta12_domain=theta12_domain,
            pulls=result.pulls,
            tolerance=tolerance,
            iterations=iterations,
        )
        if again.chi2 < result.chi2 and not again.converged:
            values = again.parameters, again.snsi
            again = self.minimise(
                *values, free=result.free, theta12_domain=theta12_domain, pulls=again.pulls, tolerance=tolerance
            )
        return again if again.chi2 < result.chi2 else result

    @functools.cached_property
    def _targets(self) -> Targets:
        """Where the data are in the effective parameters."""
        return landscape_of(self.experiment, *self._reference, self.pull_names).targets(self._residual)

    def _least_penalty(self, free: tuple[str, ...], limits: list[tuple[float, float]]) -> float:
        """The least that the priors add anywhere inside the limits."""
        total = 0.0
        for name, (low, high) in zip(free, limits, strict=True):
            if name in self.priors:
                prior = self.priors[name]
                total += ((min(max(prior.mean, low), high) - prior.mean) / prior.sigma) ** 2
        return total

    def _from(
        self,
        point: Array,
        start: OscillationParameters,
        snsi: ScalarNSI | None,
        free: tuple[str, ...],
        theta12_domain: Theta12Domain,
        tolerance: float,
    ) -> FitResult:
        """The exact minimum next to one of the copy's."""
        named = dict(zip(free, (float(v) for v in point[: len(free)]), strict=True))
        atmospheric = named.get("dm31_eV2", start.dm31_eV2)
        if 0.0 < atmospheric < named.get("dm21_eV2", start.dm21_eV2):
            named["dm21_eV2"] = atmospheric
        pulls = dict(zip(self.pull_names, (float(v) for v in point[len(free) :]), strict=True))
        moved, moved_snsi = with_values(start, snsi, named)
        return self.minimise(
            moved, moved_snsi, free=free, theta12_domain=theta12_domain, pulls=pulls, tolerance=tolerance
        )


# For each sign of dm31: starts of the search, and starts that are followed to the effective parameters of the data.
STARTS, STARTS_WITHOUT_PRIORS = (48, 16), (48, 32)
# A second search, all over the place: above a chi2 that is excluded anyway, or where the data's own minimum, which some
# parameters nearly always reach, was missed by more than this.
STARTS_AGAIN, SEARCH_AGAIN_ABOVE, LEFT_OVER = (400, 100, True), 2000.0, 1.0
# Minima of the copy that are looked at on the exact chi2: within its error of the lowest, and not more than these.
COPY_ERROR, LARGEST_POLISHED = 12.0, 6


# A squared sine this near to 0 or 1 is at the edge.
ON_EDGE = 1e-4
EDGE_STEPS = 25  # from an edge, before it is seen whether they lead lower

# Most fits end sooner. Where chi2 is large Gauss and Newton's curvature misses much of the true one.
LEARN_AFTER = 12
# Where the learnt curvature ends but the plain one expects this many tolerances more lies a saddle: on with the plain.
SADDLE = 100.0


def _positive(curvature: Array) -> Array:
    """The same with the size of each eigenvalue: every step then goes downhill."""
    values, vectors = np.linalg.eigh(curvature)
    return np.asarray((vectors * np.abs(values)) @ vectors.T)


def _about(centre: OscillationParameters, data: EffectiveParameters) -> OscillationParameters:
    """The centre with the size of the fast splitting that the data show."""
    shift = data.sin2_theta12 * data.dm21_eV2
    fast = abs(data.dm31_eV2 - shift)
    if fast < data.dm21_eV2:  # a scalar term in nature has put the state with the least electron content in between
        fast, shift = data.dm21_eV2, 0.0
    moved = math.copysign(fast, centre.dm31_eV2) + shift
    return centre.replace(dm31_eV2=moved) if abs(moved) > centre.dm21_eV2 else centre


def _errors(curvature: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Standard errors, correlations, and the directions (in units of ``scale``) that the curvature leaves open.

    The curvature is brought to a unit diagonal first, so that no unit decides what counts as flat.
    """
    diagonal = np.sqrt(np.maximum(np.diag(curvature), 0.0))
    seen = diagonal * scale > UNSEEN
    unit = np.where(seen, diagonal, 1.0 / scale)
    values, vectors = np.linalg.eigh(np.where(np.outer(seen, seen), curvature / np.outer(unit, unit), 0.0))
    flat = values <= FLAT * values.max(initial=0.0)
    inverse = (vectors[:, ~flat] / values[~flat]) @ vectors[:, ~flat].T
    covariance = inverse / np.outer(unit, unit)
    width = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    norm = np.outer(width, width)
    correlation = np.divide(covariance, norm, out=np.zeros_like(norm), where=norm > 0)
    directions = (vectors[:, flat] / unit[:, None] / scale[:, None]).T
    touched = (vectors[:, flat] ** 2).sum(axis=1) > FLAT_SHARE
    width[touched] = np.inf
    largest = np.abs(directions).max(axis=1, initial=0.0)[:, None]
    directions = np.divide(directions, largest, out=np.zeros_like(directions), where=largest > 0)
    return width, correlation, np.where(np.abs(directions) > 1e-6, directions, 0.0)


# A parameter whose own step changes chi2 by less than the square of this moves nothing but rounding.
UNSEEN = 1e-8
# An eigenvalue of the curvature with a unit diagonal below this is rounding: the derivatives are exact to some 1e-12.
FLAT = 1e-10
# A parameter is open if this share of it lies along open directions.
FLAT_SHARE = 1e-8
