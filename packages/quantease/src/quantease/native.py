"""Quantised linear layers with their outliers as modules of their own, on disk and in memory.

    y = x (S (C - Z) + H)^T + bias

C is packed, H (the outliers) is stored by rows (CSR: pointers, 16 or 32 bit column numbers, values) or by columns. The
weight is rebuilt at every call: the module saves memory, not time, and no other engine knows it. So that none takes the
folder for one of its own and fills the missing weights at random, ``config.json`` names a model type that
transformers refuses ("quantease"), the weights are called ``quantease.safetensors``, and ``model_config.json`` holds
the true config.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from quantease.errors import ExportError
from quantease.export import compare_logits, packed_codes
from quantease.layer import LayerResult
from quantease.model_folder import DESCRIPTION, SHARD, read_description, refuse_existing, state_of, written
from quantease.pipeline import QuantizedModel
from quantease.preflight import refuse_gguf_grid, stored_type

__all__ = ["QuantizedLinear", "is_native", "load_native", "save_native"]

FORMAT = 2
MODEL_TYPE = "quantease"
TRUE_CONFIG = "model_config.json"
WEIGHTS = "quantease{suffix}.safetensors"


class QuantizedLinear(nn.Module):
    """One quantised linear layer; buffers ``packed``, ``scale``, ``zero`` and, with outliers, ``sparse_*``."""

    def __init__(
        self,
        bits: int,
        inputs: int,
        kind: str | None,
        transposed: bool,
        stored_as: torch.dtype,
        tensors: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.bits, self.inputs, self.kind, self.transposed = bits, inputs, kind, transposed
        self.stored_as = stored_as
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(cls, layer: LayerResult, bias: Tensor | None, transposed: bool, stored_as: torch.dtype) -> QuantizedLinear:
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
        return cls(layer.scheme.bits, p, kind, transposed, stored_as, tensors)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The weight (outputs, inputs), rebuilt in float32 and rounded to the checkpoint's type, then to ``dtype``."""
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
        return weight.to(self.stored_as).to(dtype)

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


def save_native(
    quantized: QuantizedModel,
    folder: str | os.PathLike[str],
    tokenizer: Any = None,
    max_shard_size: int | str = SHARD,
) -> None:
    """Write codes, scales, zeros and outliers of every layer, and the rest of the model as it is.

    Parameters are those of ``export_compressed_tensors``.

    Raises
    ------
    ExportError
        If ``folder`` exists, or the model that is read from it again differs.
    """
    refuse_existing(folder)
    model, stored_as = quantized.model, stored_type(quantized.model)
    state = state_of(model, stored_as)
    layers: dict[str, Any] = {}
    for name, layer in quantized.layers.items():
        refuse_gguf_grid(layer.scheme, "native")
        original = model.get_submodule(name)
        module = QuantizedLinear.of(
            layer, state.pop(f"{name}.bias", None), not isinstance(original, nn.Linear), stored_as
        )
        del state[f"{name}.weight"]
        state |= {f"{name}.{part}": tensor for part, tensor in module.named_buffers()}
        layers[name] = {
            "bits": module.bits,
            "inputs": module.inputs,
            "kind": module.kind,
            "transposed": module.transposed,
        }
    config: Any = model.config
    true = json.loads(config.to_json_string(use_diff=False)) | {"dtype": str(stored_as).removeprefix("torch.")}
    about = {
        "format": FORMAT,
        "model": type(model).__name__,
        "dtype": str(stored_as).removeprefix("torch."),
        "layers": layers,
    }
    with written(
        model,
        state,
        folder,
        tokenizer,
        weights=WEIGHTS,
        max_shard_size=max_shard_size,
        described=about,
        edit_config=_refused_by_transformers,
        more={TRUE_CONFIG: json.dumps(true, indent=1)},
    ) as scratch:
        _compare(model, scratch)


def is_native(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder says of itself that ``save_native`` wrote it."""
    places = Path(folder) / TRUE_CONFIG, Path(folder) / "quantease.safetensors"
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        named = config.get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        named = False
    return named or any(place.exists() for place in places)


def load_native(folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Any:
    """Load what ``save_native`` wrote, with a ``QuantizedLinear`` in the place of every quantised layer.

    Parameters
    ----------
    folder : path
    dtype : torch.dtype, optional
        To compute in; the checkpoint's by default.

    Raises
    ------
    ExportError
        If the folder is not of this format, or a file in it is not the one that was written.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, GenerationConfig

    place = Path(folder)
    about = read_description(place)
    if about is None or "layers" not in about:
        raise ExportError(f"{place} holds no {DESCRIPTION} of save_native; load it with transformers' from_pretrained")
    if about.get("format") != FORMAT:
        raise ExportError(f"{place} is of format {about.get('format')!r}; this version reads format {FORMAT}")
    stored_as = getattr(torch, about["dtype"])
    computed_in = stored_as if dtype is None else dtype
    config = true_config(place)
    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=computed_in)  # type: ignore[no-untyped-call]
    state: dict[str, Tensor] = {}
    for shard in sorted(name for name in about["files"] if name.endswith(".safetensors")):
        state |= load_file(place / shard)
    for name, how in about["layers"].items():
        mine = {key.removeprefix(f"{name}."): state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        if "bias" in mine:
            mine["bias"] = mine["bias"].to(computed_in)
        parent, _, child = name.rpartition(".")
        module = QuantizedLinear(**how, stored_as=stored_as, tensors=mine)
        setattr(model.get_submodule(parent), child, module)
    parameters = dict(model.named_parameters())
    for key, tensor in state.items():
        if key in parameters and tensor.dtype == stored_as:
            state[key] = tensor.to(computed_in)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights(missing_keys=set(missing))
    absent = [key for key, tensor in model.state_dict().items() if tensor.is_meta]
    if unexpected or absent:
        raise ExportError(f"{place} does not fit its config: missing {absent}, unexpected {list(unexpected)}")
    if (place / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(place)
    model.config._name_or_path = str(place)
    return model.eval()


def true_config(folder: Path) -> Any:
    """The config of the model that a native folder holds."""
    from transformers import AutoConfig

    kind = type(AutoConfig.for_model(json.loads((folder / TRUE_CONFIG).read_text(encoding="utf-8"))["model_type"]))
    return kind.from_json_file(folder / TRUE_CONFIG)


def _refused_by_transformers(config: dict[str, Any]) -> dict[str, Any]:
    """A config that no transformers model is built from."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["QuantEaseNative: load with quantease.load_native"],
        "quantization_config": {"quant_method": MODEL_TYPE},
        "true_config": TRUE_CONFIG,
    }


def _compare(model: nn.Module, folder: Path) -> None:
    try:
        compare_logits(model, load_native(folder, next(model.parameters()).dtype))
    except (AttributeError, TypeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ExportError(
            f"{type(model).__name__} does not run with QuantizedLinear layers ({type(error).__name__}: {said}); it may "
            "read their weights itself. Use export_dense"
        ) from error
