"""LAWN: train freely for a while, then with the weight norms held where they are.

Free steps t < T: the base optimizer as it is. At t = T the norms c_l = ||w_l||_F are recorded; from then on, each step,

    g_l <- g_l - (<g_l, w_l> / c_l^2) w_l        tangent gradient: no radial part enters the moments
    base step, its learning rate times min((t - T + 1) / warm-up, 1)
    w_l <- c_l w_l / ||w_l||                     back onto the sphere

Our formulation of arXiv:2108.05839, of which the abstract was read: a free phase, then constrained weight norms in the
final homogeneous sub-network, no weight decay anywhere, on top of any optimizer.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from msam_lawn.errors import GradientError, SettingsError
from msam_lawn.torch.wrapper import WrappingOptimizer

__all__ = ["LAWN"]


class LAWN(WrappingOptimizer):
    """Hold the norms of some weights after a free phase, on top of any optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer that steps, without weight decay.
    constrained : iterable of tensors
        The weights whose norms are held: ``homogeneous_tail(model, inputs).weights``, or a choice of your own.
    free_steps : int
        Optimizer steps before the switch.
    warmup_steps : int
        Steps after the switch over which the learning rate rises linearly to what the groups say.

    Attributes
    ----------
    steps_taken : int
        Optimizer steps; steps that a gradient scaler or SAM skipped do not count.
    phase : {"free", "warm-up", "constrained"}
        Of the next step.

    Raises
    ------
    SettingsError
        If a group has weight decay, or a constrained tensor is not the optimizer's.

    Examples
    --------
    >>> import torch
    >>> from msam_lawn.torch import LAWN
    >>> w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    >>> optimizer = LAWN(torch.optim.SGD([w], lr=0.1), constrained=[w], free_steps=1)
    >>> for _ in range(3):
    ...     w.grad = torch.tensor([[1.0, 0.0]])
    ...     optimizer.step()
    ...     print(optimizer.phase, round(float(w.detach().norm()), 4))
    constrained 4.9406
    constrained 4.9406
    constrained 4.9406
    """

    key = "lawn"

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        constrained: Iterable[torch.Tensor],
        *,
        free_steps: int,
        warmup_steps: int = 0,
    ) -> None:
        for name, value in (("free_steps", free_steps), ("warmup_steps", warmup_steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise SettingsError(f"{name}={value!r} must be an integer of at least 0")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SettingsError(f"optimizer is a {type(optimizer).__name__}; pass an optimizer instance")
        super().__init__(optimizer)
        self.free_steps, self.warmup_steps = free_steps, warmup_steps
        self.steps_taken = 0
        self._constrained = list(dict.fromkeys(constrained))
        self._norms: list[float] | None = None
        self._check_groups()
        known = {id(w) for group in self.param_groups for w in group["params"]}
        for w in self._constrained:
            if id(w) not in known:
                raise SettingsError(
                    f"a constrained tensor of shape {tuple(w.shape)} is not a parameter of the optimizer"
                )
        if not self._constrained:
            raise SettingsError("constrained is empty; LAWN without constrained weights is the base optimizer")

    @property
    def phase(self) -> Literal["free", "warm-up", "constrained"]:
        """Phase of the next step."""
        if self.steps_taken < self.free_steps:
            return "free"
        return "warm-up" if self.steps_taken < self.free_steps + self.warmup_steps else "constrained"

    @property
    def norms(self) -> list[float] | None:
        """Norms c_l in the order of ``constrained``; None in the free phase, 0 for a tensor left free."""
        return None if self._norms is None else list(self._norms)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One optimizer step; the closure, if any, is called first and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        elif self._is_initialisation():
            self.base_optimizer.step()
            return None
        self._check_groups()
        if self.phase == "free":
            self.base_optimizer.step()
        else:
            if self._norms is None:
                self._switch()
            self._project_gradients()
            self._scaled_step()
            self._retract()
        self.steps_taken += 1
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; the optional key ``lawn_constrained`` (bool) says whether its tensors are constrained.

        After the switch their norms are held from now on.
        """
        constrain = bool(param_group.pop("lawn_constrained", False))
        super().add_param_group(param_group)
        if constrain:
            fresh = list(self.param_groups[-1]["params"])
            self._constrained += fresh
            if self._norms is not None:
                self._norms += [_usable_norm(w) for w in fresh]

    def retract_average(self, weights: Iterable[torch.Tensor]) -> None:
        """Put averaged copies (EMA, SWA) of the constrained tensors back on their spheres.

        Parameters
        ----------
        weights : iterable of tensors
            In the order of ``constrained``; changed in place.
        """
        if self._norms is None:
            raise GradientError("no norms are held in the free phase; there is nothing to put an average back on")
        for w, norm in zip(weights, self._norms, strict=True):
            if norm:
                w.detach().mul_(norm / _norm(w.detach()))

    def _switch(self) -> None:
        self._norms = [_usable_norm(w) for w in self._constrained]

    def _held(self) -> list[tuple[torch.Tensor, float]]:
        assert self._norms is not None
        return [(w, norm) for w, norm in zip(self._constrained, self._norms, strict=True) if norm]

    # Both run backwards over the tensors: optimizers step forwards, so what one touched last is in cache for the next.

    def _project_gradients(self) -> None:
        for w, norm in reversed(self._held()):
            if w.grad is not None:
                w.grad.sub_(w, alpha=_dot(w.grad, w) / norm**2)

    def _scaled_step(self) -> None:
        if self.phase == "constrained":
            self.base_optimizer.step()
            return
        factor = (self.steps_taken - self.free_steps + 1) / self.warmup_steps
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        try:
            self.base_optimizer.step()
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate

    def _retract(self) -> None:
        for w, norm in reversed(self._held()):
            w.mul_(norm / _norm(w))

    def _check_groups(self) -> None:
        for number, group in enumerate(self.param_groups):
            if group.get("weight_decay", 0.0) != 0:
                raise SettingsError(
                    f"weight_decay={group['weight_decay']} in group {number}: LAWN uses none anywhere (with held norms "
                    "decay would only lengthen the step); set weight_decay=0 in the base optimizer"
                )

    def _copied(self) -> dict[str, Any]:
        own = ("free_steps", "warmup_steps", "steps_taken", "_constrained", "_norms")
        return {name: self.__dict__[name] for name in own}

    def _own_state(self) -> dict[str, Any]:
        return {
            "steps_taken": self.steps_taken,
            "free_steps": self.free_steps,
            "warmup_steps": self.warmup_steps,
            "norms": self._norms,
        }

    def _load_own_state(self, own: dict[str, Any]) -> None:
        if own["norms"] is not None and len(own["norms"]) != len(self._constrained):
            raise SettingsError(
                f"the state holds {len(own['norms'])} norms, {len(self._constrained)} tensors are constrained here"
            )
        self.steps_taken = int(own["steps_taken"])
        self.free_steps, self.warmup_steps = int(own["free_steps"]), int(own["warmup_steps"])
        self._norms = None if own["norms"] is None else [float(norm) for norm in own["norms"]]


CHUNK = 1 << 17  # half a megabyte of float32: partial sums of chunks this long add up in float64


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """<a, b>, accurately: dot products of chunks, summed in float64."""
    if a.device.type != "cpu" or a.dtype not in (torch.float32, torch.float64):
        return float((a.double() * b.double()).sum())
    left, right = a.reshape(-1), b.reshape(-1)
    if len(left) <= CHUNK:
        return float(torch.dot(left, right))
    return math.fsum(float(torch.dot(x, y)) for x, y in zip(left.split(CHUNK), right.split(CHUNK), strict=True))


def _norm(w: torch.Tensor) -> float:
    return math.sqrt(_dot(w, w))


def _usable_norm(w: torch.Tensor) -> float:
    norm = _norm(w.detach())
    if norm == 0:
        warnings.warn(
            f"a constrained tensor of shape {tuple(w.shape)} is zero at the switch and stays free: a sphere of "
            "radius 0 would hold it at zero",
            UserWarning,
            stacklevel=4,
        )
    return norm
