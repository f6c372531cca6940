"""Compress a model in place, and merge it back.

``compress`` replaces every FFN by what a treatment makes of it; ``merge`` puts dense layers back, exactly for an exact
split, as dense approximations otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
from torch import nn

from ffn_heavyhitter.adapters import FFN, find_ffns, require_dense
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import CompressedFeedForward, compressed_ffns
from ffn_heavyhitter.statistics import LayerStatistics, Statistics
from ffn_heavyhitter.validation import require_eval
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["Treatment", "compress", "halve", "merge"]

Model = TypeVar("Model", bound=nn.Module)


class Treatment(Protocol):
    """A way to rewrite one FFN."""

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes of the tensors that ``apply`` will store."""
        ...

    def apply(self, ffn: FFN, layer: LayerStatistics) -> CompressedFeedForward:
        """The rewritten FFN."""
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
    CompressionError
        If the model is compressed already, in training mode, or a name is not one of its FFNs.
    StatisticsError
        If the statistics belong to another model or lack what the treatment needs.
    """
    require_eval(model)
    ffns = {ffn.name: ffn for ffn in find_ffns(model)}
    require_dense(list(ffns.values()))
    statistics.check(model)
    chosen = dict(treatment) if isinstance(treatment, Mapping) else dict.fromkeys(ffns, treatment)
    unknown = sorted(chosen.keys() - ffns.keys())
    if unknown:
        raise CompressionError(f"treatment names {unknown}, which are no FFNs of this model; it has {list(ffns)}")
    rewritten: dict[str, CompressedFeedForward] = {}
    with torch.no_grad():
        for name, way in chosen.items():
            if progress is not None:
                progress(name)
            rewritten[name] = way.apply(ffns[name], statistics.layers[name]).eval()
    for name, module in rewritten.items():
        module.settle(ffns[name])
        module.original = ffns[name].install(module)
    if not _as_plain_model(model, list(ffns.values())) and hasattr(model, "config"):
        from ffn_heavyhitter.plugin import mark_compressed

        mark_compressed(model)
    return model


def _as_plain_model(model: nn.Module, ffns: list[FFN]) -> bool:
    """Write narrow FFNs of one width as dense layers, where the model's own config can say so."""
    compressed = compressed_ffns(model)
    config = getattr(model, "config", None)
    narrow = len(compressed) == len(ffns) and all(module.kind == "narrow" for module in compressed.values())
    if config is None or not narrow or len({module.spec["width"] for module in compressed.values()}) != 1:
        return False
    weights = {name: module.dense_weights() for name, module in compressed.items()}
    gained_bias = any(w.down_bias is not None and w.up_bias is None for w in weights.values())
    if gained_bias and not hasattr(config, "mlp_bias"):
        return False
    for ffn in ffns:
        module, dense = compressed[ffn.name], weights[ffn.name]
        if module.original is None:
            return False
        if gained_bias:
            dense = _with_every_bias(dense)
        ffn.restore(module.original, dense)
        setattr(config, ffn.layout.width_field, dense.width)
    if gained_bias:
        config.mlp_bias = True
    return True


def _with_every_bias(weights: FFNWeights) -> FFNWeights:
    """The same FFN with zeros for the biases it lacks, as one switch in the config turns all on."""
    hidden, output = torch.zeros_like(weights.up[:, 0]), torch.zeros_like(weights.down[:, 0])
    given = weights.tensors()
    zeros = {"up_bias": hidden, "gate_bias": hidden, "down_bias": output}
    return FFNWeights(**{**(zeros if weights.gate is not None else {}), **given})


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
    compressed = compressed_ffns(model)
    if not compressed:
        raise CompressionError("merge needs a compressed model; this one holds no compressed FFN")
    ffns = {ffn.name: ffn for ffn in find_ffns(model)}
    weights = {name: module.dense_weights() for name, module in compressed.items()}
    with torch.no_grad():
        for name, module in compressed.items():
            if module.original is None:
                raise CompressionError(
                    f"{name} was put in by hand; merge restores what compress or from_pretrained made"
                )
            ffns[name].restore(module.original, weights[name])
    if hasattr(model, "config"):
        from ffn_heavyhitter.plugin import unmark_compressed

        unmark_compressed(model)
    return model
