"""Print the packages that a diff touches.

A file below packages/<dist>/ touches <dist>; a change of papershelf-core touches every package that depends on it; a
file outside packages/ touches all. Committed, staged, unstaged and untracked changes count alike.

    python tools/changed.py --base origin/main          one name a line
    python tools/changed.py --base origin/main --json   a JSON list, for a CI matrix
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import PurePosixPath

from shelf import CORE, ROOT, Package, packages


def changed_files(base: str) -> list[str]:
    """Paths that differ between ``base`` (its merge base with HEAD) and the working tree."""
    differing = _git("diff", "--name-only", "--no-renames", "--merge-base", base, "-z")
    untracked = _git("ls-files", "--others", "--exclude-standard", "-z")
    return [path for path in (differing + untracked).split("\0") if path]


def touched(files: Iterable[str], shelf: dict[str, Package]) -> list[str]:
    """Names of the packages that the files touch, in the order of the shelf."""
    names = set()
    for file in files:
        parts = PurePosixPath(file).parts
        if parts[0] != "packages" or len(parts) < 3 or parts[1] not in shelf:
            return list(shelf)
        names.add(parts[1])
    if CORE in names:
        names |= {name for name, entry in shelf.items() if entry.core_requirement}
    return [name for name in shelf if name in names]


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"git {' '.join(arguments)} failed: {run.stderr.strip()}. Remedy: give a --base that git knows")
    return run.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="changed.py"
    )
    parser.add_argument("--base", required=True, metavar="REV", help="revision to compare with")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    arguments = parser.parse_args()
    names = touched(changed_files(arguments.base), packages())
    print(json.dumps(names) if arguments.json else "\n".join(names))


if __name__ == "__main__":
    main()
