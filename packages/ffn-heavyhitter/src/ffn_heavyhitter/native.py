"""The product of few tokens with int8 rows as one call: C, compiled once where a compiler is.

PyTorch's operators quantise an input in ten small steps, which at one token cost as much as the product. The library
lies in the user's cache under a name that holds the source, the compiler and the processor, beside its checksum. A
cache that other users may write to is not used, as loading a library runs what is in it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import torch
from papershelf_core import files
from torch import Tensor

from ffn_heavyhitter.int8_rows import SMALLEST, STEPS, rounded

__all__ = ["FEW_TOKENS", "available", "product"]

FEW_TOKENS = 8  # beyond, PyTorch's product is as fast
_SOURCE = Path(__file__).with_name("few_rows.c")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC")
_SECONDS = 60


def available() -> bool:
    """Whether the library is there, or could be built just now."""
    return _function() is not None


def product(x: Tensor, codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    """W x for each row of x, as ``int8_rows.PackedRows.product`` has it.

    Parameters
    ----------
    x : Tensor of shape (T, columns), float32
    codes : Tensor of shape (rows, columns), int8
    scale : Tensor of shape (rows,), float32
    bits : {8, 16}

    Returns
    -------
    Tensor of shape (T, rows), float32
    """
    function = _function()
    assert function is not None
    return _run(function, x, codes, scale, bits)


def _run(function: Any, x: Tensor, codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    x = x.contiguous()
    count, columns = x.shape
    y = torch.empty(count, len(codes))
    pointers = [tensor.data_ptr() for tensor in (x, codes, scale, y)]
    sizes = (count, len(codes), columns)
    if function(*pointers, *sizes, STEPS[bits], SMALLEST, torch.get_num_threads()):
        raise MemoryError(f"no memory for {count} x {columns} activations")
    return y


@functools.cache
def _function() -> Any:
    """The compiled function, checked against exact sums; None where that fails."""
    path = _built()
    if path is None:
        return None
    try:
        found = ctypes.CDLL(str(path)).few_rows
    except (OSError, AttributeError):
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    found.argtypes = [pointer] * 4 + [size] * 3 + [number] * 2 + [ctypes.c_int]
    found.restype = ctypes.c_int
    return found if _is_exact(found) else None


def _is_exact(function: Any) -> bool:
    """Whether the largest numbers and drawn ones give their exact sums, at both widths and any scale."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-127, 128, (37, 1100), generator=generator, dtype=torch.int8)
    for codes in (drawn, torch.full((3, 9000), 127, dtype=torch.int8)):
        scale = torch.rand(len(codes), generator=generator) + 0.5
        x = torch.randn(3, codes.shape[1], generator=generator) * torch.tensor([[1.0], [1e-3], [1e3]])
        x[0] = 1
        for bits in STEPS:
            found = _run(function, x, codes, scale, bits).double()
            wide = codes.double() * scale.double()[:, None]
            given = rounded(x, bits).double()
            # single precision rounds each number and the sum
            allowed = 1e-6 * given.abs() @ wide.abs().T
            if not bool(((found - given @ wide.T).abs() <= allowed).all()):
                return False
    x[1, 5] = torch.nan
    return _run(function, x, codes, scale, 16).isfinite().all(1).tolist() == [True, False, True]


def _built() -> Path | None:
    """Path of the library, compiled if it is not there whole; None without a compiler or a cache of one's own."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name)) is not None), None)
    if compiler is None:
        return None
    key = hashlib.sha256("\n".join([_SOURCE.read_text(encoding="utf-8"), compiler, _processor()]).encode()).hexdigest()
    try:
        cache = _cache()
        library, checksum = cache / f"few_rows-{key[:20]}.so", cache / f"few_rows-{key[:20]}.sha256"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_own(cache)
        if not _is_whole(library, checksum):
            with files.replacing(library) as scratch:
                _compile(compiler, scratch)
                found = files.sha256(scratch)
            files.write_text(checksum, found)
        _require_own(library)
    except (OSError, RuntimeError, UnicodeError):  # RuntimeError where there is no home
        return None
    return library


def _cache() -> Path:
    """The user's folder for what can be made again; a relative one counts as none."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "ffn-heavyhitter"


def _require_own(path: Path) -> None:
    """Refuse what another user owns or may write."""
    if os.name != "posix":
        return
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} belongs to, or may be written by, another user")


def _is_whole(library: Path, checksum: Path) -> bool:
    """Whether the library is as it was written: a cut or changed one may end the process that loads it."""
    both = library.is_file() and checksum.is_file()
    return both and checksum.read_text(encoding="utf-8") == files.sha256(library)


def _compile(compiler: str, target: Path) -> None:
    for threads in (["-fopenmp"], []):  # some compilers come without its library
        command = [compiler, *_FLAGS, *threads, "-x", "c", str(_SOURCE), "-o", str(target), "-lm"]
        if _ends_well(command):
            target.chmod(0o700)
            return
    raise OSError(f"{compiler} does not compile {_SOURCE.name}")


def _ends_well(command: list[str]) -> bool:
    """Run a command; what it started ends with it when time is up."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True) as running:
        try:
            return running.wait(_SECONDS) == 0
        except subprocess.TimeoutExpired:
            if os.name == "posix":
                os.killpg(running.pid, signal.SIGKILL)
            else:
                running.kill()
            raise OSError(f"{command[0]} took more than {_SECONDS} s") from None


def _processor() -> str:
    """What the compiler's ``native`` may depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
