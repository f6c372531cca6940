"""Solar WIMPs: capture, equilibrium, spectra, propagation, telescope, limits, models, bounds."""

import dataclasses
import importlib.util
import json
import math
import warnings

import numpy as np
import pytest
from nu_physics.cli import main
from nu_physics.errors import InvalidInput
from nu_physics.solar import bounds
from nu_physics.solar.bounds import BoundsJob, rate_bound, rates, run_bounds
from nu_physics.solar.capture import capture_rate
from nu_physics.solar.channels import CHANNELS, check_open
from nu_physics.solar.cross_sections import cross_sections
from nu_physics.solar.equilibrium import EquilibriumWarning, annihilation_rate, effective_volume_cm3
from nu_physics.solar.form_factors import helm
from nu_physics.solar.halo import BoostedMaxwell, TabulatedSpeeds
from nu_physics.solar.limits import DirectDetectionLimit, limit, limit_names, read_limit
from nu_physics.solar.models import MixedChannels, SingletScalar
from nu_physics.solar.muons import energy_loss, muon_range_g_cm2, muons_per_neutrino
from nu_physics.solar.propagation import propagation_matrix
from nu_physics.solar.spectra import source_spectrum, spectrum_table
from nu_physics.solar.sun import SUN_AGE_s, solar_model
from nu_physics.solar.telescope import arca
from oracles import capture_quadrature, muon_loss_proposal, solar_straight_line
from scipy.integrate import quad, solve_ivp

MASSES = (20.0, 50.0, 100.0, 500.0, 1000.0, 5000.0)


def thinned(shells):
    """The Sun on fewer shells, for oracles that take their time."""
    sun = solar_model()
    keep = np.unique(np.linspace(0, sun.radius.size - 1, shells).astype(int))
    names = ("radius", "mass", "temperature_K", "density_g_cm3")
    parts = {name: getattr(sun, name)[keep] for name in names}
    return dataclasses.replace(sun, name="thinned", mass_fraction=sun.mass_fraction[:, keep], **parts)


# -- the Sun and capture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b16-agss09", "b16-gs98"])
def test_the_sun_weighs_one_sun(name):
    sun = solar_model(name)
    assert sun.volume_integral(sun.density_g_cm3) / 1.98841e33 == pytest.approx(1.0, abs=2e-3)
    assert sun.column_g_cm2 == pytest.approx(1.484e12, rel=0.01)
    assert sun.escape_speed_km_s[[0, -1]] == pytest.approx([1381, 618], abs=1.5)
    assert sun.mass_fraction.sum(0) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("mass", MASSES)
def test_capture_equals_adaptive_quadrature(mass):
    sun = thinned(24)
    ours = capture_rate(mass, sigma_si_cm2=1e-45, sun=sun).thin_rate_per_s
    assert ours == pytest.approx(capture_quadrature.capture(mass, 1e-45, 0.0, sun), rel=1e-6)
    ours = capture_rate(mass, sigma_sd_cm2=1e-40, sun=sun).thin_rate_per_s
    assert ours == pytest.approx(capture_quadrature.capture(mass, 0.0, 1e-40, sun), rel=1e-6)


@pytest.mark.parametrize(("mass", "rate"), [(20.0, 3.863e20), (100.0, 9.162e19), (1000.0, 2.855e18)])
def test_capture_of_an_independent_prototype(mass, rate):
    assert capture_rate(mass, sigma_si_cm2=1e-45).rate_per_s == pytest.approx(rate, rel=5e-3)


@pytest.mark.parametrize("mass", [20.0, 1000.0])
def test_a_truncated_halo_in_closed_form_equals_its_table(mass):
    halo = BoostedMaxwell(escape_speed_km_s=550.0)
    u = np.linspace(0.0, 780.0, 15601)
    tabulated = TabulatedSpeeds(tuple(u), tuple(halo.speed_density(u)))
    for options in ({"sigma_si_cm2": 1e-45}, {"sigma_sd_cm2": 1e-40}):
        closed = capture_rate(mass, halo=halo, **options).rate_per_s
        assert capture_rate(mass, halo=tabulated, **options).rate_per_s == pytest.approx(closed, rel=3e-5)


