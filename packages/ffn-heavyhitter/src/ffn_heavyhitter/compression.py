"""Compress a model in place, and merge it back.

``compress`` replaces every FFN by what a treatment makes of it; ``merge`` puts dense layers back, exactly for an exact
split, as dense approximations otherwise.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from ffn_heavyhitter.adapters import FFN, find_ffns, require_dense
from ffn_heavyhitter.errors import CalibrationError, CompressionError, FFNWarning
from ffn_heavyhitter.feedforward import CompressedFeedForward, compressed_ffns
from ffn_heavyhitter.int8_linear import int8_modules
from ffn_heavyhitter.probe import checked
from ffn_heavyhitter.statistics import LayerStatistics, Statistics
from ffn_heavyhitter.validation import require_eval
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["Treatment", "compress", "halve", "merge"]

Model = TypeVar("Model", bound=nn.Module)
ENOUGH = 8  # calibration tokens for each neuron: with fewer, fits win on their own tokens and lose on others


class Treatment(Protocol):
    """A way to rewrite one FFN."""

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes of the tensors that ``apply`` will store."""
        ...

    def apply(self, ffn: FFN, layer: LayerStatistics) -> CompressedFeedForward:
        """The rewritten FFN."""
        ...

    def least_tokens(self, weights: FFNWeights) -> int:
        """Calibration tokens below which a second moment it inverts is singular by count; 0 where it takes none."""
        ...


def compress(
    model: Model,
    treatment: Treatment | Mapping[str, Treatment],
    statistics: Statistics,
    progress: Callable[[str], None] | None = None,
) -> Model:
    """Rewrite the FFNs of a model in place.

    Parameters
    ----------
    model : nn.Module
        Dense, in eval mode. It is changed only after every FFN has been rewritten without an error.
    treatment : Treatment or mapping of FFN name to Treatment
        One for all FFNs, or one for each; FFNs that a mapping leaves out stay dense.
    statistics : Statistics
        Collected on this model.
    progress : callable, optional
        Called with each FFN's name.

    Returns
    -------
    nn.Module
        The same model.

    Raises
    ------
    CalibrationError
        If the statistics hold fewer tokens than what is fitted on them has unknowns; ``FFNWarning`` below eight a
        neuron.
    CompressionError
        If the model is compressed already, in training mode, a name is not one of its FFNs, or the result is beyond
        the model's dtype.
    UnsupportedArchitectureError
        If an FFN computes something else than its adapter says.
    StatisticsError
        If the statistics belong to another model or lack what the treatment needs.
    """
    require_eval(model)
    found = find_ffns(model)
    require_dense(found)
    statistics.check(model)
    ffns = {ffn.name: ffn for ffn in checked(model, found)}
    chosen = dict(treatment) if isinstance(treatment, Mapping) else dict.fromkeys(ffns, treatment)
    unknown = sorted(chosen.keys() - ffns.keys())
    if unknown:
        raise CompressionError(f"treatment names {unknown}, which are no FFNs of this model; it has {list(ffns)}")
    _require_tokens(chosen, ffns, statistics)
    rewritten: dict[str, CompressedFeedForward] = {}
    with torch.no_grad():
        for name, way in chosen.items():
            if progress is not None:
                progress(name)
            rewritten[name] = way.apply(ffns[name], statistics.layers[name]).eval()
            rewritten[name].require_finite(name)
    for name, module in rewritten.items():
        module.settle(ffns[name])
        module.original = ffns[name].install(module)
    if not _as_plain_model(model, list(ffns.values())) and hasattr(model, "config"):
        from ffn_heavyhitter.plugin import mark_compressed

        mark_compressed(model)
    return model


def _require_tokens(chosen: Mapping[str, Treatment], ffns: Mapping[str, FFN], statistics: Statistics) -> None:
    """Refuse second moments of too few tokens, and warn of few."""
    few = {}
    for name, way in chosen.items():
        weights, tokens = ffns[name].weights(), statistics.layers[name].tokens
        least = way.least_tokens(weights)
        if tokens < least:
            raise CalibrationError(
                f"{name}: {tokens} calibration tokens leave the moments that {type(way).__name__} fits singular; "
                f"it needs {least} at the least, and {ENOUGH * weights.width} are advised"
            )
        if least and tokens < ENOUGH * weights.width:
            few[name] = tokens
    if few:
        name, tokens = next(iter(few.items()))
        warnings.warn(
            f"{len(few)} FFNs are fitted on {tokens} calibration tokens; {ENOUGH} for each neuron, "
            f"{ENOUGH * ffns[name].weights().width} for {name}, are advised: judge the model on other text",
            FFNWarning,
            stacklevel=3,
        )


