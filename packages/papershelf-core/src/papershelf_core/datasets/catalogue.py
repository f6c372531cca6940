"""The catalogue: every data set's files, checksums, licence and origin, read from ``catalog.toml``."""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files

__all__ = ["DatasetInfo", "FileInfo", "catalog", "info"]


@dataclass(frozen=True)
class FileInfo:
    """One file: ``name`` as ``datasets.path`` takes it, ``local`` below ``PAPERSHELF_DATA``, ``url`` of the original.

    ``bytes`` and ``sha256`` are those of the plain, uncompressed content. ``url`` is None for a repackaging.
    """

    name: str
    local: str
    bytes: int
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """One data set of the catalogue; ``origin`` says how a repackaged file was made."""

    name: str
    title: str
    licence: str
    citation: str
    home: str
    files: tuple[FileInfo, ...]
    origin: str = ""

    def file(self, name: str) -> FileInfo:
        """Return one file of the set.

        Raises
        ------
        ValueError
            If the set has no such file; the message lists those it has.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        raise ValueError(f"file={name!r} is not in {self.name!r}; it has {', '.join(f.name for f in self.files)}")


@cache
def catalog() -> tuple[DatasetInfo, ...]:
    """Return every data set, in alphabetical order.

    Examples
    --------
    >>> [entry.licence for entry in catalog() if entry.name == "adult"]
    ['CC-BY-4.0']
    """
    text = package_files(__package__).joinpath("catalog.toml").read_text(encoding="utf-8")
    entries = []
    for name, fields in sorted(tomllib.loads(text).items()):
        files = tuple(FileInfo(name=file, **pins) for file, pins in fields.pop("files").items())
        entries.append(DatasetInfo(name=name, files=files, **fields))
    return tuple(entries)


def info(name: str) -> DatasetInfo:
    """Return one data set; an unknown name is answered with the nearest ones."""
    known = {entry.name: entry for entry in catalog()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known))}"
    raise ValueError(f"name={name!r} is not in the catalogue; {hint}")
