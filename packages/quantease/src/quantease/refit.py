"""Least-squares scales for fixed codes.

With integers c = code - zero, row i of What is sum_g s_ig c_ig and f is quadratic in the scales s_i:

    f = s^T A s - 2 b^T s + constant,    A_gh = c_ig Sigma_gh c_ih^T,    b_g = c_ig Sigma_g: w_i^T,    A s = b

solved for each row; a row takes its new scales, rounded to the export type, only where f falls. With one scale a row
c Sigma = (W Sigma - G) / s is known from the gradient G = (W - What) Sigma, and no product of matrices is needed.

With a real zero What = s c + m and f is quadratic in scales and offsets together: the same with 1 as a second column.

Source: textbook normal equations of weighted least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantease.coordinate_descent import Descent
from quantease.grid import Grid, round_offset, round_scale
from quantease.scheme import QuantizationScheme

__all__ = ["refit_scales"]

JITTER = 1e-6
NORMAL_ENTRIES = 16_000_000  # float64: 128 MB


def refit_scales(
    target: Tensor,
    pulled: Tensor,
    found: Descent,
    grid: Grid,
    sigma: Tensor,
    scheme: QuantizationScheme,
    free: Tensor | None = None,
) -> tuple[Grid, Tensor | None]:
    """Scales that lower f row by row.

    Parameters
    ----------
    target : Tensor of shape (q, p)
    pulled : Tensor of shape (q, p)
        target @ sigma.
    found : Descent
        Codes, values of free entries and gradient under ``grid``.
    grid : Grid
    sigma : Tensor of shape (p, p)
    scheme : QuantizationScheme
    free : Tensor of shape (q, p), bool, optional

    Returns
    -------
    grid : Grid
        With the zeros as they were, unless they are real numbers.
    gradient : Tensor of shape (q, p) or None
        Under the new scales, where it comes for nothing.
    """
    if scheme.real_zero:
        return _lines_of_groups(pulled, found, grid, sigma, scheme), None
    if scheme.group_size is None and free is None:
        return _one_scale_a_row(pulled, found, grid, scheme)
    return _scales_of_groups(target, pulled, found, grid, sigma, scheme, free), None


def _one_scale_a_row(
    pulled: Tensor, found: Descent, grid: Grid, scheme: QuantizationScheme
) -> tuple[Grid, Tensor | None]:
    integers = found.codes - grid.zero
    product = (pulled - found.gradient).div_(grid.scale)  # c Sigma
    normal = (integers * product).sum(1, keepdim=True, dtype=torch.float64)
    right = (integers * pulled).sum(1, keepdim=True, dtype=torch.float64)
    chosen = _accept(normal[:, None], right, grid.scale, scheme)
    return _with(grid, chosen), product.mul_(grid.scale - chosen).add_(found.gradient)


def _scales_of_groups(
    target: Tensor,
    pulled: Tensor,
    found: Descent,
    grid: Grid,
    sigma: Tensor,
    scheme: QuantizationScheme,
    free: Tensor | None,
) -> Grid:
    q, p = target.shape
    groups = p // grid.group_size
    integers = found.codes - grid.columns()[1]
    if free is not None and found.values is not None:
        integers = integers.masked_fill(free, 0)
        pulled = pulled - found.values.masked_fill(~free, 0) @ sigma
    by_group = integers.reshape(q, groups, grid.group_size)
    right = pulled.reshape(q, groups, grid.group_size).mul(by_group).sum(2, dtype=torch.float64)
    normal = torch.empty(q, groups, groups, dtype=torch.float64, device=target.device)
    for g in range(groups):
        columns = slice(g * grid.group_size, (g + 1) * grid.group_size)
        product = integers[:, columns] @ sigma[columns]
        normal[:, g] = product.reshape(q, groups, grid.group_size).mul_(by_group).sum(2)
    return _with(grid, _accept(normal, right, grid.scale, scheme))


def _lines_of_groups(pulled: Tensor, found: Descent, grid: Grid, sigma: Tensor, scheme: QuantizationScheme) -> Grid:
    """Scales and offsets of every group, in strips of rows whose normal matrices fit in memory."""
    q, p = pulled.shape
    groups = p // grid.group_size
    strip = max(NORMAL_ENTRIES // (2 * groups) ** 2, 1)
    # sum of Sigma over the pairs of columns of two groups
    ones = sigma.double().reshape(groups, grid.group_size, groups, grid.group_size).sum((1, 3))
    parts = []
    for start in range(0, q, strip):
        rows = slice(start, start + strip)
        codes, part = found.codes[rows], Grid(grid.scale[rows], grid.zero[rows], grid.group_size, grid.bits)
        by_group = codes.reshape(len(codes), groups, grid.group_size)
        wanted = pulled[rows].reshape(by_group.shape)
        right = torch.cat([(wanted * by_group).sum(2, dtype=torch.float64), wanted.sum(2, dtype=torch.float64)], 1)
        normal = torch.empty(len(codes), 2 * groups, 2 * groups, dtype=torch.float64, device=codes.device)
        normal[:, groups:, groups:] = ones
        for g in range(groups):
            columns = slice(g * grid.group_size, (g + 1) * grid.group_size)
            product = (codes[:, columns] @ sigma[columns]).reshape(by_group.shape)
            normal[:, g, :groups] = (product * by_group).sum(2)
            normal[:, g, groups:] = normal[:, groups:, g] = product.sum(2).double()
        parts.append(_accept_lines(normal, right, part, scheme))
    scale, zero = (torch.cat([getattr(part, name) for part in parts]) for name in ("scale", "zero"))
    return Grid(scale, zero, grid.group_size, grid.bits)


def _accept_lines(normal: Tensor, right: Tensor, grid: Grid, scheme: QuantizationScheme) -> Grid:
    """Solve for scales and offsets of each row; rows that do not gain keep theirs."""
    groups = grid.scale.shape[1]
    diagonal = normal.diagonal(dim1=1, dim2=2)
    unused = diagonal <= 0
    damped = normal + torch.diag_embed(torch.where(unused, 1.0, JITTER * diagonal))
    solved = torch.linalg.solve(damped, right.unsqueeze(2)).squeeze(2).to(grid.scale.dtype)
    slope, offset = solved[:, :groups], solved[:, groups:]
    held = (torch.finfo(scheme.torch_scale_dtype).max > offset.abs()) & torch.isfinite(slope) & (slope > 0)
    usable = held & ~unused[:, :groups]
    scale = torch.where(usable, round_scale(torch.where(usable, slope, grid.scale), scheme), grid.scale)
    own = -grid.scale * grid.zero
    zero = round_offset(scale, -torch.where(usable, offset, own) / scale, scheme)

    def error(scale: Tensor, zero: Tensor) -> Tensor:
        line = torch.cat([scale, -scale * zero], 1).double()
        return torch.einsum("rg,rgh,rh->r", line, normal, line) - 2 * (line * right).sum(1)

    better = (error(scale, zero) < error(grid.scale, grid.zero))[:, None]
    return grid.where(~better[:, 0], Grid(scale, zero, grid.group_size, grid.bits))


def _accept(normal: Tensor, right: Tensor, scale: Tensor, scheme: QuantizationScheme) -> Tensor:
    """Solve A s = b for each row; keep the old scales of rows that do not gain."""
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # a group whose codes are all zero has no say: keep its scale
    unused = diagonal <= 0
    damped = normal + torch.diag_embed(torch.where(unused, 1.0, JITTER * diagonal))
    solved = torch.linalg.solve(damped, right.unsqueeze(2)).squeeze(2).to(scale.dtype)
    usable = (solved > 0) & ~unused & torch.isfinite(solved)
    candidate = torch.where(usable, round_scale(solved, scheme), scale)

    def error(of: Tensor) -> Tensor:
        s = of.double()
        return torch.einsum("rg,rgh,rh->r", s, normal, s) - 2 * (s * right).sum(1)

    return torch.where((error(candidate) < error(scale))[:, None], candidate, scale)


def _with(grid: Grid, scale: Tensor) -> Grid:
    return Grid(scale, grid.zero, grid.group_size, grid.bits)