def test_helm_against_nested_quadrature():
    mass, number, sun = 100.0, 55.845, thinned(5)
    nucleus = 0.93149410242 * number
    plus, minus = (4 * mass * nucleus / (mass + s * nucleus) ** 2 for s in (1, -1))
    halo = BoostedMaxwell()

    def shell(v):
        def over_speed(u):
            w2 = u * u + v * v
            least, most = (0.5 * mass * factor / 299792.458**2 for factor in (u * u, plus * w2))
            kept = quad(lambda e: float(helm(np.array(e), number)), least, most, epsrel=1e-7)[0]
            return float(halo.speed_density(np.array(u))) / u * w2 * kept / most

        return quad(over_speed, 1e-6, min(v * math.sqrt(minus), 3000.0), epsrel=1e-6, limit=100)[0]

    inner = np.array([shell(v) for v in sun.escape_speed_km_s])
    row = sun.isotopes.index("Fe")
    nuclei = sun.density_g_cm3 * sun.mass_fraction[row] / (nucleus * 1.78266192e-24)
    reduced = nucleus * (mass + 0.93827208816) / (0.93827208816 * (mass + nucleus))
    expected = 0.3 / mass * 1e5 * 1e-45 * (number * reduced) ** 2 * sun.volume_integral(nuclei * inner)
    found = capture_rate(mass, sigma_si_cm2=1e-45, sun=sun, form_factor="helm").per_element_per_s["Fe"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_fit_of_1996_is_near():
    for mass in MASSES[:-1]:
        exact, fit = (capture_rate(mass, sigma_si_cm2=1e-45, method=m).rate_per_s for m in ("gould", "jkg"))
        assert 0.80 < exact / fit < 1.25
        exact, fit = (capture_rate(mass, sigma_sd_cm2=1e-40, method=m).rate_per_s for m in ("gould", "jkg"))
        assert 0.75 < exact / fit < 1.0


def test_an_opaque_sun_is_flagged_and_bounded():
    thin, opaque = (capture_rate(100.0, sigma_sd_cm2=s) for s in (1e-40, 1e-34))
    assert not thin.saturated
    assert opaque.saturated
    assert opaque.rate_per_s == opaque.geometric_limit_per_s < opaque.thin_rate_per_s
    assert sum(opaque.per_element_per_s.values()) == pytest.approx(opaque.thin_rate_per_s, rel=1e-12)


# -- equilibrium -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [1e16, 8.36e18, 1e21])
def test_tanh_squared_solves_the_balance(capture):
    mass = 100.0
    per_pair = 3e-26 * effective_volume_cm3(2, mass) / effective_volume_cm3(1, mass) ** 2
    scale = math.sqrt(capture / per_pair)  # N in equilibrium
    rate = math.sqrt(capture * per_pair)
    solved = solve_ivp(lambda _, n: rate * SUN_AGE_s * (1.0 - n * n), (0, 1), [0.0], rtol=1e-12, atol=1e-14)
    expected = 0.5 * per_pair * (solved.y[0, -1] * scale) ** 2
    assert annihilation_rate(capture, mass).rate_per_s == pytest.approx(expected, rel=1e-8)


def test_effective_volumes_follow_the_harmonic_core():
    # a heavy particle sees constant density: V_j = (2 pi T / j m phi'')^1.5
    sun = solar_model()
    curvature = 4 / 3 * math.pi * 6.6743e-8 * sun.density_g_cm3[0]
    for j, mass in ((1, 1e5), (2, 1e5)):
        temperature = 8.617333262e-14 * sun.temperature_K[0] * 2.99792458e10**2 / (j * mass)
        assert effective_volume_cm3(j, mass) == pytest.approx((2 * math.pi * temperature / curvature) ** 1.5, rel=2e-3)


def test_assumed_equilibrium_warns_where_it_is_wrong():
    with pytest.warns(EquilibriumWarning, match="share 0.4"):
        assumed = annihilation_rate(8.36e18, 100.0, equilibrium="assume")
    assert assumed.rate_per_s == 4.18e18
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        annihilation_rate(1e21, 100.0, equilibrium="assume")


# -- cross sections, propagation, spectra ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "antineutrino", "at_100", "at_1000"),
    # per nucleon of an isoscalar target, 1e-38 cm2/GeV: Cooper-Sarkar, Mertsch & Sarkar, as in taurunner 1.0.0
    [("CC", False, 0.653, 0.625), ("CC", True, 0.332, 0.355), ("NC", False, 0.203, 0.197), ("NC", True, 0.116, 0.122)],
)
def test_cross_sections_are_near_the_next_order(kind, antineutrino, at_100, at_1000):
    found = cross_sections().isoscalar(np.array([100.0, 1000.0]), kind=kind, antineutrino=antineutrino)
    tolerance = 0.16 if kind == "NC" else 0.08
    assert found / [100.0, 1000.0] * 1e38 == pytest.approx([at_100, at_1000], rel=tolerance)


