"""Where each architecture keeps its FFNs, and how one is taken out and put back.

A transformer block is described by dotted paths below it. The whole FFN, from the input of ``up`` to the output of
``down``, moves into one module at ``home``; modules at ``emptied`` become the identity, so the block's own code runs
unchanged:

    LLaMA, Qwen, Mistral, Gemma, GPT-2     home = mlp
    BERT                                   home = intermediate,   emptied = output.dense
    OPT                                    home = fc1,            emptied = activation_fn, fc2

Where one layer holds gate and up, one below the other (Phi-3, GLM-4, ModernBERT), both paths name it.

A norm is given only where its output feeds the FFN and nothing else: in parallel blocks (Phi, Cohere, GPT-J) attention
reads it too, and in OLMo-2 and EXAONE-4 the norms follow what they normalise. ``probe`` checks it by numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter.errors import CompressionError, UnsupportedArchitectureError
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["FFN", "FFNLayout", "find_ffns", "is_linear", "matrix", "register_adapter", "replace_module", "set_linear"]


@dataclass(frozen=True)
class FFNLayout:
    """Paths of one FFN's parts below its transformer block.

    Attributes
    ----------
    up, down, gate : str
        Linear layers (``nn.Linear`` or GPT-2's ``Conv1D``); ``gate`` only where the FFN is gated. The same path for
        gate and up names a layer whose output is the gate's and then up's.
    activation : str
        The non-linearity, a module.
    home : str
        Module whose place the whole FFN takes.
    emptied : tuple of str
        Modules that become the identity then.
    norm : str, optional
        Normalisation whose output feeds this FFN and nothing else; a scale of its output may be folded into its weight.
    norm_offset : float
        What the normalisation adds to its weight before it multiplies (1 in Gemma).
    width_field : str
        Name of the FFN width in the model's config.
    """

    up: str
    down: str
    activation: str
    home: str
    gate: str | None = None
    emptied: tuple[str, ...] = ()
    norm: str | None = None
    norm_offset: float = 0.0
    width_field: str = "intermediate_size"


_GATED = FFNLayout(
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    activation="mlp.act_fn",
    home="mlp",
    norm="post_attention_layernorm",
)
_GATED_ALONE = replace(_GATED, norm=None)
_GEMMA = replace(_GATED, norm_offset=1.0)
_GEMMA_2 = replace(_GEMMA, norm="pre_feedforward_layernorm")
_FUSED = FFNLayout(
    gate="mlp.gate_up_proj",
    up="mlp.gate_up_proj",
    down="mlp.down_proj",
    activation="mlp.activation_fn",
    home="mlp",
    norm="post_attention_layernorm",
)
_MODERN_BERT = FFNLayout(gate="mlp.Wi", up="mlp.Wi", down="mlp.Wo", activation="mlp.act", home="mlp", norm="mlp_norm")
_BERT = FFNLayout(
    up="intermediate.dense",
    down="output.dense",
    activation="intermediate.intermediate_act_fn",
    home="intermediate",
    emptied=("output.dense",),
)
_DISTILBERT = FFNLayout(
    up="ffn.lin1", down="ffn.lin2", activation="ffn.activation", home="ffn", width_field="hidden_dim"
)
_GPT2 = FFNLayout(
    up="mlp.c_fc", down="mlp.c_proj", activation="mlp.act", home="mlp", norm="ln_2", width_field="n_inner"
)
_STARCODER_2 = replace(_GPT2, norm="post_attention_layernorm", width_field="intermediate_size")
_OPT = FFNLayout(
    up="fc1",
    down="fc2",
    activation="activation_fn",
    home="fc1",
    emptied=("activation_fn", "fc2"),
    norm="final_layer_norm",
    width_field="ffn_dim",
)
_BART = replace(_OPT, norm=None, width_field="decoder_ffn_dim")
_NEOX = FFNLayout(
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    activation="mlp.act",
    home="mlp",
    norm="post_attention_layernorm",
)
_FALCON = replace(_NEOX, width_field="ffn_hidden_size")
_BLOOM = FFNLayout(
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    activation="mlp.gelu_impl",
    home="mlp.dense_h_to_4h",
    emptied=("mlp.gelu_impl", "mlp.dense_4h_to_h"),
    norm="post_attention_layernorm",
    width_field="",
)
_PHI = FFNLayout(up="mlp.fc1", down="mlp.fc2", activation="mlp.activation_fn", home="mlp")
_GPT_J = FFNLayout(up="mlp.fc_in", down="mlp.fc_out", activation="mlp.act", home="mlp", width_field="n_inner")
_NEMOTRON = FFNLayout(
    up="mlp.up_proj",
    down="mlp.down_proj",
    activation="mlp.act_fn",
    home="mlp",
    norm="post_attention_layernorm",
    norm_offset=1.0,
)
_T5 = FFNLayout(
    up="DenseReluDense.wi",
    down="DenseReluDense.wo",
    activation="DenseReluDense.act",
    home="DenseReluDense",
    norm="layer_norm",
    width_field="d_ff",
)
_ALBERT = FFNLayout(
    up="ffn", down="ffn_output", activation="activation", home="ffn", emptied=("activation", "ffn_output")
)

# by class of the block; where a class builds its FFN in several ways, the first layout whose parts are all there
_LAYOUTS: dict[str, tuple[FFNLayout, ...]] = {
    **dict.fromkeys(
        (
            "LlamaDecoderLayer",
            "MistralDecoderLayer",
            "MinistralDecoderLayer",
            "Qwen2DecoderLayer",
            "Qwen3DecoderLayer",
            "SmolLM3DecoderLayer",
            "GraniteDecoderLayer",
            "SeedOssDecoderLayer",
            "HeliumDecoderLayer",
        ),
        (_GATED,),
    ),
    **dict.fromkeys(
        (
            "OlmoDecoderLayer",
            "Olmo2DecoderLayer",
            "Olmo3DecoderLayer",
            "Exaone4DecoderLayer",
            "CohereDecoderLayer",
            "Cohere2DecoderLayer",
        ),
        (_GATED_ALONE,),
    ),
    **dict.fromkeys(("Phi3DecoderLayer", "GlmDecoderLayer", "Glm4DecoderLayer"), (_FUSED,)),
    **dict.fromkeys(
        (
            "BertLayer",
            "RobertaLayer",
            "XLMRobertaLayer",
            "CamembertLayer",
            "ElectraLayer",
            "MPNetLayer",
            "DebertaLayer",
            "DebertaV2Layer",
        ),
        (_BERT,),
    ),
    **dict.fromkeys(("BartDecoderLayer",), (_BART,)),
    **dict.fromkeys(("MBartDecoderLayer",), (replace(_BART, norm="final_layer_norm"),)),
    "GemmaDecoderLayer": (_GEMMA,),
    "Gemma2DecoderLayer": (_GEMMA_2,),
    "Gemma3DecoderLayer": (_GEMMA_2,),
    "StableLmDecoderLayer": (_GATED, _GATED_ALONE),  # without a norm of its own in its parallel form
    "GPT2Block": (_GPT2,),
    "GPTBigCodeBlock": (_GPT2,),
    "Starcoder2DecoderLayer": (_STARCODER_2,),
    "OPTDecoderLayer": (_OPT,),
    "GPTNeoXLayer": (_NEOX,),
    "FalconDecoderLayer": (_FALCON, replace(_FALCON, norm="ln_mlp"), replace(_FALCON, norm=None)),
    "BloomBlock": (_BLOOM,),
    "PhiDecoderLayer": (_PHI,),
    "GPTJBlock": (_GPT_J,),
    "NemotronDecoderLayer": (_NEMOTRON,),
    "ViTLayer": (replace(_PHI, norm="layernorm_after"),),
    "TransformerBlock": (_DISTILBERT,),
    "ModernBertEncoderLayer": (_MODERN_BERT,),
    "T5LayerFF": (_T5, replace(_T5, gate="DenseReluDense.wi_0", up="DenseReluDense.wi_1")),
    "AlbertLayer": (_ALBERT,),
}


def register_adapter(block_class: str, layout: FFNLayout) -> None:
    """Teach the package an architecture.

    Parameters
    ----------
    block_class : str
        Class name of the transformer block that holds one FFN.
    layout : FFNLayout
        Where the FFN's parts are below it.

    Raises
    ------
    ValueError
        If the class has another layout already.

    Examples
    --------
    >>> register_adapter("MyBlock", FFNLayout(up="ff.up", down="ff.down", activation="ff.act", home="ff"))
    """
    if _LAYOUTS.get(block_class, (layout,)) != (layout,):
        raise ValueError(f"block_class={block_class!r} already has the layout {_LAYOUTS[block_class][0]}")
    _LAYOUTS[block_class] = (layout,)


@dataclass(frozen=True)
class FFN:
    """One FFN inside a model.

    Attributes
    ----------
    name : str
        Name of the module at the layout's home, which is where a compressed FFN lives: ``model.layers.0.mlp``.
    block_name : str
    block : nn.Module
    layout : FFNLayout
    """

    name: str
    block_name: str
    block: nn.Module = field(repr=False)
    layout: FFNLayout = field(repr=False)

    def part(self, path: str) -> nn.Module:
        """The module at a path below the block."""
        return self.block.get_submodule(path)

    @property
    def up(self) -> nn.Module:
        """The layer that feeds the neurons."""
        return self.part(self.layout.up)

    @property
    def down(self) -> nn.Module:
        """The layer that reads the neurons: its input is the activation a, shape (..., m)."""
        return self.part(self.layout.down)

    @property
    def activation(self) -> nn.Module:
        """The non-linearity."""
        return self.part(self.layout.activation)

    @property
    def norm(self) -> nn.Module | None:
        """The normalisation that feeds this FFN alone, or None where there is none."""
        if self.layout.norm is None or not getattr(self.block, "do_layer_norm_before", True):
            return None
        norm = self.part(self.layout.norm)
        return norm if isinstance(getattr(norm, "weight", None), Tensor) else None

    def without_norm(self) -> FFN:
        """The same FFN, whose input no norm can scale."""
        return replace(self, layout=replace(self.layout, norm=None))

    def weights(self) -> FFNWeights:
        """The weights, neuron by neuron; views of the model's own tensors."""
        up, up_bias = matrix(self.up), _bias(self.up)
        gate, gate_bias = None, None
        if self.packed:
            gate, up = up.chunk(2)
            gate_bias, up_bias = (None, None) if up_bias is None else up_bias.chunk(2)
        elif self.layout.gate is not None:
            gate, gate_bias = matrix(self.part(self.layout.gate)), _bias(self.part(self.layout.gate))
        return FFNWeights(
            up=up,
            down=matrix(self.down),
            gate=gate,
            up_bias=up_bias,
            gate_bias=gate_bias,
            down_bias=_bias(self.down),
        )

    @property
    def packed(self) -> bool:
        """Whether one layer holds gate and up."""
        return self.layout.gate == self.layout.up

    @property
    def inner(self) -> list[nn.Module]:
        """The layers that read the FFN's input."""
        paths = {path: None for path in (self.layout.gate, self.layout.up) if path is not None}
        return [self.part(path) for path in paths]

    def takes_scale(self, scale: Tensor) -> bool:
        """Whether the norm's weight and bias, over ``scale`` (d,), keep their digits in the norm's dtype."""
        norm = self.norm
        if norm is None:
            return False
        weight = norm.get_parameter("weight")
        smallest, largest = torch.finfo(weight.dtype).smallest_normal, torch.finfo(weight.dtype).max
        values = [weight + self.layout.norm_offset]
        if getattr(norm, "bias", None) is not None:
            values.append(norm.get_parameter("bias"))
        for value in values:
            before, after = value.double().abs(), (value.double() / scale.double()).abs()
            if bool(((before >= smallest) & ((after < smallest) | (after > largest))).any()):
                return False
        return True

    def scale_input(self, scale: Tensor) -> None:
        """Divide what the norm hands to the FFN by ``scale`` (d,), by changing the norm's weight and bias."""
        norm = self.norm
        if norm is None:
            raise CompressionError(
                f"{self.name}: its input also feeds the residual stream, so no scale can be folded into a norm; "
                "use smoothing=0"
            )
        offset = self.layout.norm_offset
        weight, bias = norm.get_parameter("weight"), getattr(norm, "bias", None)
        with torch.no_grad():
            weight.copy_((weight.double() + offset) / scale.double() - offset)
            if bias is not None:
                bias.copy_(bias.double() / scale.double())

    def displace(self, module: nn.Module) -> dict[str, nn.Module]:
        """Put ``module`` in the FFN's place; returns the modules that were there, by path."""
        paths = (self.layout.home, *self.layout.emptied)
        displaced = {path: self.part(path) for path in paths}
        for path in self.layout.emptied:
            replace_module(self.block, path, nn.Identity())
        replace_module(self.block, self.layout.home, module)
        return displaced

    def put_back(self, displaced: dict[str, nn.Module]) -> None:
        """Undo ``displace``."""
        for path, module in displaced.items():
            replace_module(self.block, path, module)

    def install(self, module: nn.Module) -> Original:
        """Put ``module`` in the FFN's place for good; returns what is needed to put the dense FFN back."""
        original = Original(self.displace(module))
        original.release()
        return original

    def restore(self, original: Original, weights: FFNWeights) -> None:
        """Put the dense FFN back with these weights; its width follows them."""
        for path, module in original.modules.items():
            replace_module(self.block, path, module.train(self.block.training))
        self.load(weights)

    def load(self, weights: FFNWeights) -> None:
        """Give the dense layers these weights, of whatever width."""
        set_linear(self.down, weights.down, weights.down_bias)
        if self.packed and weights.gate is not None:
            biases = [b for b in (weights.gate_bias, weights.up_bias) if b is not None]
            set_linear(self.up, torch.cat([weights.gate, weights.up]), torch.cat(biases) if biases else None)
            return
        set_linear(self.up, weights.up, weights.up_bias)
        if self.layout.gate is not None and weights.gate is not None:
            set_linear(self.part(self.layout.gate), weights.gate, weights.gate_bias)


@dataclass(frozen=True)
class Original:
    """The dense modules that a compressed FFN displaced; their weights are let go."""

    modules: dict[str, nn.Module]

    def release(self) -> None:
        """Let go of the weights' memory."""
        for module in self.modules.values():
            module.to("meta")


def find_ffns(model: nn.Module) -> list[FFN]:
    """List the FFNs of a model in order of depth.

    Parameters
    ----------
    model : nn.Module
        A dense transformers model: BERT, GPT-2, OPT, LLaMA, Mistral, Qwen, Gemma, or one taught by
        ``register_adapter``.

    Returns
    -------
    list of FFN

    Raises
    ------
    UnsupportedArchitectureError
        If no block is known, if the model mixes experts, or if a part is no linear layer.
    """
    experts = next((name for name, module in model.named_modules() if _is_expert(module)), None)
    if experts is not None:
        raise UnsupportedArchitectureError(
            f"{experts} ({type(model.get_submodule(experts)).__name__}) mixes experts: a router decides which neurons "
            "see a token, so statistics over all tokens do not rank them. Compress a dense model"
        )
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} is an encoder-decoder model: its two halves read different tokens, and one "
            "attention mask cannot say which count. Take one half, such as T5EncoderModel or BartForCausalLM"
        )
    found = []
    for name, block in model.named_modules():
        layouts = _LAYOUTS.get(type(block).__name__, ())
        layout = next((layout for layout in layouts if _has_parts(block, layout)), None)
        if layout is not None:
            found.append(FFN(f"{name}.{layout.home}" if name else layout.home, name, block, layout))
    if not found:
        seen = sorted({type(module).__name__ for module in model.modules()})
        raise UnsupportedArchitectureError(
            f"no FFN found in {type(model).__name__}; it holds {', '.join(seen)}. Known blocks: {', '.join(_LAYOUTS)}. "
            f"Teach another: {suggestion(model)}"
        )
    return found


