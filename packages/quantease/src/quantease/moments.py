"""Second moments of the inputs of a layer: Sigma = sum_t x_t x_t^T and C = sum_t x_t xq_t^T over tokens t."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moment"]


class Moment:
    """Running sum of x y^T over tokens; products in the type of x, at least float32, the sum in float64.

    Examples
    --------
    >>> moment = Moment()
    >>> moment.update(torch.ones(2, 3, 4))
    >>> moment.total.shape, moment.tokens
    (torch.Size([4, 4]), 6)
    """

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.tokens = 0

    def update(self, x: Tensor, y: Tensor | None = None) -> None:
        """Add the tokens of ``x`` (..., p), paired with those of ``y`` or with themselves."""
        left = _tokens(x)
        product = (left.T @ (left if y is None else _tokens(y))).double()
        self.total = product if self.tokens == 0 else self.total.add_(product)
        self.tokens += len(left)


def _tokens(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).to(torch.promote_types(x.dtype, torch.float32))
