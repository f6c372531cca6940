"""Normalisation layers: y = xhat * gamma_i + beta_i.

With interleaved rows (B, C, ...) is a view of (b, M C, ...): batch and group normalisation see M C channels, which
gives every micro-batch statistics of its own. Running averages take the pooled statistics of the micro-batches.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from msam_lawn.torch.layers.registry import CHANNEL_LAYERS, rule
from msam_lawn.torch.layers.stand_in import Pass, Rows, StandIn, weights_alone

__all__ = ["batch_norm", "group_norm", "layer_norm", "narrow", "rms_norm", "wide"]

CHANNEL_LAYERS |= {nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
_FEW = 8  # micro-batches whose scales' gradients are faster by torch's kernel, one after the other

_backward = torch.ops.aten.native_layer_norm_backward


def wide(x: torch.Tensor, rows: Rows) -> torch.Tensor:
    """(B, C, ...) as (b, M C, ...)."""
    if not rows.interleaved:
        x = x.reshape(rows.count, rows.each, *x.shape[1:]).transpose(0, 1)
        return x.reshape(rows.each, rows.count * x.shape[2], *x.shape[3:])
    return x.reshape(rows.each, rows.count * x.shape[1], *x.shape[2:])


def narrow(x: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Undo ``wide``."""
    x = x.reshape(rows.each, rows.count, x.shape[1] // rows.count, *x.shape[2:])
    return (x if rows.interleaved else x.transpose(0, 1)).reshape(rows.total, *x.shape[2:])


class _First(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        shape: Any,
        weight: Any,
        bias: Any,
        on_weight: Any,
        on_bias: Any,
        eps: float,
        rows: Rows,
    ) -> torch.Tensor:
        y, mean, scale = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        ctx.shape, ctx.rows = shape, rows
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        delta = gradients[0].contiguous()
        x, weight, bias, mean, scale = ctx.saved_tensors
        rows: Rows = ctx.rows
        if rows.count <= _FEW and not rows.interleaved and bias is not None:
            pieces = [t.chunk(rows.count) for t in (delta, x, mean, scale)]
            every = [True, True, True]
            parts = [_backward(d, p, ctx.shape, m, s, weight, bias, every) for d, p, m, s in zip(*pieces, strict=True)]
            by_x, by_weight, by_bias = (list(part) for part in zip(*parts, strict=True))
            return torch.cat(by_x), None, None, None, torch.stack(by_weight), torch.stack(by_bias), None, None
        on_x = None
        if ctx.needs_input_grad[0]:
            on_x = _backward(delta, x, ctx.shape, mean, scale, weight, bias, [True, False, False])[0]
        on_weight = rows.stack((x - mean).mul_(scale).mul_(delta)).sum(1)
        return on_x, None, None, None, on_weight, None if bias is None else rows.stack(delta).sum(1), None, None


class _Second(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        shape: Any,
        weight: Any,
        bias: Any,
        moved: Any,
        moved_bias: Any,
        eps: float,
        rows: Rows,
    ) -> torch.Tensor:
        normal, mean, scale = torch.native_layer_norm(x, shape, None, None, eps)
        X = rows.stack(normal)
        y = X.mul_(moved.unsqueeze(1))
        if moved_bias is not None:
            y += moved_bias.unsqueeze(1)
        ctx.save_for_backward(x, weight, bias, moved, mean, scale)
        ctx.shape, ctx.rows = shape, rows
        return rows.back(y, x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        delta = gradients[0].contiguous()
        x, weight, bias, moved, mean, scale = ctx.saved_tensors
        rows: Rows = ctx.rows
        wanted = [False, True, bias is not None]
        _, on_weight, on_bias = _backward(delta, x, ctx.shape, mean, scale, weight, bias, wanted)
        on_x = None
        if ctx.needs_input_grad[0]:
            inner = rows.back(rows.stack(delta) * moved.unsqueeze(1), x.shape)
            on_x = _backward(inner, x, ctx.shape, mean, scale, None, None, [True, False, False])[0]
        return on_x, None, on_weight, None if bias is None else on_bias, None, None, None, None


@rule(F.layer_norm)
def layer_norm(
    input: Any,  # noqa: A002 - torch's name
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """``torch.nn.functional.layer_norm``."""
    if weight is None or isinstance(input, StandIn) or not weights_alone(weight, bias):
        return NotImplemented
    run, shape = weight.run, list(normalized_shape)
    if len(shape) != 1 or input.ndim < 2 or input.dtype != weight.of.weight.dtype:
        return NotImplemented
    if not run.rows_lead("layer_norm", input, weight, bias):
        return NotImplemented
    w, b = weight.of, None if bias is None else bias.of
    function: Any = _First if run.first else _Second
    x = input if run.first else input.contiguous()
    on_w, on_b = (w.weight, b and b.weight)
    if run.first:
        on_w, on_b = on_w.detach(), None if b is None else b.weight.detach()
    return function.apply(x, shape, on_w, on_b, w.stack, None if b is None else b.stack, eps, run.rows)


@rule(F.rms_norm)
def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:  # noqa: A002
    """``torch.nn.functional.rms_norm``."""
    if isinstance(input, StandIn) or not weights_alone(weight) or len(normalized_shape) != 1:
        return NotImplemented
    run = weight.run
    if input.ndim < 2 or not run.rows_lead("rms_norm", input, weight):
        return NotImplemented
    normal = F.rms_norm(input, normalized_shape, None, eps)
    return run.rows.back(run.rows.stack(normal) * weight.stacked().unsqueeze(1), input.shape)


def _channelled(name: str, x: Any, weight: Any, bias: Any) -> bool:
    if weight is None or bias is None or isinstance(x, StandIn) or not weights_alone(weight, bias):
        return False
    return x.ndim > 1 and x.shape[0] == weight.run.rows.total and bool(weight.run.rows_lead(name, x, weight, bias))


@rule(F.group_norm)
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:  # noqa: A002
    """``torch.nn.functional.group_norm``."""
    if not _channelled("group_norm", input, weight, bias):
        return NotImplemented
    run: Pass = weight.run
    x, rows = wide(input, run.rows), run.rows
    gamma, beta = weight.stacked().flatten(), bias.stacked().flatten()
    return narrow(F.group_norm(x, rows.count * num_groups, gamma, beta, eps), rows)


@rule(F.batch_norm)
def batch_norm(
    input: Any,  # noqa: A002 - torch's name
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """``torch.nn.functional.batch_norm``."""
    if not _channelled("batch_norm", input, weight, bias):
        return NotImplemented
    run: Pass = weight.run
    rows, x = run.rows, wide(input, run.rows)
    gamma, beta = weight.stacked().flatten(), bias.stacked().flatten()
    if not training:
        mean, variance = running_mean.repeat(rows.count), running_var.repeat(rows.count)
        return narrow(F.batch_norm(x, mean, variance, gamma, beta, False, momentum, eps), rows)
    if running_mean is None or not run.first:
        return narrow(F.batch_norm(x, None, None, gamma, beta, True, momentum, eps), rows)
    mean, variance = running_mean.repeat(rows.count), running_var.repeat(rows.count)
    out = F.batch_norm(x, mean, variance, gamma, beta, True, 1.0, eps)
    if not run.closed:
        _pool(running_mean, running_var, mean.view(rows.count, -1), variance.view(rows.count, -1), momentum, run)
    return narrow(out, rows)


@torch.no_grad()
def _pool(into_mean: Any, into_variance: Any, means: Any, variances: Any, momentum: float, run: Pass) -> None:
    """Move running averages towards mu = sum_i q_i mu_i and sum_i q_i (sigma_i^2 + (mu_i - mu)^2)."""
    share = run.shares.to(means).unsqueeze(1)
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    into_mean.mul_(1 - momentum).add_(momentum * mean)
    into_variance.mul_(1 - momentum).add_(momentum * variance)
