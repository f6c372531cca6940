"""Likelihoods against dense algebra and a general minimiser; fits against exact properties; the bars of JUNO."""

import numpy as np
import pytest
from nu_physics.errors import InvalidInput
from nu_physics.oscillation import OscillationParameters, ScalarNSI
from nu_physics.reactor.experiment import Experiment, juno
from nu_physics.reactor.response import Response
from nu_physics.statistics.analysis import (
    eta_bound,
    eta_profile,
    mass_ordering,
    precision,
    toys,
)
from nu_physics.statistics.fit import Fit, Prior
from nu_physics.statistics.likelihood import CombinedNeymanPearson, Gaussian, Poisson, likelihood
from scipy.optimize import brentq, minimize

TRUTH = OscillationParameters()
INVERTED = OscillationParameters(m_lightest_eV=0.01).with_ordering("inverted")


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return juno()


@pytest.fixture
def counts() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    mean = generator.uniform(0.5, 60.0, 40)
    data = generator.poisson(mean).astype(float)
    templates = generator.normal(size=(4, 40)) * 0.05 * mean
    return data, mean, templates, (0.03 * mean) ** 2


def test_woodbury_equals_the_dense_inverse(counts) -> None:
    data, mean, templates, shape = counts
    ours = Gaussian(data, mean + shape, templates)
    covariance = np.diag(mean + shape) + templates.T @ templates
    r = data - mean
    assert ours.chi2(mean) == pytest.approx(r @ np.linalg.solve(covariance, r), rel=1e-12)
    # the profiled pulls minimise the explicit form
    pulls = ours.systematics(mean)
    explicit = ((r - pulls @ templates) ** 2 / (mean + shape)).sum() + pulls @ pulls
    assert explicit == pytest.approx(ours.chi2(mean), rel=1e-12)


def test_cnp_is_the_published_average_of_pearson_and_neyman(counts) -> None:
    data, mean, _, _ = counts
    data = np.maximum(data, 1.0)
    ours = CombinedNeymanPearson(data, np.zeros(40), np.empty((0, 40)))
    neyman = ((data - mean) ** 2 / data).sum()
    pearson = ((data - mean) ** 2 / mean).sum()
    assert ours.chi2(mean) == pytest.approx((neyman + 2 * pearson) / 3, rel=1e-12)


def test_poisson_profile_equals_a_general_minimiser(counts) -> None:
    data, mean, templates, shape = counts
    ours = Poisson(data, np.sqrt(shape) / mean, templates)
    delta = np.sqrt(shape) / mean

    def explicit(x: np.ndarray) -> float:
        pulls, beta = x[:4], x[4:]
        mu = beta * (mean + pulls @ templates)
        if (mu <= 0).any():
            return 1e9
        log = np.where(data > 0, data * np.log(np.where(data > 0, data, 1) / mu), 0.0)
        return float((2 * (mu - data + log)).sum() + pulls @ pulls + (((beta - 1) / delta) ** 2).sum())

    slow = minimize(
        explicit,
        np.concatenate([np.zeros(4), np.ones(40)]),
        method="L-BFGS-B",
        options={"maxfun": 10**6, "ftol": 1e-14, "gtol": 1e-9},
    )
    assert ours.chi2(mean) == pytest.approx(slow.fun, abs=1e-5)


@pytest.mark.parametrize("statistic", ["gaussian", "cnp", "poisson"])
def test_linearised_gradient(counts, statistic: str) -> None:
    data, mean, templates, shape = counts
    data = data.copy()
    data[3] = 0.0
    model = likelihood(statistic, data, mean, shape, templates)
    direction = np.vstack([0.1 * mean, np.sin(np.arange(40))])
    _, gradient, curvature = model.linearise(mean, direction)
    for k in range(2):
        h = 1e-4
        numeric = (model.chi2(mean + h * direction[k]) - model.chi2(mean - h * direction[k])) / (2 * h)
        assert 2 * gradient[k] == pytest.approx(numeric, rel=1e-5)
    assert (np.linalg.eigvalsh(curvature) > 0).all()


def test_statistics_agree_at_high_counts(experiment: Experiment) -> None:
    """With 1e5 events the three give the same preference for the ordering within 3 %."""
    values = {s: mass_ordering(experiment, TRUTH, statistic=s).preference for s in ("gaussian", "cnp", "poisson")}
    assert values["cnp"] == pytest.approx(values["gaussian"], rel=0.03)
    assert values["poisson"] == pytest.approx(values["gaussian"], rel=0.03)


