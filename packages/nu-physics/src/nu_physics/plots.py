"""Pictures for talks (extra ``plots``); each function takes results or parameters and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nu_physics.errors import MissingExtra
from nu_physics.oscillation import (
    OscillationParameters,
    ScalarNSI,
    effective_parameters,
    eta_resonance,
    survival,
)
from nu_physics.reactor.experiment import juno
from nu_physics.statistics.analysis import eta_profile, mass_ordering, precision

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "PLOTS", "RED", "axes", "figure_svg"]

# colour-blind safe (Okabe and Ito)
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"


def axes(rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """Return a figure and its axes in the house's style."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("plots", "drawing") from None
    figure = Figure(figsize=options.pop("figsize", (7.2, 4.4)), layout="constrained")
    axes = figure.subplots(rows, 1, **options)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2, linewidth=0.6)
    return figure, axes


def probability_figure(truth: OscillationParameters | None = None) -> Any:
    """P_ee at 52.5 km without and with a scalar term."""
    nature = (truth or OscillationParameters()).replace(m_lightest_eV=0.01)
    energy = np.linspace(1.8, 9.0, 3000)
    figure, (top, bottom) = axes(2, figsize=(7.2, 6.0), sharex=True)
    standard = survival(energy, 52.5, nature, density_g_cm3=2.45)
    top.plot(energy, standard, color=GREY, linewidth=0.9, label="standard")
    for eta, colour in ((-0.02, BLUE), (0.02, RED)):
        moved = survival(energy, 52.5, nature, ScalarNSI(ee=eta), density_g_cm3=2.45)
        top.plot(energy, moved, color=colour, linewidth=0.9, label=rf"$\eta_{{ee}} = {eta:+.2f}$")
        bottom.plot(energy, moved - standard, color=colour, linewidth=0.9)
    top.set_ylabel(r"$P(\bar\nu_e\to\bar\nu_e)$ at 52.5 km")
    top.legend(frameon=False, ncols=3, loc="upper left")
    top.set_ylim(0, 1.12)
    bottom.set_ylabel("difference")
    bottom.set_xlabel("neutrino energy (MeV)")
    top.set_title(rf"Scalar NSI at JUNO, {nature.ordering} ordering, $m_\ell$ = 0.01 eV", loc="left")
    return figure


def effective_figure(truth: OscillationParameters | None = None) -> Any:
    """The effective theta12 and dm21 as a function of eta_ee, and where the resonance is."""
    base = truth or OscillationParameters()
    figure, (top, bottom) = axes(2, figsize=(7.2, 6.0), sharex=True)
    eta = np.linspace(-0.03, 0.03, 601)
    for ordering, mass, colour, style in (
        ("normal", 0.01, BLUE, "-"),
        ("normal", 0.05, GREEN, "-"),
        ("inverted", 0.01, RED, "--"),
    ):
        nature = base.replace(m_lightest_eV=mass).with_ordering(ordering)  # type: ignore[arg-type]
        seen = [effective_parameters(nature, ScalarNSI(ee=float(v))) for v in eta]
        top.plot(
            eta,
            [np.degrees(np.arcsin(np.sqrt(s.sin2_theta12))) for s in seen],
            color=colour,
            linestyle=style,
            label=rf"{ordering}, $m_\ell$ = {mass} eV",
        )
        bottom.plot(eta, [1e5 * s.dm21_eV2 for s in seen], color=colour, linestyle=style)
        resonance = eta_resonance(nature)
        if abs(resonance) < 0.03:
            top.axvline(resonance, color=colour, linewidth=0.8, linestyle=":")
            bottom.axvline(resonance, color=colour, linewidth=0.8, linestyle=":")
    top.axhline(45.0, color=GREY, linewidth=0.8)
    top.set_ylabel(r"effective $\theta_{12}$ (degrees)")
    top.legend(frameon=False)
    bottom.set_ylabel(r"effective $\Delta m^2_{21}$ ($10^{-5}$ eV$^2$)")
    bottom.set_xlabel(r"$\eta_{ee}$")
    bottom.set_yscale("log")
    top.set_title("Every scalar NSI is a standard parameter set to a reactor; dotted: resonance", loc="left")
    return figure


