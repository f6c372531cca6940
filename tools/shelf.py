"""What the tools know about the shelf: its packages, their manifests and changelogs."""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CORE = "papershelf-core"

_RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
_UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Package:
    """One distribution: its name, folder and manifest."""

    name: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def version(self) -> str:
        return str(self.manifest["project"]["version"])

    @property
    def module(self) -> str:
        """Import name; the one folder below ``src``."""
        (folder,) = [path for path in (self.folder / "src").iterdir() if (path / "__init__.py").is_file()]
        return folder.name

    @property
    def scripts(self) -> list[str]:
        return sorted(self.manifest["project"].get("scripts", {}))

    @property
    def requirements(self) -> list[str]:
        """Every requirement, those of extras included."""
        project = self.manifest["project"]
        extras = project.get("optional-dependencies", {})
        return [*project.get("dependencies", []), *(line for lines in extras.values() for line in lines)]

    @property
    def core_requirement(self) -> str | None:
        """The requirement on papershelf-core, None where the package does without."""
        for requirement in self.requirements:
            if re.match(rf"{CORE}(?![\w-])", requirement):
                return requirement
        return None

    @property
    def torch(self) -> bool:
        """Whether the package itself, without extras, requires torch."""
        return any(re.match(r"torch(?![\w-])", line) for line in self.manifest["project"].get("dependencies", []))

    @property
    def changelog(self) -> str:
        return (self.folder / "CHANGELOG.md").read_text(encoding="utf-8")

    def released(self) -> str | None:
        """The version on top of the changelog."""
        found = _RELEASE.search(self.changelog)
        return found.group(1) if found else None

    def unreleased(self) -> str:
        """The text below the changelog's Unreleased heading."""
        found = _UNRELEASED.search(self.changelog)
        if not found:
            sys.exit(f"{self.folder / 'CHANGELOG.md'} has no '## [Unreleased]' heading; add one on top")
        return found.group(1).strip()

    def section(self, version: str) -> str:
        """The changelog's text for one version."""
        found = re.search(
            rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)",
            self.changelog,
            re.MULTILINE | re.DOTALL,
        )
        if not found:
            sys.exit(f"{self.name}'s changelog has no section [{version}]")
        return found.group(1).strip()


def packages(root: Path = ROOT) -> dict[str, Package]:
    """Every package below ``packages/``, by name, core first."""
    found = []
    for path in root.glob("packages/*/pyproject.toml"):
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
        found.append(Package(manifest["project"]["name"], path.parent, manifest))
    return {entry.name: entry for entry in sorted(found, key=lambda entry: (entry.name != CORE, entry.name))}


def package(name: str, root: Path = ROOT) -> Package:
    """One package; an unknown name ends the program with the list of those there are."""
    known = packages(root)
    if name not in known:
        sys.exit(f"package {name!r} is not on the shelf; it has {', '.join(known)}")
    return known[name]