def test_fit_returns_to_the_truth_from_afar(experiment: Experiment) -> None:
    fit = Fit(experiment, experiment.expected(TRUTH), TRUTH)
    start = TRUTH.replace(sin2_theta12=0.36, dm21_eV2=8.1e-5, dm31_eV2=2.535e-3, sin2_theta13=0.03)
    result = fit.minimise(start, theta12_domain="light")
    assert result.converged
    assert result.chi2 < 1e-8
    assert result.parameters.dm31_eV2 == pytest.approx(TRUTH.dm31_eV2, rel=1e-7)
    assert (result.regime, result.vacuum_ordering, result.effective_ordering) == ("free", "normal", "normal")


def test_best_finds_the_right_wrap_sign_and_octant(experiment: Experiment) -> None:
    fit = Fit(experiment, experiment.expected(TRUTH), TRUTH)
    result = fit.best(TRUTH.with_ordering("inverted").replace(sin2_theta12=0.65))
    assert result.chi2 < 1e-6
    assert result.parameters.sin2_theta12 == pytest.approx(0.307, abs=1e-6)
    assert result.vacuum_ordering == "normal"


def test_chi2_of_a_fit_is_its_value_at_the_minimum(experiment: Experiment) -> None:
    fit = Fit(experiment, experiment.expected(TRUTH), TRUTH, priors={"sin2_theta13": Prior(0.0218, 7e-4)})
    result = fit.minimise(TRUTH.with_ordering("inverted"), theta12_domain="light")
    assert result.chi2 == pytest.approx(fit.chi2(result.parameters, pulls=result.pulls), rel=1e-10)
    # and it is a minimum: no direction improves it
    for name, step in (("dm31_eV2", 1e-6), ("dm21_eV2", 1e-7), ("sin2_theta12", 1e-3), ("sin2_theta13", 1e-4)):
        for sign in (-1, 1):
            value = getattr(result.parameters, name) + sign * step
            assert fit.chi2(result.parameters.replace(**{name: value}), pulls=result.pulls) > result.chi2


def test_errors_are_where_chi2_rises_by_one(experiment: Experiment) -> None:
    fit = Fit(experiment, experiment.expected(TRUTH), TRUTH)
    result = fit.minimise(TRUTH)
    free = ("sin2_theta12", "sin2_theta13", "dm31_eV2")
    moved = TRUTH.replace(dm21_eV2=TRUTH.dm21_eV2 + result.errors["dm21_eV2"])
    assert fit.minimise(moved, free=free).chi2 == pytest.approx(1.0, rel=0.02)


def test_pulls_move_energy_to_first_order_only(experiment: Experiment) -> None:
    """The fitted pulls of the wrong ordering are below one sigma, where the bilinear response equals the exact one."""
    result = mass_ordering(experiment, TRUTH).inverted
    assert max(abs(v) for v in result.pulls.values()) < 1.0
    exact = Response(
        experiment.energy_MeV, experiment.binning, experiment.resolution, experiment.nonlinearity, pulls=result.pulls
    )
    source = experiment.events * experiment.survival(result.parameters)
    linear = experiment.response.apply(source) + sum(
        v * experiment.response.derivative(k, source) for k, v in result.pulls.items()
    )
    assert np.sqrt(((exact.apply(source) - linear) ** 2 / exact.apply(source))[1:].sum()) < 0.1


# -- the bars of JUNO ------------------------------------------------------------------------------------------------


def test_ordering_sensitivity(experiment: Experiment) -> None:
    """arXiv:2405.18008: 3 sigma at 6.5 years x 26.6 GW."""
    normal = mass_ordering(experiment, TRUTH)
    assert 8.5 <= normal.preference <= 9.5
    assert normal.normal.chi2 < 1e-6
    assert normal.inverted.parameters.dm31_eV2 == pytest.approx(-2.503e-3, rel=2e-3)
    inverted = mass_ordering(experiment, TRUTH.with_ordering("inverted"))
    assert 8.5 <= inverted.preference <= 9.5


def test_no_ordering_without_an_octant(experiment: Experiment) -> None:
    assert mass_ordering(experiment, TRUTH, theta12_domain="both").preference < 0.2


@pytest.mark.parametrize(("eta", "low", "high"), [(-7.1e-3, 3.5, 4.8), (3.3e-3, 3.5, 5.8)])
def test_ordering_with_a_scalar_term_in_nature(experiment: Experiment, eta: float, low: float, high: float) -> None:
    """arXiv:2602.05564: below 2 sigma for eta_ee < -7.1e-3 or > 3.3e-3."""
    assert low <= mass_ordering(experiment, INVERTED, ScalarNSI(ee=eta)).preference <= high


