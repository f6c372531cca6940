"""The exact low-rank engine: the cost of two ordinary passes, whatever the number of micro-batches.

A linear layer sees a micro-batch as inputs A_i (R x d_in) and output gradients D_i (R x d_out). Its gradient
G_i = D_i' A_i has rank at most R, so it is never formed:

    ||G_i||^2 + ||g_bias||^2 = < A_i A_i' + 1, D_i D_i' >_F
    perturbed output           X W' + b + s_i [ (X A_i' + 1) D_i ],    s_i = rho / (||g_i|| + 1e-12).

Pass 1 finds A_i and D_i of every layer by one whole-batch backward pass that forms no weight gradient; pass 2 is an
ordinary forward and backward pass through layers whose outputs carry that correction. D_i and A_i are constants, so
autograd's gradient of the weights is one whole-batch product. A layer that reads the inputs of the model has the X of
pass 1 again, and so its X W' + b and X A_i'. Where forming G_i is cheaper (long micro-batches, convolutions) it is
formed, layer by layer. Embeddings move the rows that a micro-batch looks up; affine normalisation layers move vectors.

Our derivation; the norm by Gram matrices is that of ghost clipping (Li et al. 2022, arXiv:2110.05679).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn
from torch.autograd.graph import get_gradient_edge

from msam_lawn.errors import EngineError, GradientError
from msam_lawn.torch.engines.loop import Scaling
from msam_lawn.torch.engines.sink import Sink
from msam_lawn.torch.engines.structure import graph_nodes
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import RandomState
from msam_lawn.torch.perturbation import Perturbation, length_scale

__all__ = ["LAYERS", "Fold", "low_rank_gradient", "low_rank_refusal", "rows_make_forming_cheap"]

# One element of a formed per-micro-batch gradient is written and read a few times from memory; in multiply-adds.
TRAFFIC = 24.0


@dataclass(frozen=True)
class Fold:
    """Rows of a mini-batch as a padded stack of micro-batches, and back.

    Attributes
    ----------
    sizes : tuple of int
        Rows of each micro-batch.
    index : tensor or None
        Place of each row in the padded stack; None where all micro-batches have one size.
    """

    sizes: tuple[int, ...]
    index: torch.Tensor | None

    @classmethod
    def of(cls, sizes: tuple[int, ...], device: torch.device) -> Fold:
        """The fold of micro-batches of these sizes."""
        longest = max(sizes)
        if min(sizes) == longest:
            return cls(sizes, None)
        places = [i * longest + r for i, size in enumerate(sizes) for r in range(size)]
        return cls(sizes, torch.tensor(places, device=device))

    @property
    def rows(self) -> int:
        """Rows of the mini-batch."""
        return sum(self.sizes)

    def __call__(self, x: torch.Tensor, trailing: int) -> torch.Tensor:
        """Stack (B k, ..., *last) as (M, R, *last), R counting every vector of the longest micro-batch.

        ``trailing`` is the number of axes of ``last``; rows that pad a short micro-batch are zero.
        """
        last = x.shape[x.ndim - trailing :]
        x = x.reshape(self.rows, -1, *last)
        count, longest, each = len(self.sizes), max(self.sizes), x.shape[1]
        if self.index is not None:
            x = x.new_zeros(count * longest, each, *last).index_copy(0, self.index, x)
        return x.reshape(count, longest * each, *last)

    def back(self, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Undo the stacking."""
        if self.index is not None:
            x = x.reshape(len(self.sizes) * max(self.sizes), -1).index_select(0, self.index)
        return x.reshape(shape)


