"""Start a package: the anatomy of CONTRIBUTING with one small idea in it, known to every tool.

    uv run tools/new_package.py rank-audit --summary "Audits of ranked lists"
    uv run tools/lock.py write && git add packages pyproject.toml uv.lock

It writes packages/NAME and names the package in the root pyproject.toml (dependencies, sources, pytest's paths, import
rules). The package passes format, lint, types, its tests and tools/isolated.py as it stands: replace its one idea, the
exact sum of `total.py`, by yours.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from shelf import CORE, ROOT, packages

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PYPROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
description = "{summary}"
readme = "README.md"
requires-python = ">=3.11"
license = "Apache-2.0"
license-files = ["LICENSE"]
authors = [{{ name = "The papershelf developers" }}]
classifiers = [
  "Development Status :: 2 - Pre-Alpha",
  "Intended Audience :: Developers",
  "Intended Audience :: Science/Research",
  "Programming Language :: Python :: 3",
  "Programming Language :: Python :: 3.11",
  "Programming Language :: Python :: 3.12",
  "Programming Language :: Python :: 3.13",
  "Typing :: Typed",
]
dependencies = ["papershelf-core>={core}"]

[project.scripts]
{name} = "{module}.cli:main"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["src/{module}"]

[tool.hatch.build.targets.sdist]
include = ["src", "tests", "README.md", "CHANGELOG.md", "LICENSE"]
"""
README = """\
# {name}

{summary}.

## Install

```sh
pip install {name}
```

## In a minute

```python
from {module} import total

print(total([0.1] * 10))
```

## Command line

```sh
{name} total 0.1 0.2 0.3 [--json FILE]
{name} reproduce [--full] [--json FILE]
```

Exit codes: 0 done, 2 usage, 3 unusable input.

## Citation

Which paper, of which what was read.
"""
CHANGELOG = """\
# Changelog of {name}

The format is [Keep a Changelog](https://keepachangelog.com/en/1.1.0/); versions follow
[Semantic Versioning](https://semver.org/spec/v2.0.0.html).

## [Unreleased]

## [0.1.0] - {today}

- The first version.
"""
SOURCES = {
    "__init__.py": '''\
"""{summary}."""

from {module}.errors import InvalidInput
from {module}.total import total

__all__ = ["InvalidInput", "total"]
''',
    "errors.py": '''\
"""What bad input gets: an error that names the field, the value and the remedy."""

__all__ = ["InvalidInput"]


class InvalidInput(ValueError):
    """Input that cannot be used."""
''',
    "total.py": '''\
"""The sum of numbers, rounded once: the exact sum of the floats, then the nearest float."""

import math
from collections.abc import Iterable

from {module}.errors import InvalidInput

__all__ = ["total"]


def total(values: Iterable[float]) -> float:
    """Sum of finite numbers, correctly rounded.

    Parameters
    ----------
    values : iterable of float

    Raises
    ------
    InvalidInput
        If a value is not finite, or the sum is too large for a float.

    Examples
    --------
    >>> total([0.1] * 10)
    1.0
    """
    given = list(values)
    for place, value in enumerate(given):
        if not math.isfinite(value):
            raise InvalidInput(f"values[{{place}}]={{value}} is not finite; leave it out")
    try:
        return math.fsum(given)
    except OverflowError as error:
        raise InvalidInput("values sum to more than a float can hold; scale them down") from error
''',
    "cli.py": '''\
"""The ``{name}`` command: total, reproduce."""

import argparse
from collections.abc import Sequence

from papershelf_core import command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = command.Parser(
        "{name}",
        distribution="{name}",
        description="{summary}.",
        epilog="exit codes: 0 done, 2 usage, 3 unusable input",
    )
    commands = parser.add_subparsers(title="commands")
    total = commands.add_parser("total", help="sum numbers")
    total.add_argument("values", type=float, nargs="+", help="numbers")
    command.add_json(total)
    total.set_defaults(run=_total)
    reproduce = commands.add_parser("reproduce", help="measure this package's claims")
    reproduce.add_argument("--full", action="store_true", help="on more numbers")
    command.add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return command.main(parser, argv)


def _total(arguments: argparse.Namespace) -> int:
    from {module}.total import total

    found = total(arguments.values)
    command.show([f"{{found:.17g}}"], {{"total": found}}, arguments.json)
    return command.DONE


def _reproduce(arguments: argparse.Namespace) -> int:
    from papershelf_core.claims import publish

    from {module}.reproduce import claims

    publish(claims(arguments.full), "{name}", "{name}", json_path=arguments.json)
    return command.DONE
''',
    "reproduce.py": '''\
"""What this package claims, measured."""

import random
from fractions import Fraction

from papershelf_core.claims import Claim

from {module}.total import total

__all__ = ["claims"]


def claims(full: bool = False) -> list[Claim]:
    """One row a claim; ``full`` measures more of each."""
    return [correctly_rounded(10_000 if full else 100)]


def correctly_rounded(draws: int) -> Claim:
    """Against rational arithmetic, on numbers of very different size."""
    draw, worst = random.Random(0), 0.0
    for _ in range(draws):
        values = [draw.gauss(0, 1) * 10.0 ** draw.randint(-12, 12) for _ in range(20)]
        worst = max(worst, abs(total(values) - float(sum(map(Fraction, values)))))
    note = f"{{draws}} draws of 20 numbers"
    return Claim("-", "Sums are correctly rounded", "rational arithmetic", worst, None, "", "lower", worst == 0.0, note)
''',
    "py.typed": "",
}
IMPORTS = (
    "from hypothesis import given",
    "from hypothesis import strategies as st",
    "from {module} import InvalidInput, total",
    "from {module}.cli import main",
    "from {module}.reproduce import claims",
)
TESTS = {
    "test_{module}_total.py": """\
from fractions import Fraction

import pytest
{imports}


@given(st.lists(st.floats(-1e100, 1e100)))
def test_equals_rational_arithmetic(values):
    assert total(values) == float(sum(map(Fraction, values)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(bad):
    with pytest.raises(InvalidInput, match=r"values\\[1\\]"):
        total([1.0, bad])
    with pytest.raises(InvalidInput, match="more than a float can hold"):
        total([1.7e308, 1.7e308])


def test_claims_hold():
    assert all(row.holds for row in claims())


def test_command_line(capsys):
    assert main(["total", "0.1", "0.2", "0.3"]) == 0
    assert capsys.readouterr().out == "0.59999999999999998\\n"
    assert main(["total", "nan"]) == 3
""",
    "smoke/test_import.py": '''\
"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

from {module} import total


def test_version_and_a_sum() -> None:
    assert importlib.metadata.version("{name}").count(".") == 2
    assert total([0.1] * 10) == 1.0
''',
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="new_package.py"
    )
    parser.add_argument("name", help="of the distribution, such as rank-audit; the module is rank_audit")
    parser.add_argument("--summary", required=True, help="one line: what it does")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    print(f"wrote {create(arguments.name, arguments.summary, arguments.root)}; next: uv run tools/lock.py write")