def _has_parts(block: nn.Module, layout: FFNLayout) -> bool:
    """Whether a block is made as a layout says; a compressed one has lost what lay below its home."""
    try:
        home: Any = block.get_submodule(layout.home)
    except AttributeError:
        return False
    compressed = hasattr(home, "kind")
    paths = (layout.up, layout.gate, layout.down, layout.activation, *layout.emptied)
    for path in paths:
        below = path is not None and (path == layout.home or path.startswith(f"{layout.home}."))
        if path is None or (compressed and below):
            continue
        try:
            block.get_submodule(path)
        except AttributeError:
            return False
    if compressed and home.spec["gated"] != (layout.gate is not None):
        return False
    return layout.norm is None or isinstance(getattr(block, layout.norm, None), nn.Module)


def suggestion(model: nn.Module) -> str:
    """The adapter that a model may need, from the shapes of its linear layers."""
    for name, parent in model.named_modules():
        layers = {key: matrix(m) for key, m in parent.named_children() if is_linear(m)}
        for up, wide in layers.items():
            down = next(
                (key for key, m in layers.items() if m.shape == wide.shape[::-1] and len(wide) > m.shape[0]), None
            )
            if down is None or "." not in name:
                continue
            block, _, home = name.rpartition(".")
            gate = next((key for key, m in layers.items() if key != up and m.shape == wide.shape), None)
            act = next((key for key, m in parent.named_children() if key not in layers), "act")
            gated = "" if gate is None else f'gate="{home}.{up}", '
            return (
                f'register_adapter("{type(model.get_submodule(block)).__name__}", FFNLayout({gated}'
                f'up="{home}.{gate or up}", down="{home}.{down}", activation="{home}.{act}", home="{home}"))'
            )
    return 'register_adapter("MyBlock", FFNLayout(up="ff.up", down="ff.down", activation="ff.act", home="ff"))'


