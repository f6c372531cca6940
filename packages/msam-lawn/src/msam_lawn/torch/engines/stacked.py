"""The stacked engine: the weights of all micro-batches side by side, one batched product a layer.

    pass 1    G_i = grad L_i(W) of all micro-batches by one forward and backward pass over all rows
    pass 2    W_i = W + s_i G_i in place of W; the gradient of sum_i q_i L_i(W_i) by one product a layer

For each pass stand-ins are written into the modules in place of their parameters, and taken out however it ends. Which
operations there are the engine does not know: see ``msam_lawn.torch.layers``. Groups of g micro-batches go through both
passes one after the other: g copies of the weights are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import nn

from msam_lawn.errors import EngineError, GradientError
from msam_lawn.torch.containers import mapped
from msam_lawn.torch.distributed import without_reduction
from msam_lawn.torch.engines.left_over import nothing_left_over
from msam_lawn.torch.engines.loop import Scaling, micro_batches_in_turn
from msam_lawn.torch.engines.sink import Sink
from msam_lawn.torch.engines.structure import graph_nodes
from msam_lawn.torch.layers import Pass, Rows, StandIn, WeightStack, prefers_interleaving
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import RandomState, RunningStatistics
from msam_lawn.torch.perturbation import Perturbation, length_scale

__all__ = ["stacked_gradient", "stacked_refusal"]


def stacked_refusal(objective: Objective, perturbation: Perturbation) -> str | None:
    """Why this engine cannot compute the step, naming the module, or None."""
    if perturbation.adaptive is not None:
        return "an adaptive radius scales each weight by its own size"
    moving = {id(w) for w, rho in zip(perturbation.parameters, perturbation.radii, strict=True) if rho}
    for module in _modules(objective):
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            return f"{type(module).__name__} is compiled"
        for name, w in module._parameters.items():
            if w is not None and id(w) in moving and w._backward_hooks:
                return f"{name} of {type(module).__name__} has a hook that changes its gradient"
        moving -= {id(w) for w in module._parameters.values()}
    if moving:
        return f"{len(moving)} parameters of the optimizer are not in the model"
    return None


def stacked_gradient(
    objective: Objective,
    perturbation: Perturbation,
    scaling: Scaling,
    through: nn.Module,
    sink: Sink,
    group: int | None = None,
) -> torch.Tensor:
    """Give the mSAM gradient to ``sink``; returns the loss at the unperturbed weights.

    Parameters
    ----------
    objective, perturbation, scaling, through, sink
        As in ``loop_gradient``.
    group : int, optional
        Micro-batches that go through the passes together; all of one size by default.

    Raises
    ------
    EngineError
        If the first group shows something that this engine cannot compute; the sink has then got nothing. Where a later
        group shows it, the loop does what is left.
    """
    groups = _groups(objective.sizes, group)
    statistics, shares = RunningStatistics(), objective.shares()
    loss: Any = 0.0
    for number, places in enumerate(groups):
        random = RandomState.now()
        last = number == len(groups) - 1
        try:
            part = _Group.of(objective, places, shares)
            with nullcontext() if last else without_reduction(through):
                loss = loss + part.gradient(perturbation, scaling, through, sink, statistics)
        except EngineError:
            if number == 0:
                raise
            random.restore()
            left = list(range(places.start, len(objective.sizes)))
            loss = loss + micro_batches_in_turn(objective, perturbation, scaling, through, sink, statistics, left)
            break
    statistics.commit()
    result: torch.Tensor = loss
    return result


def _groups(sizes: tuple[int, ...], group: int | None) -> list[range]:
    """Runs of at most ``group`` micro-batches of one size."""
    groups, start = [], 0
    for _, same in groupby(sizes):
        end = start + len(list(same))
        step = group or end - start
        groups += [range(a, min(a + step, end)) for a in range(start, end, step)]
        start = end
    return groups


@dataclass
class _Group:
    """Some micro-batches of one size, and their shares of the mini-batch."""

    objective: Objective
    shares: torch.Tensor
    rows: Rows

    @classmethod
    def of(cls, objective: Objective, places: range, shares: list[float]) -> _Group:
        slices = [objective.slices[i] for i in places]
        whole = slice(slices[0].start, slices[-1].stop)
        rows = Rows(len(places), objective.sizes[places[0]], len(places) > 1 and prefers_interleaving(objective.model))
        trees = [objective.inputs, objective.targets, objective.weights]
        if len(places) < len(objective.sizes):
            trees = [objective.cut(tree, whole) for tree in trees]
        cuts = None
        if rows.interleaved:
            order = torch.arange(rows.total).view(rows.count, rows.each).t().flatten()
            trees = [mapped(lambda leaf: _in_order(leaf, order), tree) for tree in trees]
            cuts = [slice(i, None, rows.count) for i in range(rows.count)]
        inputs, targets, weights = trees
        sizes = (rows.each,) * rows.count
        part = replace(objective, inputs=inputs, targets=targets, weights=weights, sizes=sizes, cuts=cuts)
        return cls(part, torch.tensor([shares[i] for i in places], dtype=torch.float64), rows)

    def gradient(
        self,
        perturbation: Perturbation,
        scaling: Scaling,
        through: nn.Module,
        sink: Sink,
        statistics: RunningStatistics,
    ) -> torch.Tensor:
        """Both passes; returns this group's part of the loss."""
        objective, share = self.objective, float(self.shares.sum())
        within = self.shares / share if share else self.shares
        moving = [(w, rho) for w, rho in zip(perturbation.parameters, perturbation.radii, strict=True) if rho]
        versions, random = objective.versions(), RandomState.now()
        first = Pass(self.rows, True, within, objective.structure.axes)
        stacks = {id(w): WeightStack(w, _spread(w, self.rows).requires_grad_()) for w, _ in moving}
        with statistics.observed(share), _nothing_kept(objective), _stand_ins(objective, stacks, first):
            means = self._means(first, None)
            _check_ways(means, stacks)
            found = _stacked_gradients(scaling(means.sum()), stacks)
        objective.check_unwritten(versions)
        _move(found, stacks, {id(w): rho for w, rho in moving}, self.rows)
        random.restore()
        torch.clear_autocast_cache()
        second = Pass(self.rows, False, within, objective.structure.axes)
        with statistics.frozen(), _nothing_kept(objective), _stand_ins(objective, stacks, second):
            again = self._means(second, through)
            sink.backward(scaling((self.shares.to(again) * again).sum()))
        return (self.shares.to(means) * means).sum().detach()

    def _means(self, run: Pass, through: nn.Module | None) -> torch.Tensor:
        """L_i of every micro-batch, and whether what ran is what the check saw."""
        objective = self.objective
        try:
            outputs = objective.outputs(through=through)
            means = objective.micro_batch_means(outputs, _own)
        except (EngineError, GradientError):
            raise
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise EngineError(f"with stacked weights, {type(error).__name__}: {error}") from error
        if isinstance(means, StandIn) or not means.requires_grad:
            raise EngineError("the losses do not depend on stacked weights row by row")
        run.closed = True
        if run.first:
            objective.check_structure(outputs, means, run.operations)
        return means


