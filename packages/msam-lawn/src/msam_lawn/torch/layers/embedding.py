"""Embeddings: a micro-batch moves the rows of the table that it looks up.

Pass 1 reads a leaf that holds those rows alone, one for each micro-batch and id; its gradient is that of the table,
row by row. Pass 2 adds what each row moves by. A table that is used densely too (tied to a head) is stacked whole.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from msam_lawn.errors import EngineError
from msam_lawn.torch.layers.registry import rule
from msam_lawn.torch.layers.stand_in import Lookup, Rows, StandIn, WeightStack, weights_alone

__all__ = ["embedding"]


class _FromStack(Function):
    """Lookup in a dense stack; the gradient is that of the shared table."""

    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, weight: torch.Tensor, stack: torch.Tensor, padding: int, rows: Rows
    ) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.size, ctx.padding = weight.shape[0], padding
        keys = _keys(ids, rows, weight.shape[0])
        return stack.flatten(0, 1).index_select(0, keys).reshape(*ids.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        dense = torch.ops.aten.embedding_dense_backward(gradients[0], ids, ctx.size, ctx.padding, False)
        return None, dense, None, None, None


@rule(F.embedding)
def embedding(
    input: Any,  # noqa: A002 - torch's name
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """``torch.nn.functional.embedding``."""
    if max_norm is not None or sparse:
        raise EngineError("an Embedding with max_norm or sparse")
    if scale_grad_by_freq or isinstance(input, StandIn) or not weights_alone(weight):
        return NotImplemented
    run, of = weight.run, weight.of
    rows, size = run.rows, of.weight.shape[0]
    if not run.rows_lead("embedding", input, weight):
        return NotImplemented
    padding = -1 if padding_idx is None else padding_idx % size
    if run.first:
        return _first(input, of, padding, rows, run.closed)
    if of.moved is None:
        return _FromStack.apply(input, of.weight, of.stack, padding, rows)  # type: ignore[no-untyped-call]
    out = F.embedding(input, of.weight, padding_idx)
    if not len(of.keys):
        return out
    keys = _keys(input, rows, size)
    place = torch.searchsorted(of.keys, keys).clamp_(max=len(of.keys) - 1)
    moved = of.moved.index_select(0, place)
    if not torch.equal(of.keys[place], keys):  # padding, or ids that pass 1 did not see
        moved = moved * (of.keys[place] == keys).unsqueeze(1)
    return out + moved.reshape(out.shape)


def _first(ids: torch.Tensor, of: WeightStack, padding: int, rows: Rows, closed: bool) -> torch.Tensor:
    size = of.weight.shape[0]
    keys = _keys(ids, rows, size)
    if padding >= 0:
        keys = torch.where(ids.reshape(-1) == padding, padding, keys)  # all at one place, which has no gradient
    unique, place = torch.unique(keys, return_inverse=True)
    leaf = of.weight.detach().index_select(0, unique % size).requires_grad_()
    if not closed:
        of.lookups.append(Lookup(unique, leaf))
    unmoved = int(torch.searchsorted(unique, padding)) if padding >= 0 else -1
    has_padding = 0 <= unmoved < len(unique) and int(unique[unmoved]) == padding and bool((ids == padding).any())
    return F.embedding(place.reshape(ids.shape), leaf, unmoved if has_padding else None)


def _keys(ids: torch.Tensor, rows: Rows, size: int) -> torch.Tensor:
    """I V + id of every lookup."""
    return rows.owners(ids.numel() // rows.total, ids.device) * size + ids.reshape(-1)
