"""Probabilities against a 50-digit oracle, and the exact statements about scalar NSI."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nu_physics.errors import InvalidInput
from nu_physics.oscillation import (
    SURVIVAL_PARAMETERS,
    OscillationParameters,
    ScalarNSI,
    VectorNSI,
    effective_mass_squared,
    effective_parameters,
    eta_from_coupling,
    eta_resonance,
    preset,
    probability,
    survival,
    survival_gradient,
)
from nu_physics.statistics.fit import with_values
from oracles.oscillation_mpmath import probability as exact
from scipy.optimize import brentq


def hermitian(generator: np.random.Generator, size: float) -> np.ndarray:
    matrix = generator.normal(size=(3, 3)) + 1j * generator.normal(size=(3, 3))
    return size * 0.5 * (matrix + matrix.conj().T)


def random_parameters(generator: np.random.Generator) -> OscillationParameters:
    return OscillationParameters(
        *generator.random(3),
        dm21_eV2=generator.uniform(1e-5, 2e-4),
        dm31_eV2=generator.choice([-1, 1]) * generator.uniform(2e-3, 3e-3),
        delta_cp=generator.uniform(0, 2 * math.pi),
        m_lightest_eV=generator.choice([0.0, 0.01, 0.05, 0.1]),
    )


def random_path(generator: np.random.Generator) -> tuple[float, float]:
    """0.5 MeV to 10 GeV; at MeV energies up to 80 km, at GeV energies up to the Earth's diameter."""
    energy = float(np.exp(generator.uniform(np.log(0.5), np.log(1e4))))
    return energy, float(generator.uniform(0.3, 80.0 if energy < 50 else 12700.0))