class _Layer:
    """One layer in a step: what pass 1 saw, its part of the norms, its output in pass 2."""

    def __init__(self, name: str, module: Any, radii: dict[int, float], fold: Fold) -> None:
        self.name, self.module, self.fold, self._radii = name, module, fold, radii
        self.input: torch.Tensor | None = None
        self.edge: Any = None
        self.before: Any = None  # the graph's node that made the input
        self.ran = self.closed = False  # in pass 2
        self.shape = torch.Size()
        self.length = torch.empty(0)  # 1 / ||g_i|| of each micro-batch, set between the passes

    def radius(self, parameter: str) -> float | None:
        """Rho of a parameter of the layer; None where it does not move and does not count in the norm."""
        return self._radii.get(id(getattr(self.module, parameter, None))) or None

    def record(self, x: torch.Tensor) -> Any:
        """Pass 1: the ordinary output; keeps the input and the place of the output in the graph."""
        if self.input is not None:
            raise EngineError(f"{self.name} ({type(self.module).__name__}) runs more than once in a forward pass")
        out = type(self.module).forward(self.module, x)
        if not out.requires_grad:
            raise EngineError(f"{self.name} ({type(self.module).__name__}) runs without autograd")
        if x.shape[0] % self.fold.rows or x.shape[0] != out.shape[0]:
            raise EngineError(
                f"{self.name} ({type(self.module).__name__}) got an input of shape {tuple(x.shape)}, whose leading "
                f"axis is not the {self.fold.rows} rows of the mini-batch"
            )
        self.input, self.edge, self.shape = x.detach(), get_gradient_edge(out), out.shape
        self.before = get_gradient_edge(x).node if x.requires_grad else None
        return out

    def moved(self, x: torch.Tensor) -> torch.Tensor:
        """Pass 2, checked: the same rows as in pass 1, once."""
        if self.closed:  # recomputed by a checkpoint in the backward pass
            return self.perturbed(x)
        if self.ran or x.shape != _given(self.input).shape:
            raise EngineError(f"{self.name} ({type(self.module).__name__}) sees other rows at the perturbed weights")
        self.ran = True
        return self.perturbed(x)

    def squared_norms(self, delta: torch.Tensor) -> torch.Tensor:
        """||g_i||^2 of the layer's parameters, of shape (M,)."""
        raise NotImplementedError

    def perturbed(self, x: torch.Tensor) -> torch.Tensor:
        """Pass 2: the output with the weights of each micro-batch moved."""
        raise NotImplementedError

    def step(self, parameter: str) -> torch.Tensor | float:
        """s_i of a parameter, of shape (M,); 0 where it does not move."""
        radius = self.radius(parameter)
        return self.length * radius if radius else 0.0


class _Linear(_Layer):
    def record(self, x: torch.Tensor) -> Any:
        out = super().record(x)
        self.out = None if x.requires_grad else out.detach()  # kept for a layer that reads the model's inputs
        self.versions = x._version, out._version  # they tell whether anything wrote into either since
        return out

    def squared_norms(self, delta: torch.Tensor) -> torch.Tensor:
        A, D = _exact(self.fold(_given(self.input), 1)), _exact(self.fold(delta, 1))
        self.A, self.D = A, D
        rows, d_in, d_out = A.shape[1], A.shape[2], D.shape[2]
        weight, bias = self.radius("weight") is not None, self.radius("bias") is not None
        self.formed = rows_make_forming_cheap(rows, d_in, d_out)
        if self.formed:
            self.G = torch.bmm(D.transpose(1, 2), A)
            self.g = D.sum(1)
            total = self.G.square().sum((1, 2)) * weight
            return total + self.g.square().sum(1) * bias
        self.gram = torch.bmm(A, A.transpose(1, 2))
        return ((self.gram * float(weight) + float(bias)) * torch.bmm(D, D.transpose(1, 2))).sum((1, 2))

    def perturbed(self, x: torch.Tensor) -> torch.Tensor:
        on_weight, on_bias = _column(self.step("weight")), _column(self.step("bias"))
        unmoved = self._unmoved(x)
        if self.formed:
            X = _exact(self.fold(x, 1))
            correction = torch.bmm(X, (on_weight * self.G).transpose(1, 2)) + on_bias * self.g[:, None, :]
        else:
            gram = self.gram if unmoved else torch.bmm(_exact(self.fold(x, 1)), self.A.transpose(1, 2))
            correction = torch.bmm(gram * on_weight + on_bias, self.D)
        if unmoved and _given(self.out)._version == self.versions[1]:
            moved = _corrected(_given(self.out), correction, self.fold)
            again: torch.Tensor = _OutputAgain.apply(  # type: ignore[no-untyped-call]
                moved, x, self.module.weight, self.module.bias
            )
            return again
        return _corrected(nn.Linear.forward(self.module, x), correction, self.fold)

    def _unmoved(self, x: torch.Tensor) -> bool:
        """Whether x is the very tensor of pass 1, and no cast lies between it and the output."""
        seen, out = _given(self.input), self.out
        if out is None or x.requires_grad or not x.dtype == out.dtype == self.module.weight.dtype:
            return False
        return x.data_ptr() == seen.data_ptr() and x.stride() == seen.stride() and x._version == self.versions[0]


