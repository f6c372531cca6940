"""GPTQ: quantise column by column and let the columns to come absorb each error.

With Sigma = R R^T, R upper triangular, f(What) = ||(W - What) R||^2 and column j of the product sees columns 1 .. j
only. So column j of every row is rounded from the value that would make its term of f zero,

    u_j = w_j + sum_{k<j} (w_k - what_k) R_kj / R_jj,    what_j = Q(u_j),    f = sum_j R_jj^2 (u_j - what_j)^2,

which is GPTQ without the inverse of Sigma (Babai's nearest plane). R_jj^2 is what an error in column j costs after
later columns have absorbed what they can: the variance of input j that later inputs do not explain. Visiting the
columns in descending diag(Sigma) is GPTQ's activation order. An entry marked free takes u_j itself (masked GPTQ).

The layer is worked on transposed and sorted, so that a column of it is contiguous: inside a block of columns an error
is carried at once, and one matrix product then carries the errors of the block to all columns after it.

Source: Frantar et al., arXiv:2210.17323, Algorithm 1, in its equivalent form on the factor of Sigma.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantease.errors import LayerError
from quantease.grid import Grid
from quantease.kernels import UNMASKED, quantise_block

__all__ = ["Rounding", "gptq", "upper_factor"]

BLOCK_COLUMNS = 64


@dataclass(frozen=True)
class Rounding:
    """GPTQ on one grid.

    Attributes
    ----------
    grid : Grid
    codes : Tensor of shape (q, p)
        Integers as floats.
    rounded : Tensor of shape (q, p)
        The values u that were rounded; a free entry has its u.
    error : Tensor of shape (q,)
        f of every row.
    """

    grid: Grid
    codes: Tensor
    rounded: Tensor
    error: Tensor

    def better_rows(self, other: Rounding) -> Rounding:
        """Each row from the one of the two that serves it better."""
        better = other.error < self.error
        return Rounding(
            other.grid.where(better, self.grid),
            torch.where(better[:, None], other.codes, self.codes),
            torch.where(better[:, None], other.rounded, self.rounded),
            torch.minimum(self.error, other.error),
        )


def upper_factor(sigma: Tensor) -> Tensor:
    """Upper-triangular R with Sigma = R R^T.

    Raises
    ------
    LayerError
        If Sigma is not positive definite.

    Examples
    --------
    >>> sigma = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> R = upper_factor(sigma)
    >>> torch.allclose(R @ R.T, sigma), float(R[1, 0])
    (True, 0.0)
    """
    lower, failed = torch.linalg.cholesky_ex(sigma.flip(0, 1))
    if failed:
        raise LayerError("hessian is not positive definite; raise ridge (0.01 is a common choice) or calibrate on more")
    upper: Tensor = lower.flip(0, 1)
    return upper


def gptq(target: Tensor, grid: Grid, factor: Tensor, order: Tensor, free: Tensor | None = None) -> Rounding:
    """One pass of GPTQ over the columns in ``order``.

    Parameters
    ----------
    target : Tensor of shape (q, p)
    grid : Grid
    factor : Tensor of shape (p, p)
        ``upper_factor`` of Sigma with rows and columns in ``order``.
    order : Tensor of shape (p,), int64
    free : Tensor of shape (q, p), bool, optional
        Entries outside the grid.

    Returns
    -------
    Rounding
    """
    columns = target.T.contiguous().index_select(0, order)
    scale, zero, group = grid.scale.T.contiguous(), grid.zero.T.contiguous(), order // grid.group_size
    mask = None if free is None else free.T.contiguous().index_select(0, order)
    # share[k, j]: how much of the error of column j column k takes up
    share = (factor / factor.diagonal()).T.contiguous()
    current, codes, residual = columns.clone(), torch.empty_like(columns), torch.empty_like(columns)
    by = _block_by_row if target.device.type == "cpu" else _block_by_column
    for start in range(0, len(order), BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, len(order))
        by(current, columns, codes, residual, scale, zero, group, grid.largest_code, share, start, stop, mask)
        current[stop:].addmm_(share[stop:, start:stop], residual[start:stop])
    missed = residual.sub_(columns).add_(current).square_()
    back = torch.argsort(order)
    codes, current = (entry.index_select(0, back).T.contiguous() for entry in (codes, current))
    return Rounding(grid, codes, current, factor.diagonal().square() @ missed)


def _block_by_row(
    current: Tensor,
    target: Tensor,
    codes: Tensor,
    residual: Tensor,
    scale: Tensor,
    zero: Tensor,
    group: Tensor,
    largest_code: int,
    share: Tensor,
    start: int,
    stop: int,
    free: Tensor | None,
) -> None:
    """Columns start .. stop, compiled, for a few rows at a time."""
    block = slice(start, stop)
    state = [entry[block].numpy() for entry in (current, target, codes, residual)]
    mask = UNMASKED if free is None else free[block].numpy()
    fixed = (scale.numpy(), zero.numpy(), group[block].numpy(), share[block, block].contiguous().numpy())
    largest = state[0].dtype.type(largest_code)
    real = not bool(torch.equal(zero, zero.round()))
    quantise_block(state[0], state[1], state[2], state[3], *fixed, largest, mask, real)


def _block_by_column(
    current: Tensor,
    target: Tensor,
    codes: Tensor,
    residual: Tensor,
    scale: Tensor,
    zero: Tensor,
    group: Tensor,
    largest_code: int,
    share: Tensor,
    start: int,
    stop: int,
    free: Tensor | None,
) -> None:
    """The same with one tensor operation a column, for devices other than the CPU."""
    for j in range(start, stop):
        s, z = scale[group[j]], zero[group[j]]
        whole = z.round()
        code = torch.round(current[j] / s + (z - whole)).add_(whole).clamp_(0, largest_code)
        codes[j] = code
        value = (code - z) * s
        if free is not None:
            value = torch.where(free[j], current[j], value)
        residual[j] = target[j] - value
        current[j + 1 : stop].addr_(share[j + 1 : stop, j], residual[j])
