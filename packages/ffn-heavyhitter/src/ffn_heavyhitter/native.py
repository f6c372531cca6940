"""The product of few tokens with int8 rows as one call: C, compiled once where a compiler is.

PyTorch's operators quantise an input in ten small steps, which at one token cost as much as the product. The library
lies in the user's cache under a name that holds the source, the compiler and the processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from papershelf_core import files
from torch import Tensor

from ffn_heavyhitter.int8_rows import SMALLEST, STEPS

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
    """Whether the largest numbers and drawn ones give their exact sums."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-127, 128, (37, 1100), generator=generator, dtype=torch.int8)
    for codes in (drawn, torch.full((3, 9000), 127, dtype=torch.int8)):
        x = torch.randint(-1, 2, (2, codes.shape[1]), generator=generator).float()
        x[0] = 1
        wanted = x.double() @ codes.double().T
        found = _run(function, x, codes, torch.ones(len(codes)), 16)
        if not torch.allclose(found.double(), wanted, rtol=1e-6, atol=1e-3):
            return False
    return True


def _built() -> Path | None:
    """Path of the library, compiled if it is not there yet; None without a compiler."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name)) is not None), None)
    if compiler is None:
        return None
    key = hashlib.sha256("\n".join([_SOURCE.read_text(encoding="utf-8"), compiler, _processor()]).encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ffn-heavyhitter"
    library = cache / f"few_rows-{key[:20]}.so"
    if library.exists():
        return library
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with files.replacing(library) as scratch:
            for threads in (["-fopenmp"], []):  # some compilers come without its library
                command = [compiler, *_FLAGS, *threads, "-x", "c", str(_SOURCE), "-o", str(scratch), "-lm"]
                if subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0:
                    break
            else:
                raise OSError(f"{compiler} does not compile {_SOURCE.name}")
    except (OSError, subprocess.SubprocessError):
        return None
    return library


def _processor() -> str:
    """What the compiler's ``native`` may depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