class _OutputAgain(torch.autograd.Function):
    """An output x W' + b + constant that is known already: only the gradients of W and b are left to compute."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
        ctx.save_for_backward(x)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        _, _, weight, bias = ctx.needs_input_grad
        delta = gradients[0].reshape(-1, gradients[0].shape[-1])
        on_weight = delta.t() @ x.reshape(-1, x.shape[-1]) if weight else None
        return None, None, on_weight, delta.sum(0) if bias else None


class _Embedding(_Layer):
    def squared_norms(self, delta: torch.Tensor) -> torch.Tensor:
        ids = _given(self.input)
        D = _exact(delta).reshape(ids.numel(), -1)
        if self.module.padding_idx is not None:
            D = D * (ids.reshape(-1, 1) != self.module.padding_idx)
        # a row that a micro-batch looks up twice is one row of its gradient
        count, vocabulary = len(self.fold.sizes), self.module.num_embeddings
        owner = torch.repeat_interleave(
            torch.arange(count, device=ids.device), torch.tensor(self.fold.sizes, device=ids.device)
        ).repeat_interleave(ids.numel() // self.fold.rows)
        keys, self.place = torch.unique(owner * vocabulary + ids.reshape(-1), return_inverse=True)
        self.owner = owner
        self.G = D.new_zeros(keys.numel(), D.shape[1]).index_add(0, self.place, D)
        norms = D.new_zeros(count)
        return norms.index_add(0, keys // vocabulary, self.G.square().sum(1))

    def perturbed(self, x: torch.Tensor) -> torch.Tensor:
        out = nn.Embedding.forward(self.module, x)
        step = self.step("weight")
        if not isinstance(step, torch.Tensor):
            return out
        moved = self.G[self.place] * step[self.owner][:, None]
        return out + moved.reshape(out.shape).to(out.dtype)


class _Affine(_Layer):
    """Normalisation with a scale and an offset: y = xhat * gamma + beta."""

    axes = 1

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def stacked(self, x: torch.Tensor) -> torch.Tensor:
        """As (M, R, channels, positions)."""
        raise NotImplementedError

    def squared_norms(self, delta: torch.Tensor) -> torch.Tensor:
        D = self.stacked(_exact(delta))
        self.scale = (self.stacked(_exact(self.normalised(_given(self.input)))) * D).sum((1, 3), keepdim=True)
        self.offset = D.sum((1, 3), keepdim=True)
        total = self.scale.square().sum((1, 2, 3)) * (self.radius("weight") is not None)
        return total + self.offset.square().sum((1, 2, 3)) * (self.radius("bias") is not None)

    def perturbed(self, x: torch.Tensor) -> torch.Tensor:
        out = type(self.module).forward(self.module, x)
        xhat = self.stacked(_exact(self.normalised(x)))
        moved = xhat * (_box(self.step("weight")) * self.scale) + _box(self.step("bias")) * self.offset
        return _corrected(out, moved, self.fold)


class _LayerNorm(_Affine):
    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.module.normalized_shape, None, None, self.module.eps)

    def stacked(self, x: torch.Tensor) -> torch.Tensor:
        size = math.prod(self.module.normalized_shape)
        return self.fold(x.reshape(self.fold.rows, -1, size), 1)[..., None]


class _RMSNorm(_LayerNorm):
    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.module.normalized_shape, None, self.module.eps)


class _GroupNorm(_Affine):
    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, self.module.num_groups, None, None, self.module.eps)

    def stacked(self, x: torch.Tensor) -> torch.Tensor:
        return self.fold(x.reshape(x.shape[0], x.shape[1], -1), 2)


class _Convolution(_Layer):
    """Formed: a kernel is smaller than what it saw of one micro-batch."""

    def squared_norms(self, delta: torch.Tensor) -> torch.Tensor:
        bias = self.module.bias is not None
        self.cuts = _cuts(self.fold, _given(self.input).shape[0])
        self.gradients = []
        for rows in self.cuts:
            _, weight, offset = torch.ops.aten.convolution_backward(
                delta[rows],
                _given(self.input)[rows].to(delta.dtype),
                self.module.weight.detach().to(delta.dtype),
                list(self.module.bias.shape) if bias else None,
                self.module.stride,
                self.module.padding,
                self.module.dilation,
                False,
                [0] * len(self.module.stride),
                self.module.groups,
                [False, True, bias],
            )
            self.gradients.append((_exact(weight), _exact(offset) if bias else None))
        squares = []
        for weight, offset in self.gradients:
            square = weight.square().sum() * (self.radius("weight") is not None)
            if offset is not None:
                square = square + offset.square().sum() * (self.radius("bias") is not None)
            squares.append(square)
        return torch.stack(squares)

    def perturbed(self, x: torch.Tensor) -> torch.Tensor:
        on_weight, on_bias = self.step("weight"), self.step("bias")
        parts = []
        pieces = x.split([rows.stop - rows.start for rows in self.cuts])  # slices would each get a whole gradient
        for i, (piece, (weight, offset)) in enumerate(zip(pieces, self.gradients, strict=True)):
            moved, shift = self.module.weight, self.module.bias
            if isinstance(on_weight, torch.Tensor):
                moved = moved + on_weight[i] * weight
            if isinstance(on_bias, torch.Tensor) and offset is not None:
                shift = shift + on_bias[i] * offset
            parts.append(self.module._conv_forward(piece, moved, shift))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


LAYERS: dict[type[nn.Module], type[_Layer]] = {
    nn.Linear: _Linear,
    nn.Embedding: _Embedding,
    nn.LayerNorm: _LayerNorm,
    nn.RMSNorm: _RMSNorm,
    nn.GroupNorm: _GroupNorm,
    nn.Conv1d: _Convolution,
    nn.Conv2d: _Convolution,
    nn.Conv3d: _Convolution,
}


def rows_make_forming_cheap(rows: int, d_in: int, d_out: int) -> bool:
    """Whether a micro-batch has so many rows that G_i costs less than working with its factors.

    Factors: norms and both passes take R^2 (d_in + d_out) multiply-adds each. Formed: R d_in d_out each, and the
    traffic of d_in d_out elements.

    Examples
    --------
    >>> rows_make_forming_cheap(8, 3072, 256), rows_make_forming_cheap(2000, 3072, 256)
    (False, True)
    """
    return 3.0 * rows * rows * (d_in + d_out) > d_in * d_out * (3.0 * rows + TRAFFIC)


def low_rank_refusal(objective: Objective, perturbation: Perturbation) -> str | None:
    """Why this engine cannot compute the step exactly, naming the module, or None."""
    if perturbation.adaptive is not None:
        return "an adaptive radius scales each weight by its own size, which destroys the low rank"
    trained = {id(w) for w in perturbation.parameters}
    owners: dict[int, str] = {}
    for name, module in objective.model.named_modules():
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            return f"{name or 'the model'} is compiled"
        if isinstance(module, nn.modules.batchnorm._NormBase) and (module.training or module.running_mean is None):
            return f"{name} ({type(module).__name__}) mixes the rows of the mini-batch"
        for parameter_name, parameter in module._parameters.items():
            if id(parameter) not in trained:
                continue
            where = f"{name}.{parameter_name}" if name else parameter_name
            reason = _layer_refusal(module)
            if reason is not None:
                return f"{where}: {reason}"
            if parameter is not None and parameter._backward_hooks:
                return f"{where} has a hook that changes its gradient"
            if id(parameter) in owners:
                return f"{where} is tied to {owners[id(parameter)]}"
            owners[id(parameter)] = where
    if len(owners) < len(trained):
        return f"{len(trained) - len(owners)} parameters of the optimizer are not in the model"
    return None


def _layer_refusal(module: nn.Module) -> str | None:
    if type(module) not in LAYERS:
        return f"no low-rank form of {type(module).__name__}"
    if "forward" in module.__dict__:
        return f"this {type(module).__name__} has a forward of its own"
    if any(name in module.__dict__ for name in ("weight", "bias")) or set(module._parameters) - {"weight", "bias"}:
        return f"the weights of this {type(module).__name__} are computed before it runs"
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq or module.sparse):
        return "an Embedding with max_norm, scale_grad_by_freq or sparse"
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and (
        isinstance(module.padding, str) or module.padding_mode != "zeros"
    ):
        return f"a convolution with padding={module.padding!r}, padding_mode={module.padding_mode!r}"
    return None


def low_rank_gradient(
    objective: Objective,
    perturbation: Perturbation,
    scaling: Scaling,
    through: torch.nn.Module,
    sink: Sink,
) -> torch.Tensor:
    """Give the mSAM gradient to ``sink``; returns the loss at the unperturbed weights.

    Raises
    ------
    EngineError
        If a layer runs twice in a forward pass, sees something else than the rows of the mini-batch, or is not the only
        way from its weights to the loss. Random numbers are then set back and the sink has got nothing.
    """
    random = RandomState.now()
    try:
        layers = _layers(objective, perturbation)
        versions = objective.versions()
        norms, loss = _first_pass(objective, perturbation, layers, scaling)
        objective.check_unwritten(versions)
        for layer in layers.values():
            layer.length = length_scale(norms, 1.0)
        random.restore()
        torch.clear_autocast_cache()
        with _forwards(layers, "moved"):
            means = objective.micro_batch_means(objective.outputs(through=through))
            total = scaling((_shares(objective, means) * means).sum())
            for layer in layers.values():
                if not layer.ran:
                    raise EngineError(f"{layer.name} ({type(layer.module).__name__}) runs in the first pass only")
                layer.closed = True
            sink.backward(total)
    except EngineError:
        random.restore()
        raise
    return loss


def _layers(objective: Objective, perturbation: Perturbation) -> dict[nn.Module, _Layer]:
    fold = Fold.of(objective.sizes, perturbation.parameters[0].device)
    radii = {id(w): rho for w, rho in zip(perturbation.parameters, perturbation.radii, strict=True)}
    return {
        module: LAYERS[type(module)](name, module, radii, fold)
        for name, module in objective.model.named_modules()
        if any(id(w) in radii for w in module.parameters(recurse=False))
    }


def _first_pass(
    objective: Objective, perturbation: Perturbation, layers: dict[nn.Module, _Layer], scaling: Scaling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Norms of the micro-batch gradients and the loss; leaves in each layer what pass 2 needs."""
    with _forwards(layers, "record"):
        outputs = objective.outputs()
        means = objective.micro_batch_means(outputs)
        objective.check_structure(outputs, means)
        for module in [module for module, layer in layers.items() if layer.edge is None]:
            module.__dict__.pop("forward")
            del layers[module]  # it did not run: no gradient, nothing to move
        if not layers or not means.requires_grad:
            raise GradientError("the loss depends on no layer that the optimizer trains")
        _check_ways(means, perturbation, layers)
        edges = [layer.edge for layer in layers.values()]
        # inside: a checkpoint that runs a layer again in the backward pass is seen
        deltas = torch.autograd.grad(scaling(means.sum()), edges, allow_unused=True)
    squares = []
    with torch.no_grad(), torch.autocast(means.device.type, enabled=False):
        for layer, delta in zip(layers.values(), deltas, strict=True):
            delta = means.new_zeros(layer.shape) if delta is None else delta
            squares.append(layer.squared_norms(delta))
        return torch.stack(squares).sum(0).sqrt(), (_shares(objective, means) * means).sum().detach()


