"""The plug-in by which transformers restores a compressed model: ``AutoModel*.from_pretrained(folder)``.

``config.json`` holds, under ``quantization_config``, the spec of every compressed FFN. Before weights are read, the
plug-in swaps the FFNs of the empty model for empty modules made from their specs; reading shards, placing on devices
and offloading are then what they always are.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import build, compressed_ffns

__all__ = ["METHOD", "FFNHeavyHitterConfig", "FFNHeavyHitterQuantizer"]

METHOD = "ffn_heavyhitter"
_SCHEMA = 1


@register_quantization_config(METHOD)
class FFNHeavyHitterConfig(QuantizationConfigMixin):
    """What ``config.json`` says about the compressed FFNs.

    Attributes
    ----------
    layers : dict[str, dict]
        Spec of each compressed FFN, by module name.
    schema : int
    """

    def __init__(self, layers: dict[str, Any] | None = None, schema: int = _SCHEMA, **kwargs: Any) -> None:
        if schema != _SCHEMA:
            raise CompressionError(f"schema={schema} of the compressed model is unknown; this version reads {_SCHEMA}")
        self.quant_method: Any = METHOD
        self.layers = layers or {}
        self.schema = schema


@register_quantizer(METHOD)
class FFNHeavyHitterQuantizer(HfQuantizer):
    """Swaps empty compressed FFNs into a model whose weights are about to be read."""

    quantization_config: FFNHeavyHitterConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to compress on the fly."""
        if not self.pre_quantized:
            raise CompressionError(
                "from_pretrained cannot compress, as that needs calibration tokens; load the dense model and call "
                "ffn_heavyhitter.compress(model, treatment, statistics)"
            )

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> None:
        ffns = {ffn.name: ffn for ffn in find_ffns(model)}
        unknown = sorted(self.quantization_config.layers.keys() - ffns.keys())
        if unknown:
            raise CompressionError(f"quantization_config names {unknown}, which are no FFNs of {type(model).__name__}")
        for name, spec in self.quantization_config.layers.items():
            ffn = ffns[name]
            module = build(spec, ffn.activation).to("meta").eval()
            module.original = ffn.install(module)

    def is_serializable(self) -> bool:
        """Compressed models are saved like any other."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Compressed FFNs are frozen."""
        return False


def mark_compressed(model: Any) -> None:
    """Write the specs into the model's config, so that ``save_pretrained`` stores them."""
    specs = {name: module.spec for name, module in compressed_ffns(model).items()}
    config = FFNHeavyHitterConfig(specs)
    model.config.quantization_config = config
    model.hf_quantizer = FFNHeavyHitterQuantizer(config, pre_quantized=True)
    model.is_quantized = True
    model.quantization_method = METHOD


def unmark_compressed(model: Any) -> None:
    """Make the model a plain one again."""
    model.hf_quantizer.remove_quantization_config(model)
    if hasattr(model.config, "_is_quantized"):
        del model.config._is_quantized
