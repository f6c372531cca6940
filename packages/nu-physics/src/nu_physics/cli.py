"""The ``nu-physics`` command: parse, call the library, print.

Options may also come from a TOML file (``--config``), keys named as the options, ``[set]`` as a table.
"""

from __future__ import annotations

import argparse
import math
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papershelf_core import command
from papershelf_core.files import replacing

from nu_physics.solar.commands import add_parser as add_solar_parser

__all__ = ["main"]

REGIMES = ("fixed", "prior", "free")
_REGIME_HELP = "oscillation parameters fixed, with the global fit as prior, or free (default: %(default)s)"
_DOMAIN_HELP = "theta12 below 45 degrees (light), above (dark) or both (default: %(default)s)"
PLOT_NAMES = ("probability", "effective", "spectrum", "bounds", "ordering", "precision", "dayabay")


def _model_options(parser: argparse.ArgumentParser, *, experiment: bool = True, statistics: bool = True) -> None:
    parser.add_argument("--config", metavar="TOML", help="read options from a file; the command line wins")
    parser.add_argument("--preset", default="pdg2020", help="global-fit values (default: %(default)s)")
    parser.add_argument("--ordering", choices=("normal", "inverted"), help="move the preset to this ordering")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter: sin2_theta12, dm21_eV2, m_lightest_eV, eta_ee, eta_em, eta_em_imag, ...; repeatable",
    )
    command.add_json(parser)
    if experiment:
        parser.add_argument("--years", type=float, default=6.5, help="exposure in years (default: %(default)s)")
        parser.add_argument(
            "--duty-cycle", type=float, default=1.0, help="reactor duty cycle; 11/12 = 0.9167 for calendar time"
        )
        parser.add_argument("--layout", default="juno-2022", help="juno-2022 or juno-2015 (default: %(default)s)")
    if experiment and statistics:
        parser.add_argument("--statistics-only", action="store_true", help="no systematic uncertainties")
        parser.add_argument("--statistic", default="gaussian", help="gaussian, cnp or poisson (default: %(default)s)")


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        "nu-physics",
        distribution="nu-physics",
        description="Reactor neutrinos with scalar non-standard interactions (JUNO, Daya Bay); solar WIMPs at KM3NeT.",
        epilog="exit codes: 0 done, 2 usage, 3 unusable input",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    prob = commands.add_parser("prob", help="oscillation probabilities at constant density")
    _model_options(prob, experiment=False)
    prob.add_argument(
        "--energy", type=float, nargs="+", default=[2.0, 3.0, 4.0, 5.0, 6.0], metavar="MEV", help="in MeV (2 3 4 5 6)"
    )
    prob.add_argument("--baseline", type=float, default=52.5, metavar="KM", help="in km (default: %(default)s)")
    prob.add_argument(
        "--density", type=float, default=2.45, metavar="G_CM3", help="in g/cm3; 0 is vacuum (default: %(default)s)"
    )
    prob.add_argument(
        "--channels", choices=("ee", "all"), default="ee", help="P_ee, or all nine (default: %(default)s)"
    )
    prob.add_argument("--neutrino", action="store_true", help="neutrinos instead of antineutrinos")

    spectrum = commands.add_parser("spectrum", help="JUNO's expected spectrum and rates")
    _model_options(spectrum, statistics=False)
    spectrum.add_argument("--csv", metavar="FILE", help="write bin edges, signal and backgrounds")

    fit = commands.add_parser("fit", help="fit JUNO counts or the Daya Bay data")
    _model_options(fit)
    fit.add_argument("data", nargs="?", default="asimov", help="asimov, dayabay, or a text file with 340 counts")
    fit.add_argument("--regime", choices=REGIMES, default="free", help=_REGIME_HELP)
    fit.add_argument("--free", nargs="+", metavar="NAME", help="fitted parameters, instead of the four of the regime")
    fit.add_argument("--theta12-domain", choices=("light", "dark", "both"), default="both", help=_DOMAIN_HELP)

    ordering = commands.add_parser(
        "ordering", help="mass-ordering sensitivity; eta set here is in nature, not in the fit"
    )
    _model_options(ordering)
    ordering.add_argument("--theta12-domain", choices=("light", "dark", "both"), default="light", help=_DOMAIN_HELP)

    bounds = commands.add_parser("bounds", help="bounds on one eta in each regime")
    _model_options(bounds)
    bounds.add_argument("--eta", default="eta_ee", help="which eta (default: %(default)s)")
    bounds.add_argument("--regime", choices=(*REGIMES, "all"), default="all", help=_REGIME_HELP)
    bounds.add_argument("--sigmas", type=float, default=3.0, help="confidence in standard deviations (%(default)s)")

    precision = commands.add_parser("precision", help="expected precision of the oscillation parameters")
    _model_options(precision)

    scan = commands.add_parser("scan", help="a grid of fits, resumable")
    _model_options(scan)
    scan.add_argument(
        "--grid", action="append", required=True, metavar="NAME=LOW:HIGH:COUNT", help="an axis; repeatable"
    )
    scan.add_argument("--regime", choices=REGIMES, default="free", help=_REGIME_HELP)
    scan.add_argument("--executor", default="serial", help="serial, processes or ray (default: %(default)s)")
    scan.add_argument("--workers", type=int, default=2, help="processes or Ray tasks (default: %(default)s)")
    scan.add_argument("--chunk", type=int, default=200, help="points per checkpoint (default: %(default)s)")
    scan.add_argument("--work-dir", metavar="FOLDER", help="keep finished chunks here and resume from them")
    scan.add_argument("--out", required=True, metavar="FILE", help="table, .parquet or .npz")

    toys = commands.add_parser("toys", help="simulated experiments: distribution of the ordering statistic")
    _model_options(toys)
    toys.add_argument("--count", type=int, default=100, help="experiments to simulate (default: %(default)s)")
    toys.add_argument("--seed", type=int, default=0, help="at least 0 (default: %(default)s)")
    toys.add_argument("--event-level", action="store_true", help="draw every event, not counts in bins (slower)")

    plot = commands.add_parser("plot", help="pictures (extra plots)")
    plot.add_argument("name", choices=PLOT_NAMES, metavar="NAME", help=f"what to draw: {', '.join(PLOT_NAMES)}")
    plot.add_argument("--out", required=True, metavar="FILE", help="suffix decides: .svg, .pdf, .png")
    plot.add_argument("--preset", default="pdg2020", help="global-fit values (default: %(default)s)")

    data = commands.add_parser("data", help="what data and constants there are")
    data.add_argument("action", choices=("list", "check"), help="list everything, or check the Daya Bay release")
    command.add_json(data)

    add_solar_parser(commands)

    reproduce = commands.add_parser("reproduce", help="the claims of the papers, measured now")
    reproduce.add_argument("--full", action="store_true", help="also the slow ones and those on downloaded data")
    command.add_json(reproduce)
    return parser


