"""Plans: which treatment each FFN gets, chosen for a budget and written as JSON.

Options of each layer are fitted and their error measured on held-out statistics, in the metric of the loss gradient
where that was collected:

    error = 1/2 E[(y' - y)^T G (y' - y)],   G = E[g g^T],

the second-order estimate of the loss they add. ``allocate`` then spends the bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from papershelf_core import files
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN, find_ffns
from ffn_heavyhitter.allocate import Option, allocate
from ffn_heavyhitter.compression import Treatment
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import CompressedFeedForward, run_neurons, widened
from ffn_heavyhitter.narrow import Narrow, compensated, removal_error
from ffn_heavyhitter.probe import checked
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.sensitivity import Sensitivity
from ffn_heavyhitter.statistics import Batch, LayerStatistics, Statistics
from ffn_heavyhitter.treatments import TREATMENTS
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["Plan", "plan_budget", "plan_widths", "tuned_ridge"]

_SCHEMA = 1
_SIZES = ("ffn_bytes", "model_bytes", "dense_bytes")


@dataclass(frozen=True)
class Plan:
    """A treatment for each FFN.

    Attributes
    ----------
    treatments : dict[str, Treatment]
        By the FFN's name.
    ffn_bytes : int
        Bytes of all treated FFNs.
    model_bytes : int
        Bytes of the whole model's tensors.
    dense_bytes : int
        The same before.
    """

    treatments: dict[str, Any]
    ffn_bytes: int
    model_bytes: int
    dense_bytes: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all."""
        named = {cls: key for key, cls in TREATMENTS.items()}
        document = {
            "schema": _SCHEMA,
            "ffn_bytes": self.ffn_bytes,
            "model_bytes": self.model_bytes,
            "dense_bytes": self.dense_bytes,
            "treatments": {name: {"kind": named[type(t)], **asdict(t)} for name, t in self.treatments.items()},
        }
        files.write_text(path, json.dumps(document, indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read what ``save`` wrote.

        Raises
        ------
        CompressionError
            If the file is no plan of a schema and kinds that this version knows, with every field of its type; names
            the field.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CompressionError(f"{path} is no JSON: {error}; write a plan with: ffn-heavyhitter plan") from error
        if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
            raise CompressionError(f"{path} is no plan of schema {_SCHEMA}; write one with: ffn-heavyhitter plan")
        sizes: list[Any] = [document.get(name) for name in _SIZES]
        for name, size in zip(_SIZES, sizes, strict=True):
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise CompressionError(f"{path}: {name}={size!r} must be a number of bytes")
        given = document.get("treatments")
        if not isinstance(given, dict) or not given:
            raise CompressionError(f"{path}: treatments={given!r} must name an FFN at least, each with its treatment")
        unknown = sorted(document.keys() - {"schema", "treatments", *_SIZES})
        if unknown:
            raise CompressionError(f"{path}: unknown field {', '.join(unknown)}")
        return cls({name: _treatment(f"{path}: {name}", entry) for name, entry in given.items()}, *sizes)

    @classmethod
    def of(cls, model: nn.Module, treatment: Treatment | Mapping[str, Treatment]) -> Plan:
        """A plan from one treatment for all FFNs, or one for each, with the bytes it will take."""
        weights = {ffn.name: ffn.weights() for ffn in find_ffns(model)}
        chosen = dict(treatment) if isinstance(treatment, Mapping) else dict.fromkeys(weights, treatment)
        unknown = sorted(chosen.keys() - weights.keys())
        if unknown:
            raise CompressionError(f"the plan names {unknown}, which are no FFNs of this model; it has {list(weights)}")
        dense = sum(t.numel() * t.element_size() for t in {id(p): p for p in model.parameters()}.values())
        ffn_bytes = sum(way.bytes(weights[name]) for name, way in chosen.items())
        return cls(chosen, ffn_bytes, dense - sum(_dense_bytes(weights[n]) for n in chosen) + ffn_bytes, dense)


def _treatment(place: str, entry: Any) -> Any:
    """A treatment from its entry in a plan."""
    if not isinstance(entry, dict):
        raise CompressionError(f"{place}: {entry!r} is no treatment; it needs a kind and its fields")
    kind = entry.get("kind")
    if kind not in TREATMENTS:
        raise CompressionError(f"{place}: kind={kind!r} is none of {', '.join(TREATMENTS)}")
    way, given = TREATMENTS[kind], {name: value for name, value in entry.items() if name != "kind"}
    hints = get_type_hints(way)
    for name, value in given.items():
        if name not in hints:
            raise CompressionError(f"{place}: {kind} has no field {name!r}; it has {', '.join(hints)}")
        if not _is_of(value, hints[name]):
            raise CompressionError(f"{place}: {name}={value!r} does not fit {kind}'s {name}")
    missing = [f.name for f in fields(way) if f.default is MISSING and f.name not in given]
    if missing:
        raise CompressionError(f"{place}: {kind} needs {', '.join(missing)}")
    try:
        return way(**given)
    except ValueError as error:
        raise CompressionError(f"{place}: {error}") from error


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a field's type: a class, a union or some literals."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_args(hint):
        return any(_is_of(value, part) for part in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint


def plan_widths(
    model: nn.Module,
    fit: Statistics,
    held_out: Statistics,
    *,
    share: float,
    template: Narrow,
    multiple: int = 64,
    smallest: float = 0.5,
    measured_on: Iterable[Batch] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Give each layer its own width, at a share of all neurons.

    Parameters
    ----------
    model : nn.Module
    fit, held_out : Statistics
        With second moments, from different tokens: compensation is fitted on one, errors are measured on the other.
        Where ``fit`` holds gradients, errors count in their metric.
    share : float
        Neurons to keep over all layers, inside (0, 1).
    template : Narrow
        Everything but the width.
    multiple : int
        Widths are multiples of this.
    smallest : float
        Least share of a layer that may be kept.
    measured_on : iterable of batches, optional
        Held-out tokens on which each layer is run once at the template's width, all others dense: its errors are scaled
        to the divergence found there. Costs a pass over these tokens a layer.
    progress : callable, optional
        Called with each FFN's name.

    Returns
    -------
    Plan
    """
    if not smallest <= share < 1:
        raise ValueError(f"share={share} must be between smallest={smallest} and 1")
    ffns = {ffn.name: ffn for ffn in checked(model, find_ffns(model))}
    sensitivity = None if measured_on is None else Sensitivity(model, measured_on)
    options, total = {}, 0
    for name, ffn in ffns.items():
        if progress is not None:
            progress(name)
        width, layer = ffn.weights().width, fit.layers[name]
        widths = {*range(-(-int(smallest * width) // multiple) * multiple, width + 1, multiple), width}
        errors = _errors_by_width(ffn, layer, held_out.layers[name], template, widths | {template.width})
        scale = 1.0
        if sensitivity is not None and errors[template.width] > 0:
            scale = sensitivity.of(ffn, template.apply(ffn, layer).eval()) / errors[template.width]
        options[name] = [Option(str(w), w, scale * errors[w]) for w in widths]
        total += width
    chosen = allocate(options, int(share * total)).chosen
    return Plan.of(model, {name: replace(template, width=int(option.label)) for name, option in chosen.items()})


def _errors_by_width(
    ffn: FFN, fit: LayerStatistics, held_out: LayerStatistics, template: Narrow, widths: Iterable[int]
) -> dict[int, float]:
    """Held-out output error of one FFN narrowed to each of some widths."""
    weights = ffn.weights()
    order_by = score(template.score, fit, weights)
    metric = None if fit.gradient_moment is None else fit.gradient_moment / fit.tokens / 2
    errors = {}
    for width in widths:
        order = heavy_first(order_by, width)
        narrow = compensated(weights, order, width, fit, replace(template, width=width))
        errors[width] = max(removal_error(weights, order, narrow, held_out, metric), 0.0)
    return errors


def tuned_ridge(
    model: nn.Module,
    template: Narrow,
    fit: Statistics,
    held_out: Statistics,
    candidates: Sequence[float] = (0.01, 0.05, 0.2, 1.0, 5.0),
) -> dict[str, Narrow]:
    """For each layer the ridge with the least error on held-out tokens, never on those it was fitted on.

    Parameters
    ----------
    model : nn.Module
    template : Narrow
    fit, held_out : Statistics
        With second moments, from different tokens.
    candidates : sequence of float

    Returns
    -------
    dict of FFN name to Narrow
    """
    found = {}
    for ffn in find_ffns(model):
        weights, layer, other = ffn.weights(), fit.layers[ffn.name], held_out.layers[ffn.name]
        order = heavy_first(score(template.score, layer, weights), template.width)
        errors = {}
        for ridge in candidates:
            way = replace(template, ridge=ridge)
            errors[ridge] = removal_error(weights, order, compensated(weights, order, way.width, layer, way), other)
        found[ffn.name] = replace(template, ridge=min(errors, key=lambda ridge: errors[ridge]))
    return found


def plan_budget(
    model: nn.Module,
    statistics: Statistics,
    held_out: Iterable[Batch],
    options: Sequence[Treatment],
    budget: int,
    measured_on: Iterable[Batch] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Give each layer one of several treatments, within a budget for the whole model.

    Parameters
    ----------
    model : nn.Module
        Dense.
    statistics : Statistics
        With whatever the options need; where it holds gradients, errors count in their metric.
    held_out : iterable of batches
        Tokens that the statistics have not seen, on which every option of every layer is run.
    options : sequence of Treatment
        What each layer may get.
    budget : int
        Bytes of the whole model's tensors.
    measured_on : iterable of batches, optional
        Held-out tokens on which each layer is run once with the first option, all others dense: its errors are scaled
        to the divergence found there. Costs a pass over these tokens a layer.
    progress : callable, optional
        Called with each FFN's name.

    Returns
    -------
    Plan

    Raises
    ------
    BudgetError
        If the smallest options exceed the budget.
    """
    ffns = {ffn.name: ffn for ffn in checked(model, find_ffns(model))}
    statistics.check(model)
    inputs = captured_inputs(model, held_out)
    rest = Plan.of(model, {}).dense_bytes - sum(_dense_bytes(ffn.weights()) for ffn in ffns.values())
    sensitivity = None if measured_on is None else Sensitivity(model, measured_on)
    table = {}
    for name, ffn in ffns.items():
        if progress is not None:
            progress(name)
        layer = statistics.layers[name]
        modules = [way.apply(ffn, layer).eval() for way in options]
        errors = _output_errors(modules, ffn, layer, inputs[name])
        scale = 1.0 if sensitivity is None or not errors[0] else sensitivity.of(ffn, modules[0]) / errors[0]
        sizes = [way.bytes(ffn.weights()) for way in options]
        table[name] = [Option(str(i), size, scale * e) for i, (size, e) in enumerate(zip(sizes, errors, strict=True))]
    chosen = allocate(table, budget - rest).chosen
    return Plan.of(model, {name: options[int(option.label)] for name, option in chosen.items()})


def captured_inputs(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """What each FFN reads on the tokens of some batches, first tokens and padding left out, shape (tokens, d) each."""
    found: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        wanted = torch.empty(0)
        for ffn in find_ffns(model):

            def keep(module: nn.Module, arguments: tuple[Tensor, ...], name: str = ffn.name) -> None:
                x = arguments[0]
                found.setdefault(name, []).append(x.reshape(-1, x.shape[-1])[wanted])

            stack.callback(ffn.up.register_forward_pre_hook(keep).remove)
        with torch.no_grad():
            for batch in batches:
                mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
                wanted = (mask & (mask.cumsum(1) > 1)).reshape(-1)
                model(**batch)
    return {name: torch.cat(rows) for name, rows in found.items()}


def _output_errors(
    modules: Sequence[CompressedFeedForward], ffn: FFN, layer: LayerStatistics, x: Tensor
) -> list[float]:
    """Mean of 1/2 |G^(1/2) (y' - y)|^2 over tokens for each module; without gradients G = 2."""
    weights, activation = widened(ffn.weights()), ffn.activation
    x = x.to(weights.up.dtype)
    identity = torch.eye(weights.hidden_size, dtype=torch.float64)
    metric = identity if layer.gradient_moment is None else layer.gradient_moment / layer.tokens / 2
    errors = []
    with torch.no_grad():
        exact = nn.functional.linear(run_neurons(weights, activation, x), weights.down, weights.down_bias)
        for module in modules:
            balance = getattr(module, "balance", None)
            change = (module(x if balance is None else x / balance) - exact).double()
            errors.append(float(((change @ metric) * change).sum(1).mean()))
    return errors


def _dense_bytes(weights: FFNWeights) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.tensors().values())
