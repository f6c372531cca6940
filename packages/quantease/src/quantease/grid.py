"""The grid of each row or group: scale and zero.

    Q(x) = s (clamp(round(x / s) + z, 0, 2^b - 1) - z)

Scale and zero start from the range [min(0, min w), max(0, max w)] ("minmax"). "mse" and "weighted" look for the
smallest sum_j d_j (w_j - Q(w_j))^2 over shrunk scales and neighbouring zeros, then take the least-squares scale of the
codes found, with d = 1 and d = diag(Sigma). (The part of Sigma_jj that later columns cannot absorb, R_jj^2 in ``gptq``,
gives a lower layer error and a worse model: its large errors in strong inputs cancel on calibration inputs alone.)
Scales are rounded to the export type before any weight is coded.

A real zero (``QuantizationScheme.real_zero``) is searched as the offset m = -s z over shrunk ranges [l, l + r] that lie
anywhere in [min w, max w]; every candidate takes the weighted least squares of its codes in s and m.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from quantease.errors import LayerError
from quantease.kernels import grid_error, search_grid, search_offsets
from quantease.scheme import GridSearch, QuantizationScheme

__all__ = ["Grid", "fit_grid", "round_scale"]

# 1.09 to 0.26, likely ones first: what is worse than the best so far is given up early
SHRINKS = sorted((0.92**step for step in range(-1, 17)), key=lambda shrink: abs(shrink - 0.72))
ZERO_STEPS = [0, -1, 1]
LEAST_SQUARES_ROUNDS = 2
EXACT = 1e-3  # share of the error that a grid through the largest weight may have, to be taken
# of a real zero: share of the range that is kept, and where in the range
RANGES = [1.0, 0.92, 0.84, 0.77, 0.69, 0.61, 0.5]
PLACES = [0.5, 0.25, 0.75]


@dataclass(frozen=True)
class Grid:
    """Scales and zeros of one layer.

    Attributes
    ----------
    scale, zero : Tensor of shape (q, groups)
        In the working type; scales are representable in the export type, zeros are integers in 0 .. 2^bits - 1 (or any
        number whose offset -scale * zero is representable).
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
        whole = self.zero.round()
        position = (self._by_group(weight) / self.scale[:, :, None]).add_((self.zero - whole)[:, :, None])
        return position.round_().add_(whole[:, :, None]).clamp_(0, self.largest_code).reshape(weight.shape)

    def decode(self, codes: Tensor) -> Tensor:
        """Grid value of every code, shape (q, p)."""
        return (self._by_group(codes) - self.zero[:, :, None]).mul_(self.scale[:, :, None]).reshape(codes.shape)

    def rows(self, chosen: Tensor) -> Grid:
        """The grid of some rows."""
        return replace(self, scale=self.scale[chosen], zero=self.zero[chosen])

    def where(self, own: Tensor, other: Grid) -> Grid:
        """Its own rows where ``own``, of shape (q,), says so, those of the other grid elsewhere."""
        mine = own[:, None]
        scale, zero = torch.where(mine, self.scale, other.scale), torch.where(mine, self.zero, other.zero)
        return replace(self, scale=scale, zero=zero)

    def _by_group(self, entries: Tensor) -> Tensor:
        return entries.reshape(len(entries), -1, self.group_size)


def fit_grid(
    weight: Tensor,
    scheme: QuantizationScheme,
    search: GridSearch,
    importance: Tensor,
    keep: Tensor | None = None,
) -> Grid:
    """Choose scale and zero of every row or group.

    Parameters
    ----------
    weight : Tensor of shape (q, p)
    scheme : QuantizationScheme
    search : {"weighted", "mse", "minmax"}
    importance : Tensor of shape (p,)
        The weights d of "weighted".
    keep : Tensor of shape (q, p), bool, optional
        Entries that the grid must serve; outliers are left out of range and error.

    Returns
    -------
    Grid
    """
    q, p = weight.shape
    size = p if scheme.group_size is None else scheme.group_size
    served = weight if keep is None else weight * keep
    grouped = served.reshape(-1, size)
    if scheme.real_zero:
        return _with_offsets(grouped, scheme, importance if search == "weighted" else None, search != "minmax", q)
    scale, zero = _minmax(grouped, scheme)
    if search != "minmax":
        shared = importance if search == "weighted" else torch.ones_like(importance)
        shared = shared.to(weight.dtype).reshape(-1, size)
        if keep is not None:
            shared = (shared.reshape(1, p) * keep).reshape(-1, size)
        grouped, shared = grouped.contiguous(), shared.contiguous()
        found = _search(grouped, shared, scale, zero, scheme)
        candidate = round_scale(found[0], scheme)
        better = _error(grouped, shared, candidate, found[1], scheme) < _error(grouped, shared, scale, zero, scheme)
        scale, zero = torch.where(better, candidate, scale), torch.where(better, found[1], zero)
        if scheme.signed_scale:
            scale, zero = _exact(grouped, shared, scale, zero, scheme)
    return Grid(scale.reshape(q, -1), zero.reshape(q, -1), size, scheme.bits)