def require_dense(ffns: list[FFN]) -> None:
    """Refuse FFNs that are not plain linear layers any more."""
    for ffn in ffns:
        paths = [path for path in (ffn.layout.gate, ffn.layout.up, ffn.layout.down) if path is not None]
        for path in paths:
            try:
                layer = ffn.part(path)
            except AttributeError:
                layer = ffn.part(ffn.layout.home)
            if not is_linear(layer):
                raise CompressionError(
                    f"{ffn.block_name}.{path} is {type(layer).__name__}, not a dense linear layer: the model is "
                    "already compressed or quantised. Start from the dense model, or merge() this one first"
                )
        dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in ffn.weights().tensors().values()}
        if len(dtypes) > 1:
            raise CompressionError(
                f"{ffn.name} holds weights in {' and '.join(sorted(dtypes))}; load the model with dtype=torch.float32 "
                "or torch.bfloat16, so that they have one"
            )


def _is_expert(module: nn.Module) -> bool:
    name = type(module).__name__
    return any(mark in name for mark in ("Moe", "MoE", "Experts", "SparseMLP", "TopKRouter"))


def is_linear(module: nn.Module) -> bool:
    """Falcon's own class computes what ``nn.Linear`` does."""
    return type(module) is nn.Linear or type(module).__name__ == "FalconLinear" or _is_conv1d(module)


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"


def matrix(layer: nn.Module) -> Tensor:
    """Weight as (out, in)."""
    weight = layer.get_parameter("weight").detach()
    return weight.T if _is_conv1d(layer) else weight


def _bias(layer: nn.Module) -> Tensor | None:
    bias = getattr(layer, "bias", None)
    return None if bias is None else bias.detach()


def set_linear(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear layer these weights, (out, in)."""
    out_features, in_features = weight.shape
    stored = weight.T if _is_conv1d(layer) else weight
    layer.weight = nn.Parameter(stored.detach().clone(memory_format=torch.contiguous_format))
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    if _is_conv1d(layer):
        layer.nf, layer.nx = out_features, in_features
    else:
        layer.out_features, layer.in_features = out_features, in_features


def replace_module(block: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path below the block."""
    parent, _, child = path.rpartition(".")
    setattr(block.get_submodule(parent), child, module)
