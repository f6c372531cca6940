"""The decoder blocks of a causal language model, their inputs, and the linear layers that share an input.

Nothing here knows a model by name: the blocks are the largest ``ModuleList`` of one class, every block is called as
the model calls it (arguments recorded, block by block, then replayed), and layers share an input where the forward
pass hands them the same tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantease.errors import ModelError

__all__ = [
    "Blocks",
    "Call",
    "LinearLayer",
    "capture_calls",
    "find_blocks",
    "linear_layers",
    "record_inputs",
    "run_block",
]


@dataclass(frozen=True)
class Blocks:
    """Name of the list inside the model, and its blocks."""

    name: str
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Call:
    """The arguments that a model gives a block besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class LinearLayer:
    """A linear map inside a block; ``Conv1D`` of GPT-2 stores its weight transposed."""

    name: str
    module: nn.Module
    transposed: bool

    @property
    def weight(self) -> Tensor:
        """Shape (outputs, inputs)."""
        weight: Tensor = self.module.weight.data  # type: ignore[assignment]
        return weight.T if self.transposed else weight

    def install(self, weight: Tensor) -> None:
        """Overwrite the weight in place; ``weight`` of shape (outputs, inputs)."""
        self.weight.copy_(weight)


def find_blocks(model: nn.Module) -> Blocks:
    """The ``ModuleList`` of one class that holds the most parameters.

    Raises
    ------
    ModelError
        If there is none, the model holds no weights, is quantised already, or keeps experts as packed parameters.
    """
    refuse_quantized(model)
    candidates = [
        (name, tuple(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(child) for child in module}) == 1
    ]
    if not candidates:
        raise ModelError(f"{type(model).__name__} has no ModuleList of blocks; only decoder models are supported")
    name, modules = max(candidates, key=lambda one: sum(p.numel() for block in one[1] for p in block.parameters()))
    for parameter_name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(f"{parameter_name} is on the meta device; load the model with its weights")
    for module_name, module in model.named_modules():
        _refuse_packed_experts(module_name, module)
    return Blocks(name, modules)


def refuse_quantized(model: nn.Module) -> None:
    """Refuse a model whose weights are quantised, by another program or by this one."""
    ours = any(type(module).__module__.startswith("quantease.") for module in model.modules())
    if ours or getattr(model, "quantization_method", None) is not None or hasattr(model, "hf_quantizer"):
        raise ModelError("the model is quantised already; load the full-precision checkpoint")


def _refuse_packed_experts(name: str, module: nn.Module) -> None:
    """Experts of a mixture as 3-D parameters of one module: no Linear layer, so nothing here would quantise them."""
    if "expert" not in type(module).__name__.lower():
        return
    for own, parameter in module.named_parameters(recurse=False):
        if parameter.ndim >= 2:
            raise ModelError(
                f"{name}.{own} of shape {tuple(parameter.shape)} packs the experts of a mixture into one parameter of "
                f"{type(module).__name__}; that is not supported. Quantise a dense model, or one with a Linear for "
                "each expert"
            )


def linear_layers(blocks: Blocks, index: int) -> dict[str, LinearLayer]:
    """Linear layers of one block by their full name in the model."""
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in blocks.modules[index].named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            full = f"{blocks.name}.{index}.{name}"
            found[full] = LinearLayer(full, module, isinstance(module, Conv1D))
    return found


class _Stop(Exception):
    """What was asked for has been seen."""


REPLAY_TOLERANCE = 1e-3, 1e-4  # relative, absolute: on a GPU sums may differ between two passes
UNREPLAYABLE = (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError)


@torch.no_grad()
def capture_calls(model: nn.Module, blocks: Blocks, windows: Tensor) -> tuple[list[Tensor], list[list[Call]]]:
    """Hidden states that enter the first block, and how every block is called, window by window.

    Returns
    -------
    hidden : list of Tensor
        One of shape (1, length, width) a window.
    calls : list of list of Call
        ``calls[window][block]``.

    Raises
    ------
    ModelError
        If the model does not run its blocks one after another, each on the hidden states of the one before.
    """
    leaving: list[Tensor] = []
    try:
        hidden, calls = _captured(model, blocks, windows, leaving)
        state = hidden[0].clone()
        for block, call in zip(blocks.modules, calls[0], strict=True):
            state = run_block(block, state, call, state.device)
        replayed = torch.allclose(state, leaving[0], *REPLAY_TOLERANCE, equal_nan=True)
    except ModelError:
        raise
    except UNREPLAYABLE as error:
        said = " ".join(str(error).split())
        raise ModelError(
            f"the blocks of {type(model).__name__} ({blocks.name}) cannot be run one by one "
            f"({type(error).__name__}: {said}); the model is no plain decoder"
        ) from error
    if not replayed:
        raise ModelError(
            f"the blocks of {type(model).__name__} ({blocks.name}), run one by one on recorded arguments, do not give "
            "what the model gives: something passes from block to block beside the hidden states. That is not supported"
        )
    return hidden, calls


