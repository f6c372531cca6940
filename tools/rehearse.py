"""Rehearse a release of every package: tag, build, install as a user would, run the README, upgrade core.

In a scratch clone of HEAD papershelf-core is tagged as it stands, unless that version was, and every other package is
released as CONTRIBUTING says (a changelog without entries gets one); wheel and sdist are built into one flat folder. An
empty environment installs what the README's first ``pip install`` names, from that folder and the configured index;
nothing else of the shelf may come with it. The README's first Python example runs as it stands there, and once more
after papershelf-core was upgraded to a newer release of its declared range. The table: size of the installed files,
distributions, seconds to import, seconds of the example's first and second run. torch is a CPU build, as in
tools/install_torch.py.

    python tools/rehearse.py
    python tools/rehearse.py hetcal fastlp-rank --json rehearsal.json
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import install_torch
from isolated import canonical, distribution, empty_environment, outside, run
from shelf import CORE, ROOT, Package, package, packages

_ENTRY = "## [Unreleased]\n\n### Changed\n- Rehearsed.\n"
_INSTALLED = """
import importlib.metadata as metadata, json
print(json.dumps({found.metadata["Name"]: [str(found.version), sum(
    file.locate().stat().st_size for file in found.files or [] if file.locate().is_file()
)] for found in metadata.distributions()}))
"""


@dataclass(frozen=True)
class Rehearsal:
    """What a user of one package meets: of the release, without and with the newer core."""

    package: str
    installs: str
    megabytes: float
    distributions: int
    import_s: float
    first_run_s: float
    second_run_s: float
    core: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="rehearse.py"
    )
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="which to install; all by default")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments: a version or a path")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    arguments = parser.parse_args()
    chosen = [package(name).name for name in arguments.packages] or list(packages())
    rows = []
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as place:
        clone, shelf = Path(place) / "clone", Path(place) / "shelf"
        released = release_all(clone, shelf)
        newer = release_one(package(CORE, clone), shelf)
        for name in chosen:
            print(f"rehearsing {name} {released[name]}", file=sys.stderr, flush=True)
            rows.append(rehearse(package(name, clone), released, newer, shelf, arguments.python, Path(place) / name))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def release_all(clone: Path, shelf: Path) -> dict[str, str]:
    """Release every package in a fresh clone and build it into the flat folder; the versions by name."""
    run(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
    run([sys.executable, "tools/lock.py", "configure"], clone)
    run(["git", "config", "user.name", "Rehearsal"], clone)
    run(["git", "config", "user.email", "rehearsal@example.org"], clone)
    first = package(CORE, clone)
    tag = f"{CORE}-v{first.version}"
    if not run(["git", "tag", "--list", tag], clone):
        run(["git", "tag", "--annotate", tag, "--message", f"{CORE} {first.version}"], clone)
    build_both(first, shelf)
    others = [found for name, found in packages(clone).items() if name != CORE]
    return {CORE: first.version} | {found.name: release_one(found, shelf) for found in others}


def release_one(tested: Package, shelf: Path) -> str:
    """Tag the next version as tools/release.py does, and build wheel and sdist; the version."""
    clone = tested.folder.parent.parent
    if not tested.unreleased():
        text = tested.changelog.replace("## [Unreleased]\n", _ENTRY, 1)
        (tested.folder / "CHANGELOG.md").write_text(text, encoding="utf-8")
        run(["git", "commit", "--quiet", "--all", "--message", f"Say what changed in {tested.name}"], clone)
    run([sys.executable, "tools/release.py", tested.name, "--bump", "minor"], clone)
    build_both(tested, shelf)
    return package(tested.name, clone).version


def build_both(tested: Package, shelf: Path) -> None:
    """The sdist, and the wheel from the sdist."""
    run(["uv", "build", "--quiet", "--out-dir", str(shelf), str(tested.folder)], tested.folder)


def rehearse(tested: Package, released: dict[str, str], newer: str, shelf: Path, python: str, place: Path) -> Rehearsal:
    """Install one package as its README says, run its example, upgrade core, run it again."""
    place.mkdir()
    interpreter = empty_environment(python, place)
    readme = (tested.folder / "README.md").read_text(encoding="utf-8")
    wanted = first_install(readme, tested.name)
    pinned = [f"{name}=={version}" for name, version in released.items()]
    install(interpreter, [wanted], pinned, shelf, place)
    there = json.loads(run([str(interpreter), "-I", "-c", _INSTALLED], place))
    check_company(tested, released, {canonical(name): version for name, (version, _) in there.items()})
    example = place / "example.py"
    example.write_text(first_example(readme), encoding="utf-8")
    first = seconds([str(interpreter), str(example)], place)
    second = seconds([str(interpreter), str(example)], place)
    imported = seconds([str(interpreter), "-c", f"import {tested.module}"], place)
    core = "-"
    if tested.core_requirement:
        install(interpreter, ["--upgrade-package", CORE, wanted, CORE], [f"{CORE}=={newer}"], shelf, place)
        run([str(interpreter), str(example)], place)
        core = f"{released[CORE]} -> {newer}"
    size = sum(bytes_ for _, bytes_ in there.values()) / 1e6
    return Rehearsal(tested.name, wanted, size, len(there), imported, first, second, core)


def first_install(readme: str, name: str) -> str:
    r"""The requirement of the README's first ``pip install``.

    >>> first_install("```sh\npip install 'toy[fast]'  # quick\n```", "toy")
    'toy[fast]'
    """
    found = re.search(r"^pip install '?([\w.,\[\]-]+)'?", readme, re.MULTILINE)
    wanted = found.group(1) if found else name
    if distribution(wanted) != name:
        sys.exit(f"{name}: its README's first pip install is of {wanted}")
    return wanted


def first_example(readme: str) -> str:
    r"""The README's first block of Python.

    >>> first_example("```sh\npip\n```\n```python\nprint(1)\n```")
    'print(1)\n'
    """
    found = re.search(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    if not found:
        sys.exit("the README has no block of Python")
    return found.group(1)


def install(interpreter: Path, targets: list[str], pinned: list[str], shelf: Path, place: Path) -> None:
    """Install from the flat folder and the configured index; of the shelf, only the releases rehearsed here."""
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join([*pinned, f"torch=={install_torch.TESTED}"]) + "\n", encoding="utf-8")
    command = ["uv", "pip", "install", "--quiet", "--python", str(interpreter), *targets, "--find-links", str(shelf)]
    run([*command, "--constraints", str(constraints), *install_torch.source()], place)


def check_company(tested: Package, released: dict[str, str], installed: dict[str, str]) -> None:
    """Of the shelf there may be the package, at the rehearsed version, and core where it is required."""
    allowed = {tested.name} | ({CORE} if tested.core_requirement else set())
    strangers = sorted(set(installed) & set(released) - allowed)
    if strangers:
        sys.exit(f"{tested.name}: {', '.join(strangers)} came with it")
    if installed.get(tested.name) != released[tested.name]:
        sys.exit(f"{tested.name}: {installed.get(tested.name)} was installed, not {released[tested.name]}")


def seconds(command: list[str], place: Path) -> float:
    """Wall seconds of a program that must end well, in an empty folder's environment."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=outside() | {"HF_HUB_OFFLINE": "1"})
    if done.returncode or not (done.stdout.strip() or "-c" in command):
        sys.exit(f"{' '.join(command)} ended with {done.returncode} and printed\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def table(rows: list[Rehearsal]) -> str:
    """The rows in columns.

    >>> print(table([Rehearsal("toy", "toy[fast]", 12.34, 3, 0.1, 2.0, 0.5, "-")]))
    pip install      MB  distributions  import s  first run s  second run s  core upgraded
    toy[fast]      12.3              3      0.10          2.0           0.5  -
    """
    width = max(len("pip install"), *(len(row.installs) for row in rows))
    lines = [f"{'pip install':{width}}  {'MB':>6}  distributions  import s  first run s  second run s  core upgraded"]
    for row in rows:
        times = f"{row.import_s:8.2f}  {row.first_run_s:11.1f}  {row.second_run_s:12.1f}"
        lines.append(f"{row.installs:{width}}  {row.megabytes:6.1f}  {row.distributions:13d}  {times}  {row.core}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