def test_a_tau_needs_energy():
    tables = cross_sections()
    light, heavy = (tables.isoscalar(np.array([2.0, 100.0, 1e4]), kind=k, antineutrino=False) for k in ("CC", "CC tau"))
    assert heavy[0] == 0.0
    assert heavy[1:] / light[1:] == pytest.approx([0.74, 0.985], abs=0.02)


def test_spectra_of_outgoing_leptons_are_normalised():
    tables = cross_sections()
    for energy in (12.0, 345.0, 9000.0):
        for target in ("proton", "neutron"):
            density = tables.inelasticity(energy, antineutrino=True, target=target)
            assert density.mean() == pytest.approx(1.0, abs=1e-5)


def test_propagation_loses_and_never_gains():
    matrix = propagation_matrix()
    arrived = matrix.elements.sum(axis=(0, 1))  # (6, n): of one neutrino
    assert np.all((arrived[:, 0] > 0.95) & (arrived[:, 0] < 1.0))  # an optical depth of 4 % at 5 GeV
    tau, muon = arrived[2], arrived[1]
    assert np.all(np.diff(arrived[1, 20:]) < 1e-3)
    assert tau[-1] > 0.5 > muon[-1]  # a tau neutrino comes back as another
    upward = np.triu_indices(matrix.centres_GeV.size, 1)
    assert not matrix.elements.swapaxes(1, 2)[:, :, upward[1], upward[0]].any()


def test_low_energies_oscillate_as_averaged_adiabatic_probabilities():
    # 5 GeV electron neutrino, normal ordering: the higher resonance leaves it in mass state 3
    matrix = propagation_matrix()
    probability = matrix.elements[:3, 0, 0, 0]
    assert probability == pytest.approx([0.0218, 0.545 * 0.978, 0.455 * 0.978], abs=0.03)


def test_tau_spectra_count_their_neutrinos():
    spectrum = source_spectrum("tautau", 500.0)
    assert spectrum.number[2].sum() == pytest.approx(1.0, abs=0.03)
    assert spectrum.number[0].sum() == pytest.approx(0.1782, abs=0.02)  # the leptonic branching ratio
    energy = np.sqrt(spectrum.edges_GeV[1:] * spectrum.edges_GeV[:-1])
    assert (spectrum.number * energy).sum() < 2 * 500.0
    assert spectrum.number[1] == pytest.approx(spectrum.number[4])


def test_spectra_between_masses_lie_between():
    table = spectrum_table()
    low, high = table.masses_GeV["bb"][6:8]
    middle = float(np.sqrt(low * high))
    at = table.at("bb", middle)[0][0]
    assert at == pytest.approx(0.5 * (table.light["bb"][6] + table.light["bb"][7]), rel=1e-5)


