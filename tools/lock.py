"""Make and check the index-neutral uv.lock.

A lock as uv writes it holds an address for every file and so is bound to one package index. The committed lock keeps
names, versions, dependencies and markers and no address: the registry is the word ``neutral``, sdists and wheels are
dropped, and ``[manifest] members`` is empty, which makes uv resolve again against whatever index the user has
configured, with the locked versions as preferences.

    python tools/lock.py write            resolve, then write uv.lock, ready for git add
    python tools/lock.py write --upgrade  the same, taking the newest versions that fit
    python tools/lock.py check            committed lock: no address, and the versions of a fresh resolution
    python tools/lock.py configure        once in a clone: git keeps the neutral form, the working tree the full one
    python tools/lock.py clean            git's clean filter: any lock on stdin, its neutral form on stdout
    python tools/lock.py smudge           git's smudge filter: a neutral lock on stdin, the full form on stdout

In a configured clone uv finds the lock that it would write, so that ``uv sync`` changes no file that git knows. git
judges a file whose size changed by its size alone, never by its filtered content: that is why cleaning is not enough.

Standard library only, so that git can run it with any Python 3.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "uv.lock"
FILTERS = ("clean", "smudge")

_REGISTRY = re.compile(r'registry = "[^"]*"')
_FILES = re.compile(r"^(?:sdist = .*|wheels = \[\n(?:    .*\n)*\]|wheels = \[.*\])\n", re.MULTILINE)
_MEMBERS = re.compile(r"^members = \[[^\]]*\]$", re.MULTILINE)
_PACKAGE = re.compile(r'^\[\[package\]\]\nname = "([^"]+)"\nversion = "([^"]+)"', re.MULTILINE)


def neutral(lock: str) -> str:
    """Return the lock without addresses. Idempotent: a neutral lock comes back unchanged."""
    lock = _FILES.sub("", lock)
    lock = _REGISTRY.sub('registry = "neutral"', lock)
    return _MEMBERS.sub("members = []", lock)


def versions(lock: str) -> set[tuple[str, str]]:
    """Return every (name, version) that the lock pins."""
    return set(_PACKAGE.findall(lock))


def committed() -> str:
    """Return the lock that git holds: staged if it is, else of HEAD."""
    shown = subprocess.run(["git", "show", ":uv.lock"], cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        sys.exit(f"uv.lock is not committed: {shown.stderr.strip()}. Remedy: git add uv.lock")
    return shown.stdout


def resolved_afresh(preferences: str) -> str:
    """Resolve the workspace in a scratch copy that holds only manifests, starting from ``preferences``."""
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        for manifest in [ROOT / "pyproject.toml", *sorted(ROOT.glob("packages/*/pyproject.toml"))]:
            target = scratch / manifest.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(manifest, target)
        (scratch / "uv.lock").write_text(preferences, encoding="utf-8")
        run_uv_lock(scratch)
        return (scratch / "uv.lock").read_text(encoding="utf-8")


def run_uv_lock(folder: Path, *options: str) -> None:
    """Run ``uv lock`` in a folder; leave with uv's own message when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    run = subprocess.run(["uv", "lock", *options], cwd=folder, capture_output=True, text=True, env=environment)
    if run.returncode:
        sys.exit(f"uv lock failed:\n{run.stderr.strip()}")


def full(lock: str) -> str:
    """Return the lock with this user's addresses; where uv or its index is missing the neutral form, and say so."""
    if shutil.which("uv") is None:
        print("uv.lock stays neutral until `uv sync`: uv is not on PATH", file=sys.stderr)
        return lock
    try:
        return resolved_afresh(lock)
    except SystemExit as failed:
        print(f"uv.lock stays neutral until `uv sync`: {str(failed).splitlines()[-1]}", file=sys.stderr)
        return lock


def configure() -> None:
    """Set both filters in this clone and bring its uv.lock to the full form."""
    if neutral(LOCK.read_text(encoding="utf-8")) != neutral(committed()):
        sys.exit("uv.lock differs from the committed one. Remedy: git add uv.lock, or git checkout -- uv.lock")
    for command in FILTERS:
        git("config", f"filter.neutral-lock.{command}", f"python3 tools/lock.py {command}")
    LOCK.write_text(full(neutral(committed())), encoding="utf-8")
    git("update-index", "uv.lock")
    print("git commits uv.lock without addresses and checks it out with yours")


def git(*arguments: str) -> None:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"git {' '.join(arguments)} failed: {run.stderr.strip()}")


def write(upgrade: bool) -> None:
    run_uv_lock(ROOT, *(["--upgrade"] if upgrade else []))
    text = neutral(LOCK.read_text(encoding="utf-8"))
    if not configured():  # else git cleans the full form when it is added
        scratch = LOCK.with_suffix(".lock.new")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(LOCK)
    print(f"uv.lock: {len(versions(text))} packages; git add uv.lock")


def configured() -> bool:
    """Whether this clone has both filters."""
    return all(
        subprocess.run(["git", "config", f"filter.neutral-lock.{command}"], cwd=ROOT, capture_output=True).stdout
        for command in FILTERS
    )


def check() -> None:
    lock = committed()
    problems = []
    if "://" in lock:
        line = next(number for number, line in enumerate(lock.splitlines(), 1) if "://" in line)
        problems.append(f"the committed uv.lock holds an address (line {line})")
    pinned, fresh = versions(lock), versions(resolved_afresh(neutral(lock)))
    if pinned != fresh:
        gone = ", ".join(f"{name} {version}" for name, version in sorted(pinned - fresh)) or "none"
        new = ", ".join(f"{name} {version}" for name, version in sorted(fresh - pinned)) or "none"
        problems.append(f"a fresh resolution differs: only locked: {gone}; only resolved: {new}")
    if problems:
        sys.exit("\n".join([*problems, "Remedy: python tools/lock.py write && git add uv.lock"]))
    print(f"uv.lock: {len(pinned)} packages, no address, equal to a fresh resolution")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="lock.py"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write").add_argument("--upgrade", action="store_true")
    commands.add_parser("check")
    commands.add_parser("configure")
    for command in FILTERS:
        commands.add_parser(command)
    arguments = parser.parse_args()
    if arguments.command == "write":
        write(arguments.upgrade)
    elif arguments.command == "check":
        check()
    elif arguments.command == "configure":
        configure()
    else:
        lock = neutral(sys.stdin.read())
        sys.stdout.write(full(lock) if arguments.command == "smudge" else lock)


if __name__ == "__main__":
    main()
