"""Random numbers that are the same for every row, so that a mini-batch and its micro-batches draw the same masks.

Engines run the rows together or in parts and so draw different dropout masks; to compare their gradients, every random
tensor made inside is that of one row, drawn from one seed, repeated along the leading axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["RowConstantRandom"]

_SEED = 20230219


class RowConstantRandom(TorchDispatchMode):
    """Inside, in-place and sized random operations repeat one row. Others stay as they are."""

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