def round_scale(scale: Tensor, scheme: QuantizationScheme) -> Tensor:
    """Nearest scale of the export type, no smaller than it may be, in the working type."""
    exported = scheme.torch_scale_dtype
    return scale.clamp(min=scheme.least_scale).to(exported).to(scale.dtype)


def round_offset(scale: Tensor, zero: Tensor, scheme: QuantizationScheme) -> Tensor:
    """The zero whose offset -scale * zero is the nearest number of the export type.

    Raises
    ------
    LayerError
        If the type cannot hold an offset.
    """
    offset = (-scale * zero).to(scheme.torch_scale_dtype)
    if not bool(torch.isfinite(offset).all()):
        raise LayerError(
            f"an offset lies above the range of {scheme.scale_dtype}; look for a damaged weight, or use a type without"
        )
    return -offset.to(scale.dtype) / scale


def _with_offsets(
    grouped: Tensor, scheme: QuantizationScheme, importance: Tensor | None, search: bool, rows: int
) -> Grid:
    """Scale and real zero of every row of ``grouped``."""
    size = grouped.shape[1]
    low, high = grouped.amin(1), grouped.amax(1)
    # what fp16 takes off the offset, some 2^-11 of it, the codes of a flat group make up for
    least = torch.maximum(low.abs(), high.abs()) / 2**14
    scale = torch.where(least == 0, torch.ones_like(least), torch.maximum((high - low) / (scheme.levels - 1), least))
    offset = low.clone()
    if search:
        weights = torch.ones_like(grouped[:1]) if importance is None else importance.to(grouped.dtype).reshape(-1, size)
        kind = grouped.cpu().numpy().dtype
        found = [entry.cpu().contiguous().clone().numpy() for entry in (grouped, weights, scale, offset)]
        fixed = (np.array(RANGES, kind), np.array(PLACES, kind), LEAST_SQUARES_ROUNDS, kind.type(scheme.levels - 1))
        search_offsets(found[0], found[1], found[2], found[3], *fixed)
        scale, offset = (torch.from_numpy(entry).to(grouped.device) for entry in found[2:])
    scale = round_scale(scale, scheme)
    zero = round_offset(scale, -offset / scale, scheme)
    return Grid(scale.reshape(rows, -1), zero.reshape(rows, -1), size, scheme.bits)


