"""Everything that a choice of engine depends on, as a key that is read off before every step.

Of the model: every module's type, forward, mode, hooks and plain attributes, its parameters (which, trained or not,
held by the optimizer or not, type, shape, device, gradient hooks) and buffers. Of the call: the shapes and types of the
tensors, plain values among them, the code of the loss, autocast and determinism. What a key cannot show (a tensor used
without autograd, rows that meet) the check on a few rows does.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from msam_lawn.torch.containers import leaves
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.perturbation import Perturbation

__all__ = ["call_key", "model_key"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_CODE = (types.FunctionType, types.BuiltinFunctionType, type)
_GLOBAL_HOOKS = [name for name in vars(torch_module) if name.startswith("_global_") and name.endswith("hooks")]


def model_key(objective: Objective, perturbation: Perturbation) -> tuple[Any, ...]:
    """What the model, the loss and the trained set are, up to the numbers in their tensors."""
    held = {id(w): radius > 0 for w, radius in zip(perturbation.parameters, perturbation.radii, strict=True)}
    key: list[Any] = [perturbation.adaptive, len(held), code_key(objective.loss)]
    key += [tuple(getattr(torch_module, name)) for name in _GLOBAL_HOOKS]
    roots = [objective.model, *([objective.loss] if isinstance(objective.loss, nn.Module) else [])]
    for root in roots:
        for module in root.modules():
            _add_module(key, module, held)
    return tuple(key)


def _add_module(key: list[Any], module: nn.Module, held: Mapping[int, bool]) -> None:
    key += (id(module), type(module), type(module).forward, tuple(module._modules))
    for name, value in module.__dict__.items():
        if isinstance(value, (*_PLAIN, *_CODE)):
            key += (name, value)
        elif isinstance(value, dict):
            if value and name.endswith("_hooks"):
                key += (name, *value)
        elif isinstance(value, types.MethodType):
            key += (name, value.__func__, id(value.__self__))
        elif callable(value):
            key += (name, id(value))
    for parameter in module._parameters.values():
        if parameter is not None:
            key += (id(parameter), held.get(id(parameter)), parameter.requires_grad, parameter.shape)
            key += (parameter.dtype, parameter.device, bool(parameter._backward_hooks))
    for buffer in module._buffers.values():
        if buffer is not None:
            key += (buffer.shape, buffer.dtype)


def call_key(objective: Objective, through: nn.Module) -> tuple[Any, ...]:
    """The shapes of this mini-batch, and the state that torch keeps outside models."""
    key: list[Any] = [objective.sizes, through is objective.model, torch.are_deterministic_algorithms_enabled()]
    kinds = set()
    for tree in (objective.inputs, objective.targets, objective.weights):
        key.append(type(tree))
        for leaf in leaves(tree):
            if isinstance(leaf, torch.Tensor):
                kinds.add(leaf.device.type)
                key += (leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad)
            elif isinstance(leaf, _PLAIN):
                key.append(leaf)
        if isinstance(tree, Mapping):
            key += tree
    for kind in sorted(kinds):
        key += (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
    return tuple(key)


def code_key(function: Callable[..., Any]) -> Any:
    """A loss by its code and the switches it closes over: a lambda made anew for every step is one loss."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return (type(function), id(function))
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    switches = [code_key(x) if isinstance(x, types.FunctionType) and x is not function else x for x in cells]
    return (code, *[x for x in switches if isinstance(x, (bool, str, tuple, type(None)))])


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
