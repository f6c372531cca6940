"""Structured removal: keep the heavy neurons, drop the light ones, and make up for what the dropped ones wrote.

With C = E[a a^T], mu = E[a], H kept and L dropped, the output error E|y' - y|^2 is least for

    V' = V_H + V_L C_LH (C_HH + lam I)^-1,     and with an output bias, C centred by mu first,
    c' = c + V_L mu_L - (V' - V_H) mu_H.

lam is in units of the median of C's diagonal, because a few massive activations own its mean. "mean" keeps V' = V_H and
only adds the mean of what was dropped to the bias.

Where every layer keeps the same width the result is a plain model of its architecture with a smaller FFN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.feedforward import (
    CompressedFeedForward,
    in_dtype,
    run_neurons,
    shape_spec,
)
from ffn_heavyhitter.frozen import Spec, spec_dtype
from ffn_heavyhitter.least_squares import solve, typical_square
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["Compensation", "Narrow", "NarrowFeedForward", "compensated", "removal_error"]

Compensation = Literal["none", "mean", "ridge"]


class NarrowFeedForward(CompressedFeedForward):
    """A dense FFN of fewer neurons."""

    kind = "narrow"
    up: Tensor
    down: Tensor
    down_bias: Tensor | None

    def __init__(self, spec: Spec, activation: nn.Module) -> None:
        super().__init__(spec, activation)
        d, m, dtype = spec["hidden_size"], spec["width"], spec_dtype(spec)
        self.hold(up=((m, d), dtype), down=((d, m), dtype), gate=((m, d), dtype) if spec["gated"] else None)
        for name in ("up_bias", "gate_bias", "down_bias"):
            size = d if name == "down_bias" else m
            self.hold(**{name: ((size,), dtype) if name in spec["biases"] else None})

    def run(self, x: Tensor) -> Tensor:
        """Output of the FFN, shape (..., d)."""
        weights = in_dtype(self.dense_weights(), x.dtype)
        return nn.functional.linear(run_neurons(weights, self.activation, x), weights.down, weights.down_bias)

    def dense_weights(self) -> FFNWeights:
        """The narrow FFN itself."""
        return FFNWeights(**dict(self.named_parameters(recurse=False)))


@dataclass(frozen=True)
class Narrow:
    """Keep the neurons with the highest scores.

    Attributes
    ----------
    width : int
        Neurons to keep.
    compensation : {"none", "mean", "ridge"}
        What makes up for the dropped neurons; "ridge" needs statistics with second moments.
    ridge : float
        lam, in units of the median of C's diagonal.
    bias : bool
        Allow an output bias where the FFN has none.
    score : str
        What makes a neuron heavy.
    """

    width: int
    compensation: Compensation = "ridge"
    ridge: float = 0.2
    bias: bool = True
    score: str = "hybrid"

    def __post_init__(self) -> None:
        if self.compensation not in ("none", "mean", "ridge"):
            raise ValueError(f"compensation={self.compensation!r} must be none, mean or ridge")
        if self.width < 1:
            raise ValueError(f"width={self.width} must be at least 1")
        if not self.ridge > 0:
            raise ValueError(f"ridge={self.ridge} must be positive; dead neurons make the least squares singular")

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes that the FFN's tensors take."""
        m, d = self.width, weights.hidden_size
        matrices = 2 if weights.gate is None else 3
        biases = m * sum(b is not None for b in (weights.up_bias, weights.gate_bias))
        down_bias = weights.down_bias is not None or (self.bias and self.compensation != "none")
        return weights.up.element_size() * (matrices * m * d + biases + d * down_bias)

    def least_tokens(self, weights: FFNWeights) -> int:
        """As many as neurons stay, whose second moment the compensation inverts."""
        return self.width if self.compensation == "ridge" and self.width < weights.width else 0

    def apply(self, ffn: FFN, layer: LayerStatistics) -> NarrowFeedForward:
        """The narrower FFN."""
        weights = ffn.weights()
        if self.width > weights.width:
            raise ValueError(f"width={self.width} exceeds the {weights.width} neurons of {ffn.name}")
        order = heavy_first(score(self.score, layer, weights), self.width)
        narrow = compensated(weights, order, self.width, layer, self)
        module = NarrowFeedForward(shape_spec(narrow), ffn.activation)
        module.fill(narrow.tensors())
        return module


def compensated(weights: FFNWeights, order: Tensor, width: int, layer: LayerStatistics, way: Narrow) -> FFNWeights:
    """The first ``width`` neurons of ``order`` with output weights and bias that make up for the rest."""
    kept, dropped = order[:width], order[width:]
    narrow = weights.neurons(kept)
    if way.compensation == "none" or not len(dropped):
        return narrow
    mean = layer.activation / layer.tokens
    down = weights.down.double()
    bias = torch.zeros(weights.hidden_size, dtype=torch.float64)
    if weights.down_bias is not None:
        bias += weights.down_bias.double()
    has_bias = way.bias or weights.down_bias is not None
    change = torch.zeros(weights.hidden_size, width, dtype=torch.float64)
    if way.compensation == "ridge":
        moment = layer.need("hidden_moment", "moments=True, or use compensation='mean'") / layer.tokens
        uncentred = moment.diagonal()
        if has_bias:
            moment = moment - torch.outer(mean, mean)
        damped = moment[kept][:, kept].clone()
        damped.diagonal().add_(way.ridge * typical_square(moment))
        change = solve(damped, moment[kept][:, dropped] @ down[:, dropped].T, uncentred[kept]).T
    dtype = weights.down.dtype
    narrow = replace(narrow, down=(down[:, kept] + change).to(dtype))
    if not has_bias:
        return narrow
    bias += down[:, dropped] @ mean[dropped] - change @ mean[kept]
    return replace(narrow, down_bias=bias.to(dtype))


def removal_error(
    weights: FFNWeights, order: Tensor, narrow: FFNWeights, layer: LayerStatistics, metric: Tensor | None = None
) -> float:
    """E|M^(1/2) (y' - y)|^2 on the tokens of ``layer``, for a narrow FFN that keeps the first neurons of ``order``.

    Parameters
    ----------
    weights, narrow : FFNWeights
    order : Tensor of shape (m,)
    layer : LayerStatistics
        With second moments; tokens other than those that ``narrow`` was fitted on give an honest error.
    metric : Tensor of shape (d, d), optional
        M, such as the second moment of the loss gradient at the output; the identity by default.

    Returns
    -------
    float
    """
    change = -weights.down.double()[:, order]
    change[:, : narrow.width] += narrow.down.double()
    zero = torch.zeros(weights.hidden_size, dtype=torch.float64)
    before, after = (zero if b is None else b.double() for b in (weights.down_bias, narrow.down_bias))
    shift = (after - before)[:, None]
    mean = (layer.activation / layer.tokens)[order][:, None]
    moment = layer.need("hidden_moment", "moments=True")[order][:, order] / layer.tokens
    error = change @ moment @ change.T + change @ mean @ shift.T + shift @ mean.T @ change.T + shift @ shift.T
    return float(error.trace() if metric is None else (error * metric).sum())
