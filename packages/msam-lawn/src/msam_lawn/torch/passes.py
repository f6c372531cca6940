"""What the two passes of a SAM step must share: random numbers and batch statistics.

Both passes draw the same dropout masks. Running averages of normalisation layers take the statistics of the first,
unperturbed pass, once a step: with M micro-batches they take the pooled mean and variance

    mu = sum_i q_i mu_i,    sigma^2 = sum_i q_i (sigma_i^2 + (mu_i - mu)^2),    q_i the share of micro-batch i.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = [
    "RandomState",
    "RunningStatistics",
    "evaluation_mode",
    "has_running_statistics",
    "left_as_found",
    "normalisations_of_compiled",
]


@dataclass(frozen=True)
class RandomState:
    """State of the generators that a model may draw from: torch's (CPU, CUDA in use), Python's and numpy's."""

    cpu: torch.Tensor
    cuda: list[torch.Tensor]
    python: Any
    numpy: Any

    @classmethod
    def now(cls, with_numpy: bool = True) -> RandomState:
        """Read the generators; numpy's takes longer than all others together."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(torch.get_rng_state(), cuda, random.getstate(), np.random.get_state() if with_numpy else None)  # noqa: NPY002

    def restore(self) -> None:
        """Set the generators back, so that the next pass draws the same numbers."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.python)
        if self.numpy is not None:
            np.random.set_state(self.numpy)  # noqa: NPY002

    def drew_from_numpy(self) -> bool:
        """Whether numpy's generator has moved since."""
        if self.numpy is None:
            return False
        _, words, *place = np.random.get_state()  # noqa: NPY002
        return place != list(self.numpy[2:]) or not np.array_equal(words, self.numpy[1])


def has_running_statistics(module: torch.nn.Module) -> bool:
    """Whether a forward call of this layer moves running averages."""
    return isinstance(module, _NormBase) and module.training and module.running_mean is not None


@dataclass
class _Averages:
    """One layer's averages as they were, and the statistics of each micro-batch."""

    momentum: float | None
    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor
    seen: list[tuple[float, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def restore(self, layer: Any) -> None:
        layer.momentum = self.momentum
        layer.running_mean.copy_(self.mean)
        layer.running_var.copy_(self.variance)
        layer.num_batches_tracked.copy_(self.count)


class RunningStatistics:
    """Keeps the running averages of normalisation layers to one update a step.

    Layers are found when they run, by a hook, so that a closure need not tell its model. A compiled model's are given:
    it would be compiled again for every hook.
    """

    def __init__(self, known: list[_NormBase] | None = None) -> None:
        self._known = known
        self._layers: dict[_NormBase, _Averages] = {}

    @contextmanager
    def observed(self, share: float) -> Iterator[None]:
        """First pass of one micro-batch of several: take its statistics, whole, for ``commit``."""
        touched: set[_NormBase] = set()

        def take_whole(module: torch.nn.Module, _: Any) -> None:
            if has_running_statistics(module):
                assert isinstance(module, _NormBase)
                self._remember(module)
                module.momentum = 1.0  # the running averages become this micro-batch's statistics
                touched.add(module)

        try:
            with self._watched(take_whole):
                yield
            for layer in touched:
                assert layer.running_mean is not None
                assert layer.running_var is not None
                self._layers[layer].seen.append((share, layer.running_mean.clone(), layer.running_var.clone()))
        finally:
            self.restore()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Second pass: whatever it does to running averages is undone."""

        def remember(module: torch.nn.Module, _: Any) -> None:
            if has_running_statistics(module):
                assert isinstance(module, _NormBase)
                passing.setdefault(module, _snapshot(module))

        passing: dict[_NormBase, _Averages] = {}
        try:
            with self._watched(remember):
                yield
        finally:
            with torch.no_grad():
                for layer, averages in passing.items():
                    averages.restore(layer)

    def commit(self) -> None:
        """Move every layer's averages once, towards the pooled statistics."""
        with torch.no_grad():
            for layer, averages in self._layers.items():
                mean = sum(share * m for share, m, _ in averages.seen)
                # instance normalisation averages the variances of single rows: means of micro-batches do not enter
                between = not isinstance(layer, _InstanceNorm)
                variance = sum(share * (v + between * (m - mean).square()) for share, m, v in averages.seen)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                assert layer.num_batches_tracked is not None
                layer.num_batches_tracked.add_(1)
                rate = averages.momentum
                if rate is None:
                    rate = 1.0 / float(layer.num_batches_tracked)
                layer.running_mean.mul_(1 - rate).add_(rate * mean)
                layer.running_var.mul_(1 - rate).add_(rate * variance)

    def restore(self) -> None:
        """Set every observed layer back to its averages before the step."""
        with torch.no_grad():
            for layer, averages in self._layers.items():
                averages.restore(layer)

    def _watched(self, hook: Any) -> AbstractContextManager[None]:
        if self._known is None:
            return _hooked(hook)
        for layer in self._known:
            hook(layer, None)
        return nullcontext()

    def _remember(self, layer: _NormBase) -> None:
        if layer not in self._layers:
            self._layers[layer] = _snapshot(layer)


def normalisations_of_compiled(model: torch.nn.Module) -> list[_NormBase] | None:
    """The layers with running averages of a model that is compiled, whole or in part; None for another."""
    modules = list(model.modules())
    if not any(m._compiled_call_impl is not None or type(m).__name__ == "OptimizedModule" for m in modules):
        return None
    return [m for m in modules if isinstance(m, _NormBase)]


def _snapshot(layer: Any) -> _Averages:
    return _Averages(
        layer.momentum, layer.running_mean.clone(), layer.running_var.clone(), layer.num_batches_tracked.clone()
    )


@contextmanager
def _hooked(hook: Any) -> Iterator[None]:
    handle = register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode after."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def left_as_found(*roots: Any) -> Iterator[None]:
    """Undo what forward passes inside write: parameters and buffers bit for bit, attributes, random numbers."""
    state = RandomState.now()
    modules = {m: None for root in roots if isinstance(root, torch.nn.Module) for m in root.modules()}
    attributes = {module: dict(module.__dict__) for module in modules}
    buffers = {module: dict(module._buffers) for module in modules}
    tensors = {t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None}
    with torch.no_grad():
        contents = {t: (t._version, t.detach().clone()) for t in tensors}
    try:
        yield
    finally:
        with torch.no_grad():
            for module in modules:
                module.__dict__.clear()
                module.__dict__.update(attributes[module])
                module._buffers.clear()
                module._buffers.update(buffers[module])
            for tensor, (version, content) in contents.items():
                if tensor._version != version:
                    tensor.copy_(content)
        torch.clear_autocast_cache()
        state.restore()
