"""The vmap engine: all micro-batches of one size at once, by ``torch.func``.

    G = vmap(grad L_i)(w),    w_i = w + eps_i,    g = sum_i q_i vmap(grad L_i)(w_i).

M copies of the weights are held. On a CPU it is slower than the loop for all but many small micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.func import functional_call, grad_and_value, vmap

from msam_lawn.torch.containers import mapped
from msam_lawn.torch.engines.left_over import nothing_left_over
from msam_lawn.torch.engines.loop import Scaling
from msam_lawn.torch.engines.sink import Sink
from msam_lawn.torch.objective import Objective
from msam_lawn.torch.passes import RandomState, has_running_statistics
from msam_lawn.torch.perturbation import Perturbation

__all__ = ["vmap_gradient", "vmap_refusal"]


def vmap_refusal(objective: Objective, perturbation: Perturbation, through: torch.nn.Module) -> str | None:
    """Why this engine cannot compute the step, or None."""
    if through is not objective.model:
        return "gradients made by torch.func bypass DistributedDataParallel's reduction"
    if objective.weights is not None:
        return "weighted losses are not vmapped"
    owned = {id(w) for w in objective.model.parameters()}
    if any(id(w) not in owned for w in perturbation.parameters):
        return "the optimizer holds parameters that the model does not have"
    for name, module in objective.model.named_modules():
        if has_running_statistics(module):
            return f"{name} ({type(module).__name__}) moves running averages"
    for name, w in objective.model.named_parameters():
        if w._backward_hooks or getattr(w, "_post_accumulate_grad_hooks", None):
            return f"{name} has gradient hooks, which gradients made by torch.func do not pass"
    return None


def vmap_gradient(
    objective: Objective, perturbation: Perturbation, scaling: Scaling, through: torch.nn.Module, sink: Sink
) -> torch.Tensor:
    """Give the mSAM gradient to ``sink``; returns the loss at the unperturbed weights."""
    modules = [
        m for root in (objective.model, objective.loss) if isinstance(root, torch.nn.Module) for m in root.modules()
    ]
    with nothing_left_over(modules, is_functorch_wrapped_tensor):
        summed, loss = _passes(objective, perturbation, scaling)
    sink.add(perturbation.parameters, summed)
    return loss


def _passes(
    objective: Objective, perturbation: Perturbation, scaling: Scaling
) -> tuple[list[torch.Tensor], torch.Tensor]:
    versions = objective.versions()
    names = {id(w): name for name, w in objective.model.named_parameters()}
    keys = [names[id(w)] for w in perturbation.parameters]
    weights = {key: w.detach() for key, w in zip(keys, perturbation.parameters, strict=True)}
    fixed: dict[str, Any] = {
        name: w.detach() for name, w in objective.model.named_parameters() if name not in weights
    } | dict(objective.model.named_buffers())

    def mean_loss(at: dict[str, torch.Tensor], inputs: Any, targets: Any, first: bool = False) -> torch.Tensor:
        model = _Functional(objective.model, at | fixed)
        shard = Objective(model, inputs, targets, objective.loss, (size,))  # type: ignore[arg-type]
        outputs = shard.outputs()
        loss = shard.mean(objective.loss(outputs, targets), slice(0, size))
        if first:
            objective.check_structure(outputs, loss)
        return scaling(loss)

    total, start = torch.zeros((), device=perturbation.parameters[0].device), 0
    summed = {key: torch.zeros_like(w) for key, w in weights.items()}
    for size, group in groupby(objective.sizes):
        count = len(list(group))
        rows = slice(start, start + count * size)
        start = rows.stop
        inputs, targets = (
            mapped(partial(_folded, count=count, size=size), objective.cut(tree, rows))
            for tree in (objective.inputs, objective.targets)
        )
        random = RandomState.now()
        first = partial(mean_loss, first=True)
        gradients, losses = vmap(grad_and_value(first), (None, 0, 0), randomness="different")(weights, inputs, targets)
        objective.check_unwritten(versions)
        perturbed = _moved(perturbation, keys, gradients, count)
        random.restore()
        gradients, _ = vmap(grad_and_value(mean_loss), (0, 0, 0), randomness="different")(perturbed, inputs, targets)
        for key in keys:
            summed[key] += gradients[key].sum(0) * (size / objective.rows)
        total = total + losses.sum() * (size / objective.rows)
    return [summed[key].detach() for key in keys], total.detach() / scaling(torch.ones_like(total))


class _Functional:
    """The model with other weights in its place."""

    def __init__(self, model: torch.nn.Module, weights: dict[str, Any]) -> None:
        self._model, self._weights = model, weights

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _parameters_kept(self._model):
            return functional_call(self._model, self._weights, args, kwargs)


@contextmanager
def _parameters_kept(model: torch.nn.Module) -> Iterator[None]:
    """The model's own parameters and buffers after: ``functional_call`` leaves a traced one in a layer of two names."""
    kept: list[tuple[Any, Any]] = [
        (held, dict(held)) for module in model.modules() for held in (module._parameters, module._buffers)
    ]
    try:
        yield
    finally:
        for held, own in kept:
            held.update(own)


def _folded(leaf: Any, count: int, size: int) -> Any:
    return leaf.reshape(count, size, *leaf.shape[1:]) if isinstance(leaf, torch.Tensor) else leaf


def _moved(
    perturbation: Perturbation, keys: list[str], gradients: dict[str, torch.Tensor], count: int
) -> dict[str, torch.Tensor]:
    """W + eps_i of every micro-batch, stacked."""
    moved: dict[str, list[torch.Tensor]] = {key: [] for key in keys}
    for i in range(count):
        ascent = perturbation.ascent([gradients[key][i] for key in keys])
        for key, w, step in zip(keys, perturbation.parameters, ascent, strict=True):
            moved[key].append(w.detach() if step is None else torch.addcmul(w.detach(), *step))
    return {key: torch.stack(stack) for key, stack in moved.items()}