def _own(loss: torch.Tensor, number: int) -> torch.Tensor:
    """A scalar loss; of one that holds every micro-batch's weights, that of its own."""
    return loss.stacked()[number] if isinstance(loss, StandIn) else loss


def _modules(objective: Objective) -> Iterator[nn.Module]:
    for root in (objective.model, objective.loss):
        if isinstance(root, nn.Module):
            yield from root.modules()


def _in_order(leaf: Any, order: torch.Tensor) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    moved = leaf.index_select(0, order.to(leaf.device))
    if leaf.ndim == 4 and leaf.is_contiguous(memory_format=torch.channels_last) and not leaf.is_contiguous():
        moved = moved.contiguous(memory_format=torch.channels_last)
    return moved


def _spread(weight: torch.Tensor, rows: Rows) -> torch.Tensor:
    return weight.detach().expand(rows.count, *weight.shape)


@contextmanager
def _stand_ins(objective: Objective, stacks: dict[int, WeightStack], run: Pass) -> Iterator[None]:
    """Stand-ins in place of the parameters, in modules and in lists that modules keep of them; restored after."""
    modules = list(dict.fromkeys(_modules(objective)))
    made = {key: StandIn.make(of.weight, run, of) for key, of in stacks.items()}
    parameters = [(m, name, w) for m in modules for name, w in m._parameters.items() if id(w) in made]
    attributes = [(m, name, value) for m in modules for name, value in m.__dict__.items() if _may_hold(value)]
    try:
        for module, name, w in parameters:
            module._parameters[name] = made[id(w)]  # type: ignore[assignment]
        for module, name, value in attributes:
            if isinstance(value, list) and any(id(x) in made for x in value):
                module.__dict__[name] = [made.get(id(x), x) for x in value]
        yield
    finally:
        for module, name, w in parameters:
            module._parameters[name] = w
        for module in modules:
            for name in [name for name, value in module.__dict__.items() if isinstance(value, StandIn)]:
                del module.__dict__[name]
        for module, name, value in attributes:
            module.__dict__[name] = value


