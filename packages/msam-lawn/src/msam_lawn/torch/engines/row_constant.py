"""Random numbers that are the same for every row, so that a mini-batch and its micro-batches draw the same masks.

Engines run the rows together or in parts and so draw different dropout masks; to compare their gradients, every random
tensor made inside is that of one row, drawn from one seed, repeated along the leading axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["row_constant_random"]

_SEED = 20230219


@contextmanager
def row_constant_random() -> Iterator[None]:
    """Inside, random operations in place or of a given size repeat one row; others stay as they are."""
    mode: Any = _RowConstantRandom
    with mode():
        yield


class _RowConstantRandom(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default imports the compiler, seconds of it, on first use

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; where it is random, on one row."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or not args:
            return func(*args, **kwargs)
        torch.manual_seed(_SEED)
        first, name = args[0], func._schema.name.removeprefix("aten::")
        if isinstance(first, torch.Tensor) and first.ndim:
            if name.endswith("_"):
                row = func(first[:1].clone(), *args[1:], **kwargs)
                return first.copy_(row.expand_as(first))
            if name.endswith("_like") or name == "bernoulli":
                row = func(first[:1], *args[1:], **kwargs)
                return row.expand_as(first).clone()
            if name == "native_dropout":
                _, mask = func(first[:1], *args[1:], **kwargs)
                mask = mask.expand_as(first).clone()
                return first * mask / (1 - args[1]), mask
        if name in ("rand", "randn") and len(first):
            row = func([1, *first[1:]], *args[1:], **kwargs)
            return row.expand(first).clone()
        return func(*args, **kwargs)