def _apply_config(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse with the keys of --config as defaults of the subcommand."""
    from nu_physics.errors import InvalidInput, check_choice

    finder = argparse.ArgumentParser(add_help=False)
    finder.add_argument("--config")
    path = finder.parse_known_args(arguments)[0].config
    if path is None:
        return parser.parse_args(arguments)
    command = next((word for word in arguments or sys.argv[1:] if word in _COMMANDS), "")
    actions = {} if command in ("", "solar") else {a.dest: a for a in _subparser(parser, command)._actions}
    if "config" not in actions:
        return parser.parse_args(arguments)  # which refuses it
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--config {path} is no TOML ({error})") from None
    values = table.pop("set", {})
    if not isinstance(values, dict):
        raise InvalidInput(f"set = {values!r} in {path}: give a table, [set] and lines NAME = VALUE")
    pairs = [f"{name}={value}" for name, value in values.items()]
    defaults = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        check_choice(f"key in {path}", name, [k for k in actions if k not in ("config", "help", "set")])
        defaults[name] = _from_file(actions[name], value, key, path)
        actions[name].required = False
    for action in actions.values():  # a list on the command line stands in place of the file's, not behind it
        if isinstance(action, argparse._AppendAction) and any(
            word.split("=")[0] in action.option_strings for word in arguments or sys.argv[1:]
        ):
            defaults.pop(action.dest, None)
    _subparser(parser, command).set_defaults(**defaults)
    args = parser.parse_args(arguments)
    args.set = pairs + args.set
    return args


def _from_file(action: argparse.Action, value: Any, key: str, path: str) -> Any:
    """A value of the file, held to the type and the choices of its option."""
    from nu_physics.errors import InvalidInput, check_choice

    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InvalidInput(f"{key} = {value!r} in {path}: give true or false")
        return value
    many = action.nargs == "+" or isinstance(action, argparse._AppendAction)
    if isinstance(value, list) != many or (many and not value):
        raise InvalidInput(f"{key} = {value!r} in {path}: give a {'list' if many else 'value'}")
    found = []
    for entry in value if many else [value]:
        kind = action.type or str
        fits = isinstance(entry, str) if kind is str else isinstance(entry, int) or kind is float
        if (
            isinstance(entry, (bool, dict, list))
            or not fits
            or (kind is not str and not isinstance(entry, (int, float)))
        ):
            raise InvalidInput(f"{key} = {entry!r} in {path}: give {'text' if kind is str else 'a number'}")
        if action.choices is not None:
            check_choice(f"{key} in {path}", entry, action.choices)
        found.append(kind(entry))  # type: ignore[operator]
    return found if many else found[0]


def _subparser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser = action.choices[name]
            return found
    raise AssertionError("the parser has subcommands")


def _physics(args: argparse.Namespace) -> tuple[Any, Any]:
    """Oscillation parameters and scalar term from --preset, --ordering and --set."""
    from nu_physics.errors import InvalidInput
    from nu_physics.oscillation.parameters import preset
    from nu_physics.statistics.fit import with_values

    parameters = preset(args.preset)
    values = {}
    for item in args.set:
        name, separator, text = item.partition("=")
        try:
            values[name.strip()] = float(text)
        except ValueError:
            separator = ""
        if not separator:
            raise InvalidInput(f"--set {item!r}: give NAME=NUMBER")
    plain = {name: value for name, value in values.items() if not name.startswith("eta_")}
    eta = {name: value for name, value in values.items() if name.startswith("eta_")}
    parameters, _ = with_values(parameters, None, plain)
    if args.ordering is not None:
        parameters = parameters.with_ordering(args.ordering)
    return with_values(parameters, None, eta)


def _experiment(args: argparse.Namespace) -> Any:
    from nu_physics.reactor.experiment import Systematics, juno

    statistics_only = getattr(args, "statistics_only", False)
    return juno(
        exposure_days=365.25 * args.years,
        duty_cycle=args.duty_cycle,
        layout=args.layout,
        systematics=Systematics.none() if statistics_only else None,
        nonlinearity_pulls=not statistics_only,
    )


def _plain(result: Any) -> Any:
    """The result as JSON can hold it: None for what has no bound."""
    if isinstance(result, dict):
        return {key: _plain(value) for key, value in result.items()}
    if isinstance(result, list):
        return [_plain(value) for value in result]
    return None if isinstance(result, float) and not math.isfinite(result) else result


def _show(args: argparse.Namespace, lines: Sequence[str], result: Any) -> None:
    command.show(lines, _plain(result), args.json)


def _prob(args: argparse.Namespace) -> None:
    from nu_physics.oscillation import effective_parameters, probability, survival

    parameters, snsi = _physics(args)
    options = {"density_g_cm3": args.density, "antineutrino": not args.neutrino}
    seen = effective_parameters(parameters, snsi, args.density)
    lines = [
        f"{parameters.ordering} ordering in vacuum, {seen.effective_ordering} effective; "
        f"effective sin2_theta12 = {seen.sin2_theta12:.4f}, dm21 = {seen.dm21_eV2:.4e} eV2, "
        f"dm31 = {seen.dm31_eV2:.5e} eV2"
    ]
    if args.channels == "ee":
        values = survival(args.energy, args.baseline, parameters, snsi, **options)
        lines.append("energy (MeV)   P_ee")
        lines += [f"{e:12.4f}   {p:.12f}" for e, p in zip(args.energy, values, strict=True)]
    else:
        values = probability(args.energy, args.baseline, parameters, snsi, **options)
        flavours = ("e", "mu", "tau")
        names = [f"{a}->{b}" for a in flavours for b in flavours]
        lines.append("energy (MeV)  " + "".join(f"{name:>12}" for name in names))
        lines += [
            f"{e:12.4f}  " + "".join(f"{p:12.8f}" for p in row.ravel())
            for e, row in zip(args.energy, values, strict=True)
        ]
    result = {"energy_MeV": args.energy, "baseline_km": args.baseline, "probability": values.tolist()}
    _show(args, lines, result)


def _spectrum(args: argparse.Namespace) -> None:
    import numpy as np

    parameters, snsi = _physics(args)
    experiment = _experiment(args)
    spectrum = experiment.predict(parameters, snsi)
    rates = experiment.rate_per_core(parameters, snsi)
    lines = [
        f"{experiment.site.description}: {spectrum.signal.sum():.0f} signal and {spectrum.background.sum():.0f} "
        f"background events in {args.years:g} years"
    ]
    lines += [f"  {name:<14} {rate:6.2f} a day" for name, rate in rates.items()]
    lines += [
        f"  {b.name:<18} {b.rate_per_day:6.2f} a day, +-{100 * b.rate_uncertainty:.0f} %"
        for b in experiment.backgrounds
    ]
    if args.csv:
        names = list(spectrum.backgrounds)
        table = np.column_stack(
            [spectrum.edges_MeV[:-1], spectrum.edges_MeV[1:], spectrum.signal, *spectrum.backgrounds.values()]
        )
        header = ",".join(["low_MeV", "high_MeV", "signal", *names])
        with replacing(args.csv) as scratch:
            np.savetxt(scratch, table, delimiter=",", header=header, comments="", fmt="%.9g")
    _show(
        args,
        lines,
        {"rates_per_day": rates, "signal": spectrum.signal.tolist(), "edges_MeV": spectrum.edges_MeV.tolist()},
    )


def _counts(path: str) -> Any:
    import numpy as np

    from nu_physics.errors import InvalidInput

    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return np.array([float(word) for line in lines for word in line.partition("#")[0].split()])
    except ValueError as error:
        raise InvalidInput(f"data = {path!r}: {error}; give a text file of numbers, one count a bin") from None


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse options that a command would ignore."""
    from nu_physics.errors import InvalidInput

    defaults = vars(_subparser(_parser(), args.command).parse_args(REQUIRED.get(args.command, [])))
    for name in names:
        if getattr(args, name) != defaults[name]:
            raise InvalidInput(f"--{name.replace('_', '-')} has no meaning here: {why}; leave it out")


# what parse_args needs to give the defaults of the rest
REQUIRED = {"scan": ["--grid", "", "--out", ""]}


def _fit(args: argparse.Namespace) -> None:
    if args.data == "dayabay":
        import dataclasses

        ours = ("preset", "set", "years", "duty_cycle", "layout", "statistics_only", "statistic", "regime", "free")
        _refuse(args, (*ours, "theta12_domain"), "the Daya Bay fit is of theta13 and dm32 to its own release")

        from nu_physics.reactor.dayabay import load_dayabay

        result = load_dayabay().fit(args.ordering or "normal")
        lines = [
            f"Daya Bay, {result.candidates} candidates, far/near, {result.ordering} ordering",
            f"  sin^2(2 theta13) = {result.sin2_2theta13:.5f} +- {result.sin2_2theta13_error:.5f}",
            f"  dm32             = {result.dm32_eV2:.4e} +- {result.dm32_error_eV2:.1e} eV2",
            f"  chi2 / ndf       = {result.chi2:.1f} / {result.ndf}",
        ]
        _show(args, lines, dataclasses.asdict(result))
        return
    from nu_physics.errors import InvalidInput
    from nu_physics.statistics.analysis import global_fit_priors
    from nu_physics.statistics.fit import OSCILLATION, Fit

    parameters, snsi = _physics(args)
    experiment = _experiment(args)
    counts = experiment.expected(parameters, snsi) if args.data == "asimov" else _counts(args.data)
    priors = global_fit_priors(parameters) if args.regime == "prior" else {}
    default = () if args.regime == "fixed" else OSCILLATION
    if args.free and args.regime == "fixed":
        raise InvalidInput("--regime fixed holds what --free frees; leave one out")
    fit = Fit(experiment, counts, parameters, snsi, statistic=args.statistic, priors=priors)
    best = fit.best(parameters, snsi, free=tuple(args.free or default), theta12_domain=args.theta12_domain)
    summary = best.summary()
    lines = [
        f"chi2 = {best.chi2:.4f} ({best.statistic}); oscillation parameters {best.regime}; theta12 domain "
        f"{best.theta12_domain}; vacuum ordering {best.vacuum_ordering}, effective ordering {best.effective_ordering}"
    ]
    bounded = {name: f"+- {error:.2e}" if math.isfinite(error) else "unbounded" for name, error in best.errors.items()}
    lines += [f"  {name:<14} = {best.values[name]: .6e} {bounded[name]}" for name in best.free]
    for direction in best.open_directions:
        along = ", ".join(name for name, change in direction.items() if change != 0.0)
        lines.append(f"  the data leave one combination open, along {along}")
    lines += [f"  {name:<14} = fixed" for name in best.fixed]
    _show(args, lines, summary)


def _ordering(args: argparse.Namespace) -> None:
    from nu_physics.oscillation import effective_parameters
    from nu_physics.statistics.analysis import mass_ordering

    parameters, snsi = _physics(args)
    experiment = _experiment(args)
    result = mass_ordering(experiment, parameters, snsi, theta12_domain=args.theta12_domain, statistic=args.statistic)
    seen = effective_parameters(parameters, snsi, experiment.site.density_g_cm3)
    lines = [
        f"true {parameters.ordering} ordering (effective: {seen.effective_ordering}), "
        f"theta12 domain {args.theta12_domain}",
        f"  chi2(normal)   = {result.normal.chi2:.3f} at dm31 = {result.normal.parameters.dm31_eV2:.5e} eV2",
        f"  chi2(inverted) = {result.inverted.chi2:.3f} at dm31 = {result.inverted.parameters.dm31_eV2:.5e} eV2",
        f"  chi2(wrong) - chi2(true) = {result.preference:.3f}; oscillation parameters {result.normal.regime}, "
        "theta13 with its PDG prior",
    ]
    _show(
        args,
        lines,
        {
            "preference": result.preference,
            "normal": result.normal.summary(),
            "inverted": result.inverted.summary(),
        },
    )


def _bounds(args: argparse.Namespace) -> None:
    import dataclasses

    from nu_physics.errors import InvalidInput
    from nu_physics.statistics.analysis import eta_bound
    from nu_physics.statistics.fit import Regime

    parameters, snsi = _physics(args)
    if snsi is not None:
        raise InvalidInput(
            "--set of an eta has no meaning here: a bound is on the eta of --eta from standard data; "
            "for an eta in nature take ordering or fit"
        )
    experiment = _experiment(args)
    regimes: tuple[Regime, ...] = ("fixed", "prior", "free") if args.regime == "all" else (args.regime,)
    rows = [
        eta_bound(experiment, parameters, name=args.eta, regime=regime, sigmas=args.sigmas, statistic=args.statistic)
        for regime in regimes
    ]
    lines = [
        f"{args.eta} at {args.sigmas:g} sigma, {parameters.ordering} ordering, "
        f"m_lightest = {parameters.m_lightest_eV:g} eV"
    ]
    for row in rows:
        low = "unbounded" if row.low is None else f"{row.low:+.3e}"
        high = "unbounded" if row.high is None else f"{row.high:+.3e}"
        lines.append(f"  oscillation parameters {row.regime:<6} {low:>12} .. {high}")
    _show(args, lines, [dataclasses.asdict(row) for row in rows])


def _precision(args: argparse.Namespace) -> None:
    from nu_physics.statistics.analysis import precision

    parameters, snsi = _physics(args)
    result = precision(_experiment(args), parameters, snsi, statistic=args.statistic)
    lines = [f"one standard deviation, oscillation parameters {result.regime}, {result.exposure_days:.0f} days"]
    for name, width in result.absolute.items():
        relative = result.relative_percent.get(name)
        lines.append(f"  {name:<14} {width:.3e}" + ("" if relative is None else f"  ({relative:.3f} %)"))
    _show(args, lines, {"absolute": result.absolute, "relative_percent": result.relative_percent})


def _scan(args: argparse.Namespace) -> None:
    import importlib.util

    import numpy as np

    from nu_physics.errors import InvalidInput, MissingExtra
    from nu_physics.statistics.fit import read_value
    from nu_physics.statistics.scan import ScanJob, run_scan

    parameters, snsi = _physics(args)
    grid = {}
    for item in args.grid:
        name, _, text = item.partition("=")
        if name in grid:
            raise InvalidInput(f"--grid {item!r}: {name} is an axis already; give it once")
        try:
            low, high, count = text.split(":")
            grid[name] = [float(v) for v in np.linspace(float(low), float(high), int(count))]
        except ValueError:
            raise InvalidInput(f"--grid {item!r}: give NAME=LOW:HIGH:COUNT") from None
    names = [item.partition("=")[0].strip() for item in args.set]
    etas = [name for name in names if name.startswith("eta_")]
    job = ScanJob(
        grid=grid,
        regime=args.regime,
        truth={name: getattr(parameters, name) for name in parameters.__dataclass_fields__},
        true_eta={name: read_value(name, parameters, snsi) for name in etas},
        exposure_days=365.25 * args.years,
        duty_cycle=args.duty_cycle,
        layout=args.layout,
        statistic=args.statistic,
        statistics_only=args.statistics_only,
        chunk=args.chunk,
    )

    if Path(args.out).suffix not in (".parquet", ".npz"):
        raise InvalidInput(f"--out {args.out!r}: the suffix must be .parquet or .npz")
    if Path(args.out).suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("parquet", "writing Parquet")  # before hours of work, not after

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} chunks", end="", file=sys.stderr, flush=True)

    table = run_scan(job, executor=args.executor, workers=args.workers, work_dir=args.work_dir, progress=progress)
    print(file=sys.stderr)
    path = table.save(args.out)
    chi2 = table.column("chi2")
    lines = [
        f"{job.points} points, oscillation parameters {job.regime}; "
        f"chi2 from {chi2.min():.4f} to {chi2.max():.1f}; {path}"
    ]
    _show(args, lines, {"points": job.points, "regime": job.regime, "file": str(path)})