def create(name: str, summary: str, root: Path) -> Path:
    """Write the package below ``root`` and name it in the root's manifest; the folder."""
    import datetime

    check(name, summary, root)
    module = name.replace("-", "_")
    folder = root / "packages" / name
    values = {
        "name": name,
        "module": module,
        "summary": summary.rstrip("."),
        "core": ".".join(packages(root)[CORE].version.split(".")[:2]),
        "today": datetime.date.today().isoformat(),
    }
    values["imports"] = "\n".join(sorted(line.format(**values) for line in IMPORTS))
    manifest = registered((root / "pyproject.toml").read_text(encoding="utf-8"), name, module)
    texts = {"pyproject.toml": PYPROJECT, "README.md": README, "CHANGELOG.md": CHANGELOG}
    texts |= {f"src/{module}/{file}": text for file, text in SOURCES.items()}
    texts |= {f"tests/{file.format(**values)}": text for file, text in TESTS.items()}
    for file, text in texts.items():
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.format(**values), encoding="utf-8")
    shutil.copy(root / "LICENSE", folder / "LICENSE")
    (root / "pyproject.toml").write_text(manifest, encoding="utf-8")
    return folder


def check(name: str, summary: str, root: Path) -> None:
    """Refuse a name or summary that the tools could not live with."""
    if not _NAME.fullmatch(name) or name.replace("-", "_") in sys.stdlib_module_names:
        sys.exit(f"name {name!r}: give lower-case words joined by '-', no module of Python's, such as rank-audit")
    if name in packages(root) or (root / "packages" / name).exists():
        sys.exit(f"packages/{name} exists; choose another name")
    if not summary.strip() or re.search(r"[\n\"\\{}]", summary) or len(summary) > 80:
        sys.exit(f"summary {summary!r}: one line of at most 80 characters without quotes, backslashes or braces")


def registered(manifest: str, name: str, module: str) -> str:
    """The root's manifest with the package in it."""
    manifest = added(manifest, r"^dependencies = \[\n", f'  "{name}",\n')
    manifest = added(manifest, r"^\[tool\.uv\.sources\]\n", f"{name} = {{ workspace = true }}\n")
    manifest = added(manifest, r'^pythonpath = \[\n  "tools",\n', f'  "packages/{name}/tests",\n')
    manifest = added(manifest, r"^root_packages = \[\n", f'  "{module}",\n')
    manifest = added(manifest, r'^type = "independence"\nmodules = \[', f'"{module}", ')
    return added(manifest, r"^forbidden_modules = \[(?=\"fastlp_rank)", f'"{module}", ')


def added(text: str, behind: str, line: str) -> str:
    r"""The text with a line behind the one place that a pattern finds.

    >>> added("names = [a]", r"^names = \[", "b, ")
    'names = [b, a]'
    """
    found, count = re.subn(f"({behind})", lambda place: place.group(1) + line, text, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"pyproject.toml has {count} places like {behind!r}, not one; name the package there by hand")
    return found


if __name__ == "__main__":
    main()
