"""``nu-physics solar``: capture, spectra, propagation, rates, bounds and limits on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from papershelf_core import command
from papershelf_core.files import write_text

__all__ = ["add_parser", "run"]

PLOT_NAMES = ("capture", "equilibrium", "spectra", "propagation", "area", "bounds", "limits")


def add_parser(commands: Any) -> None:
    """Add the group to the parser's commands."""
    group = commands.add_parser("solar", help="solar WIMPs: muon rates at KM3NeT (capture, rate, bounds, ...)")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)

    capture = actions.add_parser("capture", help="capture rate and equilibrium")
    capture.add_argument("mass", type=float, nargs="+", metavar="GEV", help="WIMP mass; several make a table")
    capture.add_argument(
        "--sigma-si", type=float, default=0.0, metavar="CM2", help="spin-independent, on a nucleon (0)"
    )
    capture.add_argument("--sigma-sd", type=float, default=0.0, metavar="CM2", help="spin-dependent, on a proton (0)")
    capture.add_argument("--sun", default="b16-agss09", help="b16-agss09 or b16-gs98 (default: %(default)s)")
    capture.add_argument(
        "--form-factor", choices=("exponential", "helm"), default="exponential", help="%(default)s by default"
    )
    capture.add_argument(
        "--method", choices=("gould", "jkg"), default="gould", help="the integral, or the fit of the 1996 review"
    )

    spectrum = actions.add_parser("spectrum", help="neutrinos per annihilation at production")
    _channel(spectrum)
    spectrum.add_argument("--live", type=int, metavar="EVENTS", help="generate with Pythia instead of the table")
    spectrum.add_argument("--seed", type=int, default=1, help="of Pythia, with --live (default: %(default)s)")

    propagate = actions.add_parser("propagate", help="neutrinos per annihilation that reach the Earth's distance")
    _channel(propagate)

    rate = actions.add_parser("rate", help="muon rates at a given cross section")
    _channel(rate)
    rate.add_argument("--sigma-si", type=float, default=0.0, metavar="CM2", help="spin-independent, on a nucleon (0)")
    rate.add_argument("--sigma-sd", type=float, default=0.0, metavar="CM2", help="spin-dependent, on a proton (0)")
    _rate_options(rate)

    texts = {"bounds": "upper bounds of muon rates at direct-detection limits", "scan": "the same, resumable"}
    for name, text in texts.items():
        bounds = actions.add_parser(name, help=text)
        bounds.add_argument(
            "--mass", type=float, nargs="+", default=[200.0, 500.0, 1000.0, 5000.0], metavar="GEV", help="WIMP masses"
        )
        bounds.add_argument("--model", nargs="+", default=["bb", "WW", "tautau"], help="channels or singlet-scalar")
        bounds.add_argument("--limit", nargs="+", default=["xenon1t-2018"], help="names (see: solar limits), or all")
        bounds.add_argument("--csv", metavar="FILE", help="write the table")
        command.add_json(bounds)
        _rate_options(bounds)
        if name == "scan":
            bounds.add_argument(
                "--executor", choices=("serial", "processes", "ray"), default="serial", help="serial by default"
            )
            bounds.add_argument("--workers", type=int, default=2, help="processes or Ray tasks (%(default)s)")
            bounds.add_argument("--work-dir", metavar="FOLDER", help="keep finished masses here and continue from them")

    limits = actions.add_parser("limits", help="the packaged direct-detection limits")
    limits.add_argument("--mass", type=float, metavar="GEV", help="print each limit at this mass")

    plot = actions.add_parser("plot", help="a picture as SVG (extra: plots)")
    plot.add_argument("name", choices=PLOT_NAMES, metavar="NAME", help=f"what to draw: {', '.join(PLOT_NAMES)}")
    plot.add_argument("file", metavar="FILE.svg")
    for parser in (capture, spectrum, propagate, rate, limits):
        command.add_json(parser)


def _channel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", help="cc, bb, tt, gg, tautau, WW, ZZ, hh, nuenue, numunumu or nutaunutau")
    parser.add_argument("mass", type=float, metavar="GEV", help="WIMP mass")


def _rate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--equilibrium",
        choices=("solve", "assume"),
        default="solve",
        help="of capture and annihilation: solved, or taken as reached",
    )
    parser.add_argument("--threshold", type=float, default=10.0, metavar="GEV", help="least muon energy (%(default)s)")
    parser.add_argument(
        "--selection", choices=("upgoing", "all"), default="upgoing", help="of ARCA's area: %(default)s by default"
    )


def run(args: argparse.Namespace) -> None:
    """Run one action."""
    _ACTIONS[args.action](args)


