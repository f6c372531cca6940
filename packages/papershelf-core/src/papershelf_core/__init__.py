"""Data sets, metrics, paired timing, claim tables and whole files shared by the papershelf packages."""

from importlib import import_module
from types import ModuleType

__all__ = ["claims", "command", "datasets", "files", "metrics", "timing", "work_folder"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
