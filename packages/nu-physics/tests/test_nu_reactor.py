"""Flux, cross section, response and rates against independent integrals and published numbers."""

import math

import numpy as np
import pytest
from nu_physics.errors import InvalidInput
from nu_physics.oscillation import OscillationParameters, ScalarNSI
from nu_physics.reactor import ibd
from nu_physics.reactor.backgrounds import Background
from nu_physics.reactor.experiment import Experiment, Systematics, juno
from nu_physics.reactor.flux import (
    ISOTOPES,
    HuberMueller,
    HuberMuellerTable,
    core_spectrum,
    mean_energy_per_fission_MeV,
)
from nu_physics.reactor.response import Binning, NonLinearity, Resolution, Response, shape_counts
from nu_physics.reactor.sites import Core, load_site, site, site_names
from scipy.integrate import quad

TRUTH = OscillationParameters()


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return juno()


def test_huber_mueller_values_and_the_table_it_came_from() -> None:
    """exp of the polynomial by hand at one point; for a power core the Daya Bay tables agree to 4 %, 2.5 to 6 MeV."""
    by_hand = math.exp(4.367 - 4.577 * 4 + 2.1 * 16 - 0.5294 * 64 + 0.06186 * 256 - 0.002777 * 1024)
    assert HuberMueller().per_fission("U235", np.array([4.0]))[0] == pytest.approx(by_hand, rel=1e-12)
    pytest.importorskip("dayabay_data_official")
    energy = np.linspace(2.5, 6.0, 60)
    share = {"U235": 0.58, "U238": 0.07, "Pu239": 0.30, "Pu241": 0.05}
    polynomial, table = (
        sum(share[k] * model.per_fission(k, energy) for k in ISOTOPES)
        for model in (HuberMueller(), HuberMuellerTable())
    )
    assert np.abs(polynomial / table - 1).max() < 0.04


def test_polynomial_never_rises_above_8_MeV() -> None:
    energy = np.linspace(7.5, 12, 100)
    for isotope in ISOTOPES:
        assert (np.diff(HuberMueller().per_fission(isotope, energy)) < 0).all()
    assert (HuberMueller("zero").per_fission("U235", np.array([8.01])) == 0).all()


def test_antineutrinos_per_fission_above_threshold() -> None:
    """Published integrals of the Huber-Mueller spectra (antineutrinos_per_fission_huber_mueller.yaml), within 3 %."""
    published = {"U235": 1.95912, "U238": 2.57116, "Pu239": 1.49128, "Pu241": 1.88080}
    for isotope, number in published.items():
        total = quad(lambda e, k=isotope: HuberMueller().per_fission(k, np.array([e]))[0], 1.8, 12)[0]
        assert total == pytest.approx(number, rel=0.03)


def test_mean_energy_and_fission_rate() -> None:
    fractions = {"U235": 0.58, "U238": 0.07, "Pu239": 0.30, "Pu241": 0.05}
    mean = 0.58 * 202.36 + 0.07 * 205.99 + 0.30 * 211.12 + 0.05 * 214.26
    assert mean_energy_per_fission_MeV(fractions) == pytest.approx(mean)
    core = core_spectrum(np.array([4.5]), fractions)
    per_fission = sum(fractions[k] * HuberMueller().per_fission(k, np.array([4.5]))[0] for k in ISOTOPES)
    # 1 GW = 6.241509e21 MeV/s; at 4.5 MeV there is neither spent fuel nor non-equilibrium
    assert core.total[0] == pytest.approx(6.241509e21 / mean * per_fission, rel=1e-6)


