"""The final homogeneous sub-network: the tail of a network whose weights scale its outputs.

A tail of layers 1..L without biases has f(c w_1, ..., c w_L) = c^L f(w_1, ..., w_L): linear layers and convolutions
scale,
ReLU, pooling, dropout in evaluation and reshaping pass the scale on. The tail ends, going backwards from the output,
at
the first thing that does not: a normalisation layer (weights before it leave the output as it is), a sum of
branches, a
smooth activation, any other operation. Biases stay free (a bias of layer l would scale with c^l), and norms of scale
vectors too; constrained are the weights of two or more axes.

Our formulation; that LAWN constrains the final homogeneous sub-network is in the abstract of arXiv:2108.05839.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import fx, nn
from torch.utils._pytree import tree_map

from msam_lawn.errors import HomogeneityError
from msam_lawn.torch.passes import evaluation_mode

__all__ = ["HomogeneousTail", "homogeneous_tail"]

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PASSING = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
PASSING_FUNCTIONS = {
    torch.relu,
    F.relu,
    F.leaky_relu,
    F.dropout,
    torch.flatten,
    torch.mean,
    torch.sum,
    torch.amax,
    torch.squeeze,
    torch.unsqueeze,
    torch.permute,
    torch.transpose,
    torch.reshape,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    operator.getitem,
}
PASSING_METHODS = {
    "contiguous",
    "flatten",
    "mean",
    "permute",
    "relu",
    "reshape",
    "squeeze",
    "sum",
    "transpose",
    "unsqueeze",
    "view",
}


@dataclass(frozen=True)
class HomogeneousTail:
    """What was found.

    Attributes
    ----------
    names : tuple of str
        Names of the weights, in the order of the forward pass.
    weights : tuple of tensors
        The weights themselves, for ``LAWN(constrained=...)``.
    degree : int
        L: how many weighted layers the tail has.
    ends_at : str
        What precedes the tail: the module or operation, or "the inputs".
    """

    names: tuple[str, ...]
    weights: tuple[torch.Tensor, ...]
    degree: int
    ends_at: str


def homogeneous_tail(model: nn.Module, inputs: Any) -> HomogeneousTail:
    """Trace the final homogeneous sub-network and check f(c w) = c^L f(w) on the inputs, in float64.

    Parameters
    ----------
    model : torch.nn.Module
        Traceable by ``torch.fx``, with one tensor as its output.
    inputs : tensor, tuple or mapping of tensors
        A few rows, as in ``SAM.backward``.

    Returns
    -------
    HomogeneousTail

    Raises
    ------
    HomogeneityError
        If the model cannot be traced, has no such tail, or fails the check. Then choose the weights yourself.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> body = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> tail = homogeneous_tail(body, torch.randn(3, 4))
    >>> tail.names, tail.degree, tail.ends_at
    (('3.weight', '5.weight'), 2, '1 (LayerNorm)')
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:  # fx raises whatever the model's own code raises on a proxy
        raise HomogeneityError(
            f"torch.fx cannot trace {type(model).__name__} ({error}); pass the weights to constrain yourself"
        ) from error
    layers, ends_at = _walk(model, graph)
    if not layers:
        raise HomogeneityError(
            f"no weights follow {ends_at}: the output has no homogeneous tail; let the model return its logits, or "
            "pass the weights to constrain yourself"
        )
    _verify(model, inputs, layers)
    modules = dict(model.named_modules())
    return HomogeneousTail(
        tuple(f"{name}.weight" if name else "weight" for name in layers),
        tuple(modules[name].weight for name in layers),
        len(layers),
        ends_at,
    )


def _walk(model: nn.Module, graph: fx.Graph) -> tuple[list[str], str]:
    """Weighted modules of the tail in forward order, and what stops it."""
    modules = dict(model.named_modules())
    layers: list[str] = []
    node = next(n for n in graph.nodes if n.op == "output").args[0]
    while True:
        if not isinstance(node, fx.Node):
            raise HomogeneityError("the model returns several tensors; let it return the logits alone")
        if node.op == "placeholder":
            return layers[::-1], "the inputs"
        sources = node.all_input_nodes
        passes = False
        if node.op == "call_module":
            module = modules[str(node.target)]
            if isinstance(module, WEIGHTED) and str(node.target) not in layers:
                layers.append(str(node.target))
                passes = True
            elif isinstance(module, PASSING):
                passes = True
        elif node.op == "call_function":
            passes = node.target in PASSING_FUNCTIONS
        elif node.op == "call_method":
            passes = node.target in PASSING_METHODS
        if not passes or not sources:
            return layers[::-1], _named(node, modules)
        # getitem, view and the like may also take sizes that were read off a tensor: the first argument is the tensor
        node = node.args[0] if node.args else sources[0]


def _named(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    if node.op == "call_module":
        return f"{node.target} ({type(modules[str(node.target)]).__name__})"
    return f"{node.name} ({getattr(node.target, '__name__', node.target)})"


def _verify(model: nn.Module, inputs: Any, layers: list[str]) -> None:
    double = copy.deepcopy(model).double()
    inputs = tree_map(lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, inputs)
    tail = [dict(double.named_modules())[name] for name in layers]
    with torch.no_grad(), evaluation_mode(double):
        for layer in tail:
            if isinstance(layer.bias, torch.Tensor):
                layer.bias.zero_()
        plain = _output(double, inputs)
        for scale in (2.0, 0.5):
            for layer in tail:
                layer.weight.mul_(scale)
            scaled = _output(double, inputs)
            for layer in tail:
                layer.weight.div_(scale)
            expected = scale ** len(layers) * plain
            error = float((scaled - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
            if not error <= 1e-9:
                raise HomogeneityError(
                    f"scaling the weights of {', '.join(layers)} by {scale} scales the output by something else than "
                    f"{scale}^{len(layers)} (relative error {error:.2g}); pass the weights to constrain yourself"
                )


def _output(model: nn.Module, inputs: Any) -> torch.Tensor:
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
    assert isinstance(output, torch.Tensor)
    return output
