"""The plug-in by which transformers restores a compressed model: ``AutoModel*.from_pretrained(folder)``.

``config.json`` holds, under ``quantization_config``, the spec of every compressed FFN. Before weights are read, the
plug-in swaps the FFNs of the empty model for empty modules made from their specs; reading shards, placing on devices
and offloading are then what they always are.

A process without the plug-in must not load such a folder with fresh FFNs, as transformers does (it warns) for a
``quant_method`` that it does not know. Two things stand in its way:

- ``quant_method`` names a method that every transformers knows, with a number of bits that it refuses; the refused
  value is the remedy, so that the error names it. Our own entry lies beside, under ``ffn_heavyhitter``.
- For each FFN the weights hold an empty tensor under the dense name of its first layer. A model whose FFN is dense,
  because ``quantization_config`` was ignored or deleted, finds a tensor of the wrong shape, which is an error in every
  version and for every way to load a state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.quantizers.auto import AutoQuantizationConfig, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ffn_heavyhitter.adapters import FFN, find_ffns
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import build, compressed_ffns
from ffn_heavyhitter.int8_linear import int8_modules
from ffn_heavyhitter.whole import describe, put_empty, require_description

__all__ = ["METHOD", "FFNHeavyHitterConfig", "FFNHeavyHitterQuantizer"]

METHOD = "ffn_heavyhitter"
_SCHEMA, _WHOLE_SCHEMA = 2, 3
_READ = (1, 2, 3)  # 1 lacks what keeps other processes from loading it; 3 has int8 layers outside the FFNs
_REFUSED = {
    "quant_method": "gptq",
    "bits": "a model compressed by ffn-heavyhitter: `import ffn_heavyhitter` before from_pretrained",
}


@register_quantization_config(METHOD)
class FFNHeavyHitterConfig(QuantizationConfigMixin):
    """What ``config.json`` says about the compressed FFNs.

    Attributes
    ----------
    layers : dict[str, dict]
        Spec of each compressed FFN, by module name.
    whole : dict, optional
        The int8 layers outside compressed FFNs: ``activation_bits``; ``inputs``, names grouped by the input they read;
        ``embeddings``; ``tied``, heads that share an embedding's rows; ``outliers``, how many a layer has.
    schema : int
    """

    def __init__(
        self,
        layers: dict[str, Any] | None = None,
        schema: int = _SCHEMA,
        whole: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if schema not in _READ:
            raise CompressionError(
                f"schema={schema} of the compressed model is unknown; this version reads {', '.join(map(str, _READ))}"
            )
        if whole is not None:
            require_description(whole)
        self.quant_method: Any = METHOD
        self.layers = layers or {}
        self.whole = whole
        self.schema = schema

    def to_dict(self) -> dict[str, Any]:
        """As ``config.json`` holds it: refused by a process without this plug-in."""
        if self.whole is None:
            return {**_REFUSED, METHOD: {"schema": _SCHEMA, "layers": self.layers}}
        return {**_REFUSED, METHOD: {"schema": _WHOLE_SCHEMA, "layers": self.layers, "whole": self.whole}}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Read what ``to_dict`` wrote, or the flat entry of schema 1."""
        given = {key: value for key, value in config_dict.get(METHOD, config_dict).items() if key != "quant_method"}
        config = cls(**given)
        return (config, kwargs) if return_unused_kwargs else config


def _read_ours_first() -> None:
    """Let transformers take our entry before it looks at ``quant_method``."""
    plain = AutoQuantizationConfig.from_dict

    def from_dict(quantization_config_dict: dict[str, Any]) -> Any:
        if METHOD in quantization_config_dict:
            return FFNHeavyHitterConfig.from_dict(quantization_config_dict)
        return plain(quantization_config_dict)

    AutoQuantizationConfig.from_dict = staticmethod(from_dict)  # type: ignore[method-assign]


_read_ours_first()


