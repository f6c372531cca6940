"""Where an engine's gradients go: into ``.grad``, or into a list that a check compares."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["Collected", "IntoGrad", "Sink"]


class IntoGrad:
    """Added to ``.grad``, with everything that hangs on a backward pass (hooks, DistributedDataParallel)."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss."""
        loss.backward()

    def add(self, weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
        """Add gradients that are known already."""
        for w, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                w.grad = gradient if w.grad is None else w.grad + gradient


class Collected:
    """Summed apart; ``.grad`` and its hooks stay as they are.

    Attributes
    ----------
    gradients : list of tensor or None
        In the order of ``weights``.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self._weights = list(weights)
        self.gradients: list[torch.Tensor | None] = [None] * len(self._weights)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss."""
        self.add(self._weights, torch.autograd.grad(loss, self._weights, allow_unused=True))

    def add(self, weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
        """Add gradients that are known already; ``weights`` are those of the constructor."""
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                before = self.gradients[i]
                self.gradients[i] = gradient if before is None else before + gradient


Sink = IntoGrad | Collected
