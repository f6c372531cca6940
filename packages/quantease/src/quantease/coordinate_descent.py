"""Coordinate descent on the codes of one layer.

    min over What on the grid   f(What) = sum_i (w_i - what_i) Sigma (w_i - what_i)^T

With G = (W - What) Sigma, the parabola of f in entry (i, j) has its minimum at what_ij + G_ij / Sigma_jj, so the best
code is

    c_ij <- clamp(c_ij + round(G_ij / (s_ij Sigma_jj)), 0, 2^b - 1)

and every accepted change d lowers f by s^2 Sigma_jj d (2 t - d) > 0 with t = G_ij / (s_ij Sigma_jj) (a tie rounds to no
change: half to even of a value in [-1/2, 1/2] is 0). Entries marked free are not on the grid: they take the exact
minimiser.

Two forms of the same iterates. On the CPU rows are worked on one after the other until nothing in them changes, and a
column of Sigma is added to a row of G only where its code changes: after a good start few do, so a sweep costs
(changes) p instead of q p^2. Elsewhere all rows of a column move at once; inside a block of columns only the block of
G follows each move, and one matrix product then carries the whole block to the rest (transposed, so that a column of
the layer is contiguous).

Source: our formulation of the paper's Algorithm 2 (arXiv:2309.01885); blocking as in Demmel et al.'s lazy updates.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quantease.grid import Grid
from quantease.kernels import UNMASKED, count_moves, descend

__all__ = ["Certificate", "Descent", "SortedMoment", "certify", "coordinate_descent", "objective"]

BLOCK_COLUMNS = 64


@dataclass(frozen=True)
class Certificate:
    """Whether any single code change would lower f.

    Attributes
    ----------
    improving_moves : int
        Entries whose best code differs from the one they have, counted in float64, and the lost scales.
    largest_gain : float
        The largest decrease of f that the change of one code would bring; 0 at a coordinate-wise optimum.
    lost_scales : int
        Rows or groups whose scale is too small for ``scale_dtype``: a finer type would lower f.
    """

    improving_moves: int
    largest_gain: float
    lost_scales: int = 0

    @property
    def optimal(self) -> bool:
        """No single code change lowers f."""
        return self.improving_moves == 0


def objective(target: Tensor, approximation: Tensor, sigma: Tensor) -> Tensor:
    """Error f of every row in float64: (w_i - what_i) Sigma (w_i - what_i)^T, shape (q,)."""
    residual = (target - approximation).double()
    return ((residual @ sigma.double()) * residual).sum(1)


@dataclass(frozen=True)
class SortedMoment:
    """Sigma, and the order in which its columns are visited.

    Attributes
    ----------
    sigma : Tensor of shape (p, p)
    order : Tensor of shape (p,), int64
    sorted : Tensor of shape (p, p)
        ``sigma`` with rows and columns in ``order``.
    """

    sigma: Tensor
    order: Tensor
    sorted: Tensor

    @classmethod
    def of(cls, sigma: Tensor, order: Tensor | None = None) -> SortedMoment:
        """Sort; None keeps the columns as they are."""
        if order is None:
            return cls(sigma, torch.arange(len(sigma), device=sigma.device), sigma.contiguous())
        return cls(sigma, order, sigma.index_select(0, order).index_select(1, order))


@dataclass(frozen=True)
class Descent:
    """What a descent ends with.

    Attributes
    ----------
    codes : Tensor of shape (q, p)
        Integers as floats.
    values : Tensor of shape (q, p) or None
        Value of each free entry.
    gradient : Tensor of shape (q, p)
        G at the end, carried along from the start.
    history : tuple of float
        f before the first sweep and after each.
    """

    codes: Tensor
    values: Tensor | None
    gradient: Tensor
    history: tuple[float, ...]


def coordinate_descent(
    target: Tensor,
    codes: Tensor,
    grid: Grid,
    moment: SortedMoment,
    sweeps: int,
    free: Tensor | None = None,
    values: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Descent:
    """Sweep over the columns until nothing changes or ``sweeps`` is reached.

    Parameters
    ----------
    target : Tensor of shape (q, p)
    codes : Tensor of shape (q, p)
        Integers as floats; the start.
    grid : Grid
    moment : SortedMoment
    sweeps : int
    free : Tensor of shape (q, p), bool, optional
        Entries outside the grid.
    values : Tensor of shape (q, p), optional
        Value of each free entry, read where ``free``.
    gradient : Tensor of shape (q, p), optional
        G at the start, where it is known; it is changed in place.

    Returns
    -------
    Descent
    """
    moving = codes.clone(memory_format=torch.contiguous_format)
    if free is not None and values is not None:  # a free entry is a code that need not be an integer
        scale, zero = grid.columns()
        moving = torch.where(free, values / scale + zero, moving)
    residual = target - grid.decode(moving)
    gradient = residual @ moment.sigma if gradient is None else gradient
    start = float(residual.mul_(gradient).sum(dtype=torch.float64))
    by = _by_row if target.device.type == "cpu" else _by_column
    gains = by(gradient, moving, grid, moment, sweeps, free)
    history = tuple(start - gain for gain in [0.0, *itertools.accumulate(gains)])
    if free is None:
        return Descent(moving, None, gradient, history)
    return Descent(torch.where(free, codes, moving), grid.decode(moving), gradient, history)


def _by_row(
    gradient: Tensor,
    codes: Tensor,
    grid: Grid,
    moment: SortedMoment,
    sweeps: int,
    free: Tensor | None,
) -> list[float]:
    """Descend in place, compiled; the decrease of f in each sweep that changed a code, and in the one that did not."""
    gains, moves = np.zeros(sweeps), np.zeros(sweeps, np.int64)
    mask = UNMASKED if free is None else free.contiguous().numpy()
    group = torch.arange(len(moment.order)) // grid.group_size
    largest = gradient.numpy().dtype.type(grid.largest_code)
    fixed = (grid.scale.contiguous().numpy(), group.numpy(), moment.sorted.numpy(), moment.order.numpy(), largest)
    descend(gradient.numpy(), codes.numpy(), *fixed, gains, moves, mask)
    # the sweep after the last move found nothing to change
    listed: list[float] = gains[: int(np.count_nonzero(moves)) + 1].tolist()
    return listed


def _by_column(
    gradient: Tensor,
    codes: Tensor,
    grid: Grid,
    moment: SortedMoment,
    sweeps: int,
    free: Tensor | None,
) -> list[float]:
    """The same in lazy blocks of tensor operations."""
    sigma_o, order = moment.sorted, moment.order
    gradient_o, codes_o, scale_o = (entry.T[order].contiguous() for entry in (gradient, codes, grid.columns()[0]))
    free_o = None if free is None else free.T[order].contiguous()
    steps = 1 / (scale_o * sigma_o.diagonal()[:, None])
    gains = []
    active = torch.ones_like(codes_o[0], dtype=torch.bool)
    for _ in range(sweeps):
        active, gain = _sweep(gradient_o, codes_o, scale_o, steps, sigma_o, grid.largest_code, active, free_o)
        gains.append(gain)
        if not bool(active.any()):
            break
    back = torch.argsort(order)
    gradient.copy_(gradient_o[back].T)
    codes.copy_(codes_o[back].T)
    return gains


def _sweep(
    gradient: Tensor,
    codes: Tensor,
    scale: Tensor,
    steps: Tensor,
    sigma: Tensor,
    largest_code: int,
    active: Tensor,
    free: Tensor | None,
) -> tuple[Tensor, float]:
    """One pass over all columns of the active rows in place; the rows with changed codes, and the decrease of f."""
    columns = len(codes)
    before = codes.clone()
    moved = torch.empty_like(codes)
    gain = torch.zeros(codes.shape[1], dtype=torch.float64, device=codes.device)
    for start in range(0, columns, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, columns)
        local = gradient[start:stop]
        for j in range(start, stop):
            code = codes[j]
            shift = gradient[j] * steps[j]
            best = torch.round(shift).add_(code).clamp_(0, largest_code)
            if free is not None:
                best = torch.where(free[j], code + shift, best)
            change = best.sub_(code).mul_(active)
            gain += scale[j].square() * sigma[j, j] * change * (2 * shift - change)
            torch.mul(change, scale[j], out=moved[j])
            code.add_(change)
            local.addr_(sigma[start:stop, j], moved[j], alpha=-1)
        gradient[:start].addmm_(sigma[:start, start:stop], moved[start:stop], alpha=-1)
        gradient[stop:].addmm_(sigma[stop:, start:stop], moved[start:stop], alpha=-1)
    changed = codes != before
    return (changed if free is None else changed & ~free).any(0), float(gain.sum())


def certify(gradient: Tensor, codes: Tensor, grid: Grid, sigma: Tensor, free: Tensor | None = None) -> Certificate:
    """Count the single code changes that would still lower f; exact where ``gradient`` is in float64."""
    kind = gradient.dtype
    mask = UNMASKED if free is None else free.cpu().contiguous().numpy()
    group = torch.arange(len(sigma)) // grid.group_size
    slope, held = gradient.cpu().contiguous().numpy(), codes.to(kind).cpu().contiguous().numpy()
    fixed = (
        grid.scale.to(kind).cpu().contiguous().numpy(),
        group.numpy(),
        sigma.diagonal().to(kind).cpu().contiguous().numpy(),
    )
    largest = slope.dtype.type(grid.largest_code)
    moves, highest = count_moves(slope, held, *fixed, largest, mask)
    return Certificate(int(moves), float(highest))