def _check_ways(means: torch.Tensor, perturbation: Perturbation, layers: dict[nn.Module, _Layer]) -> None:
    """Every way from a trained weight to the loss must lead through the output of its layer, in this very graph."""
    starts = [means.grad_fn, *(layer.before for layer in layers.values())]
    trained = {id(w) for w in perturbation.parameters}
    for node in graph_nodes(starts, (layer.edge.node for layer in layers.values())):
        if type(node).__name__ == "AccumulateGrad" and id(node.variable) in trained:
            shape = tuple(node.variable.shape)
            raise EngineError(f"a weight of shape {shape} is used outside its layer")


def _shares(objective: Objective, means: torch.Tensor) -> torch.Tensor:
    return torch.tensor(objective.shares(), dtype=means.dtype, device=means.device)


@contextmanager
def _forwards(layers: dict[nn.Module, _Layer], method: str) -> Iterator[None]:
    """Let every layer run a method of its record in place of its forward."""
    try:
        for module, layer in layers.items():
            module.forward = cast(Callable[..., Any], getattr(layer, method))
        yield
    finally:
        for module in layers:
            module.__dict__.pop("forward", None)  # none has one of its own: low_rank_refusal


def _cuts(fold: Fold, leading: int) -> list[slice]:
    """Row ranges of the micro-batches along a leading axis of B k rows."""
    each, start, cuts = leading // fold.rows, 0, []
    for size in fold.sizes:
        cuts.append(slice(start, start + size * each))
        start += size * each
    return cuts


def _given(x: torch.Tensor | None) -> torch.Tensor:
    assert x is not None
    return x


def _exact(x: torch.Tensor) -> torch.Tensor:
    """At least float32: norms and steps are not rounded to 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _column(step: torch.Tensor | float) -> torch.Tensor | float:
    return step[:, None, None] if isinstance(step, torch.Tensor) else step


def _box(step: torch.Tensor | float) -> torch.Tensor | float:
    return step[:, None, None, None] if isinstance(step, torch.Tensor) else step


def _corrected(out: torch.Tensor, correction: torch.Tensor, fold: Fold) -> torch.Tensor:
    return out + fold.back(correction, out.shape).to(out.dtype)