def test_cross_section_orders_agree_where_they_must() -> None:
    energy = np.array([2.0, 3.0, 4.0, 6.0, 8.0, 10.0])
    full = ibd.cross_section_strumia_vissani(energy)
    # ratios of the design study, computed there by other code from the same paper
    assert full / ibd.cross_section_approximate(energy) == pytest.approx(
        [0.9934, 1.0020, 1.0032, 1.0017, 0.9995, 0.9978], abs=3e-4
    )
    assert ibd.cross_section_first_order(energy) / full == pytest.approx(np.ones(6), abs=8e-3)
    assert ibd.cross_section_zeroth_order(np.array([2.0, 10.0])) / full[[0, -1]] == pytest.approx(
        [1.010, 1.079], abs=2e-3
    )


def test_strumia_vissani_table_value() -> None:
    """Their closed form, fitted to their own full result, at 4 MeV; its constants are those of 2003."""
    assert ibd.cross_section_strumia_vissani(4.0) == pytest.approx(6.73e-43, rel=0.01)


def test_cross_section_is_exactly_zero_below_threshold() -> None:
    below = np.array([0.5, 1.5, 1.80, ibd.THRESHOLD_MeV - 1e-9])
    for order in ibd.CROSS_SECTIONS:
        assert (ibd.cross_section(below, order) == 0).all()
    assert pytest.approx(1.8061, abs=2e-4) == ibd.THRESHOLD_MeV


def test_gauss_legendre_equals_adaptive_quadrature() -> None:
    for energy in (2.0, 4.0, 9.0):
        low, high = ibd.positron_energy_limits(energy)
        inside = (float(low) + 1e-12, float(high) - 1e-12)
        slow = quad(lambda e, nu=energy: float(ibd.differential_strumia_vissani(nu, e)), *inside, epsrel=1e-10)[0]
        assert ibd.cross_section_strumia_vissani(energy) == pytest.approx(slow, rel=1e-8)


def test_mean_recoil_follows_the_average_cosine() -> None:
    """<E_e> = E - Delta - recoil; at 6 MeV the positron is 25 to 50 keV below E - Delta."""
    positron, weight = ibd.positron_nodes(np.array([6.0]))
    mean = (positron * weight).sum() / weight.sum()
    assert 0.025 < 6.0 - 1.29333 - mean < 0.050


def test_juno340() -> None:
    edges = Binning.juno340().edges_MeV
    widths = np.round(np.diff(edges), 6)
    assert widths[0] == 0.14
    assert (widths[1:326] == 0.02).all()
    assert (widths[326:335] == 0.04).all()
    assert (widths[335:339] == 0.1).all()
    assert widths[339] == 3.8


def test_response_conserves_events_and_matches_a_dense_convolution() -> None:
    binning = Binning(np.linspace(0.0, 14.0, 141) + 1e-9)
    resolution, curve = Resolution.juno(), NonLinearity.juno()
    energy = np.array([2.5, 4.0, 7.0])
    response = Response(energy, binning, resolution, curve)
    matrix = response.dense()
    assert matrix.sum(axis=0) == pytest.approx(np.ones(3), abs=1e-8)
    # slow oracle: integrate the smeared differential cross section directly
    for column, nu in enumerate(energy):
        low, high = (float(v) for v in ibd.positron_energy_limits(nu))
        grid = np.linspace(low, high, 4001)[1:-1]
        weight = ibd.differential_strumia_vissani(nu, grid)
        weight /= weight.sum()
        visible = curve.visible_MeV(grid + 0.51099895)
        sigma = resolution.sigma_MeV(visible)
        upper = 0.5 * (1 + np.vectorize(math.erf)((binning.edges_MeV[:, None] - visible) / sigma / math.sqrt(2)))
        slow = np.diff(upper, axis=0) @ weight
        assert np.abs(matrix[:, column] - slow).max() < 1e-5


