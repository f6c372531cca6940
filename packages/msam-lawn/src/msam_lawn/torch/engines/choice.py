"""Which engine computes a step, and why.

An engine beside the loop is taken where it is exact for the model and cheaper. Exactness is read off the layers and
then checked on a few rows in the modes that train: the mSAM gradients of both, at a radius that shows, must agree
tensor by tensor, which fails when a weight is used outside its layer or rows of different micro-batches meet. What is
cheaper is measured: every candidate takes the mini-batch at hand twice, thrown away, and the least CPU time wins; other
shapes of about the same size follow. The low-rank engine is left out of that, or taken at once, where its estimate is
clear:

    loop        2 plain steps + M (traffic of the weights + calls of every layer)
    low rank    5/3 plain steps + sum over layers of min(3 M R^2 (d_in + d_out), forming) + calls of every layer,

multiply-adds of one step, a layer's part of a plain step being three products, forward and two backward; one that
reads the model's inputs has two, and in the low-rank engine two in all: its output of pass 1 serves in pass 2. Under
``torch.use_deterministic_algorithms`` nothing is measured, so that a run repeats bit for bit: the estimate decides.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
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
from msam_lawn.torch.engines.stacked import stacked_gradient, stacked_refusal
from msam_lawn.torch.engines.structure import Structure
from msam_lawn.torch.engines.vmap import vmap_gradient, vmap_refusal
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import left_as_found
from msam_lawn.torch.perturbation import Perturbation, global_norm

__all__ = ["ENGINES", "EngineChoice", "EngineName", "Plan", "choose_engine", "engine_of", "input_elements"]

EngineName = Literal["auto", "loop", "vmap", "low-rank", "stacked"]
ENGINES: tuple[EngineName, ...] = ("auto", "loop", "vmap", "low-rank", "stacked")

# Measured on a CPU: one weight written, read, normed and multiplied in small products costs as much as this many
# multiply-adds of a large product.
LOOP_TRAFFIC = 250.0
CALL = 1e5  # multiply-adds that one layer's calls in one micro-batch stand for
CONVOLUTION_CALL = 1e7  # a convolution's kernels are slower on few rows; twice in the loop, once in low rank
APART = 0.5  # forming a kernel's gradients apart from the backward pass reads everything again: in forward passes
PROBE_ROWS = 6
EVEN_PROBE_ROWS = 12  # rows that a model sorts stay within micro-batches of two of 6 by chance once in 90 draws
OTHER_ROWS = (14, 11, 5, 3)  # where an axis that is no row has the number of the rows by chance, here it has not
CLEARLY_CHEAPER, CLEARLY_DEARER = (
    0.5,
    2.0,
)  # of the loop's cost, where the low-rank engine's estimate need not be measured
OUT_OF_THE_RUNNING = 1.5  # times the least: not measured again
_CHECKED_AGAIN = {16**k for k in range(1, 8)}

Engine = Callable[[Objective, Perturbation, Scaling, nn.Module, Sink], torch.Tensor]


@dataclass(frozen=True)
class EngineChoice:
    """An engine and the reason for it."""

    engine: Literal["loop", "vmap", "low-rank", "stacked"]
    reason: str
    group: int | None = None  # micro-batches that are stacked together


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
    structure : Structure
        Kinds of operations that the check saw.
    elements : int
        Of the inputs that the candidates were timed on; 0 where none were.
    uses : int
        Steps since.
    renewed : int
        How often a step met other operations, and the choice was made anew.
    """

    choice: EngineChoice
    probed: tuple[torch.Size, ...] | None = None
    probed_rows: int = 0
    lasting: bool = True
    structure: Structure = field(default_factory=Structure)
    elements: int = 0
    uses: int = 0
    renewed: int = 0

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
    known: EngineChoice | None = None,
) -> Plan:
    """The engine for this mini-batch's shape; the check takes its rows from ``first_row`` on.

    ``known`` is a choice that was timed on such a mini-batch: it is only checked.

    Raises
    ------
    EngineError
        If the engine that was asked for is not exact here.
    """
    if requested not in ENGINES:
        raise SettingsError(f"engine={requested!r} is unknown; use one of {', '.join(ENGINES)}")
    if requested == "loop":
        return Plan(EngineChoice("loop", "asked for"))
    if requested == "auto":
        return _chosen(objective, perturbation, through, first_row, known)
    found = _looked_at(requested, objective, perturbation, through, first_row)
    if found.refusal is not None:
        raise EngineError(f"engine={requested!r}: {found.refusal}; use engine='loop' or 'auto'")
    reason = "asked for"
    if requested == "low-rank":
        reason = f"asked for; {_estimate(found, objective)[1]}"
    return found.plan(EngineChoice(requested, reason))


