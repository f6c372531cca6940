"""Install a CPU build of PyTorch into the development environment.

The registry's default Linux build of torch brings gigabytes of CUDA libraries, so torch is kept out of the workspace's
resolution ([tool.uv] override-dependencies) and installed by this program: from a wheel in a folder that PIP_FIND_LINKS
or pip's configuration names, where there is one, else from PyTorch's CPU index through uv's --torch-backend. A torch
that is there already, of any build, stays. ``uv run`` keeps it; ``uv sync`` removes it unless --inexact is given.

    uv run tools/install_torch.py
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# What the shelf is tested with; packages declare the range that they support.
TESTED = "2.13.0"


def source() -> list[str]:
    """Options that make uv take a CPU build: a folder of wheels that pip is told to look in, or the backend."""
    for folder in configured_folders():
        if list(folder.glob("torch-*+cpu-*.whl")):
            return ["--find-links", str(folder)]
    return ["--torch-backend", "cpu"]


def configured_folders() -> list[Path]:
    """The local folders of wheels of pip's configuration."""
    shown = subprocess.run(
        ["python3", "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, cwd="/"
    )
    named = [*os.environ.get("PIP_FIND_LINKS", "").split(), *(shown.stdout.split() if shown.returncode == 0 else [])]
    return [Path(name) for name in dict.fromkeys(named) if Path(name).is_dir()]


def installed() -> bool:
    """Whether this environment has torch."""
    return importlib.util.find_spec("torch") is not None


def install() -> None:
    """Install torch where there is none."""
    if installed():
        return
    print(f"installing a CPU build of torch {TESTED}", flush=True)
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, *source(), f"torch=={TESTED}"]
    with tempfile.TemporaryDirectory() as outside:  # inside the workspace uv would apply its override
        status = subprocess.run(command, cwd=outside).returncode
    if status:
        sys.exit(
            f"{' '.join(command)} failed with status {status}. Remedy: install torch into this environment by hand "
            "(uv pip install torch); the packages that need no torch work without"
        )
    importlib.invalidate_caches()


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="install_torch.py"
    ).parse_args()
    install()
