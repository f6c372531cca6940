"""Where each architecture keeps its FFNs, and how one is taken out and put back.

A transformer block is described by dotted paths below it. The whole FFN, from the input of ``up`` to the output of
``down``, moves into one module at ``home``; modules at ``emptied`` become the identity, so the block's own code runs
unchanged:

    LLaMA, Qwen, Mistral, Gemma, GPT-2     home = mlp
    BERT                                   home = intermediate,   emptied = output.dense
    OPT                                    home = fc1,            emptied = activation_fn, fc2
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter.errors import CompressionError, UnsupportedArchitectureError
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["FFN", "FFNLayout", "find_ffns", "register_adapter"]


@dataclass(frozen=True)
class FFNLayout:
    """Paths of one FFN's parts below its transformer block.

    Attributes
    ----------
    up, down, gate : str
        Linear layers (``nn.Linear`` or GPT-2's ``Conv1D``); ``gate`` only where the FFN is gated.
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
_GEMMA = replace(_GATED, norm_offset=1.0)
_GEMMA_2 = replace(_GEMMA, norm="pre_feedforward_layernorm")
_BERT = FFNLayout(
    up="intermediate.dense",
    down="output.dense",
    activation="intermediate.intermediate_act_fn",
    home="intermediate",
    emptied=("output.dense",),
)
_LAYOUTS: dict[str, FFNLayout] = {
    "LlamaDecoderLayer": _GATED,
    "MistralDecoderLayer": _GATED,
    "Qwen2DecoderLayer": _GATED,
    "Qwen3DecoderLayer": _GATED,
    "GemmaDecoderLayer": _GEMMA,
    "Gemma2DecoderLayer": _GEMMA_2,
    "Gemma3DecoderLayer": _GEMMA_2,
    "BertLayer": _BERT,
    "RobertaLayer": _BERT,
    "GPT2Block": FFNLayout(
        up="mlp.c_fc", down="mlp.c_proj", activation="mlp.act", home="mlp", norm="ln_2", width_field="n_inner"
    ),
    "OPTDecoderLayer": FFNLayout(
        up="fc1",
        down="fc2",
        activation="activation_fn",
        home="fc1",
        emptied=("activation_fn", "fc2"),
        norm="final_layer_norm",
        width_field="ffn_dim",
    ),
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
    if _LAYOUTS.get(block_class, layout) != layout:
        raise ValueError(f"block_class={block_class!r} already has the layout {_LAYOUTS[block_class]}")
    _LAYOUTS[block_class] = layout


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
        return self.part(self.layout.norm)

    def weights(self) -> FFNWeights:
        """The weights, neuron by neuron; views of the model's own tensors."""
        gate = None if self.layout.gate is None else self.part(self.layout.gate)
        return FFNWeights(
            up=_matrix(self.up),
            down=_matrix(self.down),
            gate=None if gate is None else _matrix(gate),
            up_bias=_bias(self.up),
            gate_bias=None if gate is None else _bias(gate),
            down_bias=_bias(self.down),
        )

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
            weight.copy_((weight + offset) / scale - offset)
            if bias is not None:
                bias.div_(scale)

    def install(self, module: nn.Module) -> Original:
        """Put ``module`` in the FFN's place; returns what is needed to put the dense FFN back."""
        paths = (self.layout.home, *self.layout.emptied)
        original = Original({path: self.part(path) for path in paths})
        for path in self.layout.emptied:
            _set(self.block, path, nn.Identity())
        _set(self.block, self.layout.home, module)
        original.release()
        return original

    def restore(self, original: Original, weights: FFNWeights) -> None:
        """Put the dense FFN back with these weights; its width follows them."""
        for path, module in original.modules.items():
            _set(self.block, path, module.train(self.block.training))
        self.load(weights)

    def load(self, weights: FFNWeights) -> None:
        """Give the dense layers these weights, of whatever width."""
        _set_linear(self.up, weights.up, weights.up_bias)
        _set_linear(self.down, weights.down, weights.down_bias)
        if self.layout.gate is not None and weights.gate is not None:
            _set_linear(self.part(self.layout.gate), weights.gate, weights.gate_bias)


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
    blocks = [(name, module) for name, module in model.named_modules() if type(module).__name__ in _LAYOUTS]
    experts = next((name for name, module in model.named_modules() if _is_expert(module)), None)
    if experts is not None:
        raise UnsupportedArchitectureError(
            f"{experts} ({type(model.get_submodule(experts)).__name__}) mixes experts: a router decides which neurons "
            "see a token, so statistics over all tokens do not rank them. Compress a dense model"
        )
    if not blocks:
        seen = sorted({type(module).__name__ for module in model.modules()})
        raise UnsupportedArchitectureError(
            f"no FFN found in {type(model).__name__}; it holds {', '.join(seen)}. Known blocks: {', '.join(_LAYOUTS)}. "
            "Teach another with register_adapter(block_class, FFNLayout(...))"
        )
    found = []
    for name, block in blocks:
        layout = _LAYOUTS[type(block).__name__]
        found.append(FFN(f"{name}.{layout.home}" if name else layout.home, name, block, layout))
    return found


def require_dense(ffns: list[FFN]) -> None:
    """Refuse FFNs that are not plain linear layers any more."""
    for ffn in ffns:
        paths = [path for path in (ffn.layout.gate, ffn.layout.up, ffn.layout.down) if path is not None]
        for path in paths:
            try:
                layer = ffn.part(path)
            except AttributeError:
                layer = ffn.part(ffn.layout.home)
            if type(layer) is not nn.Linear and not _is_conv1d(layer):
                raise CompressionError(
                    f"{ffn.block_name}.{path} is {type(layer).__name__}, not a dense linear layer: the model is "
                    "already compressed or quantised. Start from the dense model, or merge() this one first"
                )


def _is_expert(module: nn.Module) -> bool:
    name = type(module).__name__
    return any(mark in name for mark in ("Moe", "MoE", "Experts", "SparseMLP", "TopKRouter"))


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"


def _matrix(layer: nn.Module) -> Tensor:
    """Weight as (out, in)."""
    weight = layer.get_parameter("weight").detach()
    return weight.T if _is_conv1d(layer) else weight


def _bias(layer: nn.Module) -> Tensor | None:
    bias = getattr(layer, "bias", None)
    return None if bias is None else bias.detach()


def _set_linear(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    out_features, in_features = weight.shape
    stored = weight.T if _is_conv1d(layer) else weight
    layer.weight = nn.Parameter(stored.detach().clone(memory_format=torch.contiguous_format))
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    if _is_conv1d(layer):
        layer.nf, layer.nx = out_features, in_features
    else:
        layer.out_features, layer.in_features = out_features, in_features


def _set(block: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(block.get_submodule(parent), child, module)
