"""What can be known before a run: whether the weights are sound, the scales fit, and the result can be written.

The twin of a model is the model that its config alone gives, parameters without storage, buffers as every loader makes
them. A folder holds parameters and persistent buffers; all else comes from the config again. So a buffer that differs
from the twin's is lost on the way to disk, and a parameter that the twin does not have cannot be loaded.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from quantease.blocks import LinearLayer
from quantease.errors import ExportError, FormatWarning, LayerError, ModelError, ScaleWarning, SchemeError
from quantease.layer import check_finite, lost_scales_said
from quantease.scales import count_lost_scales, with_scale_type
from quantease.scheme import OutlierConfig, QuantizationScheme

__all__ = ["Format", "check_format", "check_weights", "restore_buffers", "scheme_for", "stored_type", "twin_of"]

Format = Literal["compressed-tensors", "dense", "gguf", "native"]

# layers that engines merge into one: all of them are quantised, or none
FUSED = [("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"), ("w1", "w3")]
HALVES = (torch.float16, torch.bfloat16)


def stored_type(model: nn.Module) -> torch.dtype:
    """The type in which the weights of a model are stored.

    That of the checkpoint (``model.config.dtype``) where the model was read into float32 and every parameter still is
    a number of that type, as ``load_model`` leaves it; else the type that the parameters have.
    """
    floats = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    own = floats[0].dtype
    named = getattr(getattr(model, "config", None), "dtype", None)
    if own != torch.float32 or named not in HALVES:
        return own
    held = all(torch.equal(tensor.detach().to(named).to(tensor.dtype), tensor.detach()) for tensor in floats)
    return named if held else own


def scheme_for(scheme: QuantizationScheme, stored: torch.dtype) -> QuantizationScheme:
    """The scheme with scales in the type of a 16-bit checkpoint: engines multiply codes and scales in that type.

    Raises
    ------
    SchemeError
        If the scheme asks for another type.
    """
    if stored not in HALVES:
        return scheme
    own = str(stored).removeprefix("torch.")
    if scheme.scale_dtype not in (None, own):
        raise SchemeError(
            f"scale_dtype={scheme.scale_dtype!r} does not fit a checkpoint of {own}: engines multiply in its type; use "
            f"scale_dtype={own!r}, or leave it out"
        )
    return replace(scheme, scale_dtype=own)  # type: ignore[arg-type]


def check_weights(model: nn.Module, layers: Iterable[LinearLayer], scheme: QuantizationScheme) -> None:
    """Scan every parameter for NaN and infinity, and every layer for scales outside the range of their type.

    Raises
    ------
    LayerError
        Names the parameter, or the layer.

    Warns
    -----
    ScaleWarning
        If scales lie below the range.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            check_finite(name, parameter.detach())
    for layer in layers:
        try:
            lost = count_lost_scales(layer.weight, settled := with_scale_type(layer.weight, scheme))
        except LayerError as error:
            raise LayerError(f"{layer.name}: {error}") from error
        if lost:
            warnings.warn(f"{layer.name}: {lost_scales_said(lost, settled)}", ScaleWarning, stacklevel=3)


def twin_of(model: nn.Module) -> nn.Module:
    """The model of the same config, parameters on the meta device, buffers real."""
    from accelerate import init_empty_weights

    kind: Any = type(model)
    with warnings.catch_warnings(), init_empty_weights(include_buffers=False):
        warnings.simplefilter("ignore")
        return kind._from_config(copy.deepcopy(model.config), dtype=next(model.parameters()).dtype)  # type: ignore[no-any-return]