def test_monte_carlo_errors_of_the_table_are_small():
    table = spectrum_table()
    for name, light in table.light.items():
        error = np.sqrt((table.light_error[name] ** 2).sum(1))
        assert (error < 0.04 * light.sum(1)).all(), name
        assert (error > 0.001 * light.sum(1)).all(), name  # nobody generated millions


def test_lines_and_closed_channels():
    line = source_spectrum("numunumu", 1000.0)
    assert line.number.sum(1) == pytest.approx([0, 1, 0, 0, 1, 0], abs=1e-15)
    centres = np.log(line.edges_GeV[1:] * line.edges_GeV[:-1]) / 2
    low, high = np.flatnonzero(line.number[1])
    assert (high - low, centres[low] < math.log(1000.0) < centres[high]) == (1, True)
    assert line.number[1] @ centres == pytest.approx(math.log(1000.0), rel=1e-14)
    for name, mass in (("WW", 80.0), ("tt", 172.0), ("hh", 125.0)):
        with pytest.raises(InvalidInput, match="closed"):
            source_spectrum(name, mass)
    assert check_open("WW", 80.3692) is CHANNELS["WW"]
    with pytest.raises(InvalidInput, match="generate it live"):
        source_spectrum("bb", 2e4)


# -- telescope, muons --------------------------------------------------------------------------------------------------


def test_events_of_a_power_law():
    telescope = arca()
    matrix = propagation_matrix()
    edges = matrix.edges_GeV
    arrived = np.zeros((6, edges.size - 1))
    arrived[1] = 1e25 * (1 / edges[:-1] - 1 / edges[1:])  # int E^-2 dE
    gamma = 1e20
    found = rates(gamma, arrived, selection="all").events_per_year
    fine = np.logspace(2, 4, 40001)
    centres = np.sqrt(telescope.energy_edges_GeV[1:] * telescope.energy_edges_GeV[:-1])
    mean = telescope.sun_share @ telescope.area_m2
    inner = (fine > centres[0]) & (fine < 1e4)
    area = np.exp(np.interp(np.log(fine[inner]), np.log(centres), np.log(mean))) * 1e4
    expected = gamma * 1e25 / (4 * np.pi * 1.495978707e13**2) * 365.25 * 86400
    expected *= np.trapezoid(area / fine[inner] ** 2, fine[inner])
    assert found == pytest.approx(expected, rel=0.01)


def test_the_sun_is_half_the_year_below():
    telescope = arca()
    assert telescope.sun_share.sum() == pytest.approx(1.0)
    assert telescope.sun_share[telescope.zenith_edges_deg[:-1] >= 89.9].sum() == pytest.approx(0.5, abs=0.01)
    assert telescope.mean_cm2(np.array([99.0, 1e9])).tolist() == [0.0, 0.0]
    # mean and most up-going bin as read from the response
    row = np.argmin(np.abs(telescope.energy_edges_GeV - 1000.0))
    assert telescope.area_m2[:, row].mean() == pytest.approx(0.20, abs=0.01)


@pytest.mark.parametrize("energy", [150.0, 1e3, 1e4, 1e5, 1e6])
def test_muon_range_of_an_independent_table(energy):
    def ionisation(e):
        rest = 1e-6 * np.interp(np.log(e), np.log([100.0, 1e3, 1e4, 1e5, 1e6]), [2.312, 2.990, 3.357, 3.555, 3.723])
        return float(energy_loss(np.array([e]))[0]) - rest * e if e >= 100 else float(energy_loss(np.array([100.0]))[0])

    found = float(muon_range_g_cm2(energy, 100.0))
    assert found == pytest.approx(muon_loss_proposal.range_g_cm2(energy, 100.0, ionisation), rel=0.05)


