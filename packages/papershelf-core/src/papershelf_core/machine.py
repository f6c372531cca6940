"""What a measurement was made on: a number without its machine is not a measurement."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

__all__ = ["Machine"]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Machine:
    """Processor, software and thread settings of the running process.

    Attributes
    ----------
    processor, system, python : str
        As the operating system and the interpreter name them.
    cores : int
        Cores that this process may use.
    packages : dict[str, str]
        Versions of the distributions that were asked for.
    threads : dict[str, str]
        Thread-count variables that are set, such as ``OMP_NUM_THREADS``.
    date : str
        ISO date of the measurement.
    """

    processor: str
    cores: int
    system: str
    python: str
    packages: dict[str, str]
    threads: dict[str, str]
    date: str

    @classmethod
    def here(cls, *distributions: str) -> "Machine":
        """Describe this process; a distribution that is not installed is left out.

        Examples
        --------
        >>> Machine.here("numpy").cores >= 1
        True
        """
        return cls(
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            packages={name: version for name in ("numpy", *distributions) if (version := _version(name))},
            threads={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
            date=date.today().isoformat(),
        )

    def __str__(self) -> str:
        parts = [f"{self.processor}, {self.cores} cores", self.system, f"Python {self.python}"]
        parts += [f"{name} {version}" for name, version in self.packages.items()]
        parts += [f"{name}={value}" for name, value in self.threads.items()]
        return ", ".join([*parts, self.date])


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
