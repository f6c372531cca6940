import os
import shutil
import subprocess
import sys

import lock
import pytest

FULL = """version = 1
requires-python = ">=3.11"

[manifest]
members = [
    "hetcal",
    "papershelf",
]

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "https://index.example/simple" }
resolution-markers = [
    "python_full_version < '3.12'",
]
sdist = { url = "https://files.example/numpy.tar.gz", hash = "sha256:aa", size = 1 }
wheels = [
    { url = "https://files.example/numpy-1.whl", hash = "sha256:bb", size = 2 },
    { url = "https://files.example/numpy-2.whl", hash = "sha256:cc", size = 3 },
]

[[package]]
name = "hetcal"
version = "0.1.0"
source = { editable = "packages/hetcal" }
dependencies = [
    { name = "numpy" },
]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/six.whl", hash = "sha256:dd", size = 4 }]
"""

NEUTRAL = """version = 1
requires-python = ">=3.11"

[manifest]
members = []

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "neutral" }
resolution-markers = [
    "python_full_version < '3.12'",
]

[[package]]
name = "hetcal"
version = "0.1.0"
source = { editable = "packages/hetcal" }
dependencies = [
    { name = "numpy" },
]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "neutral" }
"""


def test_addresses_go_and_everything_else_stays():
    assert lock.neutral(FULL) == NEUTRAL


def test_neutral_is_idempotent():
    assert lock.neutral(NEUTRAL) == NEUTRAL


def test_versions_survive():
    assert lock.versions(FULL) == lock.versions(NEUTRAL) == {("numpy", "2.4.6"), ("hetcal", "0.1.0"), ("six", "1.17.0")}


def test_the_committed_lock_is_neutral():
    committed = lock.committed()
    assert "://" not in committed
    assert lock.neutral(committed) == committed
    assert len(lock.versions(committed)) > 50


FAKE_UV = """#!{python}
import pathlib, re, sys
assert sys.argv[1] == "lock"
if pathlib.Path({index!r}).exists():
    lock = pathlib.Path("uv.lock")
    text = re.sub(r'registry = "[^"]*"', 'registry = "https://index.example/simple"', lock.read_text())
    wheels = '\\nwheels = [\\n    {{ url = "https://files.example/x.whl", hash = "sha256:bb", size = 2 }},\\n]'
    once = text.replace(wheels, "")
    lock.write_text(re.sub(r'(source = {{ registry = .* }})', lambda m: m[1] + wheels, once))
else:
    sys.exit("no index here")
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with two commits of the lock and this tool, and a uv that needs the file `index` to resolve."""
    index = tmp_path / "index"
    index.touch()
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text(FAKE_UV.format(python=sys.executable, index=str(index)))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}{os.pathsep}{os.environ['PATH']}")
    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(lock.__file__, folder / "tools" / "lock.py")
    (folder / "pyproject.toml").write_text("")
    (folder / ".gitattributes").write_text("uv.lock filter=neutral-lock\n")
    (folder / "uv.lock").write_text(NEUTRAL)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Start")
    (folder / "uv.lock").write_text(NEUTRAL.replace("1.17.0", "1.18.0"))
    git(folder, "commit", "--quiet", "--all", "-m", "Upgrade")
    return folder


def git(folder, *arguments):
    options = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    return subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def tool(folder, *arguments):
    command = ["python3", "tools/lock.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def sync(folder):
    subprocess.run(["uv", "lock"], cwd=folder, check=True)


def test_a_synced_clone_is_unchanged_for_git_whatever_is_checked_out(clone):
    sync(clone)
    assert git(clone, "status", "--porcelain") == " M uv.lock\n"
    assert tool(clone, "configure").returncode == 0
    for commit in ("HEAD", "HEAD~1", "-"):
        git(clone, "checkout", "--quiet", commit)
        before = (clone / "uv.lock").read_text()
        assert "https://" in before
        sync(clone)
        assert (clone / "uv.lock").read_text() == before
        assert git(clone, "status", "--porcelain") == ""
        assert "://" not in git(clone, "show", "HEAD:uv.lock")


def test_a_change_of_versions_is_seen_and_committed_without_addresses(clone):
    tool(clone, "configure")
    (clone / "uv.lock").write_text((clone / "uv.lock").read_text().replace("1.18.0", "1.19.0"))
    assert git(clone, "status", "--porcelain") == " M uv.lock\n"
    refused = tool(clone, "configure")
    assert refused.returncode == 1
    assert "uv.lock differs from the committed one" in refused.stderr
    git(clone, "commit", "--quiet", "--all", "-m", "Upgrade again")
    assert git(clone, "show", "HEAD:uv.lock") == NEUTRAL.replace("1.17.0", "1.19.0")


def test_without_an_index_the_lock_stays_neutral_and_says_so(clone):
    (clone.parent / "index").unlink()
    done = tool(clone, "configure")
    assert done.returncode == 0
    assert "uv.lock stays neutral until `uv sync`" in done.stderr
    assert git(clone, "status", "--porcelain") == ""
    git(clone, "checkout", "--quiet", "HEAD~1")
    assert (clone / "uv.lock").read_text() == NEUTRAL
