"""``papershelf-data``: list, fetch and check the data sets."""

import argparse
import sys
from collections.abc import Sequence

from papershelf_core import command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 3 where a file is missing or corrupt."""
    parser = command.Parser(
        "papershelf-data",
        distribution="papershelf-core",
        description="Data sets of the papershelf packages. Files come from $PAPERSHELF_DATA, the user's cache, or a "
        "download whose SHA-256 is pinned.",
        epilog="exit codes: 0 done, 2 usage, 3 a set that is unknown, not to be had or corrupt",
    )
    commands = parser.add_subparsers(title="commands")
    shown = commands.add_parser("list", help="every data set: files, size, licence, whether it is here")
    command.add_json(shown)
    shown.set_defaults(run=_list)
    fetch = commands.add_parser("fetch", help="make data sets available, downloading what is not here")
    fetch.add_argument("name", nargs="+", help="data set, or 'everything'")
    fetch.set_defaults(run=_fetch)
    check = commands.add_parser("check", help="verify the checksums of what is here")
    check.add_argument("name", nargs="*", help="data set; all by default")
    command.add_json(check)
    check.set_defaults(run=_check)
    return command.main(parser, argv)


def _names(asked: Sequence[str]) -> list[str]:
    from papershelf_core.datasets.catalogue import catalog, info

    if not asked or asked == ["everything"]:
        return [entry.name for entry in catalog()]
    return [info(name).name for name in asked]


def _list(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from papershelf_core.datasets.catalogue import catalog
    from papershelf_core.datasets.store import present

    grid = Table(header_style="bold")
    for heading in ("name", "files", "MB", "licence", "here", "what"):
        grid.add_column(heading, justify="right" if heading in ("files", "MB") else "left")
    rows = []
    for entry in catalog():
        size, here = sum(file.bytes for file in entry.files), present(entry.name)
        files = str(len(entry.files))
        grid.add_row(entry.name, files, f"{size / 1e6:.1f}", entry.licence, "yes" if here else "no", entry.title)
        about = {"files": [file.name for file in entry.files], "bytes": size, "licence": entry.licence}
        rows.append({"name": entry.name, **about, "here": here, "title": entry.title})
    command.show([], rows, arguments.json)
    if arguments.json != "-":
        Console(width=None if sys.stdout.isatty() else 160).print(grid)
    return command.DONE


def _fetch(arguments: argparse.Namespace) -> int:
    from papershelf_core.datasets.catalogue import info
    from papershelf_core.datasets.store import DatasetUnavailable, path

    missing = 0
    for name in _names(arguments.name):
        for file in info(name).files:
            try:
                print(path(name, file.name))
            except DatasetUnavailable as error:
                missing += 1
                print(f"papershelf-data: {error}", file=sys.stderr)
    return command.UNUSABLE if missing else command.DONE


def _check(arguments: argparse.Namespace) -> int:
    from papershelf_core.datasets.catalogue import info
    from papershelf_core.datasets.store import DatasetCorrupt, found

    rows = []
    for name in _names(arguments.name):
        for file in info(name).files:
            try:
                state = "good" if found(name, file.name) else "not here"
            except DatasetCorrupt as error:
                state = f"CORRUPT: {error}"
            rows.append({"file": f"{name}/{file.name}", "state": state})
    command.show([f"{row['file']}: {row['state']}" for row in rows], rows, arguments.json)
    return command.UNUSABLE if any(row["state"].startswith("CORRUPT") for row in rows) else command.DONE
