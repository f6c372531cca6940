"""The exact split: FFN = FFN_heavy + FFN_light, neurons heavy-first, nothing rounded.

    y = c + sum_{i in H} a_i(x) V_i + sum_{i in L} a_i(x) V_i

Gate and up rows lie in one matrix, so that a few tokens cost two products, as few as can be; the two parts are slices
of the same tensors. Merging sorts the neurons back: the weights are bit for bit what they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.feedforward import (
    FEW_ROWS,
    CompressedFeedForward,
    bias_shapes,
    fill_biases,
    in_dtype,
    run_neurons,
    shape_spec,
    split_biases,
)
from ffn_heavyhitter.frozen import Spec, spec_dtype
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.validation import heavy_count
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["Split", "SplitFeedForward"]


class SplitFeedForward(CompressedFeedForward):
    """A dense FFN with its heavy neurons first."""

    kind = "split"
    inner: Tensor
    inner_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None
    order: Tensor

    def __init__(self, spec: Spec, activation: nn.Module) -> None:
        super().__init__(spec, activation)
        d, m, dtype = spec["hidden_size"], spec["width"], spec_dtype(spec)
        rows = 2 * m if spec["gated"] else m
        self.hold(inner=((rows, d), dtype), down=((d, m), dtype), order=((m,), torch.int32))
        self.hold(**bias_shapes(spec))

    @classmethod
    def of(cls, weights: FFNWeights, order: Tensor, heavy: int, activation: nn.Module) -> SplitFeedForward:
        """Split at ``heavy`` neurons of ``order``."""
        module = cls({**shape_spec(weights), "heavy": heavy}, activation)
        sorted_ = weights.neurons(order)
        gate = [] if sorted_.gate is None else [sorted_.gate]
        module.fill({"inner": torch.cat([*gate, sorted_.up]), "down": sorted_.down, "order": order})
        fill_biases(module, sorted_)
        return module

    def run(self, x: Tensor) -> Tensor:
        """Output of the whole FFN, shape (..., d)."""
        weights = in_dtype(self._sorted_weights(), x.dtype)
        if self.spec["gated"] and x.numel() < FEW_ROWS * x.shape[-1] and x.dtype == self.dtype:
            gate, up = nn.functional.linear(x, self.inner, self.inner_bias).chunk(2, dim=-1)
            hidden = self.activation(gate) * up
        else:
            hidden = run_neurons(weights, self.activation, x)
        return nn.functional.linear(hidden, weights.down, weights.down_bias)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the heavy and of the light part; the output bias belongs to the heavy one."""
        heavy = self.spec["heavy"]
        sorted_ = self._sorted_weights()
        outputs = []
        for index, bias in ((slice(None, heavy), sorted_.down_bias), (slice(heavy, None), None)):
            part = sorted_.neurons(torch.arange(sorted_.width)[index])
            outputs.append(nn.functional.linear(run_neurons(part, self.activation, x), part.down, bias))
        return outputs[0], outputs[1]

    def dense_weights(self) -> FFNWeights:
        """The dense FFN, bit for bit."""
        return self._sorted_weights().neurons(torch.argsort(self.order.long()))

    def _sorted_weights(self) -> FFNWeights:
        m = self.spec["width"]
        gate = self.inner[:m] if self.spec["gated"] else None
        return FFNWeights(up=self.inner[-m:], down=self.down, gate=gate, **split_biases(self))


@dataclass(frozen=True)
class Split:
    """Split exactly; changes no output beyond the order of a sum.

    Attributes
    ----------
    heavy : int or float
        Heavy neurons, as a number or as a share of the width.
    score : str
        What makes a neuron heavy; see ``scores``.
    """

    heavy: int | float = 0.1
    score: str = "mean"

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes that the FFN's tensors take."""
        values = sum(tensor.numel() * tensor.element_size() for tensor in weights.tensors().values())
        return values + 4 * weights.width

    def least_tokens(self, weights: FFNWeights) -> int:
        """None: nothing is fitted."""
        return 0

    def apply(self, ffn: FFN, layer: LayerStatistics) -> SplitFeedForward:
        """The split FFN; the model keeps its dense one."""
        weights = ffn.weights()
        heavy = heavy_count(self.heavy, weights.width)
        order = heavy_first(score(self.score, layer, weights), heavy)
        return SplitFeedForward.of(weights, order, heavy, ffn.activation)
