"""Round a matrix to few bits, passing each column's rounding error on to the columns that are not rounded yet.

The error that counts is of the output, E|(W - W') x|^2 = tr (W - W') C (W - W')^T with C = E[x x^T]. Rounding column j
by e_j is answered best by changing the later columns by  -e_j U_jk / U_jj,  with U the upper Cholesky factor of C^-1
(optimal brain quantisation in a fixed order, as in GPTQ, arXiv:2210.17323). C is damped by a share of its median
diagonal.

The grid of b bits is {-2^(b-1), ..., 2^(b-1) - 1} times a scale whose sign makes the longer side meet the group's
largest weight; the scale is shrunk where clipping that weight costs less than a coarser grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ffn_heavyhitter.least_squares import inverse_factor, typical_square

__all__ = ["SMALLEST_HALF", "Rounded", "round_with_feedback"]

DAMPING = 0.01
_BLOCK = 128
SMALLEST_HALF = 2.0**-20  # of a scale in float16: subnormal, with four bits left
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix.

    Attributes
    ----------
    codes : Tensor of shape (rows, columns), int8
    scale : Tensor of shape (rows, groups)
        Value of one step; group g holds columns g * group_size and following.
    group_size : int
    """

    codes: Tensor
    scale: Tensor
    group_size: int

    def values(self) -> Tensor:
        """The matrix that the codes stand for, in single precision at the least."""
        scale = self.scale.to(torch.promote_types(self.scale.dtype, torch.float32))
        steps = scale.repeat_interleave(self.group_size, dim=1)[:, : self.codes.shape[1]]
        return self.codes.to(steps.dtype) * steps


def round_with_feedback(
    matrix: Tensor,
    lowest: Tensor,
    highest: Tensor,
    *,
    moment: Tensor | None,
    group_size: int,
    damping: float = DAMPING,
    scale_dtype: torch.dtype = torch.float16,
) -> Rounded:
    """Round with one scale for each row and group of columns.

    Parameters
    ----------
    matrix : Tensor of shape (rows, columns)
    lowest, highest : Tensor of shape (rows, 1) or (1, groups)
        Smallest and largest code, lowest <= 0 < highest.
    moment : Tensor of shape (columns, columns), optional
        C, up to a factor. Without it every weight is rounded to its nearest code.
    group_size : int
        Columns that share a scale.
    damping : float
        Share of C's median diagonal that is added to it.
    scale_dtype : torch.dtype
        Type in which scales are stored; codes are chosen for the stored scale.

    Returns
    -------
    Rounded
    """
    work = matrix.detach().float().clone()
    smallest = torch.finfo(scale_dtype).smallest_normal if scale_dtype != torch.float16 else SMALLEST_HALF
    rows, columns = work.shape
    groups = -(-columns // group_size)
    low, high = (bound.float().expand(rows, groups) for bound in (lowest, highest))
    importance = None if moment is None else _importance(moment)
    factor = None if moment is None else _factor(moment, damping)
    codes = torch.empty(rows, columns, dtype=torch.int8)
    scale = torch.empty(rows, groups, dtype=scale_dtype)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = torch.zeros(rows, stop - start)
        for j in range(start, stop):
            group = j // group_size
            if j % group_size == 0:
                end = min(j + group_size, columns)
                weight = None if importance is None else importance[j:end]
                # a group that reaches into the next block takes its scale before that block's feedback has come
                scale[:, group] = _scales(work[:, j:end], low[:, group], high[:, group], weight, smallest).to(
                    scale_dtype
                )
            step = scale[:, group].float()
            code = (work[:, j] / step).round().clamp(low[:, group], high[:, group])
            codes[:, j] = code.to(torch.int8)
            if factor is not None:
                error = work[:, j] - code * step
                work[:, j + 1 : stop] -= error[:, None] * factor[j, j + 1 : stop]
                errors[:, j - start] = error
        if factor is not None and stop < columns:
            work[:, stop:] -= errors @ factor[start:stop, stop:]
    return Rounded(codes, scale, group_size)


def _importance(moment: Tensor) -> Tensor:
    """Mean squares of the columns' inputs over the largest of them, in float32."""
    squares = moment.diagonal().double().clamp(min=0)
    return (squares / squares.max().clamp(min=torch.finfo(torch.float64).tiny)).float()


def _scales(block: Tensor, low: Tensor, high: Tensor, importance: Tensor | None, smallest: float) -> Tensor:
    """Signed scale of each row: the shrink of the full-range scale with the least (weighted) squared error."""
    largest = block.gather(1, block.abs().argmax(1, keepdim=True))[:, 0]
    reach = torch.where(-low > high, low, high.sign() * largest.sign() * high)
    full = largest / torch.where(reach == 0, torch.ones_like(reach), reach)
    tiny = torch.full_like(full, smallest)
    full = torch.where(full.abs() < tiny, torch.where(full < 0, -tiny, tiny), full)
    best, least = full, torch.full_like(full, torch.inf)
    for shrink in _SHRINKS:
        step = (full * shrink)[:, None]
        residual = block - (block / step).round().clamp(low[:, None], high[:, None]) * step
        weighted = residual.square() if importance is None else residual.square() * importance
        loss = weighted.sum(1)
        better = loss < least
        best, least = torch.where(better, full * shrink, best), torch.where(better, loss, least)
    return best


def _factor(moment: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the damped moment's inverse, each row over its first element, in float32.

    Only quotients within a row count, and those span less than the factor itself.
    """
    damped = moment.double().clone()
    damped.diagonal().add_(damping * typical_square(moment))
    factor = inverse_factor(damped)
    return (factor / factor.diagonal()[:, None]).float()
