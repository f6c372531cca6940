"""``papershelf-data``: list, fetch and check the data sets."""

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (0 good, 1 something missing or corrupt, 2 wrong call)."""
    parser = argparse.ArgumentParser(
        prog="papershelf-data",
        description="Data sets of the papershelf packages. Files come from $PAPERSHELF_DATA, the user's cache, or a "
        "download whose SHA-256 is pinned.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every data set: files, size, licence, whether it is here")
    fetch = commands.add_parser("fetch", help="make data sets available, downloading what is not here")
    fetch.add_argument("name", nargs="+", help="data set, or 'everything'")
    check = commands.add_parser("check", help="verify the checksums of what is here")
    check.add_argument("name", nargs="*", help="data set; all by default")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "list":
            return _list()
        names = _names(arguments.name)
        return _fetch(names) if arguments.command == "fetch" else _check(names)
    except (ValueError, OSError) as error:
        print(f"papershelf-data: {error}", file=sys.stderr)
        return 2


def _names(asked: Sequence[str]) -> list[str]:
    from papershelf_core.datasets.catalogue import catalog, info

    if not asked or asked == ["everything"]:
        return [entry.name for entry in catalog()]
    return [info(name).name for name in asked]


def _list() -> int:
    from rich.console import Console
    from rich.table import Table

    from papershelf_core.datasets.catalogue import catalog
    from papershelf_core.datasets.store import present

    grid = Table(header_style="bold")
    for heading in ("name", "files", "MB", "licence", "here", "what"):
        grid.add_column(heading, justify="right" if heading in ("files", "MB") else "left")
    for entry in catalog():
        size = sum(file.bytes for file in entry.files) / 1e6
        here = "yes" if present(entry.name) else "no"
        grid.add_row(entry.name, str(len(entry.files)), f"{size:.1f}", entry.licence, here, entry.title)
    Console(width=None if sys.stdout.isatty() else 160).print(grid)
    return 0


def _fetch(names: Sequence[str]) -> int:
    from papershelf_core.datasets.catalogue import info
    from papershelf_core.datasets.store import DatasetUnavailable, path

    missing = 0
    for name in names:
        for file in info(name).files:
            try:
                print(path(name, file.name))
            except DatasetUnavailable as error:
                missing += 1
                print(f"papershelf-data: {error}", file=sys.stderr)
    return 1 if missing else 0


def _check(names: Sequence[str]) -> int:
    from papershelf_core.datasets.catalogue import info
    from papershelf_core.datasets.store import DatasetCorrupt, found

    bad = 0
    for name in names:
        for file in info(name).files:
            try:
                state = "good" if found(name, file.name) else "not here"
            except DatasetCorrupt as error:
                bad += 1
                state = f"CORRUPT: {error}"
            print(f"{name}/{file.name}: {state}")
    return 1 if bad else 0
