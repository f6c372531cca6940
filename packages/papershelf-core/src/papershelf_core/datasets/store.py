"""Where a file is: the folder of ``PAPERSHELF_DATA``, the user's cache, or a pinned download."""

import gzip
import hashlib
import os
import zlib
from functools import cache
from pathlib import Path

from papershelf_core.datasets.catalogue import DatasetInfo, FileInfo, info
from papershelf_core.files import sha256, write_bytes

__all__ = ["DatasetCorrupt", "DatasetUnavailable", "path", "present"]

_TIMEOUT_SECONDS = 30


class DatasetUnavailable(OSError):
    """A file is neither in the local folder nor in the cache, and could not be downloaded."""


class DatasetCorrupt(OSError):
    """A file is there and its content is not the catalogue's."""


def path(name: str, file: str) -> Path:
    """Return the path of a data set's file, fetched if need be, of the catalogue's SHA-256.

    Parameters
    ----------
    name : str
        Data set, as in ``catalog()``.
    file : str
        File of that set.

    Returns
    -------
    Path
        In ``$PAPERSHELF_DATA``, or in the cache (``$PAPERSHELF_CACHE``, else the user's cache folder).

    Raises
    ------
    ValueError
        If the name or the file is not in the catalogue.
    DatasetUnavailable
        If the file is not here and cannot be downloaded: names URL, checksum and the folder to put it in.
    DatasetCorrupt
        If a local file's content has another checksum.
    """
    return found(name, file) or _download(info(name), info(name).file(file))


def found(name: str, file: str) -> Path | None:
    """Return the path of a file that is here already, None where it would have to be downloaded."""
    dataset = info(name)
    entry = dataset.file(file)
    return _in_local_folder(entry) or _in_cache(dataset, entry)


def present(name: str) -> bool:
    """Whether every file of a data set can be had without a download."""
    return all(found(name, entry.name) for entry in info(name).files)


def local_folder() -> Path | None:
    """Return the folder that ``PAPERSHELF_DATA`` names, if it is set."""
    named = os.environ.get("PAPERSHELF_DATA")
    if not named:
        return None
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise DatasetUnavailable(f"PAPERSHELF_DATA={named!r} is not a folder; unset it or point it at the data")
    return folder


def cache_folder() -> Path:
    """Return the folder that keeps downloads and unpacked files."""
    named = os.environ.get("PAPERSHELF_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("papershelf")


def _in_local_folder(entry: FileInfo) -> Path | None:
    folder = local_folder()
    if folder is None:
        return None
    packed = folder / entry.local
    plain = packed.with_suffix("") if packed.suffix == ".gz" else packed
    if plain.is_file():
        return _verified(plain, entry)
    if packed.is_file():
        return _unpacked(packed, entry)
    return None


def _unpacked(packed: Path, entry: FileInfo) -> Path:
    """Unpack a ``.gz`` into the cache, once."""
    target = cache_folder() / "unpacked" / entry.sha256[:16] / entry.name
    if not target.is_file():
        try:
            content = gzip.decompress(packed.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetCorrupt(f"{packed} is no whole gzip file ({error}); fetch it again") from error
        write_bytes(target, content)
    return _verified(target, entry)


def _in_cache(dataset: DatasetInfo, entry: FileInfo) -> Path | None:
    target = cache_folder() / dataset.name / entry.name
    return _verified(target, entry) if target.is_file() else None


def _download(dataset: DatasetInfo, entry: FileInfo) -> Path:
    target = cache_folder() / dataset.name / entry.name
    if entry.url is None:
        raise DatasetUnavailable(
            f"{dataset.name}/{entry.name} has no download ({dataset.origin}). {_by_hand(dataset, entry)}"
        )
    import requests

    try:
        with requests.get(entry.url, timeout=_TIMEOUT_SECONDS) as answer:
            answer.raise_for_status()
            content = answer.content
    except requests.RequestException as error:
        reason = f"{type(error).__name__}: {error}"
        raise DatasetUnavailable(
            f"{dataset.name}/{entry.name} could not be downloaded ({reason}). {_by_hand(dataset, entry)}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise DatasetCorrupt(f"{entry.url} has SHA-256 {digest} where the catalogue has {entry.sha256}; not kept")
    write_bytes(target, content)
    return target


def _by_hand(dataset: DatasetInfo, entry: FileInfo) -> str:
    folder = cache_folder() / dataset.name
    return (
        f"Remedy: get {entry.url or dataset.home} (SHA-256 {entry.sha256}) and put it into {folder} as "
        f"{entry.name}, or set PAPERSHELF_DATA to a folder that holds {entry.local}."
    )


def _verified(found: Path, entry: FileInfo) -> Path:
    status = found.stat()
    digest = _sha256(found, status.st_size, status.st_mtime_ns)
    if digest != entry.sha256:
        raise DatasetCorrupt(
            f"{found} has SHA-256 {digest} where the catalogue has {entry.sha256}; remove it and fetch it again"
        )
    return found


@cache
def _sha256(found: Path, size: int, modified_ns: int) -> str:
    """Hash a file once for each state it is seen in."""
    return sha256(found)