def test_minimum_ionisation_in_water():
    momentum = np.logspace(-0.9, 0.5, 400)  # GeV
    energy = np.sqrt(momentum**2 + 0.1056583755**2)
    assert energy_loss(energy).min() * 1e3 == pytest.approx(1.992, rel=0.01)  # PDG


def test_muons_per_neutrino_by_hand():
    # sigma N_A <R> with the mean inelasticity: right to a few ten per cent, wrong units would be far
    found = float(muons_per_neutrino(np.array([1000.0]), 1.0, antineutrino=False)[0])
    estimate = 6.41e-36 * 6.022e23 * float(muon_range_g_cm2(500.0))
    assert found == pytest.approx(estimate, rel=0.25)


# -- limits, models, bounds --------------------------------------------------------------------------------------------


def test_limits_as_published():
    assert limit("xenon1t-2018").cross_section(30.0) == pytest.approx(4.1e-47, rel=0.05)  # arXiv:1805.12562, abstract
    assert limit("lz-2024").cross_section(40.0) == pytest.approx(2.2e-48, rel=0.10)  # arXiv:2410.17036, abstract
    assert limit("lz-2022").cross_section(36.0) == pytest.approx(9.2e-48, rel=0.01)  # arXiv:2207.03764, abstract
    pandax = limit("pandax-4t-2024")
    assert pandax.cross_section(40.0) == pytest.approx(1.6e-47, rel=0.05)  # arXiv:2408.00664
    # the traced curve between its points, read apart
    for mass, sigma in ((200.0, 4.26e-47), (245.0, 4.97e-47), (300.0, 6.17e-47)):
        assert pandax.cross_section(mass) == pytest.approx(sigma, rel=2e-3)
    for name in limit_names():
        assert "GeV/cm3" in limit(name).halo
    assert {limit(name).coupling for name in limit_names()} == {"spin-independent", "spin-dependent"}


def test_singlet_scalar_equals_the_fermion_formula():
    model, mass = SingletScalar(), 60.0
    coupling = model.portal_coupling(mass, 1e-46)
    expected = {}
    for name, colours, m in (("bb", 3, 2.86), ("cc", 3, 0.62), ("tautau", 1, 1.77693)):
        s = 4 * mass**2
        propagator = (s - 125.20**2) ** 2 + (125.20 * 4.1e-3) ** 2
        expected[name] = colours * coupling**2 * m**2 * (1 - (m / mass) ** 2) ** 1.5 / (4 * math.pi * propagator)
    total = sum(expected.values())
    assert model.branching(mass, 1e-46) == pytest.approx({k: v / total for k, v in expected.items()}, rel=1e-9)
    assert model.annihilation_cm3_s(mass, 1e-46) == pytest.approx(total * 1.16733e-17, rel=1e-4)
    # in the heavy limit the Goldstone theorem: WW : ZZ : hh = 2 : 1 : 1
    heavy = model.branching(9e3, 1e-49)
    assert heavy["WW"] / heavy["ZZ"] == pytest.approx(2.0, rel=2e-3)
    assert heavy["hh"] / heavy["ZZ"] == pytest.approx(1.0, rel=2e-3)


@pytest.mark.parametrize("mass", [500.0, 1000.0, 5000.0])
@pytest.mark.parametrize("channel", ["bb", "WW", "tautau"])
def test_bounds_equal_a_straight_line_script(mass, channel):
    bound = rate_bound(mass, channel, "xenon1t-2018")
    sigma = solar_straight_line.limit("xenon1t-2018", mass)
    assert bound.sigma_cm2 == pytest.approx(sigma, rel=1e-12)
    capture = capture_rate(mass, sigma_si_cm2=1e-45).rate_per_s * sigma / 1e-45
    volumes = effective_volume_cm3(1, mass), effective_volume_cm3(2, mass)
    expected = solar_straight_line.events_per_year(channel, mass, capture, *volumes)
    assert bound.events_per_year == pytest.approx(expected, rel=0.05)
    assert bound.events_per_year < 1.0


