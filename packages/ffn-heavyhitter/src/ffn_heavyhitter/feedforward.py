"""What every compressed FFN is: a module that knows its shape, runs the neurons, and can say its dense weights.

A compressed FFN is described by plain data, its ``spec``. The spec is written into the model's config; building from
it on an empty device and loading the stored tensors gives the module back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN, Original
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.frozen import Frozen, Spec, spec_dtype
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["CompressedFeedForward", "build", "compressed_ffns", "run_neurons"]

FEW_ROWS = 8  # below, gate and up run as one product: launches cost more than the split of the result
_KINDS: dict[str, type[CompressedFeedForward]] = {}


class CompressedFeedForward(Frozen):
    """An FFN in a form other than dense linear layers.

    Subclasses set ``kind`` and make empty parameters from a spec.

    Attributes
    ----------
    spec : dict
        Plain data from which ``build`` makes the same module, without its weights.
    activation : nn.Module
    original : Original or None
        The dense modules it displaced.
    """

    kind: ClassVar[str]

    def __init__(self, spec: Spec, activation: nn.Module) -> None:
        super().__init__({**spec, "kind": self.kind})
        self.activation = activation
        self.original: Original | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _KINDS[cls.kind] = cls

    def dense_weights(self) -> FFNWeights:
        """The dense FFN that this one computes or approximates, neurons in their original order."""
        raise NotImplementedError

    def settle(self, ffn: FFN) -> None:
        """Change what lies outside the FFN, such as a norm that takes over a scale; called once, before the swap."""

    def forward(self, x: Tensor) -> Tensor:
        """Output of the whole FFN, shape (..., d), in x's dtype.

        Where x and the tensors differ in dtype, the wider of both computes.
        """
        if x.dtype == self.dtype:
            return self.run(x)
        return self.run(x.to(torch.promote_types(x.dtype, self.dtype))).to(x.dtype)

    def run(self, x: Tensor) -> Tensor:
        """Output in x's dtype, which is no narrower than the tensors'."""
        raise NotImplementedError


def build(spec: Mapping[str, Any], activation: nn.Module) -> CompressedFeedForward:
    """Make the empty module that a spec describes.

    Raises
    ------
    CompressionError
        If the kind is unknown to this version.
    """
    import ffn_heavyhitter.treatments  # noqa: F401  registers every kind

    kind = spec.get("kind")
    if kind not in _KINDS:
        raise CompressionError(f"kind={kind!r} is unknown; this version reads {', '.join(sorted(_KINDS))}")
    return _KINDS[kind]({key: value for key, value in spec.items() if key != "kind"}, activation)


def compressed_ffns(model: nn.Module) -> dict[str, CompressedFeedForward]:
    """The compressed FFNs of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CompressedFeedForward)}


def run_neurons(weights: FFNWeights, activation: nn.Module, x: Tensor) -> Tensor:
    """Activations a(x) of the neurons, shape (..., m)."""
    up = nn.functional.linear(x, weights.up, weights.up_bias)
    if weights.gate is None:
        return activation(up)  # type: ignore[no-any-return]
    return activation(nn.functional.linear(x, weights.gate, weights.gate_bias)) * up  # type: ignore[no-any-return]


def in_dtype(weights: FFNWeights, dtype: torch.dtype) -> FFNWeights:
    """The weights in a floating type; themselves where they have it."""
    return weights if weights.up.dtype == dtype else weights.map(lambda tensor: tensor.to(dtype))


def widened(weights: FFNWeights) -> FFNWeights:
    """The weights in single precision at the least, to fit in."""
    return in_dtype(weights, torch.promote_types(weights.up.dtype, torch.float32))


def shape_spec(weights: FFNWeights) -> Spec:
    """The part of a spec that every kind shares."""
    return {
        "hidden_size": weights.hidden_size,
        "width": weights.width,
        "gated": weights.gate is not None,
        "biases": sorted(name for name in weights.tensors() if name.endswith("_bias")),
        "dtype": str(weights.up.dtype).removeprefix("torch."),
    }


def bias_shapes(spec: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], torch.dtype] | None]:
    """Shapes of ``inner_bias`` (gate and up in one vector) and ``down_bias``, None where there is none."""
    d, rows, dtype = spec["hidden_size"], spec["width"] * (2 if spec["gated"] else 1), spec_dtype(spec)
    inner = bool({"up_bias", "gate_bias"} & set(spec["biases"]))
    return {
        "inner_bias": ((rows,), dtype) if inner else None,
        "down_bias": ((d,), dtype) if "down_bias" in spec["biases"] else None,
    }


def fill_biases(module: CompressedFeedForward, weights: FFNWeights) -> None:
    """Copy the biases, gate and up in one vector; one that is missing beside the other is zero."""
    if module.inner_bias is not None:
        parts = [weights.up_bias] if weights.gate is None else [weights.gate_bias, weights.up_bias]
        zero = torch.zeros_like(weights.up[:, 0])
        module.fill({"inner_bias": torch.cat([zero if part is None else part for part in parts])})
    if weights.down_bias is not None:
        module.fill({"down_bias": weights.down_bias})


def split_biases(module: CompressedFeedForward) -> dict[str, Tensor]:
    """The biases that the dense FFN has, by name."""
    m, names = module.spec["width"], module.spec["biases"]
    found = {}
    if "up_bias" in names:
        found["up_bias"] = module.get_parameter("inner_bias").data[-m:]
    if "gate_bias" in names:
        found["gate_bias"] = module.get_parameter("inner_bias").data[:m]
    if "down_bias" in names:
        found["down_bias"] = module.get_parameter("down_bias").data
    return found
