"""Releases in a scratch repository with a core and one package."""

import datetime
import subprocess

import pytest
import release
from shelf import package

CORE_INIT = '__all__ = ["claims", "metrics"]\n'
METRICS = '__all__ = ["ece", "roc_auc"]\n'


def git(folder, *arguments):
    options = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    return subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for variable in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(variable, "Someone")
    for variable in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(variable, "someone@example.org")
    for name, module, requirement in (
        ("papershelf-core", "papershelf_core", ""),
        ("toy", "toy", '"papershelf-core>=0.1"'),
    ):
        folder = tmp_path / "packages" / name
        write(
            folder / "pyproject.toml",
            f'[project]\nname = "{name}"\nversion = "0.1.0"\ndependencies = [{requirement}]\n',
        )
        write(
            folder / "CHANGELOG.md",
            "# Changelog\n\n## [Unreleased]\n\n- A change.\n\n## [0.1.0] - 2026-01-01\n\n- First.\n",
        )
        write(folder / "src" / module / "__init__.py", CORE_INIT if module == "papershelf_core" else "")
    write(tmp_path / "packages/papershelf-core/src/papershelf_core/metrics/__init__.py", METRICS)
    write(tmp_path / "packages/toy/src/toy/score.py", "from papershelf_core import metrics\n\nprint(metrics.roc_auc)\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "Start")
    return tmp_path


LOCK = """[[package]]
name = "other"
version = "0.1.0"
source = { registry = "neutral" }

[[package]]
name = "toy"
version = "0.1.0"
source = { editable = "packages/toy" }
dependencies = [
    { name = "other" },
]
"""


def test_release_bumps_its_own_version_in_the_lock(repository):
    write(repository / "uv.lock", LOCK)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "Lock")
    release.release(package("toy", repository), "0.2.0", datetime.date(2026, 2, 3))
    assert git(repository, "show", "HEAD:uv.lock") == LOCK.replace(
        'name = "toy"\nversion = "0.1.0"', 'name = "toy"\nversion = "0.2.0"'
    )
    assert git(repository, "status", "--porcelain") == ""


def test_release_bumps_dates_commits_and_tags(repository):
    toy = package("toy", repository)
    assert release.problems(toy, "0.2.0") == []
    assert release.release(toy, "0.2.0", datetime.date(2026, 2, 3)) == "toy-v0.2.0"
    toy = package("toy", repository)
    assert toy.version == toy.released() == "0.2.0"
    assert toy.unreleased() == ""
    assert toy.section("0.2.0") == "- A change."
    assert "## [0.2.0] - 2026-02-03" in toy.changelog
    assert git(repository, "tag").split() == ["toy-v0.2.0"]
    assert git(repository, "log", "-1", "--format=%s").strip() == "Release toy 0.2.0"
    assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize(("part", "version"), [("major", "2.0.0"), ("minor", "1.3.0"), ("patch", "1.2.4")])
def test_bumps(part, version):
    assert release.bumped("1.2.3", part) == version


def test_a_dirty_tree_is_refused(repository):
    write(repository / "stray.txt", "x")
    assert any("uncommitted" in problem for problem in release.problems(package("toy", repository), "0.2.0"))


def test_content_decides_what_is_uncommitted_not_size(repository):
    write(repository / ".gitattributes", "table.csv filter=short\n")
    write(repository / "table.csv", "1\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "Add a table")
    git(repository, "config", "filter.short.clean", "head -n 1")
    write(repository / "table.csv", "1\nwhat the filter drops\n")
    assert git(repository, "status", "--porcelain") == " M table.csv\n"
    assert release.problems(package("toy", repository), "0.2.0") == []
    write(repository / "table.csv", "2\nwhat the filter drops\n")
    assert "table.csv" in release.problems(package("toy", repository), "0.2.0")[0]
    git(repository, "add", "--all")
    assert "table.csv" in release.problems(package("toy", repository), "0.2.0")[0]


def test_an_empty_unreleased_section_is_refused(repository):
    release.release(package("toy", repository), "0.2.0", datetime.date(2026, 2, 3))
    problems = release.problems(package("toy", repository), "0.3.0")
    assert len(problems) == 1
    assert "Unreleased section is empty" in problems[0]


def test_a_version_that_exists_is_refused(repository):
    git(repository, "tag", "toy-v0.2.0")
    assert any("toy-v0.2.0 exists" in problem for problem in release.problems(package("toy", repository), "0.2.0"))


def test_a_core_older_than_the_code_uses_is_refused(repository):
    git(repository, "tag", "papershelf-core-v0.1.0")
    core = repository / "packages/papershelf-core"
    write(core / "src/papershelf_core/metrics/__init__.py", '__all__ = ["ece", "gauc", "roc_auc"]\n')
    write(core / "pyproject.toml", '[project]\nname = "papershelf-core"\nversion = "0.2.0"\n')
    write(repository / "packages/toy/src/toy/score.py", "from papershelf_core.metrics import gauc\n\nprint(gauc)\n")
    git(repository, "commit", "--quiet", "--all", "-m", "Use what is new")
    (problem,) = release.problems(package("toy", repository), "0.2.0")
    assert "papershelf-core 0.1.0 has no metrics.gauc" in problem
    manifest = repository / "packages/toy/pyproject.toml"
    manifest.write_text(manifest.read_text().replace(">=0.1", ">=0.2"))
    git(repository, "commit", "--quiet", "--all", "-m", "Ask for the new core")
    assert release.problems(package("toy", repository), "0.2.0") == []


@pytest.mark.parametrize(
    ("requirement", "message"),
    [('"papershelf-core"', "has no lower bound"), ("", "does not require papershelf-core")],
)
def test_an_open_or_missing_core_requirement_is_refused(repository, requirement, message):
    manifest = repository / "packages/toy/pyproject.toml"
    manifest.write_text(f'[project]\nname = "toy"\nversion = "0.1.0"\ndependencies = [{requirement}]\n')
    git(repository, "commit", "--quiet", "--all", "-m", "Change the requirement")
    (problem,) = release.problems(package("toy", repository), "0.2.0")
    assert message in problem


def test_every_package_of_the_shelf_asks_for_a_core_that_has_what_it_uses():
    from shelf import packages

    for entry in packages().values():
        assert release.core_problems(entry) == []
