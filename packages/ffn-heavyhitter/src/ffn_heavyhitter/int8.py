"""Eight-bit FFNs whose heavy neurons keep full precision on the way out.

Weights: int8 with one scale a row. Activations: quantised at run time with one scale a token, because a few neurons
answer the first token with values hundreds of times larger than any other, and one scale for all tokens would drown
the rest:

    s_t = max_j |x_tj|,     W x_t  ~=  s_t Q(W) Q(x_t / s_t)

- The h neurons with the largest peaks |a| (the heavy ones) go first; their columns of V stay in floating point.
- So do, among them, neurons whose column of V is far larger than all others, for their rows have one scale.
- Input channels are balanced beforehand, x_j / b_j and W_j b_j with b_j = (max|x_j| / max|W_j|)^alpha; 1/b goes into
  the norm before the FFN and costs nothing (SmoothQuant, arXiv:2211.10438). Where no norm feeds the FFN alone, b = 1.
- Weights use -63 .. 63: pairs of products u8 x s7 then fit int16, 2 * 255 * 63 < 2^15, as processors without VNNI need.

The kernel is PyTorch's own ``quantized.linear_dynamic``; dividing rows by s_t first gives it scales per token.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.errors import CompressionError, FFNWarning
from ffn_heavyhitter.feedback import Rounded, round_with_feedback
from ffn_heavyhitter.feedforward import (
    FEW_ROWS,
    CompressedFeedForward,
    bias_shapes,
    fill_biases,
    in_dtype,
    run_neurons,
    shape_spec,
    split_biases,
    widened,
)
from ffn_heavyhitter.frozen import Spec, is_offloaded, spec_dtype
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.validation import heavy_count
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["Int8", "Int8FeedForward"]

LARGEST_CODE = 63
OUTLYING_COLUMN = 32  # times the median column's largest weight: the others would have one or two codes left
_SMALLEST = 1e-30


class Int8FeedForward(CompressedFeedForward):
    """An FFN with int8 weights, per-token activations and heavy output columns in floating point.

    ``backend`` is ``int8`` (the kernel) or ``dense`` (weights dequantised once, for processors without the kernel).
    """

    kind = "int8"
    kept = ("inner_scale", "down_scale")
    inner: Tensor
    inner_scale: Tensor
    inner_bias: Tensor | None
    down_heavy: Tensor
    down_light: Tensor
    down_scale: Tensor
    down_bias: Tensor | None
    order: Tensor

    def __init__(self, spec: Spec, activation: nn.Module) -> None:
        super().__init__(spec, activation)
        d, m, heavy, dtype = spec["hidden_size"], spec["width"], spec["heavy"], spec_dtype(spec)
        rows = 2 * m if spec["gated"] else m
        self.hold(
            inner=((rows, d), torch.int8),
            inner_scale=((rows,), torch.float32),
            down_heavy=((d, heavy), dtype),
            down_light=((d, m - heavy), torch.int8),
            down_scale=((d,), torch.float32),
            order=((m,), torch.int32),
        )
        self.hold(**bias_shapes(spec))
        self.backend: str = "int8" if "fbgemm" in torch.backends.quantized.supported_engines else "dense"
        self.balance: Tensor | None = None
        self._prepared: _Packed | FFNWeights | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the kernel's copy of the weights, which is made again on first use."""
        return {**self.__dict__, "_prepared": None}

    def reset(self) -> None:
        """Make the kernel's copy anew on next use."""
        self._prepared = None

    def use(self, backend: Literal["int8", "dense"]) -> None:
        """Run through the kernel or through dequantised weights."""
        self.backend, self._prepared = backend, None

    def twin(self, backend: Literal["int8", "dense"]) -> Int8FeedForward:
        """A second module over the same tensors that runs the other way."""
        second = copy.copy(self)
        second.use(backend)
        return second

    def settle(self, ffn: FFN) -> None:
        """Fold the balance of the input channels into the norm."""
        if self.balance is not None:
            ffn.scale_input(self.balance)

    def run(self, x: Tensor) -> Tensor:
        """Output of the FFN, shape (..., d); from dense weights where a gradient flows, as the kernel has none."""
        rows = x.reshape(-1, x.shape[-1])
        learns = torch.is_grad_enabled() and x.requires_grad
        if self.backend == "dense" or learns or x.device.type != "cpu" or rows.shape[0] == 0:
            weights = in_dtype(self._ready(FFNWeights, self.sorted_weights), x.dtype)
            y = nn.functional.linear(run_neurons(weights, self.activation, rows), weights.down, weights.down_bias)
        else:
            y = self._int8(rows.float()).to(x.dtype)
        return y.reshape(x.shape)

    def _int8(self, x: Tensor) -> Tensor:
        """The kernel's path; everything between products happens in place."""
        packed, heavy = self._ready(_Packed, self._pack), self.spec["heavy"]
        scale = _row_scale(x)
        hidden = self._hidden(x / scale, scale, packed)
        light = hidden[:, heavy:]
        light_scale = _row_scale(light)
        y = _product(light / light_scale, packed.down).mul_(light_scale)
        if heavy:
            y.addmm_(hidden[:, :heavy], packed.down_heavy)
        if packed.late_scale:
            y.mul_(scale)
        return y if packed.down_bias is None else y.add_(packed.down_bias)

    def _hidden(self, x: Tensor, scale: Tensor, packed: _Packed) -> Tensor:
        """Activations a; short of the rows' scale where ``late_scale``, since that commutes with all that follows."""
        if packed.gate is None:
            return self._activate(_product(x, packed.up).mul_(scale), packed.up_bias)
        if x.shape[0] < FEW_ROWS:
            gate, up = _product(x, packed.inner).chunk(2, dim=1)
        else:
            gate, up = _product(x, packed.gate), _product(x, packed.up)
        hidden = self._activate(gate.mul_(scale), packed.gate_bias)
        if packed.up_bias is not None:
            up = up.mul_(scale).add_(packed.up_bias)
        return hidden.mul_(up)

    def _activate(self, gate: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            gate.add_(bias)
        if type(self.activation).__name__ in ("SiLU", "SiLUActivation"):
            return nn.functional.silu(gate, inplace=True)
        return self.activation(gate)  # type: ignore[no-any-return]

    def _ready(self, kind: type[Prepared], make: Callable[[], Prepared]) -> Prepared:
        """The weights as the backend wants them; kept, unless the module's own weights are offloaded between calls."""
        if isinstance(self._prepared, kind):
            return self._prepared
        made = make()
        if not is_offloaded(self):
            self._prepared = made
        return made

    def _pack(self) -> _Packed:
        m, biases = self.spec["width"], split_biases(self)
        gated = self.spec["gated"]
        inner, scale = self.inner.data, self.inner_scale.data
        return _Packed(
            inner=_packed(inner, scale),
            up=_packed(inner[-m:], scale[-m:]),
            gate=_packed(inner[:m], scale[:m]) if gated else None,
            down=_packed(self.down_light.data, self.down_scale.data),
            down_heavy=self.down_heavy.data.float().T.contiguous(),
            late_scale=gated and "up_bias" not in biases,
            **{name: bias.float() for name, bias in biases.items()},
        )

    def sorted_weights(self) -> FFNWeights:
        """The weights dequantised, heavy neurons first."""
        m, dtype = self.spec["width"], self.dtype
        inner = (self.inner.data * self.inner_scale.data[:, None]).to(dtype)
        light = (self.down_light.data * self.down_scale.data[:, None]).to(dtype)
        return FFNWeights(
            up=inner[-m:],
            down=torch.cat([self.down_heavy.data, light], dim=1),
            gate=inner[:m] if self.spec["gated"] else None,
            **split_biases(self),
        )

    def require_finite(self, name: str) -> None:
        """Also refuse a dtype in which the dequantised weights are not finite."""
        super().require_finite(name)
        largest = torch.finfo(self.dtype).max
        for codes, scale in (("inner", self.inner_scale), ("down_light", self.down_scale)):
            if not scale.is_meta and scale.numel() and float(scale.detach().abs().max()) * LARGEST_CODE > largest:
                raise CompressionError(
                    f"{name}.{codes} holds weights beyond {self.spec['dtype']} (largest value {largest:.4g}); load the "
                    "model with dtype=torch.float32 or torch.bfloat16"
                )

    def dense_weights(self) -> FFNWeights:
        """The dense FFN with the rounded weights, behind a norm that keeps the balance."""
        return self.sorted_weights().neurons(torch.argsort(self.order.long()))


@dataclass(frozen=True)
class _Packed:
    """Weights in the kernel's layout."""

    inner: Any
    up: Any
    gate: Any
    down: Any
    down_heavy: Tensor
    late_scale: bool
    up_bias: Tensor | None = None
    gate_bias: Tensor | None = None
    down_bias: Tensor | None = None


Prepared = TypeVar("Prepared", _Packed, FFNWeights)


@dataclass(frozen=True)
class Int8:
    """Eight-bit FFN through the stock kernel.

    Attributes
    ----------
    heavy : int or float
        Neurons whose output columns stay in floating point, as a number or a share.
    smoothing : float
        Exponent alpha of the balance between input channels, 0 for none. Without a norm of its own an FFN gets none.
    feedback : bool
        Pass rounding errors on to weights not rounded yet; needs statistics with second moments.
    score : str
        What makes a neuron heavy here: the largest activation by default.
    """

    heavy: int | float = 64
    smoothing: float = 0.5
    feedback: bool = True
    score: str = "peak"

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes that the FFN's tensors take."""
        m, d, size = weights.width, weights.hidden_size, weights.up.element_size()
        heavy = heavy_count(self.heavy, m)
        rows = m if weights.gate is None else 2 * m
        inner_bias = rows if weights.up_bias is not None or weights.gate_bias is not None else 0
        down_bias = 0 if weights.down_bias is None else d
        return rows * d + d * (m - heavy) + size * (d * heavy + inner_bias + down_bias) + 4 * (rows + d + m)

    def least_tokens(self, weights: FFNWeights) -> int:
        """As many as input channels, whose second moment the feedback inverts."""
        return weights.hidden_size if self.feedback else 0

    def apply(self, ffn: FFN, layer: LayerStatistics) -> Int8FeedForward:
        """The quantised FFN; its balance goes into the norm when it is installed."""
        stored, weights = ffn.weights().up.dtype, widened(ffn.weights())
        heavy = heavy_count(self.heavy, weights.width)
        order = heavy_first(_columns_first(score(self.score, layer, weights), weights, heavy), heavy)
        balance = None
        if self.smoothing and ffn.norm is not None:
            balance = channel_balance(weights, layer.input_peak, self.smoothing).to(weights.up.dtype)
            if ffn.takes_scale(balance):
                weights = scaled_input(weights, balance)
            else:
                balance = None
        sorted_ = weights.neurons(order)
        module = Int8FeedForward({**shape_spec(weights), "heavy": heavy}, ffn.activation)
        gate = [] if sorted_.gate is None else [sorted_.gate]
        inputs, hidden = self._moments(layer, balance, order[heavy:])
        matrix = torch.cat([*gate, sorted_.up])
        _say_rounded_away(ffn.name, matrix)
        inner = _seven_bits(matrix, inputs)
        light = _seven_bits(sorted_.down[:, heavy:], hidden)
        module.fill({"inner": inner.codes, "inner_scale": inner.scale[:, 0]})
        module.fill({"down_light": light.codes, "down_scale": light.scale[:, 0]})
        module.fill({"down_heavy": sorted_.down[:, :heavy], "order": order})
        fill_biases(module, sorted_)
        module.balance = balance
        return module.to(stored)

    def _moments(
        self, layer: LayerStatistics, balance: Tensor | None, light: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Second moments of the balanced input and of the light activations, or None without feedback."""
        if not self.feedback:
            return None, None
        inputs = layer.need("input_moment", "moments=True, or use feedback=False")
        hidden = layer.need("hidden_moment", "moments=True, or use feedback=False")
        if balance is not None:
            inputs = inputs / torch.outer(balance, balance)
        return inputs, hidden[light][:, light]


def _columns_first(scores: Tensor, weights: FFNWeights, heavy: int) -> Tensor:
    """The scores, with the neurons on top whose output column would set the scale of every row for all others."""
    peaks = weights.down.abs().amax(0)
    lone = peaks > OUTLYING_COLUMN * peaks.median()
    return scores.masked_fill(lone, torch.inf) if int(lone.sum()) <= heavy else scores


def channel_balance(weights: FFNWeights, input_peak: Tensor, alpha: float) -> Tensor:
    """b_j = (max|x_j| / max|W_j|)^alpha over gate and up rows jointly, divided by its median, shape (d,)."""
    rows = [weights.up] if weights.gate is None else [weights.gate, weights.up]
    weight_peak = torch.cat(rows).abs().amax(0).double()
    balance = (input_peak.clamp(min=1e-5) / weight_peak.clamp(min=1e-5)) ** alpha
    return balance / balance.median()


def scaled_input(weights: FFNWeights, scale: Tensor) -> FFNWeights:
    """The FFN of an input that was divided by ``scale``."""
    gate = None if weights.gate is None else weights.gate * scale
    return replace(weights, up=weights.up * scale, gate=gate)


def _seven_bits(matrix: Tensor, moment: Tensor | None) -> Rounded:
    """Codes -63 .. 63 and one scale a row."""
    bound = torch.tensor([[LARGEST_CODE]])
    return round_with_feedback(
        matrix, -bound, bound, moment=moment, group_size=max(matrix.shape[1], 1), scale_dtype=torch.float32
    )


def _say_rounded_away(name: str, matrix: Tensor) -> None:
    """Warn of rows in which one weight is so large that most others round to zero."""
    sizes = matrix.abs()
    halves = sizes.amax(1) / LARGEST_CODE / 2
    lost = int(((sizes < halves[:, None]).sum(1) > (matrix.shape[1] + (sizes == 0).sum(1)) // 2).sum())
    if lost:
        warnings.warn(
            f"{name}: in {lost} of {len(matrix)} rows one weight is so large that eight bits round most others to "
            "zero; judge the model on text, or keep this FFN dense or in MixedBits",
            FFNWarning,
            stacklevel=2,
        )


def _row_scale(x: Tensor) -> Tensor:
    """Largest absolute value of each row, shape (T, 1), never zero."""
    return x.abs().amax(1, keepdim=True).clamp_(min=_SMALLEST)


def _packed(codes: Tensor, scale: Tensor) -> Any:
    zero = torch.zeros(codes.shape[0], dtype=torch.long)
    with warnings.catch_warnings():  # newer versions announce the kernel's end; the dense backend is there for that day
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
        quantised = torch._make_per_channel_quantized_tensor(codes.contiguous(), scale.double(), zero, 0)
        return torch.ops.quantized.linear_prepack(quantised, None)


def _product(x: Tensor, packed: Any) -> Tensor:
    return torch.ops.quantized.linear_dynamic(x, packed, reduce_range=False)  # type: ignore[no-any-return]
