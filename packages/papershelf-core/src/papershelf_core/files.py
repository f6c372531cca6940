"""Files and folders that are whole or not there: written under a scratch name beside the target, then renamed."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_writable", "replacing", "scratch_beside", "sha256", "write_bytes", "write_text"]


@contextmanager
def scratch_beside(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside ``target`` that no other writer has, with its suffix; whatever is left there is removed."""
    goal = Path(target)
    goal.parent.mkdir(parents=True, exist_ok=True)
    scratch = goal.with_name(f".{goal.stem}.{uuid.uuid4().hex[:8]}.part{goal.suffix}")
    try:
        yield scratch
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch)
        else:
            scratch.unlink(missing_ok=True)


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a scratch path to write to; it becomes ``target`` when the block ends, and goes when the block fails.

    Parameters
    ----------
    target : path
        A file (replaced if it exists) or a folder (absent or empty; the block makes the folder). Missing parents are
        made.

    Yields
    ------
    Path
        In the target's folder, with the target's suffix; does not exist yet.

    Raises
    ------
    FileExistsError
        If a folder was written and the target is a file or a folder that holds something; nothing is lost of it.
    FileNotFoundError
        If the block wrote nothing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as scratch:
    ...         _ = scratch.write_text("whole")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.txt']
    """
    goal = Path(target)
    with scratch_beside(goal) as scratch:
        yield scratch
        if scratch.is_dir() and goal.exists():
            if not goal.is_dir() or any(goal.iterdir()):
                raise FileExistsError(f"{goal} exists and is not an empty folder; choose another name or remove it")
            goal.rmdir()
        scratch.replace(goal)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    write_bytes(target, text.encode())


def write_bytes(target: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(target) as scratch:
        scratch.write_bytes(content)


def check_writable(target: str | os.PathLike[str]) -> None:
    """Refuse a target that `replacing` could not write, before hours of work go into it.

    Raises
    ------
    OSError
        Names the target and the reason: its folder cannot be made or written, or it is a folder where a file is meant.
    """
    goal = Path(target)
    if goal.is_dir():
        raise IsADirectoryError(f"{goal} is a folder; give the name of a file")
    try:
        with scratch_beside(goal) as scratch:
            scratch.touch()
    except OSError as error:
        raise OSError(f"{goal} cannot be written ({error.strerror or error}); choose another place") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