def test_a_bound_is_its_chain():
    bound = rate_bound(1000.0, MixedChannels({"bb": 0.4, "tautau": 0.6}), "lz-2024")
    parts = {name: rate_bound(1000.0, name, "lz-2024") for name in ("bb", "tautau")}
    for column in ("events_per_year", "muons_per_km2_year", "contained_per_km3_year"):
        mixed = 0.4 * getattr(parts["bb"], column) + 0.6 * getattr(parts["tautau"], column)
        assert getattr(bound, column) == pytest.approx(mixed, rel=1e-12)
    spin_dependent = rate_bound(1000.0, "tautau", "pico-60-2019")
    assert spin_dependent.equilibrium > 0.999
    assert spin_dependent.events_per_year > 100 * parts["tautau"].events_per_year


def test_scans_resume_and_do_not_depend_on_workers(tmp_path, monkeypatch):
    one_mass = bounds._one_mass
    job = BoundsJob((150.0, 1000.0, 3000.0), ("bb", "tt"), ("lz-2024", "pico-60-2019"))
    rows, skipped = run_bounds(job)
    assert len(rows) == 8
    assert any("tt" in reason and "closed" in reason for reason in skipped)
    assert any("pico-60-2019" in reason and "covers" in reason for reason in skipped)
    again, _ = run_bounds(job, executor="processes", workers=2, work_dir=tmp_path)
    assert again == rows
    parts = sorted(tmp_path.rglob("0*.json"))
    assert len(parts) == 3
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-5] + b"x")
    computed = []
    monkeypatch.setattr(bounds, "_one_mass", lambda job, number: computed.append(number) or one_mass(job, number))
    resumed, _ = run_bounds(job, work_dir=tmp_path)
    assert resumed == rows
    assert computed == [1, 2]  # what is finished and whole is not computed again


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: capture_rate(3.0, sigma_si_cm2=1e-45), r"mass_GeV = 3.0 is outside the allowed range \[4"),
        (lambda: capture_rate(math.nan, sigma_si_cm2=1e-45), "mass_GeV = nan"),
        (lambda: capture_rate(100.0, sigma_si_cm2=-1e-45), "sigma_si_cm2 = -1e-45"),
        (lambda: capture_rate(100.0, sigma_si_cm2=1e-45, method="golud"), "did you mean gould"),
        (lambda: solar_model("b16-agss9"), "did you mean b16-agss09"),
        (lambda: BoostedMaxwell(escape_speed_km_s=200.0), "bound to the galaxy"),
        (lambda: TabulatedSpeeds((0.0, 1.0, 2.0), (0.0, 1.0, 1.0)), "integrates to 1.5"),
        (lambda: limit("xenon1t-2019"), "did you mean"),
        (lambda: limit("xenonnt-2025").cross_section(1001.0), "covers 10 to 1000"),
        (lambda: DirectDetectionLimit("mine", "", "", "spin-independent", (2.0, 1.0), (1.0, 1.0)), "must rise"),
        (lambda: MixedChannels({"bb": 0.5, "WW": 0.4}), "sum to 0.9"),
        (lambda: MixedChannels({"bx": 1.0}), "did you mean bb"),
        (lambda: source_spectrum("tautau", -5.0), "mass_GeV = -5.0"),
        (lambda: propagation_matrix().apply(np.zeros((6, 3))), r"last axes must be \(6, 99\)"),
        (lambda: propagation_matrix().apply(np.full((6, 99), -1.0)), r"produced\[0\] = -1.0 is outside"),
        (lambda: muon_range_g_cm2(10.0, 0.5), "threshold_GeV = 0.5"),
        (lambda: cross_sections().total(1e6, antineutrino=False, target="proton"), "leaves the cross-section table"),
        (lambda: annihilation_rate(-1.0, 100.0), "capture_per_s = -1.0"),
        (lambda: BoundsJob((), ("bb",), ("lz-2024",)), "masses_GeV is empty"),
        (lambda: rate_bound(100.0, "singlet", "lz-2024"), "did you mean singlet-scalar"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


def test_limits_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('coupling = "spin-independent"\nmass_GeV = [10, 100]\ncross_section_cm2 = [1e-46, 1e-47]\n')
    assert read_limit(path).cross_section(math.sqrt(1000.0)) == pytest.approx(10**-46.5)
    path.write_text("mass_GeV = [10, 100]\n")
    with pytest.raises(InvalidInput, match="lacks coupling, cross_section_cm2"):
        read_limit(path)


# -- command line ------------------------------------------------------------------------------------------------------


def test_command_line(tmp_path, capsys):
    assert main(["solar", "capture", "100", "--sigma-si", "1e-45", "--json", str(tmp_path / "c.json")]) == 0
    assert "O16 25%" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())[0]["capture_per_s"] == pytest.approx(9.177e19, rel=1e-3)
    assert main(["solar", "bounds", "--mass", "1000", "--csv", str(tmp_path / "b.csv")]) == 0
    assert "below one selected event a year" in capsys.readouterr().out
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 4
    work = ["--work-dir", str(tmp_path / "w")]
    assert main(["solar", "scan", "--mass", "500", "--model", "singlet-scalar", "--limit", "all", *work]) == 0
    assert "lz-2024 " in capsys.readouterr().out
    for arguments in (["spectrum", "bb", "500"], ["propagate", "WW", "500"], ["limits", "--mass", "100"]):
        assert main(["solar", *arguments]) == 0
    assert main(["solar", "rate", "tautau", "500", "--sigma-sd", "1e-41"]) == 0
    assert "events a year" in capsys.readouterr().out
    assert main(["solar", "plot", "limits", str(tmp_path / "l.svg")]) == 0
    assert (tmp_path / "l.svg").read_text().startswith("<?xml")