def _minmax(grouped: Tensor, scheme: QuantizationScheme) -> tuple[Tensor, Tensor]:
    """Scale and zero, each (rows,), of the range of every row with 0 in it; an empty row gets [-1, 1]."""
    low, high = grouped.amin(1).clamp_(max=0), grouped.amax(1).clamp_(min=0)  # together (aminmax) they take longer
    empty = (low == 0) & (high == 0)
    low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
    largest = scheme.levels - 1
    if scheme.symmetric:
        scale = round_scale(2 * torch.maximum(-low, high) / largest, scheme)
        return scale, torch.full_like(scale, scheme.levels // 2)
    scale = round_scale((high - low) / largest, scheme)
    return scale, torch.round(-low / scale).clamp_(0, largest)


def _search(
    grouped: Tensor, importance: Tensor, widest: Tensor, middle: Tensor, scheme: QuantizationScheme
) -> tuple[Tensor, Tensor]:
    """Scale and zero of the smallest weighted error; ``importance`` (groups a row, size) or one row a row."""
    if grouped.device.type != "cpu":
        return _search_in_tensors(grouped, importance, widest, middle, scheme)
    scale, zero = widest.clone(), middle.clone()
    kind = grouped.numpy().dtype
    steps, shrinks = np.array(_zero_steps(scheme), kind), np.array(SHRINKS, kind)
    fixed = (steps, shrinks, LEAST_SQUARES_ROUNDS, kind.type(scheme.levels - 1))
    search_grid(grouped.numpy(), importance.numpy(), scale.numpy(), zero.numpy(), *fixed)
    return scale, zero


def _search_in_tensors(
    grouped: Tensor, importance: Tensor, widest: Tensor, middle: Tensor, scheme: QuantizationScheme
) -> tuple[Tensor, Tensor]:
    """The same, all rows at once."""
    scale, zero = widest, middle
    best = _error_in_tensors(grouped, importance, scale, zero, scheme)
    for step in _zero_steps(scheme):
        candidate = middle + step
        inside = (candidate >= 0) & (candidate <= scheme.levels - 1)
        for shrink in SHRINKS:
            error = _error_in_tensors(grouped, importance, widest * shrink, candidate, scheme)
            better = inside & (error < best)
            best = torch.where(better, error, best)
            scale, zero = torch.where(better, widest * shrink, scale), torch.where(better, candidate, zero)
    for _ in range(LEAST_SQUARES_ROUNDS):
        refit = _least_squares_scale(grouped, importance, scale, zero, scheme)
        error = _error_in_tensors(grouped, importance, refit, zero, scheme)
        scale, best = torch.where(error < best, refit, scale), torch.minimum(error, best)
    return scale, zero


def _exact(
    grouped: Tensor, importance: Tensor, scale: Tensor, zero: Tensor, scheme: QuantizationScheme
) -> tuple[Tensor, Tensor]:
    """Scales of either sign that hit the largest weight, as ggml's do, where these lose next to nothing.

    Weights of one size, or of a lattice, are exact with them. Elsewhere they leave GPTQ no room at the ends: on a whole
    model they cost .011 nats (SmolLM2, Q4_0) although their error on the weights is the smallest.
    """
    largest, half = grouped.abs().amax(1), scheme.levels // 2
    least = _error(grouped, importance, scale, zero, scheme)
    for steps in (half, half - 1):
        for middle in (half, half - 1):
            candidate = round_scale(torch.where(largest > 0, largest / steps, scale), scheme)
            places = torch.full_like(zero, middle)
            error = _error(grouped, importance, candidate, places, scheme)
            better = error < EXACT * least
            least, scale = torch.where(better, error, least), torch.where(better, candidate, scale)
            zero = torch.where(better, places, zero)
    return scale, zero


def _zero_steps(scheme: QuantizationScheme) -> list[int]:
    if scheme.symmetric:
        return [0, -1] if scheme.signed_scale else [0]
    return ZERO_STEPS


def _weigh(squares: Tensor, importance: Tensor) -> Tensor:
    """sum_j d_j x_j of every row; rows of ``importance`` repeat."""
    groups, size = importance.shape
    return (squares.reshape(-1, groups, size) * importance).sum(2).flatten()


def _error(grouped: Tensor, importance: Tensor, scale: Tensor, zero: Tensor, scheme: QuantizationScheme) -> Tensor:
    """sum_j d_j (w_j - Q(w_j))^2 of every row."""
    if grouped.device.type != "cpu":
        return _error_in_tensors(grouped, importance, scale, zero, scheme)
    error = torch.empty_like(scale)
    largest = grouped.numpy().dtype.type(scheme.levels - 1)
    grid_error(grouped.numpy(), importance.numpy(), scale.numpy(), zero.numpy(), largest, error.numpy())
    return error


def _error_in_tensors(
    grouped: Tensor, importance: Tensor, scale: Tensor, zero: Tensor, scheme: QuantizationScheme
) -> Tensor:
    """The same, all rows at once."""
    offset = grouped / scale[:, None]
    residual = offset.round().clamp_(-zero[:, None], scheme.levels - 1 - zero[:, None]).sub_(offset)
    return _weigh(residual.square_(), importance) * scale.square()


def _least_squares_scale(
    grouped: Tensor, importance: Tensor, scale: Tensor, zero: Tensor, scheme: QuantizationScheme
) -> Tensor:
    """The scale that serves best the codes that ``scale`` gives."""
    integers = (grouped / scale[:, None]).round().clamp_(-zero[:, None], scheme.levels - 1 - zero[:, None])
    across, along = _weigh(grouped * integers, importance), _weigh(integers.square(), importance)
    return torch.where((along > 0) & (across > 0), across / along, scale)