def _nothing_kept(objective: Objective) -> AbstractContextManager[None]:
    """No stand-in in a list or dict of a module after a pass."""
    return nothing_left_over(dict.fromkeys(_modules(objective)), lambda value: isinstance(value, StandIn))


def _may_hold(value: Any) -> bool:
    """Whether an attribute may hold parameters, or be computed from them before the module runs."""
    return isinstance(value, (list, torch.Tensor))


def _check_ways(means: torch.Tensor, stacks: dict[int, WeightStack]) -> None:
    """No trained weight may reach the loss as itself, past its stand-in."""
    for node in graph_nodes([means.grad_fn]):
        if type(node).__name__ == "AccumulateGrad":
            variable = node.variable
            if id(variable) in stacks or isinstance(variable, StandIn):
                raise EngineError(f"a weight of shape {tuple(variable.shape)} is used past its module")


@dataclass
class _Found:
    """G_i of one parameter: dense, or of the rows that lookups read, or none."""

    dense: torch.Tensor | None
    keys: torch.Tensor | None = None
    rows: torch.Tensor | None = None


def _stacked_gradients(total: torch.Tensor, stacks: dict[int, WeightStack]) -> dict[int, _Found]:
    asked = [of.stack for of in stacks.values()]
    lookups = [(key, lookup) for key, of in stacks.items() for lookup in of.lookups]
    try:
        gradients = torch.autograd.grad(total, [*asked, *(x.leaf for _, x in lookups)], allow_unused=True)
    except RuntimeError as error:
        raise EngineError(f"with stacked weights, {type(error).__name__}: {error}") from error
    found = {key: _Found(g) for key, g in zip(stacks, gradients, strict=False)}
    tables: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for (key, lookup), gradient in zip(lookups, gradients[len(asked) :], strict=True):
        if gradient is not None:
            tables.setdefault(key, []).append((lookup.keys, gradient))
    for key, parts in tables.items():
        dense = found[key].dense
        if dense is not None:
            dense = dense.contiguous()
            for keys, rows in parts:
                dense.view(-1, rows.shape[1]).index_add_(0, keys, rows)
            found[key] = _Found(dense)
        else:
            found[key] = _Found(None, *_merged(parts))
    if all(x.dense is None and x.rows is None for x in found.values()):
        raise GradientError(
            "no parameter of the optimizer that moves got a gradient from the loss: the step would be one of the base "
            "optimizer; does the optimizer hold this model's parameters, and does the loss depend on them?"
        )
    return found


def _merged(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lookups of one table as one: every row once."""
    if len(parts) == 1:
        return parts[0]
    keys, place = torch.unique(torch.cat([keys for keys, _ in parts]), return_inverse=True)
    rows = torch.cat([rows for _, rows in parts])
    return keys, rows.new_zeros(len(keys), rows.shape[1]).index_add_(0, place, rows)


@torch.no_grad()
def _move(found: dict[int, _Found], stacks: dict[int, WeightStack], radii: dict[int, float], rows: Rows) -> None:
    """W_i = W + s_i G_i, with the norms over all parameters that move."""
    squares: Any = 0.0
    for key, x in found.items():
        size = stacks[key].weight.shape
        if x.dense is not None:
            flat = torch.view_as_real(x.dense) if x.dense.is_complex() else x.dense
            norms = torch.linalg.vector_norm(flat.reshape(rows.count, -1), dim=1, dtype=_at_least_float(flat.dtype))
            squares = squares + norms.square()
        elif x.rows is not None and x.keys is not None:
            each = x.rows.to(_at_least_float(x.rows.dtype)).square().sum(1)
            squares = squares + each.new_zeros(rows.count).index_add_(0, x.keys // size[0], each)
    norms = squares.sqrt()
    for key, x in found.items():
        of, weight = stacks[key], stacks[key].weight.detach()
        scale = length_scale(norms, radii[key]).to(weight.dtype)
        of.lookups = []
        of.stack = _spread(weight, rows)
        if x.dense is not None:
            column = scale.view(-1, *[1] * weight.ndim)
            of.stack = torch.addcmul(weight, x.dense, column, out=x.dense if x.dense.is_contiguous() else None)
        elif x.rows is not None and x.keys is not None:
            of.keys, of.moved = x.keys, x.rows * scale[x.keys // weight.shape[0]].unsqueeze(1)


def _at_least_float(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
