"""Least-squares scales for fixed codes.

With integers c = code - zero, row i of What is sum_g s_ig c_ig and f is quadratic in the scales s_i:

    A_gh = c_ig Sigma_gh c_ih^T,   b_g = c_ig Sigma_g: w_i^T,   A s = b

solved for each row; a row takes its new scales, rounded to the export type, only where f falls.

Source: textbook normal equations of weighted least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantease.coordinate_descent import objective
from quantease.grid import Grid, round_scale
from quantease.scheme import QuantizationScheme

__all__ = ["refit_scales"]

JITTER = 1e-6


def refit_scales(
    target: Tensor,
    codes: Tensor,
    grid: Grid,
    sigma: Tensor,
    scheme: QuantizationScheme,
    free: Tensor | None = None,
    values: Tensor | None = None,
) -> Grid:
    """Scales that lower f row by row; ``target`` of shape (q, p), ``codes`` integers as floats.

    Returns
    -------
    Grid
        With the zeros as they were.
    """
    q, p = target.shape
    groups = p // grid.group_size
    integers = codes - grid.columns()[1]
    fixed = torch.zeros_like(target)
    if free is not None and values is not None:
        integers = integers.masked_fill(free, 0)
        fixed = torch.where(free, values, fixed)
    by_group = integers.reshape(q, groups, grid.group_size)
    right = ((target - fixed) @ sigma).reshape(q, groups, grid.group_size).mul(by_group).sum(2)
    normal = torch.empty(q, groups, groups, dtype=target.dtype, device=target.device)
    for g in range(groups):
        columns = slice(g * grid.group_size, (g + 1) * grid.group_size)
        pulled = integers[:, columns] @ sigma[columns]
        normal[:, g] = pulled.reshape(q, groups, grid.group_size).mul_(by_group).sum(2)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # a group whose codes are all zero has no say: keep its scale
    unused = diagonal <= 0
    normal.diagonal(dim1=1, dim2=2).add_(torch.where(unused, 1.0, JITTER * diagonal))
    solved = torch.linalg.solve(normal.double(), right.double().unsqueeze(2)).squeeze(2).to(target.dtype)
    usable = (solved > 0) & ~unused & torch.isfinite(solved)
    candidate = Grid(
        torch.where(usable, round_scale(solved, scheme), grid.scale), grid.zero, grid.group_size, grid.bits
    )

    def error(of: Grid) -> Tensor:
        approximation = of.decode(codes)
        if free is not None and values is not None:
            approximation = torch.where(free, values, approximation)
        return objective(target, approximation, sigma)

    better = error(candidate) < error(grid)
    return Grid(torch.where(better[:, None], candidate.scale, grid.scale), grid.zero, grid.group_size, grid.bits)
