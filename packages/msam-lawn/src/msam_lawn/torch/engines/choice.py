"""Which engine computes a step, and why.

The low-rank engine is taken where it is exact for the model and estimated to be cheaper than the loop. Exactness is
read off the layers and then checked on a few rows in the modes that train: the mSAM gradients of both, at a radius that
shows, must agree tensor by tensor, which fails when a weight is used outside its layer or rows of different
micro-batches meet. Costs are counted in multiply-adds of one step:

    loop        2 plain steps + M (traffic of the weights + calls of every layer)
    low rank    5/3 plain steps + sum over layers of min(3 M R^2 (d_in + d_out), forming) + calls of every layer,

a layer's part of a plain step being three products, forward and two backward; one that reads the model's inputs has
two, and in the low-rank engine two in all: its output of pass 1 serves in pass 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from msam_lawn.errors import EngineError, SettingsError
from msam_lawn.torch.containers import leaves, mapped
from msam_lawn.torch.engines.loop import Scaling, loop_gradient
from msam_lawn.torch.engines.low_rank import (
    LAYERS,
    TRAFFIC,
    low_rank_gradient,
    low_rank_refusal,
    rows_make_forming_cheap,
)
from msam_lawn.torch.engines.row_constant import row_constant_random
from msam_lawn.torch.engines.sink import Collected, Sink
from msam_lawn.torch.engines.vmap import vmap_gradient, vmap_refusal
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import left_as_found
from msam_lawn.torch.perturbation import Perturbation, global_norm

__all__ = ["ENGINES", "EngineChoice", "EngineName", "Plan", "choose_engine"]

EngineName = Literal["auto", "loop", "vmap", "low-rank"]
ENGINES: tuple[EngineName, ...] = ("auto", "loop", "vmap", "low-rank")

# Measured on a CPU: one weight written, read, normed and multiplied in small products costs as much as this many
# multiply-adds of a large product.
LOOP_TRAFFIC = 250.0
CALL = 1e5  # multiply-adds that one layer's calls in one micro-batch stand for
CONVOLUTION_CALL = 1e7  # a convolution's kernels are slower on few rows; twice in the loop, once in low rank
APART = 0.5  # forming a kernel's gradients apart from the backward pass reads everything again: in forward passes
PROBE_ROWS = 6
_CHECKED_AGAIN = {16**k for k in range(1, 8)}

Engine = Callable[[Objective, Perturbation, Scaling, nn.Module, Sink], torch.Tensor]


@dataclass(frozen=True)
class EngineChoice:
    """An engine and the reason for it."""

    engine: Literal["loop", "vmap", "low-rank"]
    reason: str


@dataclass
class Plan:
    """A choice, and what the check behind it learned.

    Attributes
    ----------
    choice : EngineChoice
    probed : tuple of torch.Size, or None
    probed_rows : int
        See ``Objective``.
    lasting : bool
        False where the check could not tell (its gradient was not finite).
    uses : int
        Steps since.
    """

    choice: EngineChoice
    probed: tuple[torch.Size, ...] | None = None
    probed_rows: int = 0
    lasting: bool = True
    uses: int = 0

    @property
    def is_due(self) -> bool:
        """Whether to check again, on other rows: at use 16, 256, 4096, ..."""
        return self.choice.engine != "loop" and self.uses in _CHECKED_AGAIN


def choose_engine(
    objective: Objective,
    perturbation: Perturbation,
    through: torch.nn.Module,
    requested: EngineName,
    first_row: int = 0,
) -> Plan:
    """The engine for this mini-batch's shape; the check takes its rows from ``first_row`` on.

    Raises
    ------
    EngineError
        If the engine that was asked for is not exact here.
    """
    if requested not in ENGINES:
        raise SettingsError(f"engine={requested!r} is unknown; use one of {', '.join(ENGINES)}")
    if requested == "loop":
        return Plan(EngineChoice("loop", "asked for"))
    if requested == "vmap":
        refusal = vmap_refusal(objective, perturbation, through)
        found = _Found(refusal) if refusal else _check(objective, perturbation, vmap_gradient, first_row)
        if found.refusal is not None:
            raise EngineError(f"engine='vmap': {found.refusal}; use engine='loop' or 'auto'")
        return Plan(EngineChoice("vmap", "asked for"), lasting=found.finite)
    refusal = low_rank_refusal(objective, perturbation)
    found = _Found(refusal) if refusal else _check(objective, perturbation, low_rank_gradient, first_row)
    if found.refusal is not None:
        if requested == "low-rank":
            raise EngineError(f"engine='low-rank': {found.refusal}; use engine='loop' or 'auto'")
        return Plan(EngineChoice("loop", f"the low-rank engine is not exact here: {found.refusal}"))
    if not found.finite and requested == "auto":
        return Plan(EngineChoice("loop", "gradients are not finite: nothing could be checked"), lasting=False)
    ratio = _low_rank_cost(found.seen, objective) / _loop_cost(found.seen, objective)
    estimate = f"low rank is estimated at {ratio:.2f} of the loop's cost for {len(objective.sizes)} micro-batches"
    if requested == "low-rank":
        choice = EngineChoice("low-rank", f"asked for; {estimate}")
    else:
        choice = EngineChoice("low-rank" if ratio < 1 else "loop", estimate)
    return Plan(choice, found.shapes, found.rows, found.finite)


@dataclass
class _Found:
    """What running a few rows showed."""

    refusal: str | None
    finite: bool = True
    seen: dict[nn.Module, _Seen] = field(default_factory=dict)
    shapes: tuple[torch.Size, ...] = ()
    rows: int = 0


def _check(objective: Objective, perturbation: Perturbation, engine: Engine, first_row: int) -> _Found:
    """Compare the engine's gradient of a few rows with the loop's, in the modes that train."""
    probe = _probe(objective, first_row)
    found = _Found(None, rows=probe.rows)
    weights = perturbation.parameters
    by_engine, by_loop = Collected(weights), Collected(weights)
    with left_as_found(objective.model, objective.loss), without_autocast(), torch.enable_grad():
        perturbed = _enlarged(perturbation)
        try:
            before = torch.get_rng_state()
            found.seen, found.shapes = _survey(probe)
            draws = not torch.equal(before, torch.get_rng_state())
            with row_constant_random() if draws else nullcontext():
                for run, sink in ((loop_gradient, by_loop), (engine, by_engine)):
                    run(probe, perturbed, lambda loss: loss, objective.model, sink)
        except EngineError as error:
            found.refusal = str(error)
            return found
        except Exception as error:
            found.refusal = f"on a few rows, {type(error).__name__}: {error}"
            return found
        present = [g for g in by_loop.gradients if g is not None]
        found.finite = bool(torch.isfinite(global_norm(present)))
        if found.finite:
            found.refusal = _difference(by_engine.gradients, by_loop.gradients)
    return found


def _difference(got: list[torch.Tensor | None], expected: list[torch.Tensor | None]) -> str | None:
    """Whether two gradients differ by more than rounding, tensor by tensor."""
    whole = float(global_norm([g.detach() for g in expected if g is not None]))
    for a, b in zip(got, expected, strict=True):
        if a is None and b is None:
            continue
        if a is None or b is None:
            return "it gives a gradient to a parameter that has none, or none to one that has"
        # a wrong structure is off by percents of the tensor, rounding by parts of the whole gradient
        share, floor = (1e-7, 1e-11) if b.dtype == torch.float64 else (1e-3, 1e-5)
        error, size = float((a - b).detach().norm()), float(b.detach().norm())
        if not error <= share * size + floor * whole:
            return (
                f"the gradient of a weight of shape {tuple(b.shape)} is off by {error / (size or whole or 1.0):.2g} of "
                "itself on a few rows: a weight is used outside its layer, or rows of different micro-batches meet"
            )
    return None


def _enlarged(perturbation: Perturbation) -> Perturbation:
    """The radius raised to a tenth of the weights' norm, so that what the perturbation does shows in the gradient."""
    reach = 0.1 * float(global_norm([w.detach() for w in perturbation.parameters]))
    factor = max(1.0, reach / max(perturbation.radii))
    return replace(perturbation, radii=[rho * factor for rho in perturbation.radii])