def spectrum_figure(truth: OscillationParameters | None = None) -> Any:
    """JUNO's spectrum for both orderings with the backgrounds, and their ratio."""
    nature = truth or OscillationParameters()
    experiment = juno()
    both = mass_ordering(experiment, nature)
    spectra = {r.vacuum_ordering: experiment.predict(r.parameters) for r in (both.normal, both.inverted)}
    centres, widths = experiment.binning.centres_MeV, experiment.binning.widths_MeV
    figure, (top, bottom) = axes(2, figsize=(7.2, 6.0), sharex=True, height_ratios=(3, 1))
    top.step(centres, spectra["normal"].total / widths / 50.0, where="mid", color=BLUE, linewidth=0.9, label="normal")
    top.step(
        centres,
        spectra["inverted"].total / widths / 50.0,
        where="mid",
        color=RED,
        linewidth=0.9,
        label="inverted, best fit",
    )
    top.fill_between(
        centres, spectra["normal"].background / widths / 50.0, step="mid", color=GREY, alpha=0.35, label="backgrounds"
    )
    top.set_ylabel("events per 20 keV")
    top.legend(frameon=False)
    top.set_title(
        rf"JUNO, 6.5 years at 26.6 GW: $\Delta\chi^2$ = {both.preference:.1f}, true {nature.ordering} ordering",
        loc="left",
    )
    ratio = spectra["inverted"].total / spectra["normal"].total
    bottom.step(centres, ratio, where="mid", color=RED, linewidth=0.9)
    bottom.axhline(1.0, color=GREY, linewidth=0.8)
    bottom.set_ylim(0.93, 1.07)
    bottom.set_xlim(0.8, 8.2)
    bottom.set_ylabel("inverted / normal")
    bottom.set_xlabel("visible energy (MeV)")
    return figure


def bounds_figure(truth: OscillationParameters | None = None) -> Any:
    """chi2 of eta_ee in the three regimes: what v1 and v4 of 2306.07343 say, side by side."""
    base = truth or OscillationParameters()
    experiment = juno(exposure_days=6 * 365.25)
    figure, axis = axes()
    for ordering, colour in (("normal", BLUE), ("inverted", RED)):
        nature = base.with_ordering(ordering)  # type: ignore[arg-type]
        for regime, style, reach in (("fixed", "-", 0.004), ("prior", "--", 0.02), ("free", ":", 0.02)):
            eta = np.linspace(-reach, reach, 31)
            chi2 = eta_profile(experiment, nature, eta, regime=regime)  # type: ignore[arg-type]
            axis.plot(eta, chi2, color=colour, linestyle=style, linewidth=1.4, label=f"{ordering}, {regime}")
    axis.axhline(9.0, color=GREY, linewidth=0.8)
    axis.set_ylim(-0.5, 24)
    axis.set_xlabel(r"$\eta_{ee}$")
    axis.set_ylabel(r"$\Delta\chi^2$")
    axis.legend(frameon=False, title="ordering, other parameters", ncols=2, fontsize="small")
    axis.set_title(r"JUNO, 6 years, $m_\ell$ = 0: a bound needs outside knowledge", loc="left")
    return figure


def ordering_figure(truth: OscillationParameters | None = None) -> Any:
    """Ordering sensitivity against an eta_ee that the fit does not know of."""
    nature = (truth or OscillationParameters()).replace(m_lightest_eV=0.01).with_ordering("inverted")
    experiment = juno()
    eta = np.linspace(-0.01, 0.009, 39)
    chi2 = [mass_ordering(experiment, nature, ScalarNSI(ee=float(v))).preference for v in eta]
    figure, axis = axes()
    axis.plot(eta, chi2, color=BLUE)
    axis.axhline(0.0, color=GREY, linewidth=0.8)
    axis.axhline(4.0, color=GREY, linewidth=0.8, linestyle="--")
    axis.axvline(eta_resonance(nature), color=RED, linewidth=1.0, linestyle=":", label=r"resonance, closed form")
    axis.plot([-7.1e-3, 3.3e-3], [4.0, 4.0], "o", color=ORANGE, label=r"2$\sigma$ points of 2602.05564")
    axis.set_xlabel(r"true $\eta_{ee}$ (not in the fit)")
    axis.set_ylabel(r"$\chi^2$(normal) $-$ $\chi^2$(inverted)")
    axis.set_title(r"JUNO, true inverted ordering, $m_\ell$ = 0.01 eV: lost at the resonance", loc="left")
    axis.legend(frameon=False)
    return figure


