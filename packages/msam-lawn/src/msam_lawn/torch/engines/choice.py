"""Which engine computes a step, and why.

The low-rank engine is taken where it is exact for the model and estimated to be cheaper than the loop. Exactness is
read off the layers and then checked on a few rows: the norms ||g_i|| of both must agree, which fails when a weight is
used outside its layer or the loss couples micro-batches. Costs are counted in multiply-adds of one step:

    loop        2 plain steps + M (traffic of the weights + calls of every layer)
    low rank    5/3 plain steps + sum over layers of min(3 M R^2 (d_in + d_out), forming) + calls of every layer,

a layer's part of a plain step being three products, forward and two backward; one that reads the model's inputs has
two, and in the low-rank engine two in all: its output of pass 1 serves in pass 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from msam_lawn.errors import EngineError, SettingsError
from msam_lawn.torch.engines.low_rank import TRAFFIC, low_rank_refusal, micro_batch_norms, rows_make_forming_cheap
from msam_lawn.torch.engines.vmap import vmap_refusal
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import evaluation_mode
from msam_lawn.torch.perturbation import Perturbation, global_norm

__all__ = ["ENGINES", "EngineChoice", "EngineName", "choose_engine"]

EngineName = Literal["auto", "loop", "vmap", "low-rank"]
ENGINES: tuple[EngineName, ...] = ("auto", "loop", "vmap", "low-rank")

# Measured on a CPU: one weight written, read, normed and multiplied in small products costs as much as this many
# multiply-adds of a large product.
LOOP_TRAFFIC = 250.0
CALL = 1e5  # multiply-adds that one layer's calls in one micro-batch stand for
CONVOLUTION_CALL = 1e7  # a convolution's kernels are slower on few rows; twice in the loop, once in low rank
APART = 0.5  # forming a kernel's gradients apart from the backward pass reads everything again: in forward passes
PROBE_ROWS = 6


@dataclass(frozen=True)
class EngineChoice:
    """An engine and the reason for it."""

    engine: Literal["loop", "vmap", "low-rank"]
    reason: str


def choose_engine(
    objective: Objective,
    perturbation: Perturbation,
    through: torch.nn.Module,
    requested: EngineName,
) -> EngineChoice:
    """The engine for this mini-batch's shape.

    Raises
    ------
    EngineError
        If the engine that was asked for is not exact here.
    """
    if requested not in ENGINES:
        raise SettingsError(f"engine={requested!r} is unknown; use one of {', '.join(ENGINES)}")
    if requested == "loop":
        return EngineChoice("loop", "asked for")
    if requested == "vmap":
        refusal = vmap_refusal(objective, perturbation, through)
        if refusal is not None:
            raise EngineError(f"engine='vmap': {refusal}; use engine='loop' or 'auto'")
        return EngineChoice("vmap", "asked for")
    refusal = low_rank_refusal(objective, perturbation) or _disagreement(objective, perturbation)
    if refusal is not None:
        if requested == "low-rank":
            raise EngineError(f"engine='low-rank': {refusal}; use engine='loop' or 'auto'")
        return EngineChoice("loop", f"the low-rank engine is not exact here: {refusal}")
    seen = _survey(objective)
    ratio = _low_rank_cost(seen, objective) / _loop_cost(seen, objective)
    estimate = f"low rank is estimated at {ratio:.2f} of the loop's cost for {len(objective.sizes)} micro-batches"
    if requested == "low-rank":
        return EngineChoice("low-rank", f"asked for; {estimate}")
    return EngineChoice("low-rank" if ratio < 1 else "loop", estimate)


def _disagreement(objective: Objective, perturbation: Perturbation) -> str | None:
    """Compare the norms of a few rows' gradients with autograd's, in evaluation mode."""
    probe = _probe(objective)
    try:
        with evaluation_mode(objective.model):
            return _norms_disagree(probe, perturbation)
    except EngineError as error:
        return str(error)


def _norms_disagree(probe: Objective, perturbation: Perturbation) -> str | None:
    norms = micro_batch_norms(probe, perturbation)
    for norm, part in zip(norms, probe.slices, strict=True):
        gradients = torch.autograd.grad(probe.mean_loss(part), perturbation.parameters, allow_unused=True)
        moving = [g for g, rho in zip(gradients, perturbation.radii, strict=True) if g is not None and rho]
        expected = global_norm(moving)
        if not torch.isfinite(expected):
            continue
        # wrong structure is off by percents
        tolerance = 1e-6 if expected.dtype == torch.float64 else 1e-3
        if torch.is_autocast_enabled(expected.device.type):
            tolerance = 0.05
        if abs(float(norm - expected)) > tolerance * float(expected) + 1e-9:
            return (
                f"its gradient norm is {float(norm):.6g}, autograd's {float(expected):.6g}: a weight is used outside "
                "its layer, or rows of different micro-batches meet"
            )
    return None


def _probe(objective: Objective) -> Objective:
    """The first few rows, in uneven micro-batches."""
    rows = min(objective.rows, PROBE_ROWS)
    cut = slice(0, rows)
    return Objective(
        objective.model,
        objective.cut(objective.inputs, cut),
        objective.cut(objective.targets, cut),
        objective.loss,
        tuple(size for size in (rows - rows // 3 - rows // 6, rows // 3, rows // 6) if size),
        None if objective.weights is None else objective.weights[cut],
    )


@dataclass(frozen=True)
class _Seen:
    """What one row of the mini-batch is to a layer, and whether the layer reads the model's inputs."""

    vectors: int
    outputs: int
    first: bool