def _as_plain_model(model: nn.Module, ffns: list[FFN]) -> bool:
    """Write narrow FFNs of one width as dense layers, where the model's own config can say so."""
    compressed = compressed_ffns(model)
    top: Any = getattr(model, "config", None)
    config: Any = top.get_text_config() if hasattr(top, "get_text_config") else top
    narrow = len(compressed) == len(ffns) and all(module.kind == "narrow" for module in compressed.values())
    fields = {ffn.layout.width_field for ffn in ffns}
    if config is None or not narrow or len(fields) != 1 or not hasattr(config, min(fields)):
        return False
    if len({module.spec["width"] for module in compressed.values()}) != 1:
        return False
    weights = {name: module.dense_weights() for name, module in compressed.items()}
    gained_bias = any(w.down_bias is not None and w.up_bias is None for w in weights.values())
    if gained_bias and not hasattr(config, "mlp_bias"):
        return False
    settings = {min(fields): next(iter(weights.values())).width, **({"mlp_bias": True} if gained_bias else {})}
    before = {name: getattr(config, name) for name in settings}
    for ffn in ffns:
        module, dense = compressed[ffn.name], weights[ffn.name]
        if module.original is None:
            return False
        ffn.restore(module.original, _with_every_bias(dense) if gained_bias else dense)
    for name, value in settings.items():
        setattr(config, name, value)
    if _describes(top, model):
        return True
    for name, value in before.items():
        setattr(config, name, value)
    for ffn in ffns:
        compressed[ffn.name].original = ffn.install(compressed[ffn.name])
    return False


def _describes(config: Any, model: nn.Module) -> bool:
    """Whether a model made from the config has this one's tensors: blocks of other kinds may share its fields."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build: Any = type(model)
        try:
            fresh = build(copy.deepcopy(config))
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return False
    shapes = ({name: t.shape for name, t in m.state_dict().items()} for m in (fresh, model))
    return next(shapes) == next(shapes)


def _with_every_bias(weights: FFNWeights) -> FFNWeights:
    """The same FFN with zeros for the biases it lacks, as one switch in the config turns all on."""
    hidden, output = torch.zeros_like(weights.up[:, 0]), torch.zeros_like(weights.down[:, 0])
    given = weights.tensors()
    zeros = {"up_bias": hidden, "gate_bias": hidden, "down_bias": output}
    if weights.gate is None:
        del zeros["gate_bias"]
    return FFNWeights(**{**zeros, **given})


def halve(model: Model) -> Model:
    """Store the floating-point weights of a compressed model in half precision, in place: to save, not to run.

    Read it back with ``from_pretrained(folder, dtype=torch.float32)`` where half precision is slow.
    """
    nn.Module.half(model)  # transformers refuses its own half() for every quantised model
    if hasattr(model, "config"):
        model.config.dtype = torch.float16
    return model


def merge(model: Model) -> Model:
    """Put dense FFNs back in place of compressed ones.

    Exact for exact splits: every weight is bit for bit the original. Otherwise the dense weights of the approximation.

    Raises
    ------
    CompressionError
        If the model holds no compressed FFN, or one whose function no dense FFN computes.
    """
    from ffn_heavyhitter.whole import put_back_dense

    compressed, whole = compressed_ffns(model), int8_modules(model)
    if not compressed and not whole:
        raise CompressionError("merge needs a compressed model; this one holds no compressed FFN and no int8 layer")
    ffns = {ffn.name: ffn for ffn in find_ffns(model)} if compressed else {}
    weights = {name: module.dense_weights() for name, module in compressed.items()}
    with torch.no_grad():
        for name, module in compressed.items():
            if module.original is None:
                raise CompressionError(
                    f"{name} was put in by hand; merge restores what compress or from_pretrained made"
                )
            ffns[name].restore(module.original, weights[name])
        put_back_dense(model)
    if hasattr(model, "config"):
        from ffn_heavyhitter.plugin import unmark_compressed

        unmark_compressed(model)
    return model
