"""The nested containers that batches and outputs come in, and the tensors they hold.

Lists, tuples, namedtuples, mappings (``BatchEncoding`` and other ``UserDict`` included) and dataclass instances are
opened; what is rebuilt is of the type that it was.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

__all__ = ["leaves", "mapped"]


def leaves(tree: Any) -> Iterator[Any]:
    """Everything in a nested container that is not a container, in order.

    Examples
    --------
    >>> list(leaves({"a": [1, (2, None)], "b": "x"}))
    [1, 2, None, 'x']
    """
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from leaves(value)
    elif _is_record(tree):
        for entry in dataclasses.fields(tree):
            yield from leaves(getattr(tree, entry.name))
    else:
        yield tree


def mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    """The container with every leaf changed.

    Examples
    --------
    >>> mapped(lambda leaf: leaf + 1, {"a": [1, (2,)]})
    {'a': [2, (3,)]}
    """
    if isinstance(tree, Mapping):
        return _rebuilt(tree, {key: mapped(change, value) for key, value in tree.items()})
    if isinstance(tree, (list, tuple)):
        parts = [mapped(change, value) for value in tree]
        if hasattr(tree, "_fields"):
            return type(tree)(*parts)
        return type(tree)(parts)
    if _is_record(tree):
        record = copy.copy(tree)
        for entry in dataclasses.fields(tree):
            object.__setattr__(record, entry.name, mapped(change, getattr(tree, entry.name)))
        return record
    return change(tree)


def _rebuilt(tree: Any, items: dict[Any, Any]) -> Any:
    if type(tree) is dict:
        return items
    copied = copy.copy(tree)
    try:
        for key, value in items.items():
            copied[key] = value
    except TypeError:  # read-only mappings
        return items
    return copied


def _is_record(tree: Any) -> bool:
    return dataclasses.is_dataclass(tree) and not isinstance(tree, (type, torch.Tensor, torch.nn.Module))
