"""The ``hetcal`` command: fit, apply, report, compare, inspect, reproduce on CSV and Parquet files.

Exit codes: 0 done, 2 usage, 3 data that cannot be used, 4 the lift asked for by --require-lift was not reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from papershelf_core import command, files

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    from hetcal.errors import CalibrationWarning

    return command.main(_parser(), argv, warning=CalibrationWarning)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        "hetcal",
        distribution="hetcal",
        description="Calibrate a classifier per region of feature space and raise its AUC.",
        epilog="exit codes: 0 done, 2 usage, 3 unusable data, 4 --require-lift not reached",
    )
    commands = parser.add_subparsers(title="commands")

    fit = commands.add_parser("fit", help="fit a calibrator and write it as JSON")
    _data(fit, label=True)
    fit.add_argument("--out", type=Path, metavar="FILE", required=True, help="artefact to write (JSON)")
    _options(fit)
    _evaluation(fit)
    fit.set_defaults(run=_fit)

    apply = commands.add_parser("apply", help="score a file with an artefact")
    apply.add_argument("model", type=Path, help="artefact written by fit (JSON)")
    _data(apply, label=False)
    apply.add_argument(
        "--out", type=Path, metavar="FILE", required=True, help="CSV or Parquet with the column 'calibrated' added"
    )
    apply.set_defaults(run=_apply)

    report = commands.add_parser("report", help="fit on one file, evaluate on another, write HTML or JSON")
    _data(report, label=True)
    _options(report)
    _evaluation(report, required=True)
    report.add_argument("--out", type=Path, metavar="FILE", required=True, help="page to write (.html or .json)")
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="compare the ways of calibrating on held-out rows")
    _data(compare, label=True)
    _options(compare)
    _evaluation(compare, required=True)
    command.add_json(compare)
    compare.set_defaults(run=_compare)

    inspect = commands.add_parser("inspect", help="say what an artefact holds")
    inspect.add_argument("model", type=Path, help="artefact written by fit (JSON)")
    command.add_json(inspect)
    inspect.set_defaults(run=_inspect)

    reproduce = commands.add_parser("reproduce", help="measure this package's claims")
    reproduce.add_argument("--full", action="store_true", help="on the real data sets (minutes)")
    command.add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return parser


def _data(parser: argparse.ArgumentParser, *, label: bool) -> None:
    rows = "calibration rows" if label else "rows to score"
    parser.add_argument("data", type=Path, help=f"{rows}, CSV, or Parquet by its suffix")
    score = parser.add_mutually_exclusive_group(required=True)
    score.add_argument("--score", metavar="COLUMN", help="column of base probabilities")
    score.add_argument("--logit", metavar="COLUMN", help="column of base log-odds")
    if label:
        parser.add_argument("--label", metavar="COLUMN", required=True, help="column of the two classes")
        parser.add_argument(
            "--weight", metavar="COLUMN", help="column of row weights >= 0; every row counts 1 by default"
        )
        parser.add_argument("--features", nargs="+", metavar="COLUMN", help="all other columns by default")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partitioner",
        default="auto",
        choices=["auto", "tree", "bag", "forest", "global"],
        help="what makes the regions; auto compares global, a tree and a forest out of fold (default: %(default)s)",
    )
    parser.add_argument("--group", nargs="+", metavar="COLUMN", help="use these columns as regions, nested in order")
    parser.add_argument(
        "--categorical", nargs="+", metavar="COLUMN", help="columns whose numbers are categories; text always is"
    )
    parser.add_argument(
        "--calibrator",
        default="platt",
        help="a region's curve: platt, temperature, shift, beta, isotonic, histogram, identity (default: %(default)s)",
    )
    parser.add_argument(
        "--quality", default="standard", choices=["standard", "high"], help="high fits a larger forest (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of folds and trees, at least 0 (default: %(default)s)")


def _evaluation(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--test", type=Path, metavar="FILE", required=required, help="rows to evaluate on, same columns"
    )
    parser.add_argument(
        "--require-lift",
        type=float,
        metavar="AUC",
        help="exit with 4 unless the lower 95 %% bound of the lift reaches it",
    )


def _read(path: Path) -> Any:
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading files needs the extra: pip install 'hetcal[tables]'") from error

    from hetcal.errors import DataError

    parquet = path.suffix in (".parquet", ".pq")
    try:
        table = pd.read_parquet(path) if parquet else pd.read_csv(path)
    except ValueError as error:
        form = "Parquet" if parquet else "CSV"
        raise DataError(f"{path} cannot be read as {form} ({error}); give .csv, .parquet or .pq") from error
    if table.empty:
        raise DataError(f"{path} has no rows; at least one is needed")
    return table


def _check_target(path: Path) -> None:
    """Refuse a place that cannot be written before the work is done, and not after."""
    if path.is_dir():
        raise IsADirectoryError(f"--out {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out {path}: the folder {path.parent} does not exist; make it first")


def _column(table: Any, name: str) -> Any:
    from hetcal.errors import DataError

    if name not in table.columns:
        raise DataError(f"there is no column {name!r}; the file has {list(table.columns)}")
    return table[name]


def _parts(arguments: argparse.Namespace, table: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Features, label and the keyword that holds the scores."""
    from hetcal.errors import DataError

    name = arguments.score or arguments.logit
    used = [name, arguments.label, arguments.weight]
    y = _column(table, arguments.label).to_numpy()
    score = {"scores" if arguments.score else "logits": _column(table, name).to_numpy()}
    features = arguments.features or [c for c in table.columns if c not in used]
    missing = [c for c in features if c not in table.columns]
    if missing:
        raise DataError(f"there are no columns {missing}; the file has {list(table.columns)}")
    if arguments.label in features:
        raise DataError(f"--features holds the label column {arguments.label!r}; leave it out")
    return table[features], y, score


