"""Modules whose tensors are frozen, whose shape is plain data, and whose scales no cast narrows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ffn_heavyhitter.errors import CompressionError

__all__ = ["Frozen", "Spec", "is_offloaded", "spec_dtype"]

Spec = dict[str, Any]


class Frozen(nn.Module):
    """A module made from a spec, with frozen parameters.

    Attributes
    ----------
    spec : dict
        Plain data; ``dtype`` names the floating type of the tensors, but for those in ``kept``.
    """

    kept: ClassVar[tuple[str, ...]] = ()  # parameters that no cast narrows

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the tensors, but for those in ``kept``."""
        return spec_dtype(self.spec)

    def reset(self) -> None:
        """Let go of whatever was derived from the tensors, because they changed."""

    def require_finite(self, name: str) -> None:
        """Refuse tensors that their dtype could not hold.

        Raises
        ------
        CompressionError
            Names the FFN, the tensor and the remedy.
        """
        for key, tensor in self.named_parameters(recurse=False):
            if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
                kind = str(tensor.dtype).removeprefix("torch.")
                raise CompressionError(
                    f"{name}.{key} is not finite in {kind} (largest value {torch.finfo(tensor.dtype).max:.4g}); "
                    "load the model with dtype=torch.float32 or torch.bfloat16"
                )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Cast and move; tensors in ``kept`` move only, as a scale in half precision would round to zero."""
        before = {key: self.get_parameter(key) for key in self.kept}
        wide = {key: parameter.dtype for key, parameter in before.items()}
        held = {key: parameter.data for key, parameter in before.items()}
        dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for key in self.kept:
            parameter = self.get_parameter(key)
            if parameter.dtype != wide[key]:
                parameter.data = held[key].to(parameter.device)
        self.spec["dtype"] = str(dtype).removeprefix("torch.")
        self.reset()
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self.reset()

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


def spec_dtype(spec: Mapping[str, Any]) -> torch.dtype:
    """The floating type of a spec's tensors."""
    return getattr(torch, spec["dtype"])  # type: ignore[no-any-return]


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate takes the module's weights away between calls; nothing may be kept then."""
    return bool(getattr(getattr(module, "_hf_hook", None), "offload", False))
