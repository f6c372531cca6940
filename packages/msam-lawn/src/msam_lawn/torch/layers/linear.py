"""Linear layers: Y_i = X_i W_i' + b_i.

Pass 1: one product for all rows, G_i = D_i' X_i by a batched one. Pass 2: batched products with the weights of each
micro-batch, and sum_i D_i' X_i, the gradient of W, by one over all rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from msam_lawn.torch.layers.registry import rule
from msam_lawn.torch.layers.stand_in import Rows, StandIn, shared, weights_alone

__all__ = ["linear", "stacked_linear"]


class _First(Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Any, bias: Any, on_weight: Any, on_bias: Any, rows: Rows
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rows = rows
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (delta,) = gradients
        x, weight = ctx.saved_tensors
        D = ctx.rows.stack(delta)
        on_x = delta @ weight if ctx.needs_input_grad[0] else None
        on_weight = torch.bmm(D.transpose(1, 2), ctx.rows.stack(x)) if ctx.needs_input_grad[3] else None
        return on_x, None, None, on_weight, D.sum(1) if ctx.needs_input_grad[4] else None, None


class _Second(Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Any, bias: Any, moved: Any, moved_bias: Any, rows: Rows
    ) -> torch.Tensor:
        ctx.save_for_backward(x, moved)
        ctx.rows = rows
        y = torch.bmm(rows.stack(x), moved.transpose(1, 2))
        if moved_bias is not None:
            y += moved_bias.unsqueeze(1)
        return rows.back(y, (*x.shape[:-1], moved.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (delta,) = gradients
        x, moved = ctx.saved_tensors
        on_x = ctx.rows.back(torch.bmm(ctx.rows.stack(delta), moved), x.shape) if ctx.needs_input_grad[0] else None
        flat = delta.reshape(-1, delta.shape[-1])
        on_weight = flat.t() @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        return on_x, on_weight, flat.sum(0) if ctx.needs_input_grad[2] else None, None, None, None


def stacked_linear(x: torch.Tensor, weight: StandIn, bias: StandIn | None) -> torch.Tensor:
    """The layer, for rows that lead; a weight of more axes is flattened to a matrix."""
    run, w, b = weight.run, weight.of, None if bias is None else bias.of
    assert w is not None
    if w.moved is not None:
        shared(w)
    matrix, stack = w.weight.flatten(1), w.stack.flatten(2)
    shift, shifts = (None, None) if b is None else (b.weight, b.stack)
    if run.first:
        detached = (matrix.detach(), None if shift is None else shift.detach())
        out: torch.Tensor = _First.apply(x, *detached, stack, shifts, run.rows)  # type: ignore[no-untyped-call]
        return out
    out = _Second.apply(x, matrix, shift, stack, shifts, run.rows)  # type: ignore[no-untyped-call]
    return out


@rule(F.linear)
def linear(input: Any, weight: Any, bias: Any = None) -> Any:  # noqa: A002 - torch's name
    """``torch.nn.functional.linear``."""
    if isinstance(input, StandIn) or input.ndim < 2 or not weights_alone(weight, bias):
        return NotImplemented
    if not weight.run.rows_lead("linear", input, weight, bias):
        return NotImplemented
    return stacked_linear(input, weight, bias)