@contextmanager
def without_autocast() -> Iterator[None]:
    """Full precision: a structure that is right in it is right in 16 bits, where it could not be told from rounding."""
    cuda = torch.autocast("cuda", enabled=False) if torch.cuda.is_available() else nullcontext()
    with torch.autocast("cpu", enabled=False), cuda:
        yield


def _probe(objective: Objective, first_row: int) -> Objective:
    """A few rows, copied, in uneven micro-batches."""
    rows = min(objective.rows, PROBE_ROWS)
    first_row %= objective.rows - rows + 1
    cut = slice(first_row, first_row + rows)

    def copied(leaf: Any) -> Any:
        return leaf[cut].detach().clone().requires_grad_(leaf.requires_grad) if isinstance(leaf, torch.Tensor) else leaf

    return Objective(
        objective.model,
        mapped(copied, objective.inputs),
        mapped(copied, objective.targets),
        objective.loss,
        (1, 1) if rows == 2 else tuple(size for size in (rows - rows // 3 - rows // 6, rows // 3, rows // 6) if size),
        None if objective.weights is None else objective.weights[cut],
    )


@dataclass(frozen=True)
class _Seen:
    """What one row of the mini-batch is to a layer, and whether the layer reads the model's inputs."""

    vectors: int
    outputs: int
    first: bool


def _survey(probe: Objective) -> tuple[dict[nn.Module, _Seen], tuple[torch.Size, ...]]:
    """Run a few rows and note the shapes at every trained layer, and of the outputs."""
    seen: dict[nn.Module, _Seen] = {}
    given = {leaf.data_ptr() for leaf in leaves(probe.inputs) if isinstance(leaf, torch.Tensor)}

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        d_in = layer.in_features if isinstance(layer, nn.Linear) else 1
        vectors, first = inputs[0].numel() // d_in // probe.rows, inputs[0].data_ptr() in given
        seen[layer] = _Seen(vectors, output.numel() // probe.rows, first)

    trained = [
        m
        for m in probe.model.modules()
        if type(m) in LAYERS and any(w.requires_grad for w in m.parameters(recurse=False))
    ]
    handles = [layer.register_forward_hook(note) for layer in trained]
    try:
        with torch.no_grad():
            outputs = probe.outputs()
            probe.loss(outputs, probe.targets)
    finally:
        for handle in handles:
            handle.remove()
    return seen, tuple(leaf.shape for leaf in leaves(outputs) if isinstance(leaf, torch.Tensor))


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