@pytest.mark.parametrize("name", ["nonlinearity_1", "nonlinearity_4", "resolution_a", "resolution_c"])
def test_response_derivatives(name: str) -> None:
    energy = np.linspace(2.0, 8.0, 25)
    resolution, curve = Resolution.juno(), NonLinearity.juno()
    binning = Binning.juno340()
    middle = Response(energy, binning, resolution, curve)
    source = np.ones(25)
    h = 0.05

    def moved(sign: float) -> np.ndarray:
        if name.startswith("resolution"):
            k = "abc".index(name[-1])
            values = [resolution.a, resolution.b, resolution.c]
            values[k] += sign * h * resolution.uncertainty[k]
            return Response(energy, binning, Resolution(*values), curve).apply(source)
        return Response(energy, binning, resolution, curve, pulls={name: sign * h}).apply(source)

    numeric = (moved(1) - moved(-1)) / (2 * h)
    ours = middle.derivative(name, source)
    assert np.abs(ours - numeric).max() < 1e-3 * np.abs(numeric).max()


def test_rates_against_the_published_table(experiment: Experiment) -> None:
    """Per core within 2 %, total within 5 % (published after selection: 47.1 a day)."""
    published = {
        "Taishan-1": 7.5,
        "Taishan-2": 7.6,
        "Yangjiang-1": 4.8,
        "Yangjiang-2": 4.7,
        "Yangjiang-3": 4.8,
        "Yangjiang-4": 4.8,
        "Yangjiang-5": 4.9,
        "Yangjiang-6": 4.9,
        "Daya Bay": 3.0,
    }
    rates = experiment.rate_per_core(TRUTH)
    for name, rate in published.items():
        assert rates[name] == pytest.approx(rate, rel=0.02)
    assert sum(rates.values()) == pytest.approx(47.1, rel=0.05)
    # before selection and without the flux deficit, the design study's independent 60.0 a day
    source = experiment.interactions_per_day * experiment.survival(TRUTH) / 0.955
    assert source.sum() == pytest.approx(60.1, rel=0.05)


def test_expected_equals_a_loop_over_cores(experiment: Experiment) -> None:
    """The flux-weighted kernel against one core at a time through the public probability."""
    from nu_physics.oscillation import survival

    snsi = ScalarNSI(ee=0.01, em=0.003j)
    nature = TRUTH.replace(m_lightest_eV=0.02)
    total = np.zeros(experiment.energy_MeV.size)
    for core, share in zip(experiment.site.cores, experiment.site.flux_share, strict=True):
        total += share * survival(
            experiment.energy_MeV, core.baseline_km, nature, snsi, density_g_cm3=experiment.site.density_g_cm3
        )
    assert np.abs(experiment.survival(nature, snsi) - total).max() < 1e-13
    assert (
        np.abs(
            experiment.expected(nature, snsi)
            - experiment.background
            - experiment.response.dense() @ (experiment.events * total)
        ).max()
        < 1e-9
    )


def test_five_keV_steps_suffice(experiment: Experiment) -> None:
    fine = juno(step_MeV=0.0025)
    coarse, better = experiment.signal(TRUTH), fine.signal(TRUTH)
    assert np.abs(coarse / better - 1)[5:330].max() < 2e-4


def test_signal_gradient(experiment: Experiment) -> None:
    names = ("sin2_theta12", "dm31_eV2", "eta_ee", "m_lightest_eV")
    nature, snsi = TRUTH.replace(m_lightest_eV=0.02), ScalarNSI(ee=0.004)
    source, slope = experiment.source_gradient(nature, snsi, names)
    assert source == pytest.approx(experiment.events * experiment.survival(nature, snsi), abs=1e-10)
    for k, (name, h) in enumerate(zip(names, (1e-5, 1e-8, 1e-6, 1e-6), strict=True)):
        from nu_physics.statistics.fit import read_value, with_values

        middle = read_value(name, nature, snsi)
        up = experiment.signal(*with_values(nature, snsi, {name: middle + h}))
        down = experiment.signal(*with_values(nature, snsi, {name: middle - h}))
        numeric = (up - down) / (2 * h)
        ours = experiment.response.apply(slope[k])
        assert np.abs(ours - numeric).max() < 1e-6 * np.abs(numeric).max(), name