def _survey(objective: Objective) -> dict[nn.Module, _Seen]:
    """Run a few rows and note the shapes at every trained layer."""
    probe, seen = _probe(objective), {}
    given = {leaf.data_ptr() for leaf in tree_leaves(probe.inputs) if isinstance(leaf, torch.Tensor)}

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        d_in = layer.in_features if isinstance(layer, nn.Linear) else 1
        vectors, first = inputs[0].numel() // d_in // probe.rows, inputs[0].data_ptr() in given
        seen[layer] = _Seen(vectors, output.numel() // probe.rows, first)

    trained = [m for m in objective.model.modules() if any(w.requires_grad for w in m.parameters(recurse=False))]
    handles = [layer.register_forward_hook(note) for layer in trained]
    try:
        with evaluation_mode(objective.model), torch.no_grad():
            probe.outputs()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _loop_cost(seen: dict[nn.Module, _Seen], objective: Objective) -> float:
    plain = sum((2 if row.first else 3) * _multiply_adds(layer, row) for layer, row in seen.items()) * objective.rows
    weights = sum(w.numel() for layer in seen for w in layer.parameters(recurse=False))
    calls = sum(2 * CONVOLUTION_CALL if isinstance(layer, _CONVOLUTIONS) else CALL for layer in seen)
    return 2 * plain + len(objective.sizes) * (LOOP_TRAFFIC * weights + calls)


def _low_rank_cost(seen: dict[nn.Module, _Seen], objective: Objective) -> float:
    count, cost = len(objective.sizes), 0.0
    for layer, row in seen.items():
        forward = _multiply_adds(layer, row) * objective.rows
        products = 5 if not row.first else 2 if isinstance(layer, nn.Linear) else 3
        cost += products * forward + 2 * CALL
        if isinstance(layer, nn.Linear):
            d_in, d_out, each = layer.in_features, layer.out_features, max(objective.sizes) * row.vectors
            if rows_make_forming_cheap(each, d_in, d_out):
                cost += count * d_in * d_out * (3.0 * each + TRAFFIC)
            else:
                cost += 3.0 * count * each * each * (d_in + d_out)
        elif isinstance(layer, _CONVOLUTIONS):
            cost += (1 + APART) * forward + count * (TRAFFIC * layer.weight.numel() + CONVOLUTION_CALL)
    return cost


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _multiply_adds(layer: nn.Module, row: _Seen) -> float:
    """Forward pass of one row."""
    if isinstance(layer, nn.Linear):
        return float(row.vectors * layer.in_features * layer.out_features)
    return float(row.outputs * layer.weight[0].numel()) if isinstance(layer, _CONVOLUTIONS) else float(row.outputs)
