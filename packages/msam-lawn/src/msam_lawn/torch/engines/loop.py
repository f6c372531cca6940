"""The loop: one micro-batch after the other; works for every model.

For each micro-batch S_i: g_i = grad L_i(w) by ``autograd.grad`` (which leaves ``.grad`` alone), w + eps_i written into
the weights, grad of q_i L_i(w + eps_i) added to ``.grad``, weights copied back from a snapshot, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from msam_lawn.torch.distributed import without_reduction
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import RandomState, RunningStatistics
from msam_lawn.torch.perturbation import Perturbation

__all__ = ["kept_weights", "loop_gradient", "perturb", "write_back"]

Scaling = Callable[[torch.Tensor], torch.Tensor]


def loop_gradient(
    objective: Objective,
    perturbation: Perturbation,
    scaling: Scaling,
    through: torch.nn.Module,
) -> torch.Tensor:
    """Add the mSAM gradient to ``.grad``; returns the loss at the unperturbed weights.

    Parameters
    ----------
    objective : Objective
    perturbation : Perturbation
    scaling : callable
        Applied to every loss before its backward pass (accumulation share, gradient scaler).
    through : torch.nn.Module
        What the second pass calls: the model or its DistributedDataParallel wrapper.
    """
    weights = perturbation.parameters
    shares, slices = objective.shares(), objective.slices
    statistics, several = RunningStatistics(), len(slices) > 1
    loss = torch.zeros((), device=weights[0].device)
    with kept_weights(weights) as snapshot:
        for i, (share, rows) in enumerate(zip(shares, slices, strict=True)):
            random = RandomState.now()
            with statistics.observed(share) if several else nullcontext():
                clean = objective.mean_loss(rows)
                gradients = torch.autograd.grad(scaling(clean), weights, allow_unused=True)
            loss = loss + share * clean.detach()
            perturb(weights, perturbation.ascent(gradients))
            del gradients
            random.restore()
            last = i == len(slices) - 1
            with statistics.frozen(), nullcontext() if last else without_reduction(through):
                scaling(share * objective.mean_loss(rows, through)).backward()
            write_back(weights, snapshot)
    statistics.commit()
    return loss


@contextmanager
def kept_weights(weights: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Copies of the weights, written back bit for bit however the block ends."""
    with torch.no_grad():
        snapshot = [w.detach().clone() for w in weights]
    try:
        yield snapshot
    finally:
        write_back(weights, snapshot)


@torch.no_grad()
def write_back(weights: list[torch.Tensor], snapshot: list[torch.Tensor]) -> None:
    """Undo ``perturb``, bit for bit."""
    torch._foreach_copy_(weights, snapshot)
    torch.clear_autocast_cache()


@torch.no_grad()
def perturb(weights: list[torch.Tensor], ascent: list[tuple[torch.Tensor, torch.Tensor] | None]) -> None:
    """Add eps to the weights."""
    for weight, step in zip(weights, ascent, strict=True):
        if step is not None:
            weight.addcmul_(*step)
    torch.clear_autocast_cache()  # 16-bit copies of the old weights
