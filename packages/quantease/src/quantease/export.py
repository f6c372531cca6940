"""Write a quantised model so that engines load it: compressed-tensors ``pack-quantized``, or dense weights.

``pack-quantized`` holds codes, scales and zeros of Linear layers; transformers and vLLM read it. It has no place for
outliers and none for GPT-2's Conv1D, so these are refused; ``export_dense`` merges everything into ordinary weights,
and ``quantease.native`` keeps outliers in modules of their own.

A folder appears under its name only after it was loaded again by transformers and gave the same logits, bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from quantease.errors import ExportError
from quantease.layer import LayerResult
from quantease.pipeline import QuantizedModel

__all__ = ["export_compressed_tensors", "export_dense", "packed_codes"]

CHECKED_TOKENS = 32


def export_compressed_tensors(quantized: QuantizedModel, folder: Path, tokenizer: Any = None) -> None:
    """Write ``pack-quantized`` safetensors and reload them before the folder gets its name.

    Parameters
    ----------
    quantized : QuantizedModel
    folder : Path
        Must not exist.
    tokenizer : Hugging Face tokenizer, optional
        Saved beside the weights.

    Raises
    ------
    ExportError
        If the format cannot hold the model, ``folder`` exists, or the reloaded model differs.
    """
    _refuse_unpackable(quantized)
    whole = _state(quantized.model)
    state_type = {key: tensor.dtype for key, tensor in whole.items()}
    state = {key: tensor for key, tensor in whole.items() if not _replaced(key, quantized)}
    for name, layer in quantized.layers.items():
        dtype = state_type[f"{name}.weight"]
        state |= {f"{name}.{part}": tensor for part, tensor in _packed_layer(name, layer, dtype).items()}
    _write(quantized.model, state, folder, tokenizer, _quantization_config(quantized))


def export_dense(quantized: QuantizedModel, folder: Path, tokenizer: Any = None) -> None:
    """Write the quantised values as ordinary weights, outliers merged: every engine loads it, nothing gets smaller.

    Raises
    ------
    ExportError
        If ``folder`` exists or the reloaded model differs.
    """
    _write(quantized.model, _state(quantized.model), folder, tokenizer, None)


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
            f"the {layer.scheme.scale_dtype} scales of {name} do not fit the model's {dtype}; quantise with "
            f"scale_dtype={str(dtype).removeprefix('torch.')!r}"
        )
    parts = {
        "weight_packed": packed_codes(layer.codes, bits),
        "weight_scale": scale.contiguous(),
        "weight_shape": torch.tensor(layer.codes.shape),
    }
    if not layer.scheme.symmetric:
        parts["weight_zero_point"] = packed_codes(layer.zero, bits, along=0)
    return parts


def _quantization_config(quantized: QuantizedModel) -> dict[str, Any]:
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
    if not scheme.symmetric:
        # transformers 5.23 lays out packed zero points wrongly unless it dequantises while loading
        described["dequantize"] = True
    return described


def _refuse_unpackable(quantized: QuantizedModel) -> None:
    for name, layer in quantized.layers.items():
        module = quantized.model.get_submodule(name)
        if layer.sparse is not None:
            raise ExportError(
                f"{name} keeps outliers, which pack-quantized cannot hold and no engine loads beside it; "
                "use quantease.native.save_native, or export_dense to merge them"
            )
        if not isinstance(module, nn.Linear):
            raise ExportError(
                f"{name} is a {type(module).__name__}; pack-quantized engines load Linear layers only; use export_dense"
            )


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers; of tied ones the first name, as the config ties them again."""
    kept: dict[int, str] = {}
    state = {}
    for key, tensor in model.state_dict().items():
        if tensor.numel() and kept.setdefault(tensor.data_ptr(), key) != key:
            continue
        state[key] = tensor.contiguous()
    return state


def _replaced(key: str, quantized: QuantizedModel) -> bool:
    return key.removesuffix(".weight") in quantized.layers and key.endswith(".weight")


def _write(
    model: nn.Module, state: dict[str, Tensor], folder: Path, tokenizer: Any, quantization: dict[str, Any] | None
) -> None:
    if folder.exists():
        raise ExportError(f"{folder} exists; choose another name or delete it")
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_file({key: tensor.cpu() for key, tensor in state.items()}, scratch / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(scratch)  # type: ignore[operator, union-attr]
    described = json.loads((scratch / "config.json").read_text(encoding="utf-8"))
    described |= {"architectures": [type(model).__name__]}
    if quantization is not None:
        described["quantization_config"] = quantization
    (scratch / "config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(scratch)
    try:
        _compare(model, scratch)
    except ExportError:
        shutil.rmtree(scratch)
        raise
    os.replace(scratch, folder)


@torch.no_grad()
def _compare(model: nn.Module, folder: Path) -> None:
    """Refuse a folder whose model does not give the logits of the one in memory."""
    from transformers import AutoModelForCausalLM

    weight = next(model.parameters())
    reloaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=weight.dtype)
    reloaded.to(weight.device).eval()
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    tokens = torch.randint(0, vocabulary, (1, CHECKED_TOKENS), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(weight.device)
    ours, theirs = model(tokens, use_cache=False).logits, reloaded(tokens, use_cache=False).logits
    if not torch.equal(ours, theirs):
        gap = float((ours - theirs).abs().max())
        raise ExportError(f"the reloaded model differs by up to {gap:.3g} in its logits; the export was not kept")