def _toys(args: argparse.Namespace) -> None:
    from nu_physics.statistics.analysis import toys

    parameters, snsi = _physics(args)
    result = toys(
        _experiment(args),
        parameters,
        snsi,
        count=args.count,
        seed=args.seed,
        event_level=args.event_level,
        statistic=args.statistic,
    )
    lines = [
        f"T = chi2(inverted) - chi2(normal) of {args.count} experiments: "
        f"mean {result.mean:.2f}, width {result.width:.2f}",
        f"  Asimov T0 = {result.asimov:.2f}, Gaussian width 2 sqrt|T0| = {2 * abs(result.asimov) ** 0.5:.2f}",
    ]
    _show(args, lines, {"statistic": result.statistic.tolist(), "asimov": result.asimov})


def _plot(args: argparse.Namespace) -> None:
    from nu_physics.errors import InvalidInput
    from nu_physics.oscillation.parameters import preset
    from nu_physics.plots import PLOTS

    target = Path(args.out)
    if target.suffix not in (".svg", ".pdf", ".png"):
        raise InvalidInput(f"--out {args.out!r}: the suffix must be .svg, .pdf or .png")
    figure = PLOTS[args.name](preset(args.preset))
    with replacing(target) as scratch:
        figure.savefig(scratch, dpi=200)
    print(args.out)