def test_command_line_errors(capsys):
    assert main(["solar", "spectrum", "WW", "50"]) == 3
    assert "closed at mass_GeV = 50" in capsys.readouterr().err


# -- with the extras ---------------------------------------------------------------------------------------------------


def test_live_generation_is_reproducible_and_near_the_table():
    pytest.importorskip("pythia8mc")
    from nu_physics.solar.production import X_EDGES, generate

    first, again = (generate("tautau", 100.0, events=400, seed=11) for _ in range(2))
    assert np.array_equal(first.number, again.number)
    assert not np.array_equal(first.number, generate("tautau", 100.0, events=400, seed=12).number)
    yields, _ = spectrum_table().at("tautau", 100.0)
    tau = first.number[[2, 5]].mean(0).sum()
    assert tau == pytest.approx(yields[1].sum(), abs=4 * math.sqrt(yields[1].sum() / 800))
    vacuum = generate("bb", 100.0, events=300, seed=3, environment="vacuum")
    hard = X_EDGES[:-1] > 0.0099
    # PPPC4DMID (Cirelli et al., JCAP 03 (2011) 051): 7.51 muon neutrinos above x = 0.01
    assert vacuum.number[[1, 4]][:, hard].mean(0).sum() == pytest.approx(7.51, rel=0.07)
    stopped = generate("bb", 100.0, events=300, seed=3)
    assert stopped.number[1].sum() < 0.1 * vacuum.number[1].sum()
    sample = source_spectrum("tautau", 100.0, sample=first)
    assert sample.number[2].sum() == pytest.approx(first.number[2, 54:].sum(), rel=1e-9)  # above 5 GeV
    with pytest.raises(InvalidInput, match="seed = 0"):
        generate("bb", 100.0, seed=0)


