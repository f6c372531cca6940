"""Run every package's claims and print one scoreboard.

Each package that is built has `<dist> reproduce --json FILE`; this runs them one after the other (in quick mode on data
that is generated or comes with pip packages, with --full on the real public sets), shows progress, prints one table and
writes out/report.json and the self-contained out/report.html with the tables and pictures.

    uv run tools/reproduce.py
    uv run tools/reproduce.py --full hetcal

Exit status: 0 when every package ran, 1 when one crashed. A claim that does not hold is shown and is no crash; one that
a clock decides and that misses its bar by less than its interval is shown as within noise.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path

import install_torch
from papershelf_core import claims
from papershelf_core.files import write_text
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from shelf import CORE, ROOT, package, packages


def run(name: str, full: bool, out: Path) -> tuple[claims.Report | None, str, float]:
    """Run one package's claims in a process of its own; return its report (or None), its output, its seconds."""
    target = out / f"{name}.json"
    target.unlink(missing_ok=True)
    script = Path(sys.executable).with_name(name)
    began = time.perf_counter()
    done = subprocess.run(
        [str(script), "reproduce", "--json", str(target), *(["--full"] if full else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    seconds = time.perf_counter() - began
    report = claims.from_json(target.read_text(encoding="utf-8")) if target.is_file() else None
    return (report if done.returncode == 0 else None), done.stdout, seconds


def scoreboard(reports: dict[str, claims.Report], idle: list[str], crashed: list[str]) -> Table:
    """One line a package: how many of its claims hold, and the ones that do not by name."""
    grid = Table(title="Scoreboard", title_justify="left", header_style="bold")
    for heading in ("package", "claims", "hold", "within noise", "do not hold"):
        grid.add_column(heading, justify="right" if heading in ("claims", "hold", "within noise") else "left")
    for name, report in reports.items():
        failing = [row.statement for row in report.claims if row.verdict == "FAILS"]
        noise = sum(row.verdict == "within noise" for row in report.claims)
        held = len(report.claims) - len(failing) - noise
        grid.add_row(name, str(len(report.claims)), str(held), str(noise), "; ".join(failing) or "-")
    for name in crashed:
        grid.add_row(name, "-", "-", "-", "[bold red]crashed, see above[/]")
    for name in idle:
        grid.add_row(name, "-", "-", "-", "[dim]not built yet[/]")
    return grid


def write(reports: dict[str, claims.Report], mode: str, out: Path) -> None:
    """Write report.json and report.html, each whole or not at all."""
    document = {
        "schema": claims.SCHEMA,
        "mode": mode,
        "packages": {name: asdict(r) for name, r in reports.items()},
    }
    pages = {
        "report.json": json.dumps(document, indent=1, allow_nan=False),
        "report.html": claims.to_html(reports, title=f"papershelf: claims measured ({mode})"),
    }
    for file, text in pages.items():
        write_text(out / file, text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="reproduce.py"
    )
    parser.add_argument("package", nargs="*", help="packages to run; all by default")
    parser.add_argument("--full", action="store_true", help="real public data sets, minutes to hours")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder of the reports (default: out)")
    arguments = parser.parse_args()
    names = [package(name).name for name in arguments.package] or [name for name in packages() if name != CORE]
    scripts = {script.name for script in entry_points(group="console_scripts")}
    built = [name for name in names if name in scripts]
    arguments.out.mkdir(parents=True, exist_ok=True)
    install_torch.install()

    console = Console(width=None if sys.stdout.isatty() else 160)
    reports: dict[str, claims.Report] = {}
    crashed = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("claims", total=len(built))
        for name in built:
            progress.update(task, description=f"claims of {name}")
            report, output, seconds = run(name, arguments.full, arguments.out)
            if report is None:
                crashed.append(name)
                console.print(f"{name} crashed after {seconds:.0f} s:\n{output}", markup=False, style="red")
            else:
                reports[name] = report
                console.print(claims.table(report.claims, f"{name} ({seconds:.0f} s)"))
            progress.advance(task)
    console.print(scoreboard(reports, [name for name in names if name not in built], crashed))
    write(reports, "full" if arguments.full else "quick", arguments.out)
    console.print(f"{arguments.out / 'report.html'} and report.json written")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
