"""Quantised linear layers with their outliers as modules of their own, on disk and in memory.

    y = x (S (C - Z) + H)^T + bias

C is packed, H (the outliers) is stored by rows (CSR: pointers, 16 or 32 bit column numbers, values) or by columns. The
weight is rebuilt at every call: the module saves memory, not time, and no other engine knows it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quantease.errors import ExportError
from quantease.export import _state, packed_codes
from quantease.layer import LayerResult
from quantease.pipeline import QuantizedModel

__all__ = ["QuantizedLinear", "load_native", "save_native"]

DESCRIPTION = "quantease.json"
FORMAT = 1


class QuantizedLinear(nn.Module):
    """One quantised linear layer; buffers ``packed``, ``scale``, ``zero`` and, with outliers, ``sparse_*``."""

    def __init__(self, bits: int, inputs: int, kind: str | None, transposed: bool, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.bits, self.inputs, self.kind, self.transposed = bits, inputs, kind, transposed
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(cls, layer: LayerResult, bias: Tensor | None, transposed: bool) -> QuantizedLinear:
        """Pack one result."""
        tensors = {
            "packed": packed_codes(layer.codes, layer.scheme.bits),
            "scale": layer.scale.contiguous(),
            "zero": layer.zero.contiguous(),
        }
        q, p = layer.codes.shape
        kind = None
        if layer.sparse is not None:
            kind = layer.sparse.kind
            tensors["sparse_values"] = layer.sparse.values
            if kind == "column":
                columns = torch.unique(layer.sparse.columns)
                tensors["sparse_columns"] = columns
                tensors["sparse_values"] = layer.sparse.values.reshape(q, len(columns))
            else:
                counts = torch.bincount(layer.sparse.rows.long(), minlength=q)
                tensors["sparse_pointers"] = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).int()
                narrow = torch.uint16 if p <= 1 << 16 else torch.int32
                tensors["sparse_columns"] = layer.sparse.columns.to(narrow)
        if bias is not None:
            tensors["bias"] = bias.detach().clone()
        return cls(layer.scheme.bits, p, kind, transposed, tensors)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The weight (outputs, inputs), rebuilt in float32 and rounded to ``dtype``."""
        from compressed_tensors.compressors import unpack_from_int32

        buffers: dict[str, Tensor] = dict(self.named_buffers())
        scale, zero = buffers["scale"].float(), buffers["zero"].float()
        codes = unpack_from_int32(buffers["packed"], self.bits, torch.Size((len(scale), self.inputs)))
        size = self.inputs // scale.shape[1]
        shifted = codes.float() + (1 << (self.bits - 1)) - zero.repeat_interleave(size, 1)
        weight: Tensor = shifted * scale.repeat_interleave(size, 1)
        if self.kind == "column":
            weight[:, buffers["sparse_columns"].long()] += buffers["sparse_values"].float()
        elif self.kind == "unstructured":
            pointers = buffers["sparse_pointers"].long()
            rows = torch.arange(len(scale), device=scale.device).repeat_interleave(pointers.diff())
            weight[rows, buffers["sparse_columns"].long()] += buffers["sparse_values"].float()
        return weight.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape (..., inputs) to (..., outputs)."""
        bias = dict(self.named_buffers()).get("bias")
        weight = self.weight(x.dtype)
        if not self.transposed:
            return nn.functional.linear(x, weight, bias)
        # the sum that GPT-2's Conv1D does, so that results stay equal bit for bit
        flat = x.reshape(-1, x.shape[-1])
        product = flat @ weight.T.contiguous() if bias is None else torch.addmm(bias, flat, weight.T.contiguous())
        return product.reshape(*x.shape[:-1], len(weight))


def save_native(quantized: QuantizedModel, folder: Path, tokenizer: Any = None) -> None:
    """Write codes, scales, zeros and outliers of every layer, and the rest of the model as it is.

    Raises
    ------
    ExportError
        If ``folder`` exists.
    """
    if folder.exists():
        raise ExportError(f"{folder} exists; choose another name or delete it")
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    state = _state(quantized.model)
    described: dict[str, Any] = {}
    for name, layer in quantized.layers.items():
        original = quantized.model.get_submodule(name)
        module = QuantizedLinear.of(layer, state.pop(f"{name}.bias", None), not isinstance(original, nn.Linear))
        del state[f"{name}.weight"]
        state |= {f"{name}.{part}": tensor for part, tensor in module.named_buffers()}
        described[name] = {
            "bits": module.bits,
            "inputs": module.inputs,
            "kind": module.kind,
            "transposed": module.transposed,
        }
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, scratch / "model.safetensors", {"format": "pt"})
    quantized.model.config.save_pretrained(scratch)  # type: ignore[operator, union-attr]
    about = {"format": FORMAT, "model": type(quantized.model).__name__, "layers": described}
    (scratch / DESCRIPTION).write_text(json.dumps(about, indent=1), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(scratch)
    os.replace(scratch, folder)


def load_native(folder: Path) -> Any:
    """Load what ``save_native`` wrote, with a ``QuantizedLinear`` in the place of every quantised layer.

    Raises
    ------
    ExportError
        If the folder is not of this format.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (folder / DESCRIPTION).exists():
        raise ExportError(f"{folder} holds no {DESCRIPTION}; load it with transformers' from_pretrained")
    about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if about.get("format") != FORMAT:
        raise ExportError(f"{folder} is of format {about.get('format')!r}; this version reads format {FORMAT}")
    state = load_file(folder / "model.safetensors")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))  # type: ignore[no-untyped-call]
    for name, how in about["layers"].items():
        mine = {key.removeprefix(f"{name}."): state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, QuantizedLinear(**how, tensors=mine))
    missing, unexpected = model.load_state_dict(state, strict=False)
    quantized = tuple(f"{name}." for name in about["layers"])
    absent = [key for key in missing if not key.startswith(quantized)]
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    if unexpected or any(key not in tied for key in absent):
        raise ExportError(f"{folder} does not fit its config: missing {absent}, unexpected {list(unexpected)}")
    model.tie_weights()
    return model.eval()
