"""Finished pieces of a long job on disk; what a later run resumes from is checked to be its own.

A job is known by its identity: what was asked for, the version of the package that computes it, the checksums of the
tables and inputs that it reads. Pieces live in ``FOLDER/<first 16 digits of the identity's SHA-256>/`` beside
``identity.json``, so that jobs of another version, other tables or other settings share a folder and never a piece. A
piece carries the first 16 digits of its own SHA-256 in its name: one rename makes it whole, and a piece whose content
does not match its name is damaged and done again.
"""

import glob
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from papershelf_core.files import scratch_beside, sha256, write_text

__all__ = ["WorkFolder", "identity"]

_DIGITS = 16


def identity(
    distribution: str, job: Mapping[str, Any], inputs: Mapping[str, str | os.PathLike[str]] | None = None
) -> dict[str, Any]:
    """Everything that the results of a job depend on, as plain data.

    Parameters
    ----------
    distribution : str
        The package that computes; its installed version counts.
    job : mapping
        What was asked for; whatever JSON can hold.
    inputs : mapping of name to path, optional
        Files that are read; their checksums count, their places do not.
    """
    return {
        "distribution": distribution,
        "version": importlib.metadata.version(distribution),
        "job": dict(job),
        "inputs": {name: sha256(path) for name, path in (inputs or {}).items()},
    }


class WorkFolder:
    """Pieces of one job in a folder.

    Parameters
    ----------
    folder : path
        Made if missing; other jobs may use it too.
    of : mapping
        The job's `identity`, or any other plain data that names all that the pieces depend on.

    Attributes
    ----------
    path : Path
        Where the pieces lie.
    damaged : list of str
        Pieces that were there and did not match their checksum; they count as not done.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     work = WorkFolder(place, {"seed": 1})
    ...     with work.writing("first.txt") as scratch:
    ...         _ = scratch.write_text("done")
    ...     resumed = WorkFolder(place, {"seed": 1}).finished("first.txt")
    ...     resumed.read_text(), WorkFolder(place, {"seed": 2}).finished("first.txt")
    ('done', None)
    """

    def __init__(self, folder: str | os.PathLike[str], of: Mapping[str, Any]) -> None:
        text = json.dumps(of, sort_keys=True, indent=1, allow_nan=False)
        self.path = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        self.damaged: list[str] = []
        if not (self.path / "identity.json").is_file():
            write_text(self.path / "identity.json", text)

    def finished(self, name: str) -> Path | None:
        """The file of a piece, checked; None where it is not done, or damaged."""
        whole = None
        for found in sorted(self.path.glob(self._pattern(name))):
            digest = found.stem.rpartition("-")[2]
            if sha256(found)[:_DIGITS] == digest:
                whole = found
            else:
                found.unlink(missing_ok=True)
                self.damaged.append(name)
        return whole

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a scratch path; what the block writes there becomes the piece."""
        stem, suffix = os.path.splitext(name)
        with scratch_beside(self.path / name) as scratch:
            yield scratch
            scratch.replace(self.path / f"{stem}-{sha256(scratch)[:_DIGITS]}{suffix}")

    def _pattern(self, name: str) -> str:
        stem, suffix = os.path.splitext(name)
        return f"{glob.escape(stem)}-{'[0-9a-f]' * _DIGITS}{glob.escape(suffix)}"