def test_decaying_a_hadron_often_is_unbiased_and_its_error_is_the_spread_of_samples():
    pytest.importorskip("pythia8mc")
    from nu_physics.solar.production import generate

    # neutrinos of a light flavour above x = 0.1, in samples of 120 annihilations
    once = generate("bb", 100.0, events=1500, decays=1, seed=1)
    often = [generate("bb", 100.0, events=120, decays=15, seed=seed) for seed in range(2, 14)]
    value = [sample.number[0, 60:].sum() for sample in often]
    single = once.number[0, 60:].sum()
    spread = np.std(value, ddof=1)
    assert np.mean(value) == pytest.approx(single, abs=4 * math.hypot(math.sqrt(single / 1500), spread / math.sqrt(12)))
    stated = math.sqrt(np.mean([(sample.error[0, 60:] ** 2).sum() for sample in often]))
    assert 0.6 < stated / spread < 1.4
    assert spread < 0.7 * math.sqrt(single / 120)  # a sample with one decay each is Poisson


def _needs_nusquids():
    if importlib.util.find_spec("nuSQuIDS") is None:  # not imported here: the transport sets its data folder first
        pytest.skip("nuSQuIDS is not installed")


def test_live_transport():
    _needs_nusquids()
    from nu_physics.solar.propagation import ENERGY_EDGES_GeV, NusquidsTransport

    centres = np.sqrt(ENERGY_EDGES_GeV[1:] * ENERGY_EDGES_GeV[:-1])
    free = NusquidsTransport(interactions=False).propagate(centres[:40:4], np.eye(6)[:, :1] * np.ones((1, 10)))
    assert free.sum(0) == pytest.approx(1.0, abs=1e-6)

    # at the highest node nothing arrives from above: what is left is exp(-N sigma)
    energy = np.array([150.0, 299.7, 300.0])
    source = np.zeros((6, 3))
    source[1, 2] = 1.0
    left = NusquidsTransport(oscillations=False).propagate(energy, source, to="surface")[1, 2]
    tables, sun = cross_sections(), solar_model()
    hydrogen = sun.mass_fraction[sun.isotopes.index("H1")]
    depth = 0.0
    for target, share in (("proton", 0.5 * (1 + hydrogen)), ("neutron", 0.5 * (1 - hydrogen))):
        r = np.concatenate([[0.0], sun.radius_cm])
        column = np.concatenate([(share * sun.density_g_cm3)[:1], share * sun.density_g_cm3])
        nucleons = np.trapezoid(column, r) / (0.938919 * 1.78266192e-24)  # nuSQuIDS: free nucleons' mass
        depth += nucleons * sum(
            float(tables.total(299.85, kind=k, antineutrino=False, target=target)) for k in ("CC", "NC")
        )
    assert left == pytest.approx(math.exp(-depth), rel=2e-3)


@pytest.mark.slow
def test_the_matrix_equals_direct_transport():
    _needs_nusquids()
    from nu_physics.solar.propagation import NusquidsTransport

    matrix = propagation_matrix()
    widths = np.diff(matrix.edges_GeV)
    generator = np.random.default_rng(5)
    for _ in range(3):
        x = matrix.centres_GeV / 2000.0
        weights, power = generator.uniform(0.2, 1.0, (6, 1)), generator.uniform(0.5, 2.0)
        source = weights * np.where(x < 1, (1 - np.minimum(x, 1)) ** power / x**0.7, 0.0)
        direct = NusquidsTransport().propagate(matrix.centres_GeV, source) * widths
        ours = matrix.apply(source * widths)
        above = matrix.centres_GeV > 10.0
        for row in range(6):
            assert ours[row, above].sum() == pytest.approx(direct[row, above].sum(), rel=5e-3)


def test_the_suns_track():
    pytest.importorskip("astropy")
    from nu_physics.solar.telescope import ARCA_LATITUDE_deg, ARCA_LONGITUDE_deg, sun_zenith_shares

    telescope = arca()
    found = sun_zenith_shares(telescope.zenith_edges_deg, ARCA_LATITUDE_deg, ARCA_LONGITUDE_deg)
    assert found == pytest.approx(telescope.sun_share, abs=1e-3)
    with pytest.raises(InvalidInput, match="latitude_deg"):
        sun_zenith_shares(telescope.zenith_edges_deg, 91.0, 0.0)
