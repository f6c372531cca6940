"""Lazy-block coordinate descent on the codes of one layer.

    min over What on the grid   f(What) = sum_i (w_i - what_i) Sigma (w_i - what_i)^T

With G = (W - What) Sigma, the parabola of f in entry (i, j) has its minimum at what_ij + G_ij / Sigma_jj, so the best
code is

    c_ij <- clamp(c_ij + round(G_ij / (s_ij Sigma_jj)), 0, 2^b - 1)

and every accepted change lowers f strictly (a tie rounds to no change: half to even of a value in [-1/2, 1/2] is 0).
All rows of a column move at once. Inside a block of columns only the block of G follows each move; one matrix product
then carries the whole block to the rest: the iterates of the column-by-column algorithm at the price of a GEMM.
Tensors are transposed (p x q), so that a column of the layer is contiguous. Entries marked free are not on the grid:
they take the exact minimiser.

Source: our formulation of the paper's Algorithm 2 (arXiv:2309.01885); blocking as in Demmel et al.'s lazy updates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantease.grid import Grid

__all__ = ["Certificate", "certify", "coordinate_descent", "objective"]

BLOCK_COLUMNS = 64


@dataclass(frozen=True)
class Certificate:
    """Whether any single code change would lower f.

    Attributes
    ----------
    improving_moves : int
        Entries whose best code differs from the one they have, counted in float64.
    largest_gain : float
        The largest decrease of f that one of these moves would bring; 0 at a coordinate-wise optimum.
    """

    improving_moves: int
    largest_gain: float

    @property
    def optimal(self) -> bool:
        """No single code change lowers f."""
        return self.improving_moves == 0


def objective(target: Tensor, approximation: Tensor, sigma: Tensor) -> Tensor:
    """Error f of every row in float64: (w_i - what_i) Sigma (w_i - what_i)^T, shape (q,)."""
    residual = (target - approximation).double()
    return ((residual @ sigma.double()) * residual).sum(1)


def coordinate_descent(
    target: Tensor,
    codes: Tensor,
    grid: Grid,
    sigma: Tensor,
    order: Tensor,
    sweeps: int,
    free: Tensor | None = None,
    values: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, tuple[float, ...]]:
    """Sweep over the columns until nothing changes or ``sweeps`` is reached.

    Parameters
    ----------
    target : Tensor of shape (q, p)
    codes : Tensor of shape (q, p)
        Integers as floats; the start.
    grid : Grid
    sigma : Tensor of shape (p, p)
    order : Tensor of shape (p,), int64
        Visiting order of the columns.
    sweeps : int
    free : Tensor of shape (q, p), bool, optional
        Entries outside the grid.
    values : Tensor of shape (q, p), optional
        Value of each free entry, read where ``free``.

    Returns
    -------
    codes : Tensor of shape (q, p)
    values : Tensor of shape (q, p) or None
    history : tuple of float
        f before the first sweep and after each.
    """
    sigma_o = sigma[order][:, order].contiguous()
    scale = grid.columns()[0].T[order].contiguous()
    zero = grid.columns()[1].T[order].contiguous()
    target_o, codes_o = target.T[order].contiguous(), codes.T[order].contiguous()
    free_o = None if free is None else free.T[order].contiguous()
    if free_o is not None and values is not None:  # a free entry is a code that need not be an integer
        codes_o = torch.where(free_o, values.T[order] / scale + zero, codes_o)
    steps = 1 / (scale * sigma_o.diagonal()[:, None])
    history = []
    for _ in range(sweeps):
        gradient = sigma_o @ (target_o - (codes_o - zero) * scale)
        history.append(float((gradient.double() * (target_o - (codes_o - zero) * scale)).sum()))
        if _sweep(gradient, codes_o, scale, steps, sigma_o, grid.largest_code, free_o) == 0:
            break
    residual = target_o - (codes_o - zero) * scale
    history.append(float(((sigma_o @ residual).double() * residual).sum()))
    back = torch.argsort(order)
    found = codes_o[back].T
    if free is None:
        return found.contiguous(), None, tuple(history)
    free_values = ((codes_o - zero) * scale)[back].T
    return torch.where(free, codes, found), free_values.contiguous(), tuple(history)


def _sweep(
    gradient: Tensor,
    codes: Tensor,
    scale: Tensor,
    steps: Tensor,
    sigma: Tensor,
    largest_code: int,
    free: Tensor | None,
) -> int:
    """One pass over all columns in place; the number of codes that changed."""
    columns = len(codes)
    before = codes.clone()
    for start in range(0, columns, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, columns)
        local = gradient[start:stop]
        sigma_block = sigma[start:stop, start:stop]
        moved = torch.empty_like(local)
        for j in range(stop - start):
            code = codes[start + j]
            shift = local[j] * steps[start + j]
            best = torch.round(shift).add_(code).clamp_(0, largest_code)
            if free is not None:
                best = torch.where(free[start + j], code + shift, best)
            delta = torch.mul(best.sub_(code), scale[start + j], out=moved[j])
            code.add_(best)
            local[j:].addr_(sigma_block[j:, j], delta, alpha=-1)
        if stop < columns:
            gradient[stop:].addmm_(sigma[stop:, start:stop], moved, alpha=-1)
    changed = codes != before
    return int((changed if free is None else changed & ~free).sum())


def certify(
    target: Tensor, codes: Tensor, grid: Grid, sigma: Tensor, free: Tensor | None = None, values: Tensor | None = None
) -> Certificate:
    """Count, in float64, the single code changes that would still lower f.

    The change d of code (i, j) lowers f by s^2 Sigma_jj d (2 t - d) with t = G_ij / (s Sigma_jj).
    """
    approximation = grid.decode(codes)
    if free is not None and values is not None:
        approximation = torch.where(free, values, approximation)
    scale = grid.columns()[0].double()
    curvature = sigma.diagonal().double()
    shift = ((target - approximation).double() @ sigma.double()) / (scale * curvature)
    move = (codes.double() + shift.round()).clamp_(0, grid.largest_code).sub_(codes.double())
    gain = scale.square() * curvature * move * (2 * shift - move)
    if free is not None:
        gain.masked_fill_(free, 0)
    return Certificate(int((gain > 0).sum()), float(gain.max().clamp(min=0)))