def _captured(
    model: nn.Module, blocks: Blocks, windows: Tensor, leaving: list[Tensor]
) -> tuple[list[Tensor], list[list[Call]]]:
    """What ``capture_calls`` returns; the states that leave the last block for the first window go to ``leaving``."""
    hidden: list[Tensor] = []
    calls: list[list[Call]] = []

    def recorder(last: bool) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            state = args[0] if args else kwargs.pop("hidden_states")
            if not calls[-1]:
                hidden.append(state)
            calls[-1].append(Call(args[1:], kwargs))
            if last:
                raise _Stop
            return state if outputs is None else (state, *[None] * (outputs - 1))

        return forward

    output = _last_output(model, blocks.modules[-1], windows[:1])
    outputs = len(output) if isinstance(output, tuple | list) else None
    leaving.append(output if outputs is None else output[0])
    for index, block in enumerate(blocks.modules):
        block.forward = recorder(index == len(blocks.modules) - 1)
    try:
        for window in windows:
            calls.append([])
            _run_until_stop(model, window[None])
    finally:
        for block in blocks.modules:
            del block.forward
    return hidden, calls


def _last_output(model: nn.Module, block: nn.Module, window: Tensor) -> Any:
    """What the last block gives in an ordinary pass, which ends there."""
    seen: list[Any] = []

    def look(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(output)
        raise _Stop

    handle = block.register_forward_hook(look)
    try:
        _run_until_stop(model, window)
    finally:
        handle.remove()
    if not seen:
        raise ModelError(f"{type(block).__name__} was not called by the forward pass; the model is no plain decoder")
    return seen[0]


def _run_until_stop(model: nn.Module, window: Tensor) -> None:
    device = next(model.parameters()).device
    try:
        model(window.to(device), use_cache=False)
    except _Stop:
        return


@torch.no_grad()
def run_block(block: nn.Module, state: Tensor, call: Call, device: torch.device) -> Tensor:
    """Hidden states that leave a block, on the device they came from."""
    args, kwargs = _to_device((call.args, call.kwargs), device)
    output = block(state.to(device), *args, **kwargs)
    result: Tensor = output[0] if isinstance(output, tuple | list) else output
    return result.to(state.device)


@contextmanager
def record_inputs(
    layers: dict[str, LinearLayer], see: Callable[[str, Tensor], None], stop_after: str | None = None
) -> Iterator[None]:
    """Call ``see(name, input)`` whenever a layer runs; leave the forward pass after ``stop_after`` was seen."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
            see(name, args[0])
            if name == stop_after:
                raise _Stop

        return before

    handles = [layer.module.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()


def shared_inputs(
    block: nn.Module, layers: dict[str, LinearLayer], state: Tensor, call: Call, device: torch.device
) -> list[tuple[str, ...]]:
    """Names of layers that get the same tensor, in the order in which the block runs them.

    Raises
    ------
    ModelError
        If a layer does not run.
    """
    groups: list[tuple[Tensor, list[str]]] = []

    def see(name: str, x: Tensor) -> None:
        for tensor, names in groups:
            if tensor is x or (tensor.data_ptr() == x.data_ptr() and tensor.shape == x.shape):
                names.append(name)
                return
        groups.append((x, [name]))  # the reference keeps its memory from being used again

    with record_inputs(layers, see):
        run_block(block, state, call, device)
    reached = {name for _, names in groups for name in names}
    for name in layers:
        if name not in reached:
            pattern = f"*.{name.rpartition('.')[2]}"
            raise ModelError(
                f"{name} does not run on the calibration text; leave it out with skip=[{pattern!r}] (state-space "
                "mixers read the weight of such a layer without calling it)"
            )
    return [tuple(names) for _, names in groups]


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_to_device(item, device) for item in value)
    return value