def _fitted(arguments: argparse.Namespace, **other: Any) -> Any:
    """The calibrator that the options ask for, or with ``other`` parameters, fitted."""
    from hetcal.estimator import HeterogeneousCalibrator
    from hetcal.partition import GroupPartitioner

    if not 0 <= arguments.seed < 2**32:
        raise ValueError(f"--seed {arguments.seed} is outside [0, 2**32); give a whole number in it")
    table = _read(arguments.data)
    X, y, score = _parts(arguments, table)
    parameters = {
        "partitioner": GroupPartitioner(arguments.group) if arguments.group else arguments.partitioner,
        "calibrator": arguments.calibrator,
        "shrinkage": "hierarchy" if arguments.group and len(arguments.group) > 1 else "eb",
        "quality": arguments.quality,
        "categorical": arguments.categorical,
        "random_state": arguments.seed,
        **other,
    }
    weight = None if arguments.weight is None else _column(table, arguments.weight).to_numpy()
    return HeterogeneousCalibrator(**parameters).fit(X, y, **score, sample_weight=weight)


def _evaluated(arguments: argparse.Namespace, model: Any) -> Any:
    from hetcal.report import report

    X, y, score = _parts(arguments, _read(arguments.test))
    return report(model, X, y, **score)


def _verdict(arguments: argparse.Namespace, low: float) -> int:
    if arguments.require_lift is not None and low < arguments.require_lift:
        print(f"hetcal: lower bound of the lift {low:+.4f} is below {arguments.require_lift:+.4f}", file=sys.stderr)
        return command.BAR_MISSED
    return 0


def _print_selection(model: Any) -> None:
    selection = model.selection_
    print(f"chosen: {selection.chosen} ({selection.reason})")
    for choice in selection.choices:
        print(f"  {choice.name:9s} out-of-fold log-loss {choice.log_loss:.5f}  AUC {choice.auc:.5f}")
    if selection.features_only is not None:
        print(f"  lift {selection.lift:+.4f}; of features alone {selection.features_only:+.4f}")


def _fit(arguments: argparse.Namespace) -> int:
    from hetcal.artefact import save

    if arguments.require_lift is not None and arguments.test is None:
        print("hetcal: --require-lift needs --test rows", file=sys.stderr)
        return command.USAGE
    _check_target(arguments.out)
    model = _fitted(arguments)
    lift = None if arguments.test is None else _evaluated(arguments, model).lift  # before anything is written
    _print_selection(model)
    save(model, arguments.out)
    print(f"wrote {arguments.out}")
    if lift is None:
        return 0
    print(
        f"test AUC {lift.base:.4f} -> {lift.calibrated:.4f}, lift {lift.lift:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}]"
    )
    return _verdict(arguments, lift.low)