def test_ordering_is_lost_at_the_resonance(experiment: Experiment) -> None:
    crossing = brentq(
        lambda eta: mass_ordering(experiment, INVERTED, ScalarNSI(ee=eta)).preference, 5e-3, 6.5e-3, xtol=1e-5
    )
    assert 5.3e-3 <= crossing <= 6.3e-3


@pytest.mark.parametrize("ordering", ["normal", "inverted"])
def test_juno_alone_cannot_constrain_eta(experiment: Experiment, ordering: str) -> None:
    truth = TRUTH.with_ordering(ordering)
    free = eta_profile(experiment, truth, np.array([-0.02, 0.003, 0.02]), regime="free")
    assert free.max() < 1e-6
    assert eta_bound(experiment, truth, regime="free", search=0.02).high is None


def test_bounds_with_outside_knowledge(experiment: Experiment) -> None:
    """The design study's independent prototype: chi2 20.7 at 0.02 (normal), 14.3 at -0.0015 (inverted), with priors."""
    normal = eta_profile(experiment, TRUTH, np.array([0.02]), regime="prior")
    assert normal[0] == pytest.approx(20.7, rel=0.05)
    inverted = eta_profile(experiment, TRUTH.with_ordering("inverted"), np.array([-0.0015]), regime="prior")
    assert inverted[0] == pytest.approx(14.3, rel=0.05)
    fixed = eta_bound(experiment, TRUTH.with_ordering("inverted"), regime="fixed")
    assert fixed.high == pytest.approx(1.65e-4, rel=0.1)
    # the inverted ordering is the better constrained one
    assert eta_bound(experiment, TRUTH, regime="fixed").high > 5 * fixed.high


def test_precision_of_six_years() -> None:
    """arXiv:2204.13249 Table 6: 0.2, 0.3, 0.5, 12.1 per cent within 15 %, but for dm31, which misses it (README)."""
    result = precision(juno(exposure_days=6 * 365.25), TRUTH)
    assert result.regime == "free"
    percent = result.relative_percent
    # what we find, 0.231, and not what is published, 0.2: the claim of `reproduce` fails and says so
    assert percent["dm31_eV2"] == pytest.approx(0.231, abs=0.002)
    assert percent["dm21_eV2"] == pytest.approx(0.3, rel=0.15)
    assert percent["sin2_theta12"] == pytest.approx(0.5, rel=0.15)
    assert percent["sin2_theta13"] == pytest.approx(12.1, rel=0.15)


def test_toys_follow_the_gaussian_approximation(experiment: Experiment) -> None:
    """Mean T0, width 2 sqrt(T0); 150 toys know the mean to 5.6 %, the width to 5.8 %: two of these allowed."""
    result = toys(experiment, TRUTH, count=150, seed=11)
    assert result.mean == pytest.approx(result.asimov, rel=0.12)
    assert result.width == pytest.approx(2 * result.asimov**0.5, rel=0.12)
    again = toys(experiment, TRUTH, count=3, first=5, seed=11)
    assert again.statistic == pytest.approx(result.statistic[5:8], abs=1e-9)


@pytest.mark.slow
def test_two_thousand_event_level_toys(experiment: Experiment) -> None:
    result = toys(experiment, TRUTH, count=2000, seed=1, event_level=True)
    assert result.mean == pytest.approx(result.asimov, rel=0.1)
    assert result.width == pytest.approx(2 * result.asimov**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: Fit(e, np.ones(3), TRUTH), r"shape \(3,\)"),
        (lambda e: Fit(e, np.full(340, -1.0), TRUTH), "bin 0 is negative"),
        (lambda e: Fit(e, e.expected(TRUTH), TRUTH, statistic="neyman"), "statistic = 'neyman'"),
        (lambda e: Fit(e, e.expected(TRUTH), TRUTH, priors={"theta13": Prior(0, 1)}), "did you mean sin2_theta13"),
        (lambda e: Fit(e, e.expected(TRUTH), TRUTH).minimise(TRUTH, free=("dm32",)), "did you mean"),
        (lambda e: Fit(e, e.expected(TRUTH), TRUTH).minimise(TRUTH, free=("density_g_cm3",)), "belongs to the site"),
        (lambda e: Prior(1.0, 0.0), "prior sigma"),
        (lambda e: eta_profile(e, TRUTH, np.zeros(1), regime="loose"), "regime = 'loose'"),
        (lambda e: toys(e, TRUTH, count=0), "count = 0"),
        (lambda e: Gaussian(np.ones(2), np.array([1.0, 0.0]), np.empty((0, 2))), r"variance\[1\]"),
    ],
)
def test_bad_input(experiment: Experiment, call, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        call(experiment)
