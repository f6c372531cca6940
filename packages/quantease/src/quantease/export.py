"""Write a quantised model so that engines load it: compressed-tensors ``pack-quantized``, or dense weights.

``pack-quantized`` holds codes, scales and zeros of Linear layers; transformers and vLLM read it. It has no place for
outliers and none for GPT-2's Conv1D, so these are refused; ``export_dense`` merges everything into ordinary weights,
and ``quantease.native`` keeps outliers in modules of their own.

A folder appears under its name only after it was loaded again by transformers and gave the same logits, bit for bit.
Weights stay in the type of the checkpoint.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quantease.errors import ExportError
from quantease.layer import LayerResult
from quantease.model_folder import SHARD, refuse_existing, state_of, written
from quantease.pipeline import QuantizedModel
from quantease.preflight import OUTLIERS, check_described, refuse_gguf_grid, refuse_unpackable, stored_type

__all__ = ["compare_logits", "export_compressed_tensors", "export_dense", "packed_codes"]

CHECKED_TOKENS = 32


def export_compressed_tensors(
    quantized: QuantizedModel,
    folder: str | os.PathLike[str],
    tokenizer: Any = None,
    max_shard_size: int | str = SHARD,
) -> None:
    """Write ``pack-quantized`` safetensors and reload them before the folder gets its name.

    Parameters
    ----------
    quantized : QuantizedModel
    folder : path
        Must not exist.
    tokenizer : Hugging Face tokenizer, path or None
        Saved beside the weights; None takes the files from the folder that the model was read from.
    max_shard_size : int or str
        Most bytes a file of weights, or such as "5GB".

    Raises
    ------
    ExportError
        If the format cannot hold the model, ``folder`` exists, or the reloaded model differs.
    """
    refuse_existing(folder)
    _refuse_unpackable(quantized)
    check_described(quantized.model)
    stored_as = stored_type(quantized.model)
    state = {key: tensor for key, tensor in state_of(quantized.model, stored_as).items() if not _packed(key, quantized)}
    for name, layer in quantized.layers.items():
        state |= {f"{name}.{part}": tensor for part, tensor in _packed_layer(name, layer, stored_as).items()}
    _write(quantized.model, state, folder, tokenizer, max_shard_size, _quantization_config(quantized, stored_as))


def export_dense(
    quantized: QuantizedModel,
    folder: str | os.PathLike[str],
    tokenizer: Any = None,
    max_shard_size: int | str = SHARD,
) -> None:
    """Write the quantised values as ordinary weights, outliers merged: every engine loads it, nothing gets smaller.

    Parameters are those of ``export_compressed_tensors``.

    Raises
    ------
    ExportError
        If ``folder`` exists or the reloaded model differs.
    """
    refuse_existing(folder)
    check_described(quantized.model)
    state = state_of(quantized.model, stored_type(quantized.model))
    _write(quantized.model, state, folder, tokenizer, max_shard_size, None)


def packed_codes(codes: Tensor, bits: int, along: int = 1) -> Tensor:
    """Codes 0 .. 2^bits - 1 as dense int32 words, by compressed-tensors."""
    from compressed_tensors.compressors import pack_to_int32

    signed = (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)
    words: Tensor = pack_to_int32(signed, bits, packed_dim=along)
    return words


def _packed_layer(name: str, layer: LayerResult, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of one layer; scales in the type of the model, as engines multiply in the type of the scale."""
    bits = layer.scheme.bits
    scale = layer.scale.to(dtype)
    if not torch.equal(scale.float(), layer.scale.float()):
        raise ExportError(
            f"the {layer.scheme.scale_dtype} scales of {name} do not fit the model's {dtype}; quantise the model in "
            "the type that it is exported in"
        )
    parts = {
        "weight_packed": packed_codes(layer.codes, bits),
        "weight_scale": scale.contiguous(),
        "weight_shape": torch.tensor(layer.codes.shape),
    }
    if not layer.scheme.symmetric:
        parts["weight_zero_point"] = packed_codes(layer.zero, bits, along=0)
    return parts


def _quantization_config(quantized: QuantizedModel, stored_as: torch.dtype) -> dict[str, Any]:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    scheme = next(iter(quantized.layers.values())).scheme
    weights = QuantizationArgs(
        num_bits=scheme.bits,
        type="int",
        symmetric=scheme.symmetric,
        strategy="channel" if scheme.group_size is None else "group",
        group_size=scheme.group_size,
    )
    untouched = [
        name
        for name, module in quantized.model.named_modules()
        if isinstance(module, nn.Linear) and name not in quantized.layers
    ]
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        format="pack-quantized",
        quantization_status="compressed",
        ignore=untouched,
    )
    described: dict[str, Any] = json.loads(config.model_dump_json(exclude_none=True))
    if not scheme.symmetric or stored_as != torch.float32:
        # transformers 5.23 lays out packed zero points wrongly unless it dequantises while loading, and then alone
        # multiplies scale and code in the type of the checkpoint whatever type the model is loaded in
        described["dequantize"] = True
    return described


def _refuse_unpackable(quantized: QuantizedModel) -> None:
    for name, layer in quantized.layers.items():
        if layer.sparse is not None:
            raise ExportError(f"{name} keeps outliers, which {OUTLIERS}")
        refuse_gguf_grid(layer.scheme, "compressed-tensors")
        refuse_unpackable(name, quantized.model.get_submodule(name))


def _packed(key: str, quantized: QuantizedModel) -> bool:
    return key.removesuffix(".weight") in quantized.layers and key.endswith(".weight")


def _write(
    model: nn.Module,
    state: dict[str, Tensor],
    folder: str | os.PathLike[str],
    tokenizer: Any,
    max_shard_size: int | str,
    quantization: dict[str, Any] | None,
) -> None:
    def described(config: dict[str, Any]) -> dict[str, Any]:
        return config if quantization is None else config | {"quantization_config": quantization}

    with written(model, state, folder, tokenizer, max_shard_size=max_shard_size, edit_config=described) as scratch:
        _compare(model, scratch)


def _compare(model: nn.Module, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    try:
        reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=next(model.parameters()).dtype)
    except Exception as error:  # whatever its reason, nobody could load the folder
        said = " ".join(str(error).split())
        raise ExportError(
            f"transformers cannot load {type(model).__name__} in this format ({type(error).__name__}: {said}); use "
            "export_dense or save_native"
        ) from error
    compare_logits(model, reloaded)


@torch.no_grad()
def compare_logits(model: nn.Module, reloaded: Any) -> None:
    """Refuse a reloaded model that does not give the logits of the one in memory."""
    weight = next(model.parameters())
    reloaded.to(weight.device).eval()
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    tokens = torch.randint(0, vocabulary, (1, CHECKED_TOKENS), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(weight.device)
    ours, theirs = model(tokens, use_cache=False).logits, reloaded(tokens, use_cache=False).logits
    if not torch.equal(ours, theirs):
        gap = float((ours - theirs).abs().max())
        raise ExportError(f"the reloaded model differs by up to {gap:.3g} in its logits; the export was not kept")
