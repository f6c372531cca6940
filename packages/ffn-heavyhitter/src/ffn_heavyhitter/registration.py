"""Register the plug-in the moment transformers' registry is imported, without importing transformers here.

``import ffn_heavyhitter`` takes milliseconds; transformers and torch take seconds. Where the registry is loaded
already the plug-in is registered at once; otherwise a finder waits for the registry's import and registers right after
it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["register_with_transformers"]

_REGISTRY = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Register now, or as soon as transformers is imported."""
    if _REGISTRY in sys.modules:
        importlib.import_module("ffn_heavyhitter.plugin")
    elif not any(isinstance(finder, _RegistryFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegistryFinder())


class _RegistryFinder(MetaPathFinder):
    """Finds the registry as everybody else does and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    """Loads the registry, then the plug-in."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module("ffn_heavyhitter.plugin")