def precision_figure(truth: OscillationParameters | None = None) -> Any:
    """Relative precision of the four parameters with time."""
    nature = truth or OscillationParameters()
    years = np.array([0.27, 0.5, 1, 2, 4, 6, 10, 20])
    table = [precision(juno(exposure_days=365.25 * float(y)), nature).relative_percent for y in years]
    figure, axis = axes()
    labels = {
        "sin2_theta13": (r"$\sin^2\theta_{13}$", ORANGE),
        "sin2_theta12": (r"$\sin^2\theta_{12}$", BLUE),
        "dm21_eV2": (r"$\Delta m^2_{21}$", GREEN),
        "dm31_eV2": (r"$\Delta m^2_{31}$", RED),
    }
    for name, (label, colour) in labels.items():
        axis.plot(years, [row[name] for row in table], "o-", color=colour, label=label, markersize=4)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("years at full power")
    axis.set_ylabel("precision (%)")
    axis.legend(frameon=False)
    axis.set_title("JUNO alone, all four parameters free", loc="left")
    return figure


def dayabay_figure(truth: OscillationParameters | None = None) -> Any:
    """Daya Bay data: measured far/near over the no-oscillation expectation, and the best fit."""
    from nu_physics.reactor.dayabay import load_dayabay

    data = load_dayabay()
    result = data.fit()
    ratio, error = data.observed_ratio()
    still = OscillationParameters(0.307, 0.0, 0.5, 7.53e-5, 2.5e-3)
    sin2 = 0.5 * (1.0 - np.sqrt(1.0 - result.sin2_2theta13))
    best = OscillationParameters(0.307, float(sin2), 0.5, 7.53e-5, result.dm32_eV2 + 7.53e-5)
    reference, fitted = data.ratio(still), data.ratio(best)
    bins = data.edges_MeV.size - 1
    weight = (1.0 / error**2).reshape(-1, bins)

    def combined(values: Any) -> Any:
        return (values.reshape(-1, bins) * weight).sum(axis=0) / weight.sum(axis=0)

    points, curve = combined(ratio / reference), combined(fitted / reference)
    size = 1.0 / np.sqrt((weight * reference.reshape(-1, bins) ** 2).sum(axis=0))
    centres = 0.5 * (data.edges_MeV[1:] + data.edges_MeV[:-1])
    figure, axis = axes()
    axis.errorbar(centres, points, size, fmt="o", color=GREY, markersize=4, label="data, three periods combined")
    axis.step(centres, curve, where="mid", color=RED, label="best fit")
    axis.axhline(1.0, color=GREY, linewidth=0.8)
    axis.set_xlim(0.7, 8.0)
    axis.set_xlabel("reconstructed energy (MeV)")
    axis.set_ylabel("far / near over no oscillation")
    axis.legend(frameon=False)
    axis.set_title(
        rf"Daya Bay: $\sin^2 2\theta_{{13}}$ = {result.sin2_2theta13:.4f} $\pm$ {result.sin2_2theta13_error:.4f}, "
        rf"$\Delta m^2_{{32}}$ = {1e3 * result.dm32_eV2:.3f} $\pm$ {1e3 * result.dm32_error_eV2:.3f}",
        loc="left",
        fontsize="medium",
    )
    return figure


PLOTS: dict[str, Callable[..., Any]] = {
    "probability": probability_figure,
    "effective": effective_figure,
    "spectrum": spectrum_figure,
    "bounds": bounds_figure,
    "ordering": ordering_figure,
    "precision": precision_figure,
    "dayabay": dayabay_figure,
}


def figure_svg(figure: Any) -> str:
    """Return a figure as SVG text without date or random identifiers."""
    import io

    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "nu-physics", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
