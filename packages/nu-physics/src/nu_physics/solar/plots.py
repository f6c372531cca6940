"""Pictures of the solar half (extra ``plots``); each function returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nu_physics.plots import BLUE, GREEN, GREY, ORANGE, RED, axes
from nu_physics.solar.bounds import BoundsJob, run_bounds
from nu_physics.solar.capture import capture_rate
from nu_physics.solar.equilibrium import annihilation_rate
from nu_physics.solar.limits import limit, limit_names
from nu_physics.solar.propagation import propagation_matrix
from nu_physics.solar.spectra import source_spectrum
from nu_physics.solar.telescope import arca

__all__ = ["PLOTS"]

_COLOURS = {"bb": BLUE, "WW": ORANGE, "tautau": GREEN, "tt": RED, "ZZ": "#CC79A7", "hh": GREY}


def capture_figure() -> Any:
    """Spin-independent capture by element, with the fit of the 1996 review."""
    masses = np.logspace(1.0, 4.0, 40)
    exact = [capture_rate(float(m), sigma_si_cm2=1e-45) for m in masses]
    figure, axis = axes()
    axis.loglog(masses, [r.rate_per_s for r in exact], color="black", lw=2, label="all")
    for name, colour in (("O16", BLUE), ("He4", ORANGE), ("Fe", RED), ("H1", GREY)):
        axis.loglog(masses, [r.per_element_per_s[name] for r in exact], color=colour, lw=1.2, label=name)
    fit = [capture_rate(float(m), sigma_si_cm2=1e-45, method="jkg").rate_per_s for m in masses]
    axis.loglog(masses, fit, "k:", label="review of 1996")
    axis.set(xlabel="mass (GeV)", ylabel="captured per second at 1e-45 cm$^2$", ylim=(1e13, 3e21))
    axis.legend(frameon=False, ncols=2)
    return figure


def equilibrium_figure() -> Any:
    """How far from equilibrium the Sun is at each limit."""
    figure, axis = axes()
    for name, colour in (("xenon1t-2018", BLUE), ("pandax-4t-2024", ORANGE), ("lz-2024", RED)):
        masses = np.logspace(1.2, 3.9, 60)
        values = []
        for m in masses:
            c = capture_rate(float(m), sigma_si_cm2=limit(name).cross_section(float(m))).rate_per_s
            values.append(annihilation_rate(c, float(m)).equilibrium)
        axis.semilogx(masses, values, color=colour, lw=2, label=name)
    axis.axhline(0.9, color=GREY, lw=0.8, ls="--")
    axis.set(xlabel="mass (GeV)", ylabel="tanh$^2$(t / tau)", ylim=(0, 1.03))
    axis.legend(frameon=False)
    return figure


def spectra_figure() -> Any:
    """Muon neutrinos at production and at the Earth."""
    figure, axis = axes()
    matrix = propagation_matrix()
    width = np.diff(np.log10(matrix.edges_GeV))
    for name in ("bb", "WW", "tautau"):
        source = source_spectrum(name, 1000.0).number
        arrived = matrix.apply(source)
        axis.loglog(matrix.centres_GeV, source[1] / width, color=_COLOURS[name], ls=":", lw=1)
        axis.loglog(matrix.centres_GeV, arrived[1] / width, color=_COLOURS[name], lw=2, label=name)
    axis.set(xlabel="energy (GeV)", ylabel="nu_mu per annihilation and decade", ylim=(1e-4, 2), xlim=(5, 1100))
    axis.legend(frameon=False, title="1 TeV; dotted: in the core")
    return figure


def propagation_figure() -> Any:
    """What reaches the Earth of one neutrino in the core, by its energy and flavour."""
    figure, axis = axes()
    matrix = propagation_matrix()
    for row, (name, colour) in enumerate((("nu_e", BLUE), ("nu_mu", ORANGE), ("nu_tau", GREEN))):
        axis.loglog(matrix.centres_GeV, matrix.elements[:, :, row].sum((0, 1)), color=colour, lw=2, label=name)
        axis.loglog(matrix.centres_GeV, matrix.elements[:, :, row + 3].sum((0, 1)), color=colour, lw=1, ls="--")
    axis.set(xlabel="energy in the core (GeV)", ylabel="neutrinos at 1 AU", ylim=(1e-2, 1.6))
    axis.legend(frameon=False, title="dashed: antineutrinos")
    return figure


def area_figure() -> Any:
    """ARCA's area under the Sun."""
    figure, axis = axes()
    energy = np.logspace(2.0, 4.0, 200)
    for selection, style in (("upgoing", "-"), ("all", "--")):
        axis.loglog(energy, arca().mean_cm2(energy, selection) * 1e-4, color=BLUE, ls=style, label=selection)
    axis.set(xlabel="energy (GeV)", ylabel="effective area, mean over the year (m$^2$)")
    axis.legend(frameon=False)
    return figure


def bounds_figure() -> Any:
    """The paper's figure: upper bounds of the rate against mass, one line a channel and limit."""
    figure, axis = axes()
    masses = tuple(float(m) for m in np.logspace(np.log10(120.0), np.log10(9000.0), 24))
    rows, _ = run_bounds(BoundsJob(masses, ("bb", "WW", "tautau"), ("xenon1t-2018", "lz-2024")))
    for model in ("bb", "WW", "tautau"):
        for name, style in (("xenon1t-2018", "-"), ("lz-2024", "--")):
            kept = [r for r in rows if (r.model, r.limit) == (model, name) and not r.no_events]
            points = [(r.mass_GeV, r.events_per_year) for r in kept]
            x, y = zip(*points, strict=True)
            axis.loglog(x, y, color=_COLOURS[model], ls=style, label=model if style == "-" else None)
    axis.axhline(1.0, color=GREY, lw=0.8)
    axis.set(xlabel="mass (GeV)", ylabel="upper bound, ARCA events a year")
    axis.legend(frameon=False, title="solid: XENON1T 2018; dashed: LZ 2024")
    return figure


def limits_figure() -> Any:
    """The packaged limits."""
    figure, axis = axes()
    for name in limit_names():
        entry = limit(name)
        if entry.coupling == "spin-independent":
            axis.loglog(entry.mass_GeV, entry.cross_section_cm2, label=name)
    axis.set(xlabel="mass (GeV)", ylabel="spin-independent limit (cm$^2$)")
    axis.legend(frameon=False)
    return figure


PLOTS: dict[str, Callable[[], Any]] = {
    "capture": capture_figure,
    "equilibrium": equilibrium_figure,
    "spectra": spectra_figure,
    "propagation": propagation_figure,
    "area": area_figure,
    "bounds": bounds_figure,
    "limits": limits_figure,
}
