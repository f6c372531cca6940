"""GPTQ: quantise column by column and let the columns to come absorb each error.

With Sigma = R R^T, R upper triangular, f(What) = ||(W - What) R||^2 and column j of the product sees columns 1 .. j
only. So column j of every row is rounded from the value that would make its term of f zero,

    u_j = w_j + sum_{k<j} (w_k - what_k) R_kj / R_jj,    what_j = Q(u_j),    f = sum_j R_jj^2 (u_j - what_j)^2,

which is GPTQ without the inverse of Sigma (Babai's nearest plane). R_jj^2 is what an error in column j costs after
later columns have absorbed what they can: the variance of input j that later inputs do not explain. Visiting the
columns in descending diag(Sigma) is GPTQ's activation order. An entry marked free takes u_j itself (masked GPTQ).

Source: Frantar et al., arXiv:2210.17323, Algorithm 1, in its equivalent form on the factor of Sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantease.errors import LayerError
from quantease.grid import Grid
from quantease.kernels import quantise_block

__all__ = ["gptq", "upper_factor"]

BLOCK_COLUMNS = 32


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
    upper: Tensor = lower.flip(0, 1).contiguous()
    return upper


def gptq(
    target: Tensor, grid: Grid, factor: Tensor, order: Tensor, free: Tensor | None = None
) -> tuple[Tensor, Tensor]:
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
    codes : Tensor of shape (q, p)
        Integers as floats.
    rounded : Tensor of shape (q, p)
        The values u that were rounded; a free entry has its u.
    """
    unit = factor / factor.diagonal()
    ordered = target[:, order]
    group = order // grid.group_size
    free_o = None if free is None else free[:, order]
    by = _block_by_row if target.device.type == "cpu" else _block_by_column
    current, codes = ordered.clone(), torch.empty_like(ordered)
    for start in range(0, len(unit), BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, len(unit))
        residual = torch.empty_like(ordered[:, start:stop])
        by(current, ordered, codes, residual, grid, group, unit, start, stop, free_o)
        current[:, stop:].addmm_(residual, unit[start:stop, stop:])
    back = torch.argsort(order)
    return codes[:, back], current[:, back]


def _block_by_row(
    current: Tensor,
    target: Tensor,
    codes: Tensor,
    residual: Tensor,
    grid: Grid,
    group: Tensor,
    unit: Tensor,
    start: int,
    stop: int,
    free: Tensor | None,
) -> None:
    """Columns start .. stop of every row, compiled."""
    state = (current.numpy(), target.numpy(), codes.numpy(), residual.numpy())
    mask = torch.empty(0, 0, dtype=torch.bool) if free is None else free
    largest = state[0].dtype.type(grid.largest_code)
    fixed = (grid.scale.numpy(), grid.zero.numpy(), group.numpy(), unit.numpy(), largest, start, stop, mask.numpy())
    quantise_block(state[0], state[1], state[2], state[3], *fixed)


def _block_by_column(
    current: Tensor,
    target: Tensor,
    codes: Tensor,
    residual: Tensor,
    grid: Grid,
    group: Tensor,
    unit: Tensor,
    start: int,
    stop: int,
    free: Tensor | None,
) -> None:
    """The same with one tensor operation a column, for devices other than the CPU."""
    for j in range(start, stop):
        s, z = grid.scale[:, group[j]], grid.zero[:, group[j]]
        code = torch.round(current[:, j] / s).add_(z).clamp_(0, grid.largest_code)
        codes[:, j] = code
        value = (code - z) * s
        if free is not None:
            value = torch.where(free[:, j], current[:, j], value)
        residual[:, j - start] = target[:, j] - value
        current[:, j + 1 : stop].addr_(residual[:, j - start], unit[j, j + 1 : stop])