@pytest.mark.parametrize("seed", range(4))
def test_survival_and_all_channels_equal_the_oracle(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(12):
        parameters = random_parameters(generator)
        snsi = ScalarNSI.from_matrix(hermitian(generator, 0.05))
        nsi = VectorNSI(*generator.normal(scale=0.2, size=3), *(generator.normal(size=3) * 0.1 + 0.1j))
        energy, baseline = random_path(generator)
        density = float(generator.choice([0.0, 2.45, 5.0, 13.0]))
        anti = bool(generator.random() < 0.5)
        options = {"density_g_cm3": density, "antineutrino": anti}
        truth = exact(parameters, energy, baseline, snsi.matrix(), density=density, antineutrino=anti)
        # 1e-12: phases reach 1e3 rad, and a rounding of the phase is what is left
        assert abs(survival(energy, baseline, parameters, snsi, **options) - truth[0, 0]) < 1e-12
        assert np.abs(probability(energy, baseline, parameters, snsi, **options) - truth).max() < 1e-12
        both = exact(
            parameters,
            energy,
            baseline,
            snsi.matrix(),
            nsi.matrix() - np.diag([1, 0, 0]),
            density=density,
            antineutrino=anti,
        )
        ours = probability(energy, baseline, parameters, snsi, nsi, **options)
        assert np.abs(ours - both).max() < 1e-12
        assert abs(survival(energy, baseline, parameters, snsi, nsi, **options) - both[0, 0]) < 1e-12


def test_two_hundred_random_points_stay_unitary_and_in_range() -> None:
    generator = np.random.default_rng(7)
    for _ in range(200):
        parameters = random_parameters(generator)
        snsi = ScalarNSI.from_matrix(hermitian(generator, 0.05))
        energy, baseline = random_path(generator)
        table = probability(energy, baseline, parameters, snsi, density_g_cm3=2.8)
        assert np.abs(table.sum(axis=0) - 1).max() < 2e-14
        assert np.abs(table.sum(axis=1) - 1).max() < 2e-14
        assert 0 <= survival(energy, baseline, parameters, snsi, density_g_cm3=2.8) <= 1


def test_cp_parities_and_a_mass_scale_of_ones_own() -> None:
    parameters = OscillationParameters(m_lightest_eV=0.02, alpha1=math.pi, alpha2=1.3)
    snsi = ScalarNSI(ee=0.03, em=0.01 - 0.02j, scale=math.sqrt(2.55e-3))
    truth = exact(parameters, 3.2, 52.5, snsi.matrix(), scale=math.sqrt(2.55e-3), density=2.45)
    assert abs(survival(3.2, 52.5, parameters, snsi, density_g_cm3=2.45) - truth[0, 0]) < 1e-12
    # a CP parity of the second state changes the answer with a scalar term, and not without
    plain = parameters.replace(alpha1=0.0, alpha2=0.0)
    assert abs(survival(3.2, 52.5, parameters) - survival(3.2, 52.5, plain)) < 1e-13
    assert abs(survival(3.2, 52.5, parameters, snsi) - survival(3.2, 52.5, plain, snsi)) > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_every_scalar_nsi_is_a_standard_parameter_set(seed: int) -> None:
    generator = np.random.default_rng(100 + seed)
    energy = np.geomspace(0.5, 1e4, 120)
    for _ in range(20):
        parameters = random_parameters(generator)
        snsi = ScalarNSI.from_matrix(hermitian(generator, 0.1))
        same = effective_parameters(parameters, snsi)
        dm31 = same.dm31_eV2
        if 0 < dm31 < same.dm21_eV2:
            # the least electron content may sit in the middle: not expressible with m3 outermost, and relabelled here
            continue
        twin = same.as_parameters()
        for anti in (True, False):
            options = {"density_g_cm3": 2.45, "antineutrino": anti}
            a = survival(energy, [1.5, 52.5], parameters, snsi, **options)
            b = survival(energy, [1.5, 52.5], twin, **options)
            assert np.abs(a - b).max() < 1e-12


def test_dark_side_twin_in_vacuum() -> None:
    light = OscillationParameters()
    dark = light.replace(sin2_theta12=1 - light.sin2_theta12, dm31_eV2=-light.dm31_eV2 + light.dm21_eV2)
    energy = np.linspace(1.8, 9, 50)
    assert np.abs(survival(energy, 52.5, light) - survival(energy, 52.5, dark)).max() < 1e-13


@pytest.mark.parametrize(
    ("ordering", "mass", "published"),
    [("inverted", 0.01, 5.88e-3), ("inverted", 0.05, 4.24e-3), ("normal", 0.01, 0.0254), ("normal", 0.05, 5.87e-3)],
)
def test_resonance_closed_form_within_one_per_cent(ordering: str, mass: float, published: float) -> None:
    parameters = OscillationParameters(m_lightest_eV=mass).with_ordering(ordering)
    closed = eta_resonance(parameters)
    assert closed == pytest.approx(published, rel=0.01)  # values of the design study, from other code

    def tilt(eta: float) -> float:
        return effective_parameters(parameters, ScalarNSI(ee=eta)).sin2_theta12 - 0.5

    assert brentq(tilt, 0.5 * closed, 1.5 * closed) == pytest.approx(closed, rel=0.01)


def _build(values: dict[str, float]) -> tuple[OscillationParameters, ScalarNSI, float]:
    plain = {k: v for k, v in values.items() if k != "density_g_cm3"}
    parameters, snsi = with_values(OscillationParameters(), ScalarNSI(), plain)
    assert snsi is not None
    return parameters, snsi, values["density_g_cm3"]


@pytest.mark.parametrize("case", ["zero", "resonance", "random-normal", "random-inverted"])
def test_gradient_in_every_direction(case: str) -> None:
    generator = np.random.default_rng(5)
    values = dict.fromkeys(SURVIVAL_PARAMETERS, 0.0)
    values |= {
        "sin2_theta12": 0.307,
        "sin2_theta13": 0.0218,
        "sin2_theta23": 0.54,
        "dm21_eV2": 7.5e-5,
        "dm31_eV2": -2.5e-3 if case != "random-normal" else 2.5e-3,
        "m_lightest_eV": 0.01,
        "density_g_cm3": 2.45,
    }
    if case == "resonance":
        values["eta_ee"] = eta_resonance(_build(values)[0])
    if case.startswith("random"):
        values["delta_cp"] = 1.1
        for name in SURVIVAL_PARAMETERS:
            if name.startswith("eta"):
                values[name] = generator.normal(scale=0.02)
    energy, baseline = np.linspace(1.8, 9, 30), np.array([1.5, 52.5])
    parameters, snsi, density = _build(values)
    value, gradient = survival_gradient(
        energy, baseline, parameters, snsi, names=SURVIVAL_PARAMETERS, density_g_cm3=density
    )
    assert np.abs(value - survival(energy, baseline, parameters, snsi, density_g_cm3=density)).max() < 1e-14
    steps = {"dm21_eV2": 4e-8, "dm31_eV2": 4e-8, "m_lightest_eV": 4e-6, "density_g_cm3": 0.05, "delta_cp": 4e-3}
    for k, name in enumerate(SURVIVAL_PARAMETERS):
        h = steps.get(name, 4e-5 if not name.startswith("eta") else 1e-5)

        def shifted(amount: float, name: str = name) -> np.ndarray:
            moved = dict(values)
            moved[name] += amount
            p, s, rho = _build(moved)
            return survival(energy, baseline, p, s, density_g_cm3=rho)

        def central(h: float, f=shifted) -> np.ndarray:
            return (f(h) - f(-h)) / (2 * h)

        # Richardson extrapolation: error O(h^6), so that 1e-7 tests the derivative and not the difference
        numeric = (64 * central(h / 4) - 20 * central(h / 2) + central(h)) / 45
        size = np.abs(numeric).max()
        natural = 1.0 / {"dm21_eV2": 1e-4, "dm31_eV2": 1e-4}.get(name, 1.0)
        assert np.abs(gradient[k] - numeric).max() <= 1e-7 * max(size, 0.1 * natural), name


def test_gradient_at_exactly_degenerate_levels() -> None:
    """dm21 = 0 makes the two levels equal; the kernel must neither fail nor lose the derivative."""
    parameters = OscillationParameters(dm21_eV2=0.0)
    energy = np.linspace(1.8, 9, 20)
    value, gradient = survival_gradient(energy, 52.5, parameters, names=("dm31_eV2", "dm21_eV2"))
    assert np.isfinite(value).all()
    h = 1e-7
    up = survival(energy, 52.5, parameters.replace(dm31_eV2=parameters.dm31_eV2 + h))
    down = survival(energy, 52.5, parameters.replace(dm31_eV2=parameters.dm31_eV2 - h))
    assert np.abs(gradient[0] - (up - down) / (2 * h)).max() < 1e-4 * np.abs(gradient[0]).max()
    forward = (survival(energy, 52.5, parameters.replace(dm21_eV2=1e-11)) - survival(energy, 52.5, parameters)) / 1e-11
    assert np.abs(gradient[1] - forward).max() < 1e-3 * np.abs(forward).max()


@given(
    s12=st.floats(0, 1),
    s13=st.floats(0, 1),
    s23=st.floats(0, 1),
    dm21=st.floats(0, 2e-3),
    dm31=st.floats(-1e-2, -1e-5),
    eta=st.floats(-2, 2),
    light=st.floats(0, 0.5),
    energy=st.floats(1e-3, 1e6),
    baseline=st.floats(0, 2e4),
    density=st.floats(0, 20),
)
@example(0.0, 0.0, 0.0, 0.0, -0.0078125, 0.0, 0.0, 1.0, 1.0, 6.103515625e-05)
@settings(max_examples=300, deadline=None)
def test_no_nan_ever_leaves_a_kernel(s12, s13, s23, dm21, dm31, eta, light, energy, baseline, density) -> None:
    parameters = OscillationParameters(s12, s13, s23, dm21, dm31, 1.0, light)
    snsi = ScalarNSI(ee=eta, em=0.3 * eta * 1j)
    one = survival(energy, baseline, parameters, snsi, density_g_cm3=density)
    nine = probability(energy, baseline, parameters, snsi, density_g_cm3=density)
    assert 0 <= one <= 1
    assert ((nine >= 0) & (nine <= 1)).all()
    # both kernels, one Hamiltonian; beyond 1e6 rad a double cannot hold the phase
    phase = 5e3 * (1e-2 + 4 * abs(eta) ** 2 * 1e-2 + abs(eta) * light * 0.1) * baseline / energy
    if phase < 1e3:
        assert abs(one - nine[0, 0]) < 1e-10


@pytest.mark.parametrize("sign", [1, -1])
def test_levels_that_nearly_meet_in_thin_matter_are_told_apart(sign) -> None:
    """dm21 and the potential from nothing to 1e-8 eV2, all ratios: the nine channels against the survival kernel."""
    draw = np.random.default_rng(3)
    for _ in range(400):
        dm21, density = 10 ** draw.uniform(-20, -8), 10 ** draw.uniform(-13, 2)
        angles = np.where(draw.random(3) < 0.5, 0.0, draw.random(3))
        parameters = OscillationParameters(*angles, dm21, sign * 10 ** draw.uniform(-4, -2), 1.0, 0.0)
        energy, baseline = 10 ** draw.uniform(-1, 2), 10 ** draw.uniform(-1, 2)
        one = survival(energy, baseline, parameters, None, density_g_cm3=density)
        nine = probability(energy, baseline, parameters, None, density_g_cm3=density)
        assert abs(one - nine[0, 0]) < 1e-10, (parameters, density, energy, baseline)
        assert np.abs(nine.sum(0) - 1).max() < 1e-10
        assert np.abs(nine.sum(1) - 1).max() < 1e-10


def test_broadcasting_and_single_numbers() -> None:
    parameters = OscillationParameters()
    grid = survival(np.full((2, 3), 4.0), [[52.5], [1.0]], parameters)
    assert grid.shape == (2, 1, 2, 3)
    assert survival(4.0, 52.5, parameters).shape == ()
    assert grid[0, 0, 1, 2] == survival(4.0, 52.5, parameters)
    assert survival(4.0, 0.0, parameters) == 1.0


def test_density_reference() -> None:
    """Parameters measured at 2.6 g/cm3 contain the term there: no effect at 2.6, the opposite sign in vacuum."""
    parameters = OscillationParameters(m_lightest_eV=0.01)
    tied = ScalarNSI(ee=0.02, density_reference_g_cm3=2.6)
    free = ScalarNSI(ee=-0.02)
    standard = survival(4.0, 52.5, parameters, density_g_cm3=2.6)
    assert survival(4.0, 52.5, parameters, tied, density_g_cm3=2.6) == pytest.approx(standard, abs=1e-14)
    assert survival(4.0, 52.5, parameters, tied) == survival(4.0, 52.5, parameters, free)
    with pytest.raises(InvalidInput, match="density_g_cm3 is needed"):
        effective_parameters(parameters, tied)


def test_coupling_converter_reproduces_the_shift() -> None:
    """dM_ee in eV is the density times the coupling, whatever the mass scale."""
    for scale in (0.03, 0.05):
        eta = eta_from_coupling(5.0, 2.8, 0.5, scale)
        x = effective_mass_squared(
            OscillationParameters(1.0, 0.0, 0.0, 0.0, 1e-9, 0.0, 0.0), ScalarNSI(ee=eta, scale=scale)
        )
        # with nearly massless neutrinos X_ee is (dM_ee)^2; 4.62711492e-9 eV per mol/cm3/GeV^2 is OscProb's constant
        assert math.sqrt(x[0, 0].real) == pytest.approx(4.62711492217e-9 * 1e6 * 2.8 * 0.5 * 5.0, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OscillationParameters(sin2_theta12=1.2), r"sin2_theta12 = 1.2 is outside the allowed range \[0, 1\]"),
        (lambda: OscillationParameters(m_lightest_eV=-1), "m_lightest_eV = -1 is outside"),
        (lambda: OscillationParameters(dm31_eV2=1e-5), "lies between 0 and dm21_eV2"),
        (lambda: OscillationParameters(dm31_eV2=0.0), "no ordering"),
        (lambda: OscillationParameters(delta_cp=math.nan), "delta_cp"),
        (lambda: OscillationParameters().replace(dm21=1.0), "did you mean dm21_eV2"),
        (lambda: ScalarNSI(ee=math.inf), "eta_ee"),
        (lambda: ScalarNSI(ee=1j), "real"),  # type: ignore[arg-type]
        (lambda: ScalarNSI(scale="solar"), "scale = 'solar'"),  # type: ignore[arg-type]
        (lambda: ScalarNSI.from_matrix(np.triu(np.ones((3, 3)))), "not Hermitian"),
        (lambda: ScalarNSI.from_matrix(np.eye(2)), r"shape \(2, 2\)"),
        (lambda: VectorNSI(em=complex("nan")), "epsilon_em"),
        (lambda: survival([1.0, -2.0], 1.0, OscillationParameters()), r"energy_MeV\[1\] = .*-2.0"),
        (lambda: survival([], 1.0, OscillationParameters()), "energy_MeV is empty"),
        (lambda: survival(4.0, -1.0, OscillationParameters()), "baseline_km"),
        (lambda: survival(4.0, 1.0, OscillationParameters(), density_g_cm3=-1), "density_g_cm3 = -1"),
        (lambda: survival("x", 1.0, OscillationParameters()), "numbers are needed"),
        (lambda: preset("nufit52"), "did you mean nufit52-no"),
        (
            lambda: survival_gradient(4.0, 1.0, OscillationParameters(), names=("theta12",)),
            "did you mean sin2_theta12",
        ),
    ],
)
def test_bad_input_names_field_value_and_remedy(call, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_weak_and_general_paths_meet() -> None:
    """Below a twentieth of the smallest gap a block starts Newton from perturbation theory, above from Cardano."""
    parameters = OscillationParameters()
    snsi = ScalarNSI(ee=0.01, em=0.01j)
    edge = np.linspace(1.0, 60.0, 400)  # the switch is near 20 MeV at 2.45 g/cm3
    one_by_one = np.array([survival(e, 52.5, parameters, snsi, density_g_cm3=2.45) for e in edge])
    together = survival(edge, 52.5, parameters, snsi, density_g_cm3=2.45)  # the strongest energy decides for all
    assert np.abs(one_by_one - together).max() < 1e-13
    nine = probability(edge, 52.5, parameters, snsi, density_g_cm3=2.45)
    each = np.array([probability(e, 52.5, parameters, snsi, density_g_cm3=2.45) for e in edge])
    assert np.abs(nine - each).max() < 1e-13
    assert np.abs(nine[:, 0, 0] - together).max() < 1e-13


def test_blocks_do_not_show() -> None:
    energy = np.linspace(1.8, 12.0, 1537)  # three blocks and one more point
    parameters = OscillationParameters()
    whole = survival(energy, [1.0, 52.5], parameters, density_g_cm3=2.45)
    parts = np.hstack(
        [survival(energy[k : k + 100], [1.0, 52.5], parameters, density_g_cm3=2.45) for k in range(0, 1537, 100)]
    )
    assert np.abs(whole - parts).max() < 1e-15
