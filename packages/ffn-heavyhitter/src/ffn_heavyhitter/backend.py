"""Which way of running int8 FFNs and int8 layers is fastest here, by measurement.

The stock int8 kernel wins on x86 processors; elsewhere it may be missing or slow, and dense floating point from the
same weights is the better choice. For few tokens at a time, as in generation, a small C function beats both where a
compiler is. A micro-benchmark of one FFN, or of one layer, decides for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
from papershelf_core import timing
from torch import nn

from ffn_heavyhitter import native
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.int8 import Int8FeedForward
from ffn_heavyhitter.int8_linear import Int8Linear, SharedInput, int8_modules
from ffn_heavyhitter.int8_rows import kernel_is_exact

__all__ = ["BackendChoice", "choose_backend"]

_BEYOND_CACHES = 1 << 28  # bytes


@dataclass(frozen=True)
class BackendChoice:
    """What was measured and chosen.

    Attributes
    ----------
    backend : str
        ``int8`` or ``dense``.
    speedup : dict[int, float]
        Time of dense over time of int8 for one FFN, by number of tokens; of the choice, for int8 layers.
    few : str
        The same for fewer than eight tokens, or ``native``.
    """

    backend: str
    speedup: dict[int, float]
    few: str = ""


def choose_backend(model: nn.Module, tokens: Sequence[int] = (1, 128), repeat: int = 7) -> BackendChoice:
    """Time one int8 FFN, or one int8 layer of a whole model, every way and set the fastest on all.

    In a whole model it compiles the C function first, once for this machine and user, where there is a C compiler.

    Parameters
    ----------
    model : nn.Module
        With int8 FFNs or int8 layers.
    tokens : sequence of int
        Numbers of tokens to time; the product of the ratios decides. For int8 layers the least and the largest.
    repeat : int
        Interleaved rounds.

    Returns
    -------
    BackendChoice

    Raises
    ------
    CompressionError
        If the model holds neither.
    """
    shared = {id(m.shared): m.shared for m in int8_modules(model).values() if isinstance(m, Int8Linear)}
    if shared:
        return _of_layers(list(shared.values()), tokens, repeat)
    modules = [module for module in compressed_ffns(model).values() if isinstance(module, Int8FeedForward)]
    if not modules:
        raise CompressionError(
            "choose_backend needs a model with int8 FFNs or layers; compress it with Int8() or compress_model first"
        )
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return BackendChoice("dense", {})
    first, product, speedup = modules[0], 1.0, {}
    for count in tokens:
        x = torch.randn(count, first.spec["hidden_size"], generator=torch.Generator().manual_seed(0))
        kernel, dense = first.twin("int8"), first.twin("dense")
        runs = {"int8": partial(kernel, x), "dense": partial(dense, x)}
        with torch.inference_mode():
            result = timing.compare(runs, repeat=repeat, clock="wall")
        speedup[count] = result.ratio("dense").estimate
        product *= speedup[count]
    backend: Literal["int8", "dense"] = "int8" if product >= 1 else "dense"
    for module in modules:
        module.use(backend)
    return BackendChoice(backend, speedup)


def _of_layers(layers: list[SharedInput], tokens: Sequence[int], repeat: int) -> BackendChoice:
    """The fastest way for few tokens and for many.

    Few tokens run through layers that together exceed any cache, since in a model weights come from memory.
    """
    kernel, compiled = kernel_is_exact(), native.available()
    ways = ["dense", *(["int8"] if kernel else [])]
    speedup, chosen = {}, {}
    for count, dense_bytes in ((min(tokens), _BEYOND_CACHES), (max(tokens), 0)):
        few = count < native.FEW_TOKENS
        sample = _first(layers, dense_bytes)
        runs = {
            way: partial(_through, sample, way, count) for way in (*ways, *(["native"] if few and compiled else []))
        }
        with torch.inference_mode():
            median = timing.compare(runs, repeat=repeat, clock="wall").median
        for one in sample:
            one.reset()
        chosen[few] = min(median, key=median.__getitem__)
        speedup[count] = median["dense"] / median[chosen[few]]
    many = chosen.get(False, "int8" if kernel else "dense")
    for layer in layers:
        layer.use(many, chosen.get(True, many))
    return BackendChoice(many, speedup, chosen.get(True, many))


def _first(layers: list[SharedInput], dense_bytes: int) -> list[SharedInput]:
    """Twins of the first layers whose dense weights take so many bytes, one at the least."""
    found, total = [], 0
    for layer in layers:
        found.append(SharedInput(layer.members))
        total += 4 * sum(one.in_features * one.out_features for one in layer.members)
        if total >= dense_bytes:
            break
    return found


def _through(layers: list[SharedInput], way: str, count: int) -> None:
    for layer in layers:
        layer.use(way)
        layer.run(_tokens(count, layer.members[0].in_features))


@cache
def _tokens(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0))