@register_quantizer(METHOD)
class FFNHeavyHitterQuantizer(HfQuantizer):
    """Swaps empty compressed FFNs into a model whose weights are about to be read."""

    quantization_config: FFNHeavyHitterConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to compress on the fly, and to offload int8 layers, which tie and share their tensors, to disk."""
        if not self.pre_quantized:
            raise CompressionError(
                "from_pretrained cannot compress, as that needs calibration tokens; load the dense model and call "
                "ffn_heavyhitter.compress(model, treatment, statistics)"
            )
        places = kwargs.get("device_map")
        if self.quantization_config.whole is not None and isinstance(places, dict) and "disk" in places.values():
            raise CompressionError(
                "device_map puts parts of a whole model in int8 on disk, where they cannot be shared; it takes a "
                "quarter of the dense model's memory: leave device_map out"
            )

    def _process_model_before_weight_loading(
        self,
        model: Any,
        **kwargs: Any,
    ) -> None:
        if self.quantization_config.layers:
            self._put_ffns(model)
        if self.quantization_config.whole is not None:
            modules = dict(model.named_modules())
            whole = self.quantization_config.whole
            _require_read(whole, kwargs.get("checkpoint_files"))
            put_empty(model, whole, model.dtype, lambda name: _name_in(model, name, modules))
            self.quantization_config.whole = describe(model)

    def _put_ffns(self, model: Any) -> None:
        ffns = {ffn.name: ffn for ffn in find_ffns(model)}
        stored = self.quantization_config.layers
        named = {_name_in(model, name, ffns): name for name in stored}
        unknown = sorted(name for found, name in named.items() if found not in ffns)
        if unknown:
            raise CompressionError(f"quantization_config names {unknown}, which are no FFNs of {type(model).__name__}")
        for found, name in named.items():
            spec = {**stored[name], "dtype": str(model.dtype).removeprefix("torch.")}  # what the caller asked for
            module = build(spec, ffns[found].activation).to("meta").eval()
            module.original = ffns[found].install(module)
        self.quantization_config.layers = {found: ffns[found].part(ffns[found].layout.home).spec for found in named}
        expected = {re.escape(_barrier(ffns[found])) + "$" for found in named}
        known = model._keys_to_ignore_on_load_unexpected
        # a set since transformers 5.7 or so; older ones append to a list
        model._keys_to_ignore_on_load_unexpected = (list if known is None else type(known))({*(known or ()), *expected})

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        for name, module in compressed_ffns(model).items():
            _require_loaded(name, module)
            module.requires_grad_(False).require_finite(name)
        for name, layer in int8_modules(model).items():
            _require_loaded(name, layer)
            layer.require_finite(name)
            for key in ("weight", "codes", "scale"):
                if hasattr(layer, key):
                    layer.get_parameter(key).requires_grad_(False)
        return model

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The model's tensors, and the empty ones that keep a dense model from taking them."""
        compressed = compressed_ffns(model)
        barriers = {
            _barrier(ffn): torch.empty(0, dtype=torch.uint8)
            for ffn in (find_ffns(model) if compressed else ())
            if ffn.name in compressed
        }
        return {**model.state_dict(), **barriers}, {}

    def is_serializable(self) -> bool:
        """Compressed models are saved like any other."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Compressed FFNs are frozen."""
        return False


def _barrier(ffn: FFN) -> str:
    """Dense name of the first layer's weight, which a compressed FFN has no tensor for."""
    path = f"{ffn.layout.up}.weight"
    return f"{ffn.block_name}.{path}" if ffn.block_name else path


def _name_in(model: Any, stored: str, known: Mapping[str, Any]) -> str:
    """A stored module's name in this model, which may be the saved one's body, or have it as its own."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for name in (stored, stored.removeprefix(prefix), prefix + stored):
        if name in known:
            return name
    return stored


def _require_read(whole: Mapping[str, Any], paths: Any) -> None:
    """Refuse stored tensors of int8 layers that the config makes no use of: transformers warns and leaves them out."""
    if not isinstance(paths, list) or not all(str(path).endswith(".safetensors") for path in paths):
        return
    read = {f"{name}.outlier_{part}" for name in whole["outliers"] for part in ("row", "column", "value")}
    read |= {f"{name}.codes" for group in whole["inputs"] for name in group if name not in whole["tied"]}
    layers = {name for group in whole["inputs"] for name in group}
    for path in paths:
        with safe_open(path, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118
                name, _, part = key.rpartition(".")
                if name in layers and part.startswith(("codes", "outlier_")) and key not in read:
                    raise CompressionError(
                        f"the weights hold {key}, which nothing reads: config.json was changed; compress again"
                    )


def _require_loaded(name: str, module: nn.Module) -> None:
    """Refuse a module whose weights lack a tensor: transformers fills it with whatever is in memory, and warns."""
    for key, parameter in module.named_parameters(recurse=False):
        if not parameter.is_meta and not getattr(parameter, "_is_hf_initialized", False):
            raise CompressionError(
                f"{name}.{key} of shape {tuple(parameter.shape)} is not among the weights; the folder is damaged or of "
                "a version that this one does not read: compress the dense model again"
            )


def mark_compressed(model: Any) -> None:
    """Write the specs into the model's config, so that ``save_pretrained`` stores them."""
    specs = {name: module.spec for name, module in compressed_ffns(model).items()}
    config = FFNHeavyHitterConfig(specs, whole=describe(model))
    model.config.quantization_config = config
    model.hf_quantizer = FFNHeavyHitterQuantizer(config, pre_quantized=True)
    model.is_quantized = True
    model.quantization_method = METHOD


def unmark_compressed(model: Any) -> None:
    """Make the model a plain one again."""
    model.hf_quantizer.remove_quantization_config(model)
    if hasattr(model.config, "_is_quantized"):
        del model.config._is_quantized