def _check_cross_section(args: argparse.Namespace) -> None:
    from nu_physics.errors import InvalidInput

    if args.sigma_si == 0.0 and args.sigma_sd == 0.0:
        raise InvalidInput("--sigma-si and --sigma-sd are both 0: nothing is captured; give one in cm2, such as 1e-46")


def _capture(args: argparse.Namespace) -> None:
    from nu_physics.solar.capture import capture_rate
    from nu_physics.solar.equilibrium import annihilation_rate
    from nu_physics.solar.sun import solar_model

    _check_cross_section(args)
    sun, table, lines = solar_model(args.sun), [], []
    for mass in args.mass:
        found = capture_rate(
            mass,
            sigma_si_cm2=args.sigma_si,
            sigma_sd_cm2=args.sigma_sd,
            sun=sun,
            form_factor=args.form_factor,
            method=args.method,
        )
        annihilation = annihilation_rate(found.rate_per_s, mass, sun=sun)
        leading = sorted(found.per_element_per_s.items(), key=lambda item: -item[1])[:4]
        shares = {name: value / found.thin_rate_per_s for name, value in leading if found.thin_rate_per_s > 0}
        table.append(
            {
                "mass_GeV": mass,
                "capture_per_s": found.rate_per_s,
                "saturated": found.saturated,
                "equilibrium": annihilation.equilibrium,
                "annihilation_per_s": annihilation.rate_per_s,
                "shares": shares,
            }
        )
        text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        opaque = "; the Sun is opaque: geometric limit" if found.saturated else ""
        lines.append(
            f"{mass:g} GeV: {found.rate_per_s:.4g} captured /s ({text}), tanh2 = {annihilation.equilibrium:.3g}, "
            f"{annihilation.rate_per_s:.4g} annihilations /s{opaque}"
        )
    command.show(lines, table, args.json)


def _spectrum(args: argparse.Namespace) -> None:
    from nu_physics.errors import InvalidInput
    from nu_physics.solar.spectra import source_spectrum

    sample = None
    if args.live is None and args.seed != 1:
        raise InvalidInput("--seed has no meaning without --live: the table is generated already; leave it out")
    if args.live is not None:
        from nu_physics.solar.production import generate

        sample = generate(args.channel, args.mass, events=args.live, seed=args.seed)
    found = source_spectrum(args.channel, args.mass, sample=sample)
    lines = _spectrum_lines(found.edges_GeV, found.number, found.error)
    command.show(lines, {"edges_GeV": found.edges_GeV.tolist(), "number": found.number.tolist()}, args.json)


def _propagate(args: argparse.Namespace) -> None:
    from nu_physics.solar.propagation import propagation_matrix
    from nu_physics.solar.spectra import source_spectrum

    matrix = propagation_matrix()
    arrived = matrix.apply(source_spectrum(args.channel, args.mass).number)
    lines = _spectrum_lines(matrix.edges_GeV, arrived, None)
    command.show(lines, {"edges_GeV": matrix.edges_GeV.tolist(), "number": arrived.tolist()}, args.json)


def _spectrum_lines(edges: Any, number: Any, error: Any) -> list[str]:
    from nu_physics.solar.channels import FLAVOURS

    centres = (edges[1:] * edges[:-1]) ** 0.5
    lines = ["flavour     neutrinos per annihilation   mean energy (GeV)"]
    for row, name in enumerate(FLAVOURS):
        total = float(number[row].sum())
        spread = "" if error is None else f" +- {float((error[row] ** 2).sum()) ** 0.5:.2g}"
        mean = float((number[row] * centres).sum()) / total if total else 0.0
        lines.append(f"{name:<10}  {total:.4g}{spread:<24}  {mean:.4g}")
    return lines


def _rate(args: argparse.Namespace) -> None:
    from nu_physics.solar.bounds import plain, rates
    from nu_physics.solar.capture import capture_rate
    from nu_physics.solar.equilibrium import annihilation_rate
    from nu_physics.solar.propagation import propagation_matrix
    from nu_physics.solar.spectra import source_spectrum

    _check_cross_section(args)
    found = capture_rate(args.mass, sigma_si_cm2=args.sigma_si, sigma_sd_cm2=args.sigma_sd)
    annihilation = annihilation_rate(found.rate_per_s, args.mass, equilibrium=args.equilibrium)
    arrived = propagation_matrix().apply(source_spectrum(args.channel, args.mass).number)
    result = rates(annihilation.rate_per_s, arrived, threshold_GeV=args.threshold, selection=args.selection)
    seen = f"{result.events_per_year:.3g} events a year" if not result.no_events else result.no_events
    lines = [
        f"{found.rate_per_s:.4g} captured /s, {annihilation.rate_per_s:.4g} annihilations /s "
        f"(tanh2 = {annihilation.equilibrium:.3g})",
        f"ARCA, {args.selection}: {seen}",
        f"muons above {args.threshold:g} GeV: {result.muons_per_km2_year:.3g} a km2 and year through a plane, "
        f"{result.contained_per_km3_year:.3g} a km3 and year that start in water",
    ]
    command.show(lines, plain(result), args.json)


