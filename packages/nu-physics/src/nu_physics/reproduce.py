"""The statements of 2306.07343 (v1 and v4) and 2602.05564, JUNO's and Daya Bay's published numbers: measured now.

The solar half's claims are those of :mod:`nu_physics.solar.reproduce`.

The full text of 2306.07343 was not read, only the abstracts of its versions; bounds are called by the regime that they
belong to and compared with what an abstract says, never with a table.
"""

from __future__ import annotations

import time

import numpy as np
from papershelf_core.claims import Claim
from papershelf_core.timed import within
from scipy.optimize import brentq

from nu_physics.oscillation import (
    OscillationParameters,
    ScalarNSI,
    effective_parameters,
    eta_resonance,
    survival,
)
from nu_physics.reactor.experiment import juno
from nu_physics.solar import reproduce as solar_reproduce
from nu_physics.statistics.analysis import (
    eta_bound,
    eta_profile,
    global_fit_priors,
    mass_ordering,
    precision,
    toys,
)
from nu_physics.statistics.fit import OSCILLATION, Fit

__all__ = ["claims", "pictures"]

SCALAR = "2306.07343"
RESONANCE = "2602.05564"
JUNO_ORDERING = "2405.18008"
JUNO_PRECISION = "2204.13249"
DAYA_BAY = "2211.14988"


def _degeneracy() -> list[Claim]:
    """Every scalar NSI equals a standard parameter set for a reactor."""
    generator = np.random.default_rng(1)
    energy = np.linspace(1.0, 12.0, 300)
    worst = 0.0
    for _ in range(50):
        matrix = generator.normal(size=(3, 3)) + 1j * generator.normal(size=(3, 3))
        snsi = ScalarNSI.from_matrix((0.01 * (matrix + matrix.conj().T)).astype(np.complex128))
        nature = OscillationParameters(
            dm31_eV2=float(generator.choice([-1, 1])) * 2.5e-3, m_lightest_eV=float(generator.uniform(0, 0.1))
        )
        seen = effective_parameters(nature, snsi)
        if 0 < seen.dm31_eV2 < seen.dm21_eV2:
            continue
        pair = [
            survival(energy, [1.5, 52.5], nature, snsi, density_g_cm3=2.45),
            survival(energy, [1.5, 52.5], seen.as_parameters(), density_g_cm3=2.45),
        ]
        worst = max(worst, float(np.abs(pair[0] - pair[1]).max()))
    return [
        Claim(
            SCALAR,
            "P_ee with any scalar NSI equals standard P_ee at the effective parameters to 1e-12, matter included",
            "exact identity",
            worst,
            1e-12,
            "",
            "lower",
            worst <= 1e-12,
            "50 random Hermitian eta, both orderings",
        )
    ]


def _bounds() -> list[Claim]:
    """v1: stringent bounds with outside knowledge, inverted better; v4: none from JUNO alone."""
    experiment = juno(exposure_days=6 * 365.25)
    normal = OscillationParameters()
    inverted = normal.with_ordering("inverted")
    rows = []
    for regime in ("fixed", "prior"):
        no, io = (eta_bound(experiment, p, regime=regime) for p in (normal, inverted))
        assert no.high is not None
        assert io.high is not None
        rows.append(
            Claim(
                SCALAR,
                f"3-sigma bound on eta_ee is stronger for inverted ordering; parameters {regime} (v1 abstract)",
                "normal ordering",
                io.high,
                no.high,
                "",
                "lower",
                io.high < no.high,
                "m_lightest = 0, 6 years",
            )
        )
    worst = max(
        float(eta_profile(experiment, p, np.array([-0.02, 0.02]), regime="free").max()) for p in (normal, inverted)
    )
    rows.append(
        Claim(
            SCALAR,
            "JUNO alone cannot constrain eta_ee: chi2 at +-0.02 below 1e-6; parameters free (v4 abstract)",
            "exact identity",
            worst,
            1e-6,
            "",
            "lower",
            worst < 1e-6,
        )
    )
    return rows


