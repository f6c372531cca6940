"""The loop: one micro-batch after the other; works for every model.

For each micro-batch S_i: g_i = grad L_i(w) by ``autograd.grad`` (which leaves ``.grad`` alone), w + eps_i written into
the weights, grad of q_i L_i(w + eps_i) added to ``.grad``, weights copied back from a snapshot, bit for bit. A weight
that the first pass itself writes (the renormed rows of an Embedding with max_norm) stays as that pass left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from msam_lawn.errors import GradientError
from msam_lawn.torch.distributed import without_reduction
from msam_lawn.torch.engines.sink import Sink
from msam_lawn.torch.engines.structure import graph_nodes
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import RandomState, RunningStatistics, normalisations_of_compiled
from msam_lawn.torch.perturbation import Perturbation

__all__ = [
    "Scaling",
    "kept_weights",
    "loop_gradient",
    "micro_batches_in_turn",
    "perturb",
    "write_back",
]

Scaling = Callable[[torch.Tensor], torch.Tensor]


def loop_gradient(
    objective: Objective,
    perturbation: Perturbation,
    scaling: Scaling,
    through: torch.nn.Module,
    sink: Sink,
) -> torch.Tensor:
    """Give the mSAM gradient to ``sink``; returns the loss at the unperturbed weights.

    Parameters
    ----------
    objective : Objective
    perturbation : Perturbation
    scaling : callable
        Applied to every loss before its backward pass (accumulation share, gradient scaler).
    through : torch.nn.Module
        What the second pass calls: the model or its DistributedDataParallel wrapper.
    sink : Sink

    Raises
    ------
    GradientError
        If the loss depends on no parameter that moves, or the first pass writes into the mini-batch.
    """
    statistics = RunningStatistics(normalisations_of_compiled(objective.model))
    every = range(len(objective.sizes))
    loss = micro_batches_in_turn(objective, perturbation, scaling, through, sink, statistics, every)
    statistics.commit()
    return loss


def micro_batches_in_turn(
    objective: Objective,
    perturbation: Perturbation,
    scaling: Scaling,
    through: torch.nn.Module,
    sink: Sink,
    statistics: RunningStatistics,
    places: Sequence[int],
) -> torch.Tensor:
    """Some of the micro-batches, the last among them; their part of the loss. Averages are observed, not moved."""
    weights = perturbation.parameters
    shares, slices = objective.shares(), objective.slices
    several = len(slices) > 1
    loss = torch.zeros((), device=weights[0].device)
    versions, whole, from_numpy = objective.versions(), False, True
    with kept_weights(weights) as snapshot:
        for i in places:
            share, rows = shares[i], slices[i]
            random = RandomState.now(from_numpy)
            written = [w._version for w in weights]
            with statistics.observed(share) if several else nullcontext():
                clean = objective.mean_loss(rows)
                whole = whole or (i == places[0] and needs_whole_backward(clean))
                gradients = ascent_gradients(scaling(clean), weights, objective.model, whole=whole)
            objective.check_unwritten(versions)
            from_numpy = from_numpy and random.drew_from_numpy()  # told by the first micro-batch
            _keep_written(weights, snapshot, written)
            loss = loss + share * clean.detach()
            perturb(weights, perturbation.ascent(gradients))
            del gradients
            random.restore()
            last = i == len(slices) - 1
            with statistics.frozen(), nullcontext() if last else without_reduction(through):
                sink.backward(scaling(share * objective.mean_loss(rows, through)))
            write_back(weights, snapshot)
    return loss


def ascent_gradients(
    loss: torch.Tensor, weights: list[torch.Tensor], model: torch.nn.Module, *, whole: bool
) -> list[torch.Tensor | None]:
    """Gradients of the first pass; ``.grad`` stays as it is."""
    if not loss.requires_grad:
        raise GradientError(
            "the loss does not require a gradient: it depends on no trained parameter, or was computed without autograd"
        )
    if not whole:
        return list(torch.autograd.grad(loss, weights, allow_unused=True))
    touched = list({*weights, *model.parameters()})
    kept = [w.grad for w in touched]
    try:
        for w in touched:
            w.grad = None
        loss.backward()
        return [w.grad for w in weights]
    finally:
        for w, gradient in zip(touched, kept, strict=True):
            w.grad = gradient


def needs_whole_backward(loss: torch.Tensor) -> bool:
    """Whether reentrant checkpointing is in the graph: it has no gradients of chosen tensors, only whole passes."""
    return any(type(node).__name__ == "CheckpointFunctionBackward" for node in graph_nodes([loss.grad_fn]))


@torch.no_grad()
def _keep_written(weights: list[torch.Tensor], snapshot: list[torch.Tensor], versions: list[int]) -> None:
    for weight, kept, version in zip(weights, snapshot, versions, strict=True):
        if weight._version != version:
            kept.copy_(weight)


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
            direction, scale = step
            if direction.is_sparse:
                weight.add_(direction * scale)
            else:
                weight.addcmul_(direction, scale)
    torch.clear_autocast_cache()  # 16-bit copies of the old weights