def _bounds(args: argparse.Namespace) -> None:
    from nu_physics.errors import InvalidInput
    from nu_physics.solar.bounds import COLUMNS, BoundsJob, plain, run_bounds
    from nu_physics.solar.limits import limit_names

    limits = limit_names() if args.limit == ["all"] else tuple(args.limit)
    job = BoundsJob(
        tuple(args.mass),
        tuple(args.model),
        limits,
        equilibrium=args.equilibrium,
        threshold_GeV=args.threshold,
        selection=args.selection,
    )
    resumable = args.action == "scan"
    rows, skipped = run_bounds(
        job,
        executor=args.executor if resumable else "serial",
        workers=args.workers if resumable else 1,
        work_dir=args.work_dir if resumable else None,
        progress=_progress if resumable and sys.stderr.isatty() else None,
    )
    if not rows:
        more = f" (and {len(skipped) - 1} more like it)" if len(skipped) > 1 else ""
        raise InvalidInput(f"no bound: {skipped[0]}{more}")
    lines = ["mass (GeV)  model           limit            tanh2   events/year   muons/km2/year   contained/km3/year"]
    for row in rows:
        events = "no area" if row.no_events else f"{row.events_per_year:.3g}"
        lines.append(
            f"{row.mass_GeV:<10g}  {row.model:<14}  {row.limit:<15}  {row.equilibrium:5.3f}   "
            f"{events:<11}   {row.muons_per_km2_year:<14.3g}   {row.contained_per_km3_year:.3g}"
        )
    numbers = [row.events_per_year for row in rows if not row.no_events]
    if numbers and max(numbers) < 1.0:
        whose = "every bound" if len(numbers) == len(rows) else "every bound with an area"
        lines.append(
            f"{whose} is below one selected event a year: at these limits the telescope cannot see the Sun's WIMPs"
        )
    command.show(lines, [plain(row) for row in rows], args.json)
    for row in rows:
        if row.no_events:
            print(
                f"no bound of events: {row.mass_GeV:g} GeV, {row.model}, {row.limit}: {row.no_events}", file=sys.stderr
            )
    for reason in skipped:
        print(f"no bound: {reason}", file=sys.stderr)
    if args.csv:
        import csv
        import io

        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain(row) for row in rows)  # None, where there is no bound, is an empty cell
        write_text(args.csv, table.getvalue())


def _progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} masses", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _limits(args: argparse.Namespace) -> None:
    from nu_physics.errors import InvalidInput, check_range
    from nu_physics.solar.limits import limit, limit_names

    if args.mass is not None:
        check_range("--mass", args.mass, 0.0, open_low=True)
    lines, rows = [], []
    for name in limit_names():
        entry = limit(name)
        low, high = entry.range_GeV
        value, found = "", None
        if args.mass is not None:
            try:
                found = entry.cross_section(args.mass)
                value = f"  {found:.3g} cm2"
            except InvalidInput:
                value = "  outside its range"
        about = "; ".join(text for text in (entry.title, entry.note, f"halo {entry.halo}", entry.source) if text)
        lines.append(f"{name:<16} {entry.coupling:<16} {low:6.3g} to {high:6.5g} GeV{value}  {about}")
        row = {"name": name, "coupling": entry.coupling, "range_GeV": [low, high], "about": about}
        rows.append(row if args.mass is None else {**row, "sigma_cm2": None if found is None else float(found)})
    command.show(lines, rows, args.json)


def _plot(args: argparse.Namespace) -> None:
    from nu_physics.errors import InvalidInput
    from nu_physics.plots import figure_svg
    from nu_physics.solar.plots import PLOTS

    if Path(args.file).suffix != ".svg":
        raise InvalidInput(f"file = {args.file!r}: the suffix must be .svg")
    write_text(args.file, figure_svg(PLOTS[args.name]()))
    print(f"{args.file} written")


_ACTIONS = {
    "capture": _capture,
    "spectrum": _spectrum,
    "propagate": _propagate,
    "rate": _rate,
    "bounds": _bounds,
    "scan": _bounds,
    "limits": _limits,
    "plot": _plot,
}
