"""Damped normal equations  (C + lam I) x = r  whose unknowns differ by many orders of magnitude.

A single neuron of the size of a massive activation puts 1e16 beside 1 on C's diagonal. With D the root of the diagonal,

    C = D C' D,   C' of unit diagonal,

C' is what gets factored: the same solution, without the digits that the largest neuron would cost all others. Where two
large neurons answer alike, lam is lost beside them in double precision; a share of 1e-12 on C' keeps it invertible.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inverse_factor", "solve", "typical_square"]

_JITTER = 1e-12


def typical_square(moment: Tensor) -> float:
    """Median of a second moment's diagonal, the unit of damping: a few massive activations own the mean.

    The mean where more than half of the diagonal is zero (ReLU), and 1 where all of it is.
    """
    diagonal = moment.diagonal().double()
    return float(diagonal.median()) or float(diagonal.mean()) or 1.0


def solve(damped: Tensor, right: Tensor, squares: Tensor | None = None) -> Tensor:
    """Solve for a symmetric positive definite matrix.

    Parameters
    ----------
    damped : Tensor of shape (n, n), float64
    right : Tensor of shape (n, k)
    squares : Tensor of shape (n,), optional
        Diagonal before a mean was taken out: what is left of it is uncertain by rounding of this.

    Returns
    -------
    Tensor of shape (n, k), float64

    Examples
    --------
    >>> solution = solve(torch.tensor([[1e16, 0.0], [0.0, 4.0]]).double(), torch.tensor([[1e16], [2.0]]))
    >>> [round(float(x), 9) for x in solution]
    [1.0, 0.5]
    """
    scaled, size = _unit_diagonal(damped, squares)
    solution: Tensor = torch.linalg.solve(scaled, right.double() / size[:, None])
    return solution / size[:, None]


def inverse_factor(damped: Tensor) -> Tensor:
    """Upper triangular U with  U^T U = C^-1, shape (n, n), float64."""
    scaled, size = _unit_diagonal(damped, None)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(scaled))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor / size


def _unit_diagonal(damped: Tensor, squares: Tensor | None) -> tuple[Tensor, Tensor]:
    """C' and the root of the diagonal."""
    wide = damped.double()
    diagonal = wide.diagonal()
    if squares is not None:
        diagonal = torch.maximum(diagonal, _JITTER * squares.double())
    size = diagonal.sqrt()
    scaled = wide / torch.outer(size, size)
    scaled.diagonal().copy_(torch.full_like(size, 1 + _JITTER))
    return scaled, size