def restore_buffers(model: nn.Module) -> None:
    """Put right what ``model.to(dtype)`` did to buffers that no file holds: rotary frequencies lose digits by it.

    Every loader computes them from the config in a type of its own, so the cast model is not the one that is read
    again. A buffer that is a cast copy of the twin's takes the twin's value.

    Warns
    -----
    FormatWarning
        If a buffer differs in another way: no folder can hold the model.
    """
    if not hasattr(model, "config") or not hasattr(type(model), "_from_config"):
        return
    saved = model.state_dict().keys()
    ours = dict(model.named_buffers())
    for name, theirs in twin_of(model).named_buffers():
        mine = ours.get(name)
        if name in saved or mine is None or mine.is_meta or theirs.is_meta:
            continue
        right = theirs.to(mine.device)
        if mine.dtype == right.dtype and _equal(mine, right):
            continue
        if any(_equal(right.to(cast).to(mine.dtype), mine) for cast in (mine.dtype, *HALVES)):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, right)
        else:
            warnings.warn(
                f"{name} is not what the config gives and is no part of the state that files hold; a model read from a "
                "folder will differ",
                FormatWarning,
                stacklevel=3,
            )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def check_skip(skip: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Patterns of layers to leave alone, each of which must match one of the names."""
    patterns = (skip,) if isinstance(skip, str) else tuple(skip)
    known = list(names)
    for pattern in patterns:
        if not isinstance(pattern, str) or not any(fnmatch(name, pattern) for name in known):
            raise ModelError(f"skip pattern {pattern!r} matches no linear layer; they are named like {known[0]}")
    return patterns


def split_fusions(chosen: Iterable[str], every: Iterable[str]) -> list[str]:
    """Layers left out although others that engines merge them with are quantised."""
    quantized, names = set(chosen), set(every)
    lone = []
    for name in sorted(names - quantized):
        parent, _, child = name.rpartition(".")
        mates = next((group for group in FUSED if child in group), ())
        if any(f"{parent}.{mate}" in quantized for mate in mates):
            lone.append(name)
    return lone


def check_format(
    model: nn.Module,
    layers: Iterable[LinearLayer],
    form: Format,
    outliers: OutlierConfig | None,
    scheme: QuantizationScheme,
) -> None:
    """Refuse, before the run, a result that the format could not hold.

    Raises
    ------
    ExportError
        If it has no place for outliers or for such layers, or if the config does not describe the model: a class that
        ``AutoModelForCausalLM`` does not give, parameters of other names or shapes.
    SchemeError
        If there is no such format.
    """
    if form not in get_args(Format):
        raise SchemeError(f"export={form!r} is unknown; use one of {', '.join(get_args(Format))}")
    if form == "gguf":
        from quantease.gguf_file import gguf_type

        gguf_type(scheme)
        for layer in layers:
            if not isinstance(layer.module, nn.Linear):
                raise ExportError(
                    f"{layer.name} is a {type(layer.module).__name__}; GGUF types are written of Linear layers alone. "
                    "Use the format native, or dense"
                )
        return
    if form != "dense":
        refuse_gguf_grid(scheme, form)
    if form == "compressed-tensors":
        if outliers is not None:
            raise ExportError(f"the run is to keep outliers, which {OUTLIERS}")
        for layer in layers:
            refuse_unpackable(layer.name, layer.module)
    check_described(model)


OUTLIERS = (
    "pack-quantized cannot hold and no engine loads beside it; use the format native (quantease.native.save_native), "
    "or dense (export_dense) to merge them"
)


def refuse_gguf_grid(scheme: QuantizationScheme, form: str) -> None:
    """Refuse zeros and signs that only GGUF's types have."""
    if scheme.is_ggml:
        raise ExportError(f"{form} cannot hold a grid of GGUF's types ({scheme}); use the format gguf, or dense")


def refuse_unpackable(name: str, module: nn.Module) -> None:
    """Refuse a layer that is not stored as (outputs, inputs)."""
    if not isinstance(module, nn.Linear):
        raise ExportError(
            f"{name} is a {type(module).__name__}; it holds its weight as (inputs, outputs), while the scales of "
            "pack-quantized belong to stored rows, here inputs, and its engines load Linear layers alone. The format "
            "native packs it (save_native); for ordinary weights use export_dense"
        )


def check_described(model: nn.Module) -> None:
    """Refuse a model that its own config does not give."""
    from transformers import AutoModelForCausalLM

    config: Any = model.config
    given: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    given = given[0] if isinstance(given, tuple) else given
    if given is not type(model):
        found = "none" if given is None else given.__name__
        raise ExportError(
            f"AutoModelForCausalLM gives {found} for {type(config).__name__}, not {type(model).__name__}: a folder of "
            "this model would be loaded as another"
        )
    expected = {name: tuple(tensor.shape) for name, tensor in twin_of(model).state_dict().items()}
    found_shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    odd = sorted(name for name in expected.keys() | found_shapes.keys() if expected.get(name) != found_shapes.get(name))
    if odd:
        raise ExportError(
            f"{odd[0]} has shape {found_shapes.get(odd[0])}, by the config it should have {expected.get(odd[0])}; "
            "bring model.config and model into agreement"
        )
