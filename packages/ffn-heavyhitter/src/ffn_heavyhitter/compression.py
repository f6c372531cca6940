"""Compress a model in place, and merge it back.

``compress`` replaces every FFN by what a treatment makes of it; ``merge`` puts dense layers back, exactly for an exact split,
as dense approximations otherwise.
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

__all__ = ["Treatment", "compress", "merge"]

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
    if hasattr(model, "config"):
        from ffn_heavyhitter.plugin import mark_compressed

        mark_compressed(model)
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
