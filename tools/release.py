"""Release one package: bump its version, date its changelog, commit and tag <package>-vX.Y.Z.

Refused, by --check and by the release itself: a dirty working tree, an empty Unreleased section, a version whose tag
exists, and a papershelf-core requirement that allows a core older than what the package's code uses. Nothing is pushed.

    python tools/release.py hetcal --bump minor
    python tools/release.py hetcal --check              is it releasable as it stands
    python tools/release.py hetcal --notes 0.1.0        the changelog's section, for the release page
"""

import argparse
import ast
import datetime
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shelf import CORE, Package, package

CORE_MODULE = "papershelf_core"


def bumped(version: str, part: str) -> str:
    """The next version.

    >>> bumped("0.1.3", "minor")
    '0.2.0'
    """
    numbers = [int(number) for number in version.split(".")]
    position = ("major", "minor", "patch").index(part)
    return ".".join(str(n) for n in [*numbers[:position], numbers[position] + 1, *[0] * (2 - position)])


def problems(released: Package, version: str) -> list[str]:
    """Everything that speaks against releasing the package as ``version``."""
    found = []
    changes = uncommitted(released)
    if changes:
        found.append(f"the working tree has uncommitted changes; commit or stash them: {', '.join(changes)}")
    if not released.unreleased():
        found.append("the changelog's Unreleased section is empty; say what changed")
    tag = f"{released.name}-v{version}"
    if git(released, "tag", "--list", tag):
        found.append(f"tag {tag} exists; bump further")
    return found + core_problems(released)


def uncommitted(released: Package) -> list[str]:
    """Files whose content, as git would commit it, is not that of HEAD; a file with another size alone is none."""
    staged = git(released, "diff", "--cached", "--name-only").splitlines()
    would_stage = git(released, "add", "--all", "--dry-run").splitlines()
    return sorted({*staged, *(line.partition(" ")[2].strip("'") for line in would_stage)})


def core_problems(released: Package) -> list[str]:
    """Names that the package takes from core and that the oldest core it allows does not have."""
    used = set(core_names(released))
    if released.name == CORE or not (used or released.core_requirement):
        return []
    if released.core_requirement is None:
        return [f"the code imports {CORE_MODULE} and the manifest does not require {CORE}; add '{CORE}>=X.Y'"]
    lower = re.search(r">=\s*(\d+(?:\.\d+)*)", released.core_requirement)
    if lower is None:
        return [f"requirement {released.core_requirement!r} has no lower bound; write '{CORE}>=X.Y'"]
    oldest = ".".join([*lower.group(1).split("."), "0", "0"][:3])
    missing = sorted(f"{module}.{name}" for module, name in used if name not in exported(released, module, oldest))
    if missing:
        return [f"{CORE} {oldest} has no {', '.join(missing)}; raise the lower bound in {released.core_requirement!r}"]
    return []


def core_names(released: Package) -> Iterator[tuple[str, str]]:
    """Yield (module of core, name) for each name of core that the package's source uses."""
    for path in sorted((released.folder / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == CORE_MODULE:
                modules |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{CORE_MODULE}."):
                for alias in node.names:
                    yield str(node.module).removeprefix(f"{CORE_MODULE}."), alias.name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                yield modules[node.value.id], node.attr


def exported(released: Package, module: str, version: str) -> set[str]:
    """``__all__`` of a module of core at a version: of its tag, or of the working tree if that is the version."""
    path = f"src/{CORE_MODULE}/{module.replace('.', '/')}"
    core = package(CORE, released.folder.parent.parent)
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        source = read_at(core, candidate, version)
        if source is None:
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
                return set(ast.literal_eval(node.value))
    return set()


def read_at(core: Package, path: str, version: str) -> str | None:
    shown = subprocess.run(
        ["git", "show", f"{CORE}-v{version}:packages/{CORE}/{path}"],
        cwd=core.folder,
        capture_output=True,
        text=True,
    )
    if shown.returncode == 0:
        return shown.stdout
    here = core.folder / path
    # a core that has no tag yet is the one in the tree, if its version says so
    return here.read_text(encoding="utf-8") if core.version == version and here.is_file() else None


def release(released: Package, version: str, today: datetime.date) -> str:
    """Write version and changelog, commit, tag; return the tag."""
    manifest = released.folder / "pyproject.toml"
    text, count = re.subn(
        r'^version = "[^"]*"$',
        f'version = "{version}"',
        manifest.read_text(encoding="utf-8"),
        count=1,
        flags=re.MULTILINE,
    )
    if count != 1:
        sys.exit(f"{manifest} has no line 'version = \"...\"'")
    changelog = released.folder / "CHANGELOG.md"
    heading = f"## [Unreleased]\n\n## [{version}] - {today.isoformat()}\n"
    dated = released.changelog.replace("## [Unreleased]\n", heading, 1)
    manifest.write_text(text, encoding="utf-8")
    changelog.write_text(dated, encoding="utf-8")
    tag = f"{released.name}-v{version}"
    git(released, "add", str(manifest), str(changelog), *locked(released, version))
    git(released, "commit", "--quiet", "-m", f"Release {released.name} {version}")
    git(released, "tag", "-a", tag, "-m", f"{released.name} {version}")
    return tag


def locked(released: Package, version: str) -> list[str]:
    """Bring the package's own version in the workspace's lock up to date; the lock's path, if there is one."""
    lock = released.folder.parent.parent / "uv.lock"
    if not lock.is_file():
        return []
    member = rf'(^name = "{re.escape(released.name)}"\nversion = )"[^"]*"(?=\nsource = {{ editable)'
    text = lock.read_text(encoding="utf-8")
    lock.write_text(re.sub(member, rf'\g<1>"{version}"', text, flags=re.MULTILINE), encoding="utf-8")
    return [str(lock)]


def git(released: Package, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=released.folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="release.py"
    )
    parser.add_argument("package")
    parser.add_argument("--bump", choices=("major", "minor", "patch"), help="which number to raise")
    parser.add_argument("--check", action="store_true", help="only say whether it can be released")
    parser.add_argument("--notes", metavar="VERSION", help="print the changelog's section of a version")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    released = package(arguments.package, arguments.root)
    if arguments.notes:
        print(released.section(arguments.notes))
        return
    if not (arguments.bump or arguments.check):
        parser.error("give --bump major|minor|patch, --check or --notes VERSION")
    version = bumped(released.version, arguments.bump or "patch")
    found = problems(released, version)
    if found:
        sys.exit("\n".join(f"{released.name} {version} is not releasable: {problem}" for problem in found))
    if arguments.check:
        print(f"{released.name} can be released")
        return
    print(f"tagged {release(released, version, datetime.date.today())}; to publish: git push --follow-tags")


if __name__ == "__main__":
    main()
