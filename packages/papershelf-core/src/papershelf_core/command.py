"""One frame for the command lines of the shelf: what a shell script may rely on.

0 done, 2 usage, 3 input that cannot be used, 4 a bar that was asked for is missed. An error or a warning is one line on
standard error that starts with the program's name; help fits 80 columns; ``--version`` prints name and version.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from papershelf_core.files import write_text

__all__ = ["BAR_MISSED", "DONE", "UNUSABLE", "USAGE", "Parser", "add_json", "main", "show", "write_json"]

DONE, USAGE, UNUSABLE, BAR_MISSED = 0, 2, 3, 4
COLUMNS = 80


class _Help(argparse.HelpFormatter):
    """Help of at most 80 columns, however wide the terminal is."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, width=min(COLUMNS, shutil.get_terminal_size().columns) - 2, **options)


class _Version(argparse.Action):
    """Print the distribution's version and leave; it is looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        print(f"{parser.prog} {importlib.metadata.version(str(self.const))}")
        parser.exit(DONE)


class Parser(argparse.ArgumentParser):
    """argparse's parser with the shelf's help, errors and ``--version``; commands below it are of its kind.

    Parameters
    ----------
    prog : str
        Name of the program.
    distribution : str, optional
        Whose version ``--version`` prints; none, no such option.
    """

    def __init__(self, prog: str | None = None, *, distribution: str | None = None, **options: Any) -> None:
        super().__init__(prog, formatter_class=_Help, allow_abbrev=False, **options)
        if distribution is not None:
            self.add_argument(
                "--version", action=_Version, nargs=0, const=distribution, help="print the version and leave"
            )

    def error(self, message: str) -> NoReturn:
        """One line that names the remedy, and status 2."""
        self.exit(USAGE, f"{self.prog}: {_line(message)}; see {self.prog} --help\n")


def main(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    parse: Callable[[Sequence[str] | None], argparse.Namespace] | None = None,
    unusable: tuple[type[BaseException], ...] = (OSError, ValueError, ModuleNotFoundError),
    warning: type[Warning] | None = None,
) -> int:
    """Parse, run the command's ``run(arguments)``, and return the exit status; 0 where it returns None.

    Without a command the help is printed: status 2.

    Parameters
    ----------
    parse : callable, optional
        In place of ``parser.parse_args``, where options come from a file as well.
    unusable : tuple of exception types
        What a command raises for input that cannot be used.
    warning : type, optional
        A category of which every warning is shown, not the first of each place alone.
    """
    try:
        arguments = (parse or parser.parse_args)(argv)
        if "run" not in arguments:
            parser.print_help(sys.stderr)
            return USAGE
        with warnings.catch_warnings():
            if warning is not None:
                warnings.simplefilter("always", warning)
            warnings.showwarning = lambda message, *_, **__: _say(parser, f"warning: {message}")
            return int(arguments.run(arguments) or DONE)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except unusable as error:
        _say(parser, _what(error))
        return UNUSABLE


def _what(error: BaseException) -> str:
    """What an error says; of a missing file its name and what to do, in place of a number."""
    if isinstance(error, FileNotFoundError) and error.filename is not None and error.errno is not None:
        return f"{os.fsdecode(error.filename)} does not exist; check the path"
    return str(error) or type(error).__name__


def show(lines: Sequence[str], document: Any, target: str | os.PathLike[str] | None) -> None:
    """Print a table's lines and write what they show as JSON, whole or not at all.

    Parameters
    ----------
    lines : sequence of str
        Printed once the JSON is written.
    document : JSON-serialisable
        The same figures, unrounded, with names and units.
    target : path or None
        What ``--json`` names: a file, ``-`` for standard output in place of the lines, None for no JSON.

    Examples
    --------
    >>> show(["lift +0.0123"], {"lift": 0.01234}, None)
    lift +0.0123
    >>> show(["lift +0.0123"], {"lift": 0.01234}, "-")
    {
     "lift": 0.01234
    }
    """
    if target is None:
        print("\n".join(lines), end="\n" if lines else "")
        return
    write_json(json.dumps(document, indent=1, allow_nan=False) + "\n", target)
    if os.fspath(target) != "-":
        print("\n".join(lines), end="\n" if lines else "")


def write_json(text: str, target: str | os.PathLike[str]) -> None:
    """Write a document to where ``--json`` says: a file, whole or not at all, or ``-``, standard output.

    Raises
    ------
    ValueError
        If that is no name of a file.
    """
    if os.fspath(target) == "-":
        print(text, end="")
        return
    if os.fspath(target) == "" or os.path.isdir(target):
        raise ValueError(f"--json {os.fspath(target)!r} is no name of a file; give one, or - for standard output")
    write_text(target, text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option ``--json``, for commands that print a table."""
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is standard output, no table then")


def _say(parser: argparse.ArgumentParser, text: str) -> None:
    print(f"{parser.prog}: {_line(text)}", file=sys.stderr)


def _line(text: object) -> str:
    return " ".join(str(text).split())