def _data(args: argparse.Namespace) -> None:
    import importlib.metadata

    from nu_physics.errors import InvalidInput
    from nu_physics.oscillation.parameters import PRESETS
    from nu_physics.reactor.sites import site, site_names

    try:
        version = importlib.metadata.version("dayabay-data-official")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if args.action == "list":
        found = [("site", name, site(name).description) for name in site_names()]
        found += [("preset", name, source) for name, (_, source) in PRESETS.items()]
        state = f"installed, {version}" if version else "not installed: pip install 'nu-physics[dayabay]'"
        found.append(("data", "dayabay", f"full Daya Bay release, CC BY 4.0 ({state})"))
        rows = [{"kind": kind, "name": name, "about": about} for kind, name, about in found]
        _show(args, [f"{kind:<7} {name:<12} {about}" for kind, name, about in found], rows)
        return
    from nu_physics.reactor.dayabay import CITATION, load_dayabay

    data = load_dayabay()
    expected = 5_546_118
    verdict = "as expected" if data.candidates == expected else f"expected {expected}"
    lines = [f"dayabay-data-official {version}: {data.candidates} candidates, {verdict}", f"cite: {CITATION}"]
    _show(args, lines, {"version": version, "candidates": data.candidates, "expected": expected})
    if data.candidates != expected:
        raise InvalidInput(f"the Daya Bay release has {data.candidates} candidates, not {expected}; install it again")


def _reproduce(args: argparse.Namespace) -> None:
    from papershelf_core import claims as core_claims

    from nu_physics.reproduce import claims, pictures

    rows = claims(args.full)
    core_claims.publish(rows, "nu-physics", "nu-physics", "numba", "numpy", pictures=pictures(), json_path=args.json)


def _solar(args: argparse.Namespace) -> None:
    from nu_physics.solar.commands import run

    run(args)


_COMMANDS = {
    "prob": _prob,
    "spectrum": _spectrum,
    "fit": _fit,
    "ordering": _ordering,
    "bounds": _bounds,
    "precision": _precision,
    "scan": _scan,
    "toys": _toys,
    "plot": _plot,
    "data": _data,
    "reproduce": _reproduce,
    "solar": _solar,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from nu_physics.errors import InvalidInput, MissingExtra

    parser = _parser()

    def parse(words: Sequence[str] | None) -> argparse.Namespace:
        found = _apply_config(parser, words)
        if found.command is not None:
            found.run = _COMMANDS[found.command]
        return found

    unusable = (InvalidInput, MissingExtra, OSError, tomllib.TOMLDecodeError)
    return command.main(parser, arguments, parse=parse, unusable=unusable)


if __name__ == "__main__":
    raise SystemExit(main())
