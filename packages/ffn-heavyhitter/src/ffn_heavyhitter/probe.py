"""Check by numbers that the layouts describe this model, before anything in it is changed.

On a few tokens of its own:

- Every FFN is run from its weights, in the place where a compressed one would go: the outputs must stay what they were.
  An FFN that does more than its layout says (a sparsity in between, a gate that is really the other layer) shows here.
- A norm's output is divided by a scale and the FFN's input multiplied by it. Powers of two are exact in floating point,
  so the outputs must be the same BITS, unless something else reads that norm: attention in parallel blocks, or the
  residual stream. Such a norm is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.errors import UnsupportedArchitectureError
from ffn_heavyhitter.feedforward import run_neurons
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["checked", "first_output", "sample_inputs"]

_TOKENS = 8


def checked(model: nn.Module, ffns: Sequence[FFN]) -> list[FFN]:
    """The FFNs, each with its norm only where that feeds nothing else.

    Parameters
    ----------
    model : nn.Module
        Dense, in eval mode.
    ffns : sequence of FFN
        Of this model.

    Returns
    -------
    list of FFN
        In the same order. Where the model cannot be asked (it is no transformers model of text or images) no norm is
        trusted.

    Raises
    ------
    UnsupportedArchitectureError
        If an FFN computes something else than its layout says.
    """
    was_training = model.training
    model.eval()
    try:
        inputs = sample_inputs(model)
        before = None if inputs is None else first_output(model, inputs)
        if inputs is None or before is None:
            return [ffn.without_norm() for ffn in ffns]
        with ExitStack() as stack:
            for ffn in ffns:
                stack.enter_context(_from_weights(ffn))
            after = first_output(model, inputs)
        if after is None or not _close(before, after):
            raise UnsupportedArchitectureError(
                f"{type(model).__name__}: run from its weights as the adapter of {type(ffns[0].block).__name__} says "
                f"({ffns[0].layout}), the model answers differently; register_adapter takes the layout that it has"
            )
        if _same_when_scaled(model, inputs, ffns, before):
            return list(ffns)
        return [ffn if _same_when_scaled(model, inputs, [ffn], before) else ffn.without_norm() for ffn in ffns]
    finally:
        model.train(was_training)


def sample_inputs(model: Any) -> dict[str, Tensor] | None:
    """A few tokens, or one random image, as this model takes them."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        return None
    first = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    text = config.get_text_config()
    of_images = text is config and getattr(model, "main_input_name", None) == "pixel_values"
    vocabulary = getattr(text, "vocab_size", None)
    if vocabulary is not None and not of_images:
        return {"input_ids": torch.randint(vocabulary, (1, _TOKENS), generator=generator).to(first.device)}
    size = getattr(config, "image_size", None)
    if not of_images or not isinstance(size, int):
        return None
    image = torch.randn(1, getattr(config, "num_channels", 3), size, size, generator=generator)
    return {"pixel_values": image.to(first.device, first.dtype)}


def first_output(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor | None:
    """The first output; None where the model takes other inputs than these."""
    try:
        with torch.no_grad():
            found = model(**inputs)[0]
    except (AttributeError, TypeError, ValueError, RuntimeError, LookupError):
        return None
    return found if isinstance(found, Tensor) else None


def _close(before: Tensor, after: Tensor) -> bool:
    """Whether two runs differ by rounding alone; where the dense model is not finite itself there is nothing to see."""
    if not torch.isfinite(before).all():
        return True
    difference = (after - before).double().norm()
    return bool(difference <= torch.finfo(before.dtype).eps ** 0.5 * before.double().norm())


def _same_when_scaled(model: nn.Module, inputs: dict[str, Tensor], ffns: Sequence[FFN], before: Tensor) -> bool:
    scaled = [ffn for ffn in ffns if ffn.norm is not None]
    if not scaled:
        return True
    with ExitStack() as stack:
        for ffn in scaled:
            stack.enter_context(_scaled(ffn))
        after = first_output(model, inputs)
        return after is not None and torch.equal(after, before)


@contextmanager
def _scaled(ffn: FFN) -> Iterator[None]:
    """Divide what the norm gives and multiply what the FFN reads, for the time of the block."""
    norm = ffn.norm
    assert norm is not None
    weight = norm.get_parameter("weight")
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=weight.dtype, device=weight.device).repeat(len(weight) // 3 + 1)
    scale = scale[: len(weight)]

    def divide(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output / scale.to(output.dtype)

    def multiply(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * scale.to(inputs[0].dtype), *inputs[1:])

    handles = [norm.register_forward_hook(divide)]
    handles += [layer.register_forward_pre_hook(multiply) for layer in ffn.inner]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _FromWeights(nn.Module):
    """The FFN as its layout says."""

    def __init__(self, weights: FFNWeights, activation: nn.Module) -> None:
        super().__init__()
        self.weights, self.activation = weights, activation

    def forward(self, x: Tensor) -> Tensor:
        """Output, shape (..., d)."""
        hidden = run_neurons(self.weights, self.activation, x)
        return nn.functional.linear(hidden, self.weights.down, self.weights.down_bias)


@contextmanager
def _from_weights(ffn: FFN) -> Iterator[None]:
    """Run an FFN from its weights for the time of the block."""
    stand_in = _FromWeights(ffn.weights(), ffn.activation)
    displaced = ffn.displace(stand_in)
    try:
        yield
    finally:
        ffn.put_back(displaced)
