"""The claims of the solar half, measured now.

The full text of 2203.13697 was not read, only its abstract: upper bounds of the muon rate of solar WIMPs at KM3NeT, the
cross section being at a direct-detection bound, for single channels and for particle models. What is compared is named.
"""

from __future__ import annotations

import time

import numpy as np
from papershelf_core.claims import Claim
from papershelf_core.timed import within

from nu_physics.solar.bounds import BoundsJob, RateBound, run_bounds
from nu_physics.solar.capture import capture_rate
from nu_physics.solar.channels import HADRONIC
from nu_physics.solar.limits import limit_names

__all__ = ["claims", "pictures"]

PAPER = "2203.13697"


def _capture() -> list[Claim]:
    rows = []
    for mass, expected in ((20.0, 3.863e20), (100.0, 9.162e19), (1000.0, 2.855e18)):
        found = capture_rate(mass, sigma_si_cm2=1e-45).rate_per_s
        rows.append(
            Claim(
                PAPER,
                f"capture at {mass:g} GeV and 1e-45 cm2 within 0.5 % of an independent integral (29 isotopes)",
                "separate prototype",
                found,
                expected,
                "1/s",
                "equal",
                abs(found / expected - 1.0) < 5e-3,
            )
        )
    return rows


def _bounds() -> list[Claim]:
    """The paper's job, whole: every mass, channel and limit."""
    masses = tuple(float(m) for m in np.logspace(np.log10(60.0), np.log10(9000.0), 20))
    channels = ("bb", "cc", "tt", "WW", "ZZ", "tautau")
    begin = time.perf_counter()
    rows, _ = run_bounds(BoundsJob(masses, channels, limit_names()))
    seconds = time.perf_counter() - begin
    seen = [row for row in rows if not row.no_events]
    independent = [row for row in seen if row.limit in ("xenon1t-2018", "pandax-4t-2024", "lz-2024")]
    largest = max(independent, key=lambda row: row.events_per_year)
    ratio = _at(rows, "tautau", "xenon1t-2018") / _at(rows, "tautau", "lz-2024")
    return [
        within(
            PAPER,
            f"20 masses x {len(channels)} channels x {len(limit_names())} limits, shipped tables, within a minute",
            seconds,
            60.0,
            note=f"{len(seen)} bounds, {len(rows) - len(seen)} more without area; spectra of {len(HADRONIC)} channels",
        ),
        Claim(
            PAPER,
            "largest upper bound of selected ARCA events at a spin-independent limit is below one a year",
            "one event",
            largest.events_per_year,
            1.0,
            "events/year",
            "lower",
            largest.events_per_year < 1.0,
            f"{largest.model} at {largest.mass_GeV:.0f} GeV, {largest.limit}",
        ),
        Claim(
            PAPER,
            "the bound of tautau near 1 TeV falls from XENON1T 2018 to LZ 2024 by more than the limit does (x 30)",
            "limits alone",
            ratio,
            30.0,
            "",
            "higher",
            ratio > 30.0,
            "equilibrium is lost as well",
        ),
    ]


def _at(rows: list[RateBound], model: str, name: str) -> float:
    """Events a year at the mass nearest to 1 TeV."""
    chosen = [row for row in rows if (row.model, row.limit) == (model, name)]
    return min(chosen, key=lambda row: abs(np.log(row.mass_GeV / 1000.0))).events_per_year


def claims() -> list[Claim]:
    """Measure every claim of the solar half."""
    return [*_capture(), *_bounds()]


def pictures() -> dict[str, str]:
    """Return the paper's kind of figure, title to SVG."""
    from nu_physics.plots import figure_svg
    from nu_physics.solar.plots import PLOTS

    return {"Upper bounds of ARCA's event rate from the Sun": figure_svg(PLOTS["bounds"]())}
