"""Seeded layers that the tests share."""

from __future__ import annotations

import torch
from torch import Tensor


def layer(q: int, p: int, seed: int = 0, tokens: int | None = None, dead: int = 0) -> tuple[Tensor, Tensor]:
    """A float64 weight (q, p) and Sigma of correlated inputs of uneven size; ``dead`` inputs are never on."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = normal(p, p) * torch.logspace(0, -1, p, dtype=torch.float64)
    inputs = mixing @ normal(p, 4 * p if tokens is None else tokens)
    if dead:
        inputs[-dead:] = 0
    return normal(q, p), inputs @ inputs.T
