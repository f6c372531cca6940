"""Weights kept out of the grid: which ones, their best values, and what they cost.

Support: the largest |w_ij| (or w_ij^2 Sigma_jj) of the layer, or the columns of the largest such sums. The solvers
treat these entries as free coordinates; at the end they are the exact least squares on the support S of each row,

    Sigma_SS delta = G_S,   G = (W - What) Sigma.

Bits a weight, indices included: an unstructured entry costs its value (16 bit, 32 where scales are float32) and a 16 or
32 bit column number, a row a 32 bit pointer; a column costs its values and one 32 bit number.

Source: arXiv:2309.01885 (outlier-aware problem); exact least squares in place of its thresholding is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantease.scheme import OutlierConfig, OutlierKind

__all__ = ["SparseWeights", "choose_outliers", "polish"]

POINTER_BITS = 32


@dataclass(frozen=True)
class SparseWeights:
    """Values added to the grid values of a layer.

    Attributes
    ----------
    rows, columns : Tensor of shape (n,), int32
    values : Tensor of shape (n,)
        In the type scales are exported in.
    kind : {"unstructured", "column"}
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    kind: OutlierKind

    def bits(self, shape: tuple[int, int]) -> float:
        """Storage in bits of the whole sparse part, indices included.

        Examples
        --------
        >>> one = torch.zeros(1, dtype=torch.int32)
        >>> SparseWeights(one, one, torch.ones(1, dtype=torch.float16), "unstructured").bits((4, 8))
        192.0
        """
        q, p = shape
        value_bits = self.values.element_size() * 8
        if self.kind == "column":
            columns = len(torch.unique(self.columns))
            return float(columns * (q * value_bits + POINTER_BITS))
        index_bits = 16 if p <= 1 << 16 else 32
        return float(len(self.values) * (value_bits + index_bits) + (q + 1) * POINTER_BITS)


def choose_outliers(weight: Tensor, diagonal: Tensor, config: OutlierConfig) -> Tensor:
    """Support of the entries to keep, bool of shape (q, p); at least one entry or column."""
    score = weight.square()
    if config.score == "sensitivity":
        score = score * diagonal
    support = torch.zeros_like(weight, dtype=torch.bool)
    if config.kind == "column":
        support[:, score.sum(0).topk(max(1, round(config.fraction * weight.shape[1]))).indices] = True
    else:
        support.view(-1)[score.flatten().topk(max(1, round(config.fraction * weight.numel()))).indices] = True
    return support


def polish(target: Tensor, approximation: Tensor, sigma: Tensor, free: Tensor) -> Tensor:
    """Move the free entries of each row to their joint minimum.

    Parameters
    ----------
    target, approximation : Tensor of shape (q, p)
        ``approximation`` holds grid values off the support and current values on it.
    sigma : Tensor of shape (p, p)
    free : Tensor of shape (q, p), bool

    Returns
    -------
    Tensor of shape (q, p)
        ``approximation`` with the entries of the support replaced.
    """
    gradient = (target - approximation) @ sigma
    counts = free.sum(1)
    polished = approximation.clone()
    for count in torch.unique(counts).tolist():
        if count == 0:
            continue
        rows = (counts == count).nonzero().squeeze(1)
        support = free[rows].nonzero()[:, 1].reshape(len(rows), count)
        inner = sigma[support[:, :, None], support[:, None, :]].double()
        right = gradient[rows[:, None], support].double()
        delta = torch.linalg.solve(inner, right.unsqueeze(2)).squeeze(2)
        polished[rows[:, None], support] += delta.to(polished.dtype)
    return polished