def test_events_follow_the_bins() -> None:
    from scipy.stats import kstest

    binning = Binning(np.linspace(0.7, 12.0, 2000))
    curve = NonLinearity.juno()
    fine = Experiment(site("juno-2022"), binning, Resolution.juno(), curve, exposure_days=100.0, with_backgrounds=False)
    events = fine.sample_events(TRUTH, count=200_000, seed=3)
    cumulative = np.concatenate([[0.0], np.cumsum(fine.signal(TRUTH))])
    cumulative /= cumulative[-1]
    assert kstest(events, lambda x: np.interp(x, binning.edges_MeV, cumulative)).pvalue > 0.01
    assert (events[:100] == fine.sample_events(TRUTH, count=200_000, seed=3)[:100]).all()


def test_systematic_templates(experiment: Experiment) -> None:
    templates = experiment.templates(TRUTH)
    signal = experiment.signal(TRUTH)
    assert templates["flux"] == pytest.approx(0.02 * signal)
    cores = sum(v for k, v in templates.items() if k.startswith("power"))
    assert cores == pytest.approx(0.008 * signal)
    assert not juno(systematics=Systematics.none(), with_backgrounds=False, nonlinearity_pulls=False).templates(
        TRUTH
    ).keys() - {"resolution_a", "resolution_b", "resolution_c"}


def test_sites() -> None:
    assert site_names() == ["dayabay", "juno-2015", "juno-2022"]
    old = site("juno-2015")
    near = [c for c in old.cores if c.baseline_km < 60]
    assert sum(c.power_GW for c in near) == pytest.approx(35.8)
    assert site("juno-2022").flux_share.sum() == pytest.approx(1.0)


def test_a_site_of_ones_own(tmp_path) -> None:
    text = """
[mine]
description = "one core"
target_protons = 1e30
efficiency = 0.8
density_g_cm3 = 2.6
electron_fraction = 0.5
flux_normalisation = 1.0
fission_fractions = { U235 = 1.0 }
cores = [{ name = "A", power_GW = 3.0, baseline_km = 1.5 }]
"""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert load_site(path).cores == (Core("A", 3.0, 1.5),)
    path.write_text(text.replace("baseline_km", "baselin_km"))
    with pytest.raises(InvalidInput, match="did you mean baseline_km"):
        load_site(path)
    path.write_text(text.replace("efficiency = 0.8\n", ""))
    with pytest.raises(InvalidInput, match="lacks efficiency"):
        load_site(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HuberMueller().per_fission("U236", np.ones(1)), "did you mean U238 or U235"),
        (lambda: mean_energy_per_fission_MeV({"U235": 0.5}), r"sum to 0.5"),
        (lambda: mean_energy_per_fission_MeV({"U235": -0.5}), "fission fraction of U235"),
        (lambda: Binning(np.array([1.0, 0.5])), r"edges_MeV\[1\] = .*sort"),
        (lambda: Binning(np.array([])), "empty"),
        (lambda: Resolution(0, 0, 0), "at least one"),
        (lambda: NonLinearity((1.0, -2.0, 1.0, 0.0)), "monotone"),
        (lambda: Background("x", -1.0, 0.1, 0.1, np.ones(3)), "rate_per_day of 'x' = -1"),
        (lambda: Core("x", -1.0, 1.0), "power_GW of core 'x'"),
        (lambda: site("juno"), "did you mean juno-20"),
        (lambda: juno(layout="dayabay"), "layout = 'dayabay'"),
        (lambda: juno(exposure_days=0), "exposure_days = 0"),
        (lambda: juno(duty_cycle=1.1), "duty_cycle = 1.1"),
        (lambda: ibd.cross_section(4.0, "nlo"), "order = 'nlo'"),
        (lambda: ibd.cross_section([4.0, math.nan]), r"energy_MeV\[1\]"),
        (lambda: shape_counts(np.array([20.0, 30.0]), np.ones(2), Binning.juno340()), "no content"),
        (lambda: Systematics(flux=-1), "systematics flux"),
    ],
)
def test_bad_input(call, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()
