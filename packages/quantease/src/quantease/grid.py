"""The grid of each row or group: scale and zero.

    Q(x) = s (clamp(round(x / s) + z, 0, 2^b - 1) - z)

The range [min(0, min w), max(0, max w)] is shrunk by the factor that minimises sum_j d_j (w_j - Q(w_j))^2 with d = 1
("mse") or d = diag(Sigma) ("weighted"); "minmax" leaves it. Scales are rounded to the export type before any error is
taken, so that the grid searched over is the grid exported.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantease.scheme import GridSearch, QuantizationScheme

__all__ = ["Grid", "fit_grid"]

SHRINK_STEPS = 40
SMALLEST_SHRINK = 0.25


@dataclass(frozen=True)
class Grid:
    """Scales and zeros of one layer.

    Attributes
    ----------
    scale, zero : Tensor of shape (q, groups)
        In the working type; scales are representable in the export type, zeros are integers in 0 .. 2^bits - 1.
    group_size : int
        Columns a group.
    bits : int
    """

    scale: Tensor
    zero: Tensor
    group_size: int
    bits: int

    @property
    def largest_code(self) -> int:
        """2^bits - 1."""
        return (1 << self.bits) - 1

    def columns(self) -> tuple[Tensor, Tensor]:
        """Scale and zero of every entry, each of shape (q, p)."""
        return self.scale.repeat_interleave(self.group_size, 1), self.zero.repeat_interleave(self.group_size, 1)

    def encode(self, weight: Tensor) -> Tensor:
        """Nearest code of every entry, as floats of shape (q, p)."""
        scale, zero = self.columns()
        return (torch.round(weight / scale) + zero).clamp_(0, self.largest_code)

    def decode(self, codes: Tensor) -> Tensor:
        """Grid value of every code, shape (q, p)."""
        scale, zero = self.columns()
        return (codes - zero) * scale


def fit_grid(
    weight: Tensor,
    scheme: QuantizationScheme,
    search: GridSearch,
    diagonal: Tensor,
    keep: Tensor | None = None,
) -> Grid:
    """Choose scale and zero of every row or group.

    Parameters
    ----------
    weight : Tensor of shape (q, p)
    scheme : QuantizationScheme
    search : {"weighted", "mse", "minmax"}
    diagonal : Tensor of shape (p,)
        diag(Sigma), the weights of "weighted".
    keep : Tensor of shape (q, p), bool, optional
        Entries that the grid must serve; outliers are left out of range and error.

    Returns
    -------
    Grid
    """
    q, p = weight.shape
    size = p if scheme.group_size is None else scheme.group_size
    grouped = weight.reshape(q, p // size, size)
    served = torch.ones_like(grouped) if keep is None else keep.reshape(grouped.shape).to(weight.dtype)
    grouped = grouped * served
    low = grouped.amin(2).clamp_(max=0)
    high = grouped.amax(2).clamp_(min=0)
    empty = (low == 0) & (high == 0)
    low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
    scale, zero = _affine(low, high, scheme)
    if search == "minmax":
        return Grid(scale, zero, size, scheme.bits)

    importance = diagonal.reshape(1, p // size, size) if search == "weighted" else torch.ones_like(diagonal)
    importance = served * importance.reshape(1, p // size, size)
    best = _error(grouped, importance, scale, zero, scheme)
    for step in range(1, SHRINK_STEPS):
        shrink = 1 - (1 - SMALLEST_SHRINK) * step / SHRINK_STEPS
        candidate_scale, candidate_zero = _affine(low * shrink, high * shrink, scheme)
        error = _error(grouped, importance, candidate_scale, candidate_zero, scheme)
        better = error < best
        best = torch.where(better, error, best)
        scale, zero = torch.where(better, candidate_scale, scale), torch.where(better, candidate_zero, zero)
    return Grid(scale, zero, size, scheme.bits)


def round_scale(scale: Tensor, scheme: QuantizationScheme) -> Tensor:
    """Nearest scale of the export type, kept a normal number of it, in the working type."""
    exported = scheme.torch_scale_dtype
    return scale.clamp(min=torch.finfo(exported).tiny).to(exported).to(scale.dtype)


def _affine(low: Tensor, high: Tensor, scheme: QuantizationScheme) -> tuple[Tensor, Tensor]:
    """Scale and zero of the range [low, high] that includes 0."""
    largest = scheme.levels - 1
    if scheme.symmetric:
        scale = round_scale(2 * torch.maximum(-low, high) / largest, scheme)
        return scale, torch.full_like(scale, scheme.levels // 2)
    scale = round_scale((high - low) / largest, scheme)
    return scale, torch.round(-low / scale).clamp_(0, largest)


def _error(grouped: Tensor, importance: Tensor, scale: Tensor, zero: Tensor, scheme: QuantizationScheme) -> Tensor:
    """sum_j d_j (w_j - Q(w_j))^2 of every row and group."""
    offset = grouped / scale[:, :, None]
    residual = offset.round().clamp_(-zero[:, :, None], scheme.levels - 1 - zero[:, :, None]).sub_(offset)
    return residual.square_().mul_(importance).sum(2) * scale.square()
