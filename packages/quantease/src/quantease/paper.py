"""The published algorithms, as a baseline.

Algorithms 1 and 2 (cyclic coordinate descent from What = W). With N = Sigma, column j divided by Sigma_jj, diagonal
zeroed, and P = W (Sigma / diag), a sweep takes Phat = What_old N and visits the columns in order:

    u = P_j - Phat_j + sum_{k<j} (What_old - What_new)_k N_kj,      What_j <- Q(u)

Every third sweep leaves What_j = u off the grid (relaxation), up to the 26th and never in the last.

Algorithm 3 (outliers H, ||H||_0 <= s or s whole columns): one sweep of coordinate descent for the target W - H, then
one step of iterative hard thresholding, H <- Top_s(H - R / (2 lambda_max)) with R = (What + H - W) Sigma. H starts as
the largest entries (columns) of W. The grid of a row is the trimmed range of its weights; for columns it is the range
of the columns outside H. The outlier step follows the mathematics: the released code never writes the quantised
columns.

Source: arXiv:2309.01885 as its authors' code states Algorithms 1-3; relaxation schedule and trimming from that code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantease.errors import SchemeError
from quantease.grid import Grid, fit_grid
from quantease.scheme import OutlierConfig, QuantizationScheme

__all__ = ["published", "published_with_outliers"]

RELAXED_EVERY = 3
LAST_RELAXED = 25


def published(weight: Tensor, grid: Grid, sigma: Tensor, sweeps: int, relax: bool = True) -> Tensor:
    """Algorithm 2 from What = W; codes of shape (q, p), integers as floats."""
    return grid.encode(_descend(weight, weight, grid, sigma, range(sweeps), sweeps if relax else 0))


def published_with_outliers(
    weight: Tensor, sigma: Tensor, scheme: QuantizationScheme, outliers: OutlierConfig, sweeps: int
) -> tuple[Tensor, Grid, Tensor, Tensor]:
    """Algorithm 3.

    Returns
    -------
    codes : Tensor of shape (q, p)
    grid : Grid
    support : Tensor of shape (q, p), bool
        Where H is not zero.
    values : Tensor of shape (q, p)
        H, which is added to the grid values.

    Raises
    ------
    SchemeError
        With groups: the published grids are per channel.
    """
    if scheme.group_size is not None:
        raise SchemeError("method='paper' with outliers is published per channel; leave group_size=None")
    largest = float(torch.linalg.eigvalsh(sigma)[-1])
    support = _largest(weight, outliers)
    sparse = torch.where(support, weight, 0)
    approximation = weight - sparse
    grid = _outlier_grid(weight, support, scheme, outliers)
    for sweep in range(sweeps):
        approximation = _descend(weight - sparse, approximation, grid, sigma, range(sweep, sweep + 1), 0)
        gradient = (approximation + sparse - weight) @ sigma
        stepped = sparse - gradient / (2 * largest)
        support = _largest(stepped, outliers)
        sparse = torch.where(support, stepped, 0)
        if outliers.kind == "column":
            grid = _outlier_grid(weight, support, scheme, outliers)
    if outliers.kind == "column":
        approximation = _descend(weight - sparse, approximation, grid, sigma, range(1), 0)
    return grid.encode(approximation), grid, support, sparse


def _descend(target: Tensor, start: Tensor, grid: Grid, sigma: Tensor, sweeps: range, relaxed_within: int) -> Tensor:
    """Sweeps in the GEMV form, transposed so that a column is contiguous."""
    scaled = sigma / sigma.diagonal()
    pull = (target @ scaled).T.contiguous()
    scaled.fill_diagonal_(0)
    rows_of_n = scaled.T.contiguous()
    approximation = start.T.contiguous()
    scale, zero = (entry.T.contiguous() for entry in grid.columns())
    for sweep in sweeps:
        relax = sweep % RELAXED_EVERY == 1 and sweep < relaxed_within - 1 and sweep <= LAST_RELAXED
        ahead = pull - rows_of_n @ approximation
        change = torch.empty_like(approximation)
        for j in range(len(approximation)):
            best = torch.addmv(ahead[j], change[:j].T, rows_of_n[j, :j])
            if not relax:
                code = torch.round(best / scale[j]).add_(zero[j]).clamp_(0, grid.largest_code)
                best = (code - zero[j]) * scale[j]
            torch.sub(approximation[j], best, out=change[j])
            approximation[j] = best
    return approximation.T.contiguous()


def _largest(weight: Tensor, outliers: OutlierConfig) -> Tensor:
    """Support of the s largest entries, or of the columns of largest norm."""
    support = torch.zeros_like(weight, dtype=torch.bool)
    if outliers.kind == "column":
        count = max(1, round(outliers.fraction * weight.shape[1]))
        support[:, weight.square().sum(0).topk(count).indices] = True
    else:
        count = max(1, round(outliers.fraction * weight.numel()))
        support.view(-1)[weight.abs().flatten().topk(count).indices] = True
    return support


def _outlier_grid(weight: Tensor, support: Tensor, scheme: QuantizationScheme, outliers: OutlierConfig) -> Grid:
    ones = torch.ones_like(weight[0])
    if outliers.kind == "column":
        return fit_grid(weight, scheme, "minmax", ones, keep=~support)
    cut = round(outliers.fraction * weight.shape[1] / 2)
    ordered = weight.sort(1).values
    return fit_grid(weight.clamp(ordered[:, cut, None], ordered[:, -1 - cut, None]), scheme, "minmax", ones)
