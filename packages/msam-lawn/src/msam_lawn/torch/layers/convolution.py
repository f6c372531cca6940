"""Convolutions: those of all micro-batches as one of M C channels in M times as many groups.

Pass 1 convolves all rows with W and takes G_i by a grouped convolution; pass 2 is grouped, and the gradient of W is
that of one ordinary convolution. Kernels as wide as their stride (patches) are linear layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from msam_lawn.torch.layers.linear import stacked_linear
from msam_lawn.torch.layers.normalisation import narrow, wide
from msam_lawn.torch.layers.registry import Rule, rule
from msam_lawn.torch.layers.stand_in import Rows, StandIn, weights_alone

__all__ = ["convolution"]

_backward = torch.ops.aten.convolution_backward


class _Geometry:
    """Stride, padding, dilation and groups, as the operators below torch's layers want them."""

    def __init__(self, axes: int, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
        self.axes, self.groups = axes, groups
        self.stride, self.padding, self.dilation = (_each(v, axes) for v in (stride, padding, dilation))

    def forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, times: int) -> torch.Tensor:
        return torch.ops.aten.convolution(  # type: ignore[no-any-return]
            x, weight, bias, self.stride, self.padding, self.dilation, False, [0] * self.axes, self.groups * times
        )

    def backward(
        self, delta: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, times: int, wanted: list[bool]
    ) -> Any:
        sizes = [weight.shape[0]] if wanted[2] else None
        zeros = [0] * self.axes
        geometry = (self.stride, self.padding, self.dilation, False, zeros, self.groups * times)
        return _backward(delta, x, weight, sizes, *geometry, wanted)


class _First(Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Any, bias: Any, on_weight: Any, on_bias: Any, geometry: Any, rows: Rows
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.rows = geometry, rows
        out: torch.Tensor = geometry.forward(x, weight, bias, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (delta,) = gradients
        x, weight = ctx.saved_tensors
        geometry, rows = ctx.geometry, ctx.rows
        on_x = on_bias = None
        if ctx.needs_input_grad[0]:
            on_x = geometry.backward(delta, x, weight, 1, [True, False, False])[0]
        shapes = weight.new_empty(1).expand(rows.count * weight.shape[0], *weight.shape[1:])
        wanted = [False, True, False]
        on_weight = geometry.backward(wide(delta, rows), wide(x, rows), shapes, rows.count, wanted)[1]
        if ctx.needs_input_grad[4]:
            on_bias = rows.stack(delta.flatten(2).sum(2)).sum(1)
        return on_x, None, None, on_weight.view(rows.count, *weight.shape), on_bias, None, None


class _Second(Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Any, bias: Any, moved: Any, moved_bias: Any, geometry: Any, rows: Rows
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, moved)
        ctx.geometry, ctx.rows = geometry, rows
        shift = None if moved_bias is None else moved_bias.flatten()
        return narrow(geometry.forward(wide(x, rows), moved.flatten(0, 1), shift, rows.count), rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (delta,) = gradients
        x, weight, moved = ctx.saved_tensors
        geometry, rows = ctx.geometry, ctx.rows
        on_x = None
        if ctx.needs_input_grad[0]:
            wanted = [True, False, False]
            on_x = geometry.backward(wide(delta, rows), wide(x, rows), moved.flatten(0, 1), rows.count, wanted)[0]
            on_x = narrow(on_x, rows)
        _, on_weight, on_bias = geometry.backward(delta, x, weight, 1, [False, True, ctx.needs_input_grad[2]])
        return on_x, on_weight, on_bias, None, None, None, None


def convolution(axes: int) -> Rule:
    """The rule of ``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``."""

    def convolve(
        input: Any,  # noqa: A002 - torch's name
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        if isinstance(input, StandIn) or isinstance(padding, str) or not weights_alone(weight, bias):
            return NotImplemented
        run, w, b = weight.run, weight.of, None if bias is None else bias.of
        if input.ndim != axes + 2 or input.shape[0] != run.rows.total:
            return NotImplemented
        if not run.rows_lead("convolution", input, weight, bias):
            return NotImplemented
        geometry = _Geometry(axes, stride, padding, dilation, groups)
        kernel = list(w.weight.shape[2:])
        if _are_patches(geometry, kernel, input.shape[2:]):
            return stacked_linear(_patches(input, kernel), weight, bias).movedim(-1, 1)
        stacks = (w.stack, None if b is None else b.stack, geometry, run.rows)
        if run.first:
            return _First.apply(input, w.weight.detach(), None if b is None else b.weight.detach(), *stacks)  # type: ignore[no-untyped-call]
        return _Second.apply(input, w.weight, None if b is None else b.weight, *stacks)  # type: ignore[no-untyped-call]

    return convolve


for _axes, _function in ((1, F.conv1d), (2, F.conv2d), (3, F.conv3d)):
    rule(_function)(convolution(_axes))


def _each(value: Any, axes: int) -> list[int]:
    values = [value] * axes if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _are_patches(geometry: _Geometry, kernel: list[int], sizes: Any) -> bool:
    plain = not any(geometry.padding) and set(geometry.dilation) == {1} and geometry.groups == 1
    return plain and geometry.stride == kernel and all(s % k == 0 for s, k in zip(sizes, kernel, strict=True))


def _patches(x: torch.Tensor, kernel: list[int]) -> torch.Tensor:
    """(B, C, n k, ...) as (B, n, ..., C k ...)."""
    axes, sizes = len(kernel), list[int]()
    for size, k in zip(x.shape[2:], kernel, strict=True):
        sizes += [size // k, k]
    x = x.reshape(*x.shape[:2], *sizes)
    return x.permute(0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)).flatten(1 + axes)
