"""A ninth package passes what the eight pass, as it is made."""

import os
import shutil
import subprocess
import sys
import tomllib

import new_package
import pytest
from shelf import ROOT, packages


@pytest.fixture
def shelf(tmp_path):
    """The root's files and the packages' manifests alone."""
    for file in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / file, tmp_path / file)
    for found in packages().values():
        folder = tmp_path / "packages" / found.name
        (folder / "src" / found.module).mkdir(parents=True)
        (folder / "src" / found.module / "__init__.py").write_text("")
        shutil.copy(found.folder / "pyproject.toml", folder)
    return tmp_path


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(folder / "packages" / "rank-audit" / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_package_passes_format_lint_types_and_its_tests(shelf):
    folder = new_package.create("rank-audit", "Audits of ranked lists", shelf)
    assert packages(shelf)["rank-audit"].scripts == ["rank-audit"]
    python = [sys.executable, "-m"]
    run(shelf, *python, "ruff", "format", "--check", str(folder))
    run(shelf, *python, "ruff", "check", str(folder))
    run(shelf, *python, "mypy", str(folder / "src"))
    # its version is read from an installed distribution: tools/isolated.py has one
    tests = run(shelf, *python, "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", str(folder), "--deselect", SMOKE)
    assert "6 passed, 1 deselected" in tests


SMOKE = "packages/rank-audit/tests/smoke/test_import.py::test_version_and_a_sum"


def test_the_root_knows_the_package_in_every_place(shelf):
    new_package.create("rank-audit", "Audits of ranked lists", shelf)
    root = tomllib.loads((shelf / "pyproject.toml").read_text())
    assert "rank-audit" in root["project"]["dependencies"]
    assert root["tool"]["uv"]["sources"]["rank-audit"] == {"workspace": True}
    assert "packages/rank-audit/tests" in root["tool"]["pytest"]["ini_options"]["pythonpath"]
    contracts = root["tool"]["importlinter"]["contracts"]
    assert "rank_audit" in root["tool"]["importlinter"]["root_packages"]
    assert "rank_audit" in contracts[0]["modules"]
    assert "rank_audit" in contracts[1]["forbidden_modules"]


@pytest.mark.parametrize(
    ("name", "summary", "said"),
    [
        ("Rank", "x", "lower-case words"),
        ("json", "x", "no module of Python's"),
        ("hetcal", "x", "exists"),
        ("rank-audit", 'a "b"', "without quotes"),
        ("rank-audit", "", "one line"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(shelf, name, summary, said):
    before = sorted(shelf.rglob("*"))
    with pytest.raises(SystemExit, match=said):
        new_package.create(name, summary, shelf)
    assert sorted(shelf.rglob("*")) == before


@pytest.mark.network
def test_its_wheel_works_alone(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    new_package.create("rank-audit", "Audits of ranked lists", clone)
    done = subprocess.run(
        [sys.executable, "tools/isolated.py", "rank-audit"], cwd=clone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
