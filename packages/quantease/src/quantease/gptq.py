"""GPTQ: quantise column by column and let the columns to come absorb each error.

    U = the upper factor of Sigma^-1 = U^T U,    e = (w_j - Q(w_j)) / U_jj,    w_k <- w_k - e U_jk  for k > j

Visiting the columns in descending diag(Sigma) is its activation order. With Sigma = R R^T, R upper triangular,
U = R^-1: one Cholesky of the reversed Sigma and one triangular inverse. An entry marked free keeps its current value,
which makes its error zero (masked GPTQ).

Source: Frantar et al., arXiv:2210.17323, Algorithm 1; the reversed factor is textbook linear algebra.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantease.errors import LayerError
from quantease.grid import Grid

__all__ = ["gptq", "inverse_factor"]

BLOCK_COLUMNS = 64


def inverse_factor(sigma: Tensor) -> Tensor:
    """Upper-triangular U with Sigma^-1 = U^T U.

    Raises
    ------
    LayerError
        If Sigma is not positive definite.

    Examples
    --------
    >>> U = inverse_factor(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    >>> torch.allclose(U.T @ U @ torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64), torch.eye(2).double())
    True
    """
    lower, failed = torch.linalg.cholesky_ex(sigma.flip(0, 1))
    if failed:
        raise LayerError("hessian is not positive definite; raise ridge (0.01 is a common choice) or calibrate on more")
    upper = lower.flip(0, 1)
    identity = torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)
    factor: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return factor


def gptq(
    target: Tensor, grid: Grid, sigma: Tensor, order: Tensor, free: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Codes of one pass of GPTQ over the columns in ``order``.

    Parameters
    ----------
    target : Tensor of shape (q, p)
    grid : Grid
    sigma : Tensor of shape (p, p)
        Positive definite.
    order : Tensor of shape (p,), int64
    free : Tensor of shape (q, p), bool, optional
        Entries outside the grid.

    Returns
    -------
    codes : Tensor of shape (q, p)
        Integers as floats.
    values : Tensor of shape (q, p) or None
        Value of each free entry.
    """
    factor = inverse_factor(sigma[order][:, order])
    scale = grid.columns()[0].T[order].contiguous()
    zero = grid.columns()[1].T[order].contiguous()
    current = target.T[order].contiguous()
    codes = torch.empty_like(current)
    free_o = None if free is None else free.T[order].contiguous()
    columns = len(current)
    for start in range(0, columns, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, columns)
        local, errors = current[start:stop], torch.empty_like(current[start:stop])
        block = factor[start:stop, start:stop]
        for j in range(stop - start):
            weight, z, s = local[j], zero[start + j], scale[start + j]
            code = torch.div(weight, s).round_().add_(z).clamp_(0, grid.largest_code)
            codes[start + j] = code
            error = (weight - (code - z) * s).div_(block[j, j])
            if free_o is not None:
                error.masked_fill_(free_o[start + j], 0)
            errors[j] = error
            if j + 1 < stop - start:
                local[j + 1 :].addr_(block[j, j + 1 :], error, alpha=-1)
        if stop < columns:
            current[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    back = torch.argsort(order)
    return codes[back].T.contiguous(), None if free is None else current[back].T.contiguous()
