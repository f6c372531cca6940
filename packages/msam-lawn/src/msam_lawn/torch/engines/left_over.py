"""Tensors that live for one pass alone (traced ones, stand-ins) must not stay in what modules keep between calls.

The call after would read a dead tensor, or weights of another step. What kept one is put back, and the engine refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from msam_lawn.errors import EngineError

__all__ = ["nothing_left_over"]

_OWN = frozenset(nn.Module().__dict__)  # parameters, buffers, hooks: put back by the engines


@contextmanager
def nothing_left_over(modules: Iterable[nn.Module], is_of_a_pass: Callable[[torch.Tensor], bool]) -> Iterator[None]:
    """Refuse a pass that leaves such a tensor in an attribute, or in a list or dict of one.

    Raises
    ------
    EngineError
        Names the module and the attribute.
    """
    modules = list(modules)
    before = [(module, dict(module.__dict__)) for module in modules]
    contents = [
        (value, value.copy())
        for module in modules
        for name, value in module.__dict__.items()
        if name not in _OWN and isinstance(value, (list, dict))
    ]
    named: list[str] = []
    try:
        yield
    finally:
        for module, attributes in before:
            for name, value in list(module.__dict__.items()):
                if name in _OWN or not any(map(is_of_a_pass, _members(value))):
                    continue
                named.append(f"{name} of {type(module).__name__}")
                del module.__dict__[name]
                if name in attributes:
                    module.__dict__[name] = attributes[name]
        if named:
            for value, content in contents:
                _refill(value, content)
    if named:
        raise EngineError(f"{named[0]} keeps a tensor of this engine's passes for the next call")


def _members(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    held = value if isinstance(value, (list, tuple)) else (value,)
    return (x for x in held if isinstance(x, torch.Tensor))


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(value, dict):
        value.update(content)
    else:
        value.extend(content)
