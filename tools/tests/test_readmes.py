"""Every block of Python in every README runs as it stands, and prints what stands below it."""

import math
import re
import subprocess
import sys

import pytest
from shelf import ROOT, packages

BLOCK = re.compile(
    r"^```python\n(.*?)^```\n+(?:prints[^\n]*\n+(?:```\n(.*?)^```|((?:^ {4}[^\n]*\n|^\n)+)))?", re.M | re.S
)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?", re.I)
READMES = {"shelf": ROOT / "README.md", **{name: one.folder / "README.md" for name, one in packages().items()}}


def blocks():
    for name, readme in READMES.items():
        for number, found in enumerate(BLOCK.finditer(readme.read_text(encoding="utf-8"))):
            code, fenced, indented = found.groups()
            shown = fenced if fenced is not None else re.sub(r"^ {4}", "", indented or "", flags=re.M)
            yield pytest.param(code, shown.strip(), id=f"{name}-{number}")


@pytest.mark.parametrize(("code", "shown"), list(blocks()))
def test_a_block_runs_and_prints_what_is_shown(code, shown, tmp_path):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not shown or same(done.stdout, shown), done.stdout


def same(printed, shown):
    """Equal words; numbers to a hundredth, and both below 1e-9 where one is: rounding differs between processors."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-2, abs_tol=1e-9) for a, b in pairs)


@pytest.mark.parametrize(
    ("printed", "equal"),
    [("a 1.001", True), ("a 1.02", False), ("b 1.0", False), ("a 1.0 2", False), ("a -1.0", False)],
)
def test_other_output_is_seen(printed, equal):
    assert same(printed, "a 1.0") == equal


def test_blocks_are_found():
    assert len(list(blocks())) >= 2 + len(packages())
    assert sum(bool(parameter.values[1]) for parameter in blocks()) >= 4
