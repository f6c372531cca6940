"""What every compressed FFN is: a module that knows its shape, runs the neurons, and can say its dense weights.

A compressed FFN is described by plain data, its ``spec``. The spec is written into the model's config; building from it on
an empty device and loading the stored tensors gives the module back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN, Original
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["CompressedFeedForward", "build", "compressed_ffns", "run_neurons"]

Spec = dict[str, Any]
_KINDS: dict[str, type[CompressedFeedForward]] = {}


class CompressedFeedForward(nn.Module):
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
        super().__init__()
        self.spec = {**spec, "kind": self.kind}
        self.activation = activation
        self.original: Original | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _KINDS[cls.kind] = cls

    def dense_weights(self) -> FFNWeights:
        """The dense FFN that this one computes or approximates, neurons in their original order."""
        raise NotImplementedError

    def settle(self, ffn: FFN) -> None:
        """Change what lies outside the FFN, such as a norm that takes over a scale; called once, before installation."""

    def hold(self, **shapes: tuple[tuple[int, ...], torch.dtype] | None) -> None:
        """Make empty frozen parameters; None leaves the name unset."""
        for name, shape in shapes.items():
            if shape is None:
                self.register_parameter(name, None)
            else:
                self.register_parameter(name, nn.Parameter(torch.empty(shape[0], dtype=shape[1]), requires_grad=False))

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors into the parameters of the same names."""
        for name, tensor in tensors.items():
            self.get_parameter(name).data.copy_(tensor)

    def extra_repr(self) -> str:
        """The spec, as printed inside the model."""
        return ", ".join(f"{key}={value}" for key, value in self.spec.items())


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


def shape_spec(weights: FFNWeights) -> Spec:
    """The part of a spec that every kind shares."""
    return {
        "hidden_size": weights.hidden_size,
        "width": weights.width,
        "gated": weights.gate is not None,
        "biases": sorted(name for name in weights.tensors() if name.endswith("_bias")),
        "dtype": str(weights.up.dtype).removeprefix("torch."),
    }


def spec_dtype(spec: Mapping[str, Any]) -> torch.dtype:
    """The floating type of a spec's tensors."""
    return getattr(torch, spec["dtype"])  # type: ignore[no-any-return]