def _widening() -> list[Claim]:
    """v1: precision worsens when eta is fitted too."""
    experiment = juno(exposure_days=6 * 365.25)
    truth = OscillationParameters(m_lightest_eV=0.01)
    fit = Fit(experiment, experiment.expected(truth), truth, priors=global_fit_priors(truth))
    alone = fit.minimise(truth, ScalarNSI(scale=0.05), free=OSCILLATION)
    together = fit.minimise(truth, ScalarNSI(scale=0.05), free=(*OSCILLATION, "eta_ee"))
    ours = 100 * together.errors["sin2_theta12"] / truth.sin2_theta12
    before = 100 * alone.errors["sin2_theta12"] / truth.sin2_theta12
    return [
        Claim(
            SCALAR,
            "precision of sin2_theta12 at least halves when eta_ee is fitted too; parameters with priors (v1 abstract)",
            "without eta_ee",
            ours,
            before,
            "%",
            "higher",
            ours > 2 * before,
            "normal ordering, m_lightest = 0.01 eV",
        )
    ]


def _ordering() -> list[Claim]:
    experiment = juno()
    rows = []
    preference = mass_ordering(experiment, OscillationParameters()).preference
    rows.append(
        Claim(
            JUNO_ORDERING,
            "median ordering sensitivity of 3 sigma at 6.5 years x 26.6 GW: delta chi2 in [8.5, 9.5]",
            "JUNO + TAO",
            preference,
            9.0,
            "",
            "equal",
            8.5 <= preference <= 9.5,
            "systematics and non-linearity pulls, theta12 light side",
        )
    )
    nature = OscillationParameters(m_lightest_eV=0.01).with_ordering("inverted")
    for eta, low, high in ((-7.1e-3, 3.5, 4.8), (3.3e-3, 3.5, 5.8)):
        value = mass_ordering(experiment, nature, ScalarNSI(ee=eta)).preference
        rows.append(
            Claim(
                RESONANCE,
                f"2 sigma at eta_ee = {eta:g} in nature, not in the fit: delta chi2 in [{low}, {high}]",
                "abstract",
                value,
                4.0,
                "",
                "equal",
                low <= value <= high,
                "true inverted ordering, m_lightest = 0.01 eV, parameters free",
            )
        )
    crossing = brentq(
        lambda eta: mass_ordering(experiment, nature, ScalarNSI(ee=eta)).preference, 5e-3, 6.5e-3, xtol=1e-5
    )
    rows.append(
        Claim(
            RESONANCE,
            "ordering completely lost near eta_ee = 5.7e-3: delta chi2 crosses zero in [5.3e-3, 6.3e-3]",
            "abstract",
            crossing,
            5.7e-3,
            "",
            "equal",
            5.3e-3 <= crossing <= 6.3e-3,
        )
    )
    closed = eta_resonance(nature)
    numeric = brentq(
        lambda eta: effective_parameters(nature, ScalarNSI(ee=eta)).sin2_theta12 - 0.5, 0.5 * closed, 1.5 * closed
    )
    rows.append(
        Claim(
            RESONANCE,
            "resonance of the effective theta12: closed form within 1 % of the exact crossing",
            "exact crossing",
            closed,
            numeric,
            "",
            "equal",
            abs(closed / numeric - 1) < 0.01,
        )
    )
    return rows


def _precision() -> list[Claim]:
    result = precision(juno(exposure_days=6 * 365.25), OscillationParameters()).relative_percent
    published = {"dm31_eV2": 0.2, "dm21_eV2": 0.3, "sin2_theta12": 0.5, "sin2_theta13": 12.1}
    return [
        Claim(
            JUNO_PRECISION,
            f"six-year precision of {name} within 15 % of the published one",
            "JUNO, Table 6",
            result[name],
            value,
            "%",
            "equal",
            abs(result[name] / value - 1) <= 0.15,
            "parameters free, full power",
        )
        for name, value in published.items()
    ]


def _rates() -> list[Claim]:
    rates = juno().rate_per_core(OscillationParameters())
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
    worst = 100 * max(abs(rates[name] / value - 1) for name, value in published.items())
    total = sum(rates.values())
    return [
        Claim(
            JUNO_PRECISION,
            "selected events a day from first principles within 5 % of the published 47.1",
            "JUNO, Table 2",
            total,
            47.1,
            "1/day",
            "equal",
            abs(total / 47.1 - 1) < 0.05,
        ),
        Claim(
            JUNO_PRECISION,
            "rates of the nine cores within 2 % of the published table",
            "JUNO, Table 1",
            worst,
            2.0,
            "%",
            "lower",
            worst <= 2.0,
            "the table has one decimal",
        ),
    ]