def _chosen(
    objective: Objective, perturbation: Perturbation, through: nn.Module, first_row: int, known: EngineChoice | None
) -> Plan:
    """What "auto" takes."""
    look = partial(_looked_at, objective=objective, perturbation=perturbation, through=through, first_row=first_row)
    if known is not None:
        found = look(known.engine) if known.engine != "loop" else _Found(None)
        if found.refusal is None and found.finite:
            return found.plan(known)
        known = None
    low_rank = look("low-rank")
    if not low_rank.finite:
        return Plan(EngineChoice("loop", "gradients are not finite: nothing could be checked"), lasting=False)
    ratio, estimate = _estimate(low_rank, objective) if low_rank.refusal is None else (CLEARLY_DEARER, "")
    several = len(objective.sizes) > 1
    if low_rank.refusal is None and (ratio < CLEARLY_CHEAPER or not several or _repeatable()):
        return low_rank.plan(EngineChoice("low-rank" if ratio < 1 else "loop", estimate))
    left_out = [f"the low-rank engine is not exact here: {low_rank.refusal}"] if low_rank.refusal else []
    candidates = [(EngineChoice("loop", ""), _Found(None))]
    if ratio < CLEARLY_DEARER:
        candidates.append((EngineChoice("low-rank", ""), low_rank))
    if several and not _repeatable():
        stacked = look("stacked")
        if stacked.refusal is not None:
            left_out.append(f"the stacked engine is not: {stacked.refusal}")
        elif stacked.finite:
            groups = dict.fromkeys(max(2, len(objective.sizes) // parts) for parts in (1, 2))
            candidates += [(EngineChoice("stacked", "", group), stacked) for group in groups]
    if len(candidates) == 1:
        return Plan(EngineChoice("loop", "; ".join(left_out) or estimate))
    choice, found, table = _fastest(candidates, objective, perturbation)
    plan = found.plan(replace(choice, reason="; ".join([f"measured, of the least: {table}", *left_out])))
    plan.elements = input_elements(objective)
    return plan


def _repeatable() -> bool:
    return torch.are_deterministic_algorithms_enabled()


def input_elements(objective: Objective) -> int:
    """Numbers in the inputs of a mini-batch: what the time of a step goes by, for one model."""
    return sum(leaf.numel() for leaf in leaves(objective.inputs) if isinstance(leaf, torch.Tensor))


@dataclass
class _Found:
    """What running a few rows showed."""

    refusal: str | None
    finite: bool = True
    seen: dict[nn.Module, _Seen] = field(default_factory=dict)
    shapes: tuple[torch.Size, ...] | None = None
    rows: int = 0
    structure: Structure = field(default_factory=Structure)
    differs: bool = False

    def plan(self, choice: EngineChoice) -> Plan:
        """A plan that knows what the check learned."""
        return Plan(choice, self.shapes, self.rows, self.finite, self.structure)


def engine_of(choice: EngineChoice) -> Engine:
    """The function that computes a step."""
    if choice.engine == "stacked":
        return partial(stacked_gradient, group=choice.group)
    return {"loop": loop_gradient, "vmap": vmap_gradient, "low-rank": low_rank_gradient}[choice.engine]


def _looked_at(
    engine: str, objective: Objective, perturbation: Perturbation, through: nn.Module, first_row: int
) -> _Found:
    """Whether an engine is exact here."""
    if engine == "vmap":
        refusal = vmap_refusal(objective, perturbation, through)
    elif engine == "stacked":
        refusal = stacked_refusal(objective, perturbation)
    else:
        refusal = low_rank_refusal(objective, perturbation)
    if refusal:
        return _Found(refusal)
    choice = EngineChoice(engine, "")  # type: ignore[arg-type]
    return _check(objective, perturbation, engine_of(choice), first_row, engine == "stacked")


def _estimate(found: _Found, objective: Objective) -> tuple[float, str]:
    ratio = _low_rank_cost(found.seen, objective) / _loop_cost(found.seen, objective)
    return ratio, f"low rank is estimated at {ratio:.2f} of the loop's cost for {len(objective.sizes)} micro-batches"


def _fastest(
    candidates: list[tuple[EngineChoice, _Found]], objective: Objective, perturbation: Perturbation
) -> tuple[EngineChoice, _Found, str]:
    """The candidate that takes the mini-batch in the least time, and a table of all."""
    times: list[float] = [0.0] * len(candidates)
    with left_as_found(objective.model, objective.loss), torch.enable_grad():
        for turn in range(2):  # the first warms up: kernels, pages
            for i, (choice, found) in enumerate(candidates):
                if turn and times[i] > OUT_OF_THE_RUNNING * min(times):
                    continue
                spent = _timed(choice, found, objective, perturbation)
                times[i] = min(times[i], spent) if turn else spent
    best = min(times)
    if best == float("inf"):
        return *candidates[0], "nothing could be timed"
    rows = [f"{_label(choice)} {time / best:.2f}" for (choice, _), time in zip(candidates, times, strict=True)]
    return *candidates[times.index(best)], ", ".join(rows)


def _timed(choice: EngineChoice, found: _Found, objective: Objective, perturbation: Perturbation) -> float:
    objective = replace(objective, probed=found.shapes, probed_rows=found.rows, structure=found.structure)
    device = perturbation.parameters[0].device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    _finish(device)
    start = clock()
    try:
        sink = Collected(perturbation.parameters)
        engine_of(choice)(objective, perturbation, lambda loss: loss, objective.model, sink)
    except EngineError:
        return float("inf")
    _finish(device)
    return clock() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _label(choice: EngineChoice) -> str:
    return choice.engine if choice.group is None else f"{choice.engine} by {choice.group}"


def _check(objective: Objective, perturbation: Perturbation, engine: Engine, first_row: int, even: bool) -> _Found:
    """Compare the engine's gradient of a few rows with the loop's, in the modes that train."""
    probe = _probe(objective, first_row, even, EVEN_PROBE_ROWS if even else PROBE_ROWS)
    if even:
        for rows in [rows for rows in OTHER_ROWS if rows <= objective.rows][:2]:
            other = _probe(objective, 0, even, rows)
            with left_as_found(probe.model, probe.loss), without_autocast(), contextlib.suppress(Exception):
                engine(other, perturbation, lambda loss: loss, probe.model, Collected(perturbation.parameters))
            probe.structure.learn(other.structure.axes)
    found = _compared(probe, perturbation, engine)
    if found.differs and any(w.dtype == torch.float32 for w in perturbation.parameters):
        with contextlib.suppress(Exception):  # a kink within rounding, or another gradient? A copy in 64 bits tells
            if _compared(*_doubled(probe, perturbation), engine).refusal is None:
                found.refusal = None
    found.structure.close()
    return found


def _compared(probe: Objective, perturbation: Perturbation, engine: Engine) -> _Found:
    found = _Found(None, rows=probe.rows, structure=probe.structure)
    weights = perturbation.parameters
    by_engine, by_loop = Collected(weights), Collected(weights)
    with left_as_found(probe.model, probe.loss), torch.enable_grad():
        perturbed = _enlarged(perturbation)
        if torch.is_autocast_enabled(weights[0].device.type):  # what runs in 16 bits is told from what runs in 32
            with contextlib.suppress(Exception):
                engine(probe, perturbed, lambda loss: loss, probe.model, Collected(weights))
    with left_as_found(probe.model, probe.loss), without_autocast(), torch.enable_grad():
        try:
            before = torch.get_rng_state()
            found.seen, found.shapes = _survey(probe)
            draws = not torch.equal(before, torch.get_rng_state())
            with row_constant_random() if draws else nullcontext():
                for run, sink in ((loop_gradient, by_loop), (engine, by_engine)):
                    run(probe, perturbed, lambda loss: loss, probe.model, sink)
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
            found.differs = found.refusal is not None
    return found


def _doubled(probe: Objective, perturbation: Perturbation) -> tuple[Objective, Perturbation]:
    """A copy of the model and the rows in 64 bits; the model itself stays as it is, its gradient hooks included."""
    copies: dict[int, Any] = {}
    model = copy.deepcopy(probe.model, copies).double()
    loss = copy.deepcopy(probe.loss, copies).double() if isinstance(probe.loss, nn.Module) else probe.loss
    moved = [copies[id(w)] for w in perturbation.parameters]
    structure = Structure()
    for (name, met, count), leading in probe.structure.axes.items():
        structure.axes[name, tuple(id(copies[key]) if key in copies else key for key in met), count] = leading

    def double(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32 else leaf

    inputs, targets, weights = (mapped(double, tree) for tree in (probe.inputs, probe.targets, probe.weights))
    rows = replace(probe, model=model, loss=loss, inputs=inputs, targets=targets, weights=weights, structure=structure)
    return rows, replace(perturbation, parameters=moved)


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


def _probe(objective: Objective, first_row: int, even: bool, rows: int) -> Objective:
    """A few rows, copied, in uneven micro-batches, or in even ones; a mini-batch of so few is cut as it is."""
    rows = min(objective.rows, rows)
    first_row %= objective.rows - rows + 1
    cut = slice(first_row, first_row + rows)

    def copied(leaf: Any) -> Any:
        return leaf[cut].detach().clone().requires_grad_(leaf.requires_grad) if isinstance(leaf, torch.Tensor) else leaf

    return Objective(
        objective.model,
        mapped(copied, objective.inputs),
        mapped(copied, objective.targets),
        objective.loss,
        objective.sizes if rows == objective.rows and not even else _probe_sizes(rows, even),
        None if objective.weights is None else objective.weights[cut],
    )


def _probe_sizes(rows: int, even: bool) -> tuple[int, ...]:
    """Sizes of the check's micro-batches: 6 rows as (2, 2, 1, 1), 12 even ones as six times 2.

    Neighbours of one size show what a model keeps from one micro-batch to the next.
    """
    if even:
        each = 2 if rows % 2 == 0 and rows > 2 else 1
        return (each,) * (rows // each)
    twos = max(0, (rows - 2) // 2)
    return (2,) * twos + (1,) * (rows - 2 * twos)


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
