"""Which way of running the int8 FFNs is fastest here, by measurement.

The stock int8 kernel wins on x86 processors; elsewhere it may be missing or slow, and dense floating point from the
same weights is the better choice. A micro-benchmark of one FFN decides for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from papershelf_core import timing
from torch import nn

from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.int8 import Int8FeedForward

__all__ = ["BackendChoice", "choose_backend"]


@dataclass(frozen=True)
class BackendChoice:
    """What was measured and chosen.

    Attributes
    ----------
    backend : str
        ``int8`` or ``dense``.
    speedup : dict[int, float]
        Time of dense over time of int8 for one FFN, by number of tokens.
    """

    backend: str
    speedup: dict[int, float]


def choose_backend(model: nn.Module, tokens: Sequence[int] = (1, 128), repeat: int = 7) -> BackendChoice:
    """Time one int8 FFN both ways and set the faster backend on all.

    Parameters
    ----------
    model : nn.Module
        With int8 FFNs.
    tokens : sequence of int
        Numbers of tokens to time; the product of the ratios decides.
    repeat : int
        Interleaved rounds.

    Returns
    -------
    BackendChoice

    Raises
    ------
    CompressionError
        If the model holds no int8 FFN.
    """
    modules = [module for module in compressed_ffns(model).values() if isinstance(module, Int8FeedForward)]
    if not modules:
        raise CompressionError("choose_backend needs a model with int8 FFNs; compress it with Int8() first")
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
