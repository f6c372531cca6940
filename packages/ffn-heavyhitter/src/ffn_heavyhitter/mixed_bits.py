"""Split quantisation: heavy neurons keep more bits than light ones, everything of a neuron in its class.

With a share f of heavy neurons at b_H bits, light ones at b_L, and a half-precision scale for each group of g weights,
a weight takes

    f b_H + (1 - f) b_L + 16 / g   bits.

Rows of gate and up are rounded along the input, columns of down along the neurons, heavy ones first, so that no group
holds both classes; rounding errors are passed on (see ``feedback``). This is a format for storage and transport:
weights are dequantised once when the module first runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedback import DAMPING, SMALLEST_HALF, Rounded, round_with_feedback
from ffn_heavyhitter.feedforward import (
    CompressedFeedForward,
    run_neurons,
    shape_spec,
    widened,
)
from ffn_heavyhitter.frozen import Spec, is_offloaded, spec_dtype
from ffn_heavyhitter.least_squares import solve, typical_square
from ffn_heavyhitter.packing import pack, packed_bytes, unpack
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.validation import heavy_count
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["MixedBits", "MixedBitsFeedForward"]


_LARGEST_HALF = 2.0**13  # of a weight whose group's scale is stored in float16: feedback may still enlarge it


class MixedBitsFeedForward(CompressedFeedForward):
    """An FFN stored with packed codes of two widths."""

    kind = "mixed_bits"
    order: Tensor

    def __init__(self, spec: Spec, activation: nn.Module) -> None:
        super().__init__(spec, activation)
        d, m, group = spec["hidden_size"], spec["width"], spec["group_size"]
        matrices = 2 if spec["gated"] else 1
        self._dense: FFNWeights | None = None
        scale = getattr(torch, spec.get("scale_dtype", "float16"))
        self.hold(order=((m,), _order_type(m)))
        for part, neurons, bits in self._parts():
            rows = matrices * neurons
            self.hold(
                **{
                    f"inner_{part}": ((rows, packed_bytes(d, bits)), torch.uint8),
                    f"inner_{part}_scale": ((rows, -(-d // group)), scale),
                    f"down_{part}": ((d, packed_bytes(neurons, bits)), torch.uint8),
                    f"down_{part}_scale": ((d, -(-neurons // group)), scale),
                }
            )
        for name in spec["biases"]:
            self.hold(**{name: ((d if name == "down_bias" else m,), spec_dtype(spec))})

    def __getstate__(self) -> dict[str, Any]:
        """Without the dequantised copy, which is made again on first use."""
        return {**self.__dict__, "_dense": None}

    @property
    def kept(self) -> tuple[str, ...]:  # type: ignore[override]
        """The scales, whose type the spec holds."""
        return tuple(f"{side}_{part}_scale" for part, _, _ in self._parts() for side in ("inner", "down"))

    def reset(self) -> None:
        """Dequantise anew on next use."""
        self._dense = None

    def _parts(self) -> list[tuple[str, int, int]]:
        heavy, bits = self.spec["heavy"], (self.spec["heavy_bits"], self.spec["light_bits"])
        sizes = (heavy, self.spec["width"] - heavy)
        return [part for part in zip(("heavy", "light"), sizes, bits, strict=True) if part[1]]

    def run(self, x: Tensor) -> Tensor:
        """Output of the FFN, shape (..., d)."""
        weights = self._dense
        if weights is None or weights.up.dtype != x.dtype or weights.up.device != x.device:
            weights = self.sorted_weights(x.dtype)
            if not is_offloaded(self):
                self._dense = weights
        return nn.functional.linear(run_neurons(weights, self.activation, x), weights.down, weights.down_bias)

    def sorted_weights(self, dtype: torch.dtype) -> FFNWeights:
        """The weights dequantised, heavy neurons first."""
        d, gated = self.spec["hidden_size"], self.spec["gated"]
        gates, ups, downs = [], [], []
        for part, neurons, bits in self._parts():
            inner = self._values(f"inner_{part}", d, bits, dtype)
            gates.append(inner[:neurons])
            ups.append(inner[-neurons:])
            downs.append(self._values(f"down_{part}", neurons, bits, dtype))
        biases = {name: self.get_parameter(name).data.to(dtype) for name in self.spec["biases"]}
        return FFNWeights(
            up=torch.cat(ups), down=torch.cat(downs, dim=1), gate=torch.cat(gates) if gated else None, **biases
        )

    def _values(self, name: str, columns: int, bits: int, dtype: torch.dtype) -> Tensor:
        codes = unpack(self.get_parameter(name).data, bits)
        scale = self.get_parameter(f"{name}_scale").data
        return Rounded(codes, scale, self.spec["group_size"]).values()[:, :columns].to(dtype)

    def require_finite(self, name: str) -> None:
        """Also refuse a dtype in which the dequantised weights are not finite."""
        super().require_finite(name)
        largest = torch.finfo(self.dtype).max
        for key in self.kept:
            scale = self.get_parameter(key)
            bits = self.spec["heavy_bits" if "heavy" in key else "light_bits"]
            if not scale.is_meta and scale.numel() and float(scale.detach().abs().max()) * 2.0 ** (bits - 1) > largest:
                raise CompressionError(
                    f"{name}.{key} makes weights beyond {self.spec['dtype']} (largest value {largest:.4g}); load the "
                    "model with dtype=torch.float32 or torch.bfloat16"
                )

    def dense_weights(self) -> FFNWeights:
        """The dense FFN with the rounded weights."""
        return self.sorted_weights(self.dtype).neurons(torch.argsort(self.order.data.long()))


@dataclass(frozen=True)
class MixedBits:
    """Split quantisation.

    Attributes
    ----------
    heavy : int or float
        Heavy neurons, as a number or a share; 0 quantises all alike.
    heavy_bits, light_bits : int
        Between 2 and 8.
    group_size : int
        Weights that share a scale, a multiple of 8.
    feedback : bool
        Pass rounding errors on to weights not rounded yet; needs statistics with second moments.
    score : str
        What makes a neuron heavy.
    """

    heavy: int | float = 64
    heavy_bits: int = 6
    light_bits: int = 3
    group_size: int = 64
    feedback: bool = True
    score: str = "rms"

    def __post_init__(self) -> None:
        for name in ("heavy_bits", "light_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"{name}={getattr(self, name)} must be between 2 and 8")
        if self.group_size < 8 or self.group_size % 8:
            raise ValueError(f"group_size={self.group_size} must be a positive multiple of 8")

    def bits_a_weight(self, weights: FFNWeights) -> float:
        """Bits that a weight takes, scales included, neuron order and biases not."""
        matrices = sum(matrix.numel() for matrix in (weights.up, weights.down, weights.gate) if matrix is not None)
        return 8 * self._matrix_bytes(weights) / matrices

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes that the FFN's tensors take."""
        biases = [bias for name, bias in weights.tensors().items() if name.endswith("_bias")]
        return (
            self._matrix_bytes(weights)
            + _order_type(weights.width).itemsize * weights.width
            + sum(b.numel() * b.element_size() for b in biases)
        )

    def _matrix_bytes(self, weights: FFNWeights) -> int:
        m, d, group = weights.width, weights.hidden_size, self.group_size
        heavy = heavy_count(self.heavy, m)
        matrices = 1 if weights.gate is None else 2
        total = 0
        for neurons, bits in ((heavy, self.heavy_bits), (m - heavy, self.light_bits)):
            codes = matrices * neurons * packed_bytes(d, bits) + d * packed_bytes(neurons, bits)
            total += codes + self._scale_dtype(weights).itemsize * (
                matrices * neurons * -(-d // group) + d * -(-neurons // group)
            )
        return total

    def least_tokens(self, weights: FFNWeights) -> int:
        """As many as input channels, whose second moment the feedback inverts."""
        return weights.hidden_size if self.feedback else 0

    def apply(self, ffn: FFN, layer: LayerStatistics) -> MixedBitsFeedForward:
        """The quantised FFN."""
        stored, weights = ffn.weights().up.dtype, widened(ffn.weights())
        m, d = weights.width, weights.hidden_size
        heavy = heavy_count(self.heavy, m)
        if d % 8 or m % 8 or heavy % 8:
            raise CompressionError(
                f"{ffn.name}: hidden size {d}, width {m} and heavy={heavy} must be multiples of 8 to pack bits"
            )
        order = heavy_first(score(self.score, layer, weights), heavy)
        spec = {
            **shape_spec(weights),
            "heavy": heavy,
            "heavy_bits": self.heavy_bits,
            "light_bits": self.light_bits,
            "group_size": self.group_size,
        }
        scale_dtype = self._scale_dtype(weights)
        if scale_dtype != torch.float16:
            spec["scale_dtype"] = str(scale_dtype).removeprefix("torch.")
        module = MixedBitsFeedForward(spec, ffn.activation)
        sorted_ = weights.neurons(order)
        inputs = layer.need("input_moment", "moments=True, or use feedback=False") if self.feedback else None
        hidden = layer.need("hidden_moment", "moments=True, or use feedback=False") if self.feedback else None
        module.fill({"order": order, **{n: t for n, t in sorted_.tensors().items() if n.endswith("_bias")}})
        module.fill(self._rounded_inner(sorted_, heavy, inputs, scale_dtype))
        module.fill(
            self._rounded_down(sorted_.down, heavy, scale_dtype, None if hidden is None else hidden[order][:, order])
        )
        return module.to(stored)

    def _scale_dtype(self, weights: FFNWeights) -> torch.dtype:
        """Half precision, unless some group's scale lies outside of it."""
        matrices = [matrix for matrix in (weights.gate, weights.up, weights.down) if matrix is not None]
        for matrix in matrices:
            padded = nn.functional.pad(matrix, (0, -matrix.shape[1] % self.group_size))
            peaks = padded.reshape(len(matrix), -1, self.group_size).float().abs().amax(2)
            smallest = peaks[peaks > 0].amin() if bool((peaks > 0).any()) else torch.tensor(1.0)
            steps = 2 ** (max(self.heavy_bits, self.light_bits) - 1)
            if float(smallest) / steps < 2 * SMALLEST_HALF or float(peaks.amax()) > _LARGEST_HALF:
                return torch.float32
        return torch.float16

    def _rounded_inner(
        self, weights: FFNWeights, heavy: int, moment: Tensor | None, scale_dtype: torch.dtype
    ) -> dict[str, Tensor]:
        matrices = [matrix for matrix in (weights.gate, weights.up) if matrix is not None]
        bits = self._bits(weights.width, heavy).repeat(len(matrices))[:, None]
        rounded = self._round(torch.cat(matrices), bits, moment, scale_dtype)
        is_heavy = (torch.arange(weights.width) < heavy).repeat(len(matrices))
        found = {}
        for part, rows, width in (("heavy", is_heavy, self.heavy_bits), ("light", ~is_heavy, self.light_bits)):
            if rows.any():
                found[f"inner_{part}"] = pack(rounded.codes[rows], width)
                found[f"inner_{part}_scale"] = rounded.scale[rows]
        return found

    def _rounded_down(
        self, down: Tensor, heavy: int, scale_dtype: torch.dtype, moment: Tensor | None
    ) -> dict[str, Tensor]:
        """Heavy columns first; what rounding them does wrong is passed on to the light ones."""
        group, found, light = self.group_size, {}, down
        if heavy:
            bits = self._bits(heavy, heavy)[None, ::group]
            rounded = self._round(
                down[:, :heavy], bits, None if moment is None else moment[:heavy, :heavy], scale_dtype
            )
            found = {"down_heavy": pack(rounded.codes, self.heavy_bits), "down_heavy_scale": rounded.scale}
            if moment is not None:
                error = down[:, :heavy] - rounded.values().to(down.dtype)
                light = down + nn.functional.pad(passed_on(error, moment, heavy).to(down.dtype), (heavy, 0))
        light = light[:, heavy:]
        if light.shape[1]:
            bits = self._bits(light.shape[1], 0)[None, ::group]
            rounded = self._round(light, bits, None if moment is None else moment[heavy:, heavy:], scale_dtype)
            found |= {"down_light": pack(rounded.codes, self.light_bits), "down_light_scale": rounded.scale}
        return found

    def _bits(self, neurons: int, heavy: int) -> Tensor:
        return torch.where(torch.arange(neurons) < heavy, self.heavy_bits, self.light_bits)

    def _round(self, matrix: Tensor, bits: Tensor, moment: Tensor | None, scale_dtype: torch.dtype) -> Rounded:
        half = 2 ** (bits.float() - 1)
        return round_with_feedback(
            matrix, -half, half - 1, moment=moment, group_size=self.group_size, scale_dtype=scale_dtype
        )


def _order_type(width: int) -> torch.dtype:
    """The smallest integers that number the neurons."""
    return torch.int16 if width <= torch.iinfo(torch.int16).max else torch.int32


def passed_on(error: Tensor, moment: Tensor, heavy: int) -> Tensor:
    """Change of the light columns that best makes up for an error of the heavy ones: E C_HL C_LL^-1, damped."""
    damped = moment[heavy:, heavy:].double().clone()
    damped.diagonal().add_(DAMPING * typical_square(damped))
    return solve(damped, moment[heavy:, :heavy].double() @ error.double().T).T