def _apply(arguments: argparse.Namespace) -> int:
    from hetcal.artefact import load

    _check_target(arguments.out)
    scorer = load(arguments.model)
    given = "probability" if arguments.score else "logit"
    if scorer.score not in (None, given):
        option = "--score" if scorer.score == "probability" else "--logit"
        raise ValueError(f"{arguments.model} was fitted on a {scorer.score}; name its column with {option}")
    table = _read(arguments.data)
    score = _column(table, arguments.score or arguments.logit).to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        p = scorer.predict_proba(table, **{"scores" if arguments.score else "logits": score})
    table["calibrated"] = p
    with files.replacing(arguments.out) as scratch:
        if arguments.out.suffix in (".parquet", ".pq"):
            table.to_parquet(scratch, index=False)
        else:
            table.to_csv(scratch, index=False)
    print(f"wrote {len(table)} rows to {arguments.out}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from hetcal.report import to_html, to_json

    if arguments.out.suffix not in (".html", ".htm", ".json"):
        raise ValueError(f"--out {arguments.out}: name a file that ends in .html or .json")
    _check_target(arguments.out)
    model = _fitted(arguments)
    result = _evaluated(arguments, model)
    text = to_json(result) if arguments.out.suffix == ".json" else to_html(result, f"hetcal on {arguments.data.name}")
    files.write_text(arguments.out, text)
    lift = result.lift
    print(f"lift {lift.lift:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}]; wrote {arguments.out}")
    return _verdict(arguments, lift.low)


def _compare(arguments: argparse.Namespace) -> int:
    import importlib.util

    model = _fitted(arguments)
    ways = ["identity", "global", "tree", "bag"] + (["forest"] if importlib.util.find_spec("lightgbm") else [])
    ways += ["groups"] if arguments.group else []
    lines = [f"{'way':10s} {'AUC':>8s} {'lift':>8s} {'95 %':>19s} {'log-loss':>9s} {'ECE':>7s}"]
    rows = []
    for way in [*ways, "(chosen)"]:
        other = {} if way == "groups" else {"partitioner": way, "shrinkage": "eb"}
        fitted = model if way == "(chosen)" else _fitted(arguments, selection=None, **other)
        result = _evaluated(arguments, fitted)
        lift = result.lift
        lines.append(
            f"{way:10s} {lift.calibrated:8.4f} {lift.lift:+8.4f} [{lift.low:+8.4f},{lift.high:+8.4f}] "
            f"{result.log_loss_calibrated:9.4f} {result.ece_calibrated:7.4f}"
        )
        rows.append(
            {
                "way": way,
                "auc": lift.calibrated,
                "lift": lift.lift,
                "lift_low": lift.low,
                "lift_high": lift.high,
                "log_loss": result.log_loss_calibrated,
                "ece": result.ece_calibrated,
            }
        )
    lines.append(f"chosen on the calibration rows: {model.selection_.chosen}")
    command.show(lines, {"chosen": model.selection_.chosen, "ways": rows}, arguments.json)
    return _verdict(arguments, lift.low)


def _inspect(arguments: argparse.Namespace) -> int:
    from hetcal.artefact import load

    artefact = load(arguments.model).artefact
    model = artefact["model"]
    written = f", written by version {artefact['version']}" if "version" in artefact else ""
    lines = [f"schema {artefact['schema']}{written}, {artefact['chosen']}: {artefact['reason']}"]
    if "score" in artefact:
        lines.append(f"fitted on a {artefact['score']}")
    lines.append(f"classes {artefact['classes']}, logits clipped at {artefact['clip']}")
    for column in artefact["columns"]:
        kind = column.get("kind", "number")
        kind = kind if column["values"] is None else f"category of {len(column['values'])} values"
        kind = "identifier, not used" if column.get("aside") else kind
        lines.append(f"  {column['name']}: {kind}")
    for number, rule in enumerate(model.get("rules", [])):
        lines.append(f"leaf {number}: {rule}")
    if "trees" in model:
        lines.append(f"{len(model['trees'])} trees")
    if "coefficients" in model:
        lines.append("stacking: " + json.dumps(model["coefficients"]))
    command.show(lines, artefact, arguments.json)
    return command.DONE


def _reproduce(arguments: argparse.Namespace) -> int:
    from papershelf_core import claims as core

    from hetcal.reproduce import claims

    core.publish(claims(full=arguments.full), "hetcal", "hetcal", "scikit-learn", "numpy", json_path=arguments.json)
    return 0