def _daya_bay() -> list[Claim]:
    try:
        import dayabay_data_official  # noqa: F401
    except ImportError:
        return []
    from nu_physics.reactor.dayabay import load_dayabay

    begin = time.perf_counter()
    result = load_dayabay().fit()
    seconds = time.perf_counter() - begin
    return [
        Claim(
            DAYA_BAY,
            "Daya Bay data: sin^2(2 theta13) within one published standard deviation, 0.0024",
            "Daya Bay, PRL 130",
            result.sin2_2theta13,
            0.0851,
            "",
            "equal",
            abs(result.sin2_2theta13 - 0.0851) < 0.0024,
            f"chi2/ndf {result.chi2:.1f}/{result.ndf}, error {result.sin2_2theta13_error:.4f}",
        ),
        Claim(
            DAYA_BAY,
            "Daya Bay data: dm32 within one published standard deviation, 0.060e-3",
            "Daya Bay, PRL 130",
            1e3 * result.dm32_eV2,
            2.466,
            "1e-3 eV2",
            "equal",
            abs(result.dm32_eV2 - 2.466e-3) < 0.06e-3,
            f"error {1e3 * result.dm32_error_eV2:.3f}, normal ordering",
        ),
        within(DAYA_BAY, "Daya Bay data: load, build and fit within 10 s", seconds, 10.0),
    ]


def _toys() -> list[Claim]:
    """Slow: the Gaussian approximation of the ordering statistic, event by event."""
    result = toys(juno(), OscillationParameters(), count=2000, seed=1, event_level=True)
    width = 2 * result.asimov**0.5
    return [
        Claim(
            JUNO_ORDERING,
            "2000 event-level toys: mean of T within 10 % of the Asimov value",
            "Asimov",
            result.mean,
            result.asimov,
            "",
            "equal",
            abs(result.mean / result.asimov - 1) < 0.1,
        ),
        Claim(
            JUNO_ORDERING,
            "2000 event-level toys: width of T within 10 % of 2 sqrt(T0)",
            "Gaussian approximation",
            result.width,
            width,
            "",
            "equal",
            abs(result.width / width - 1) < 0.1,
        ),
    ]


def _digitised() -> list[Claim]:
    """Slow: our unoscillated spectrum and response against JUNO's figures, digitised in Newtrinos.jl."""
    from papershelf_core import datasets

    from nu_physics.reactor.response import NonLinearity

    try:
        curve = np.loadtxt(datasets.path("juno", "detector_nonlinear_response.csv"), delimiter=",")
        spectrum = np.loadtxt(datasets.path("juno", "spectrum_noosc.csv"), delimiter=",")
    except datasets.DatasetUnavailable:
        return []
    rms = 100 * float(np.std(NonLinearity.juno().curve(curve[:, 0]) / curve[:, 1]))
    experiment = juno(exposure_days=6 * 365.25)
    energy = spectrum[(spectrum[:, 0] > 2.3) & (spectrum[:, 0] < 4.9)]
    per_MeV = experiment.events / np.gradient(experiment.energy_MeV)
    ratio = energy[:, 1] / np.interp(energy[:, 0], experiment.energy_MeV, per_MeV)
    shape = 100 * float(np.std(ratio / ratio.mean()))
    return [
        Claim(
            JUNO_PRECISION,
            "unoscillated spectrum, 2.3 to 4.9 MeV: shape within 2 % rms of the published figure",
            "figure, digitised",
            shape,
            2.0,
            "%",
            "lower",
            shape < 2.0,
            "above, JUNO's figure has Daya Bay's 5 MeV excess of 10 %, which Huber-Mueller lacks",
        ),
        Claim(
            JUNO_PRECISION,
            "scintillator response: four parameters within 0.3 % rms of the published curve",
            "figure, digitised",
            rms,
            0.3,
            "%",
            "lower",
            rms < 0.3,
        ),
    ]


def claims(full: bool = False) -> list[Claim]:
    """Measure every claim; ``full`` adds 2000 toys (minutes) and JUNO's figures as digitised in a public repository."""
    rows = [
        *_degeneracy(),
        *_bounds(),
        *_widening(),
        *_ordering(),
        *_precision(),
        *_rates(),
        *_daya_bay(),
        *solar_reproduce.claims(),
    ]
    if full:
        rows += [*_digitised(), *_toys()]
    return rows


def pictures() -> dict[str, str]:
    """Return the figures for the report, title to SVG; empty without the extra ``plots``."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return {}
    from nu_physics.plots import PLOTS, figure_svg

    wanted = {
        "JUNO's spectrum and the ordering": "spectrum",
        "What a scalar NSI looks like to a reactor": "effective",
        "Ordering sensitivity against eta_ee": "ordering",
    }
    return {title: figure_svg(PLOTS[name]()) for title, name in wanted.items()} | solar_reproduce.pictures()
