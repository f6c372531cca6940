"""SAM and mSAM around any torch optimizer.

With micro-batches S_1..S_M of shares q_i, g_i = grad L_i(w) and eps_i = rho g_i / (||g_i|| + 1e-12),

    g_mSAM = sum_i q_i grad L_i(w + eps_i),

and the base optimizer steps from the unperturbed w with g_mSAM. M = 1 is SAM (Foret et al. 2021); micro-batches of mSAM
are those of arXiv:2302.09693 and arXiv:2212.04343 (abstracts; the formula is our reading of them).
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from msam_lawn.errors import EngineError, GradientError, PrecisionWarning, SettingsError
from msam_lawn.rho import RhoSchedule, check_rho
from msam_lawn.shards import check_micro_batching, shard_sizes, shard_slices
from msam_lawn.torch.distributed import check_unsharded, unwrapped
from msam_lawn.torch.engines.choice import (
    EngineChoice,
    EngineName,
    Plan,
    choose_engine,
    engine_of,
    input_elements,
)
from msam_lawn.torch.engines.fingerprint import call_key, model_key
from msam_lawn.torch.engines.loop import Scaling, kept_weights, perturb, write_back
from msam_lawn.torch.engines.sink import IntoGrad
from msam_lawn.torch.engines.structure import UncheckedError
from msam_lawn.torch.objective import LossFunction, Objective, make_objective
from msam_lawn.torch.passes import RandomState, RunningStatistics
from msam_lawn.torch.perturbation import Adaptive, Perturbation, global_norm
from msam_lawn.torch.wrapper import WrappingOptimizer

__all__ = ["SAM"]

STATES = 16  # of one model that are remembered; a model with more changes from step to step and is looped over
SHAPES = 256  # of mini-batches that are remembered in each

_ADAPTIVE: dict[Any, Adaptive | None] = {False: None, True: "squared", "squared": "squared", "asam": "asam"}


@dataclass
class _Progress:
    """What steps have done so far. One object, shared with shallow copies such as Lightning's optimizer wrappers.

    Attributes
    ----------
    taken, skipped : int
    pending : bool
        A gradient from ``backward`` waits for its step.
    share : float
        Parts of the accumulated mini-batch in it.
    lost : float
        Parts that ``zero_grad`` discarded since the last step.
    first_pass : tuple of lists, or None
        Weights, their values and the gradients between ``first_step`` and ``second_step``.
    spent : list
        Gradients that the last step used, and their versions.
    """

    taken: int = 0
    skipped: int = 0
    pending: bool = False
    share: float = 0.0
    lost: float = 0.0
    first_pass: tuple[list[torch.Tensor], list[torch.Tensor], list[Any]] | None = None
    spent: list[Any] = field(default_factory=list)


class SAM(WrappingOptimizer):
    """Sharpness-aware minimisation, with any number of micro-batches, around any optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer, or iterable of parameters or groups
        The optimizer that steps; or parameters, when a class is given next.
    base_optimizer : type, optional
        Class of the optimizer that steps, made with ``base_arguments`` (the signature of davda54/sam).
    rho : float or callable
        Radius of the perturbation; a callable gets the number of steps taken (see ``linear_rho``, ``cosine_rho``).
        A group's ``rho_scale`` multiplies it: 0 leaves the group's tensors in place and out of the norm.
    adaptive : {False, True, "squared", "asam"}
        Scale the perturbation by the weights: "squared" (or True) by w^2 everywhere, as davda54/sam and
        pytorch_optimizer do; "asam" by (|w| + eta)^2 on tensors of two or more axes.
    eta : float
        Offset in "asam".
    micro_batches, micro_batch_size : int, optional
        How a mini-batch is cut: into how many parts, or into parts of how many rows. Neither: one part, which is SAM.
    engine : {"auto", "loop", "low-rank", "stacked", "vmap"}
        How ``backward`` computes the gradient; all are exact. ``choices`` tells what "auto" took and why.

    Attributes
    ----------
    steps_taken, skipped_steps : int
        Steps of the base optimizer, and steps left out because the gradient was not finite.

    Raises
    ------
    SettingsError
        If a setting is outside its range.

    Examples
    --------
    >>> import torch
    >>> from msam_lawn.torch import SAM
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05, micro_batches=4)
    >>> x, y = torch.randn(16, 3), torch.randn(16, 1)
    >>> losses = []
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     loss = optimizer.backward(model, x, y, lambda outputs, targets: (outputs - targets).square().mean(1))
    ...     optimizer.step()
    ...     losses.append(float(loss))
    >>> losses[-1] < losses[0]
    True
    """

    key = "sam"

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Iterable[Any],
        base_optimizer: type[torch.optim.Optimizer] | None = None,
        rho: float | RhoSchedule = 0.05,
        adaptive: bool | Literal["squared", "asam"] = False,
        *,
        eta: float = 0.01,
        micro_batches: int | None = None,
        micro_batch_size: int | None = None,
        engine: EngineName = "auto",
        **base_arguments: Any,
    ) -> None:
        if isinstance(optimizer, torch.optim.Optimizer):
            if base_optimizer is not None or base_arguments:
                given = ", ".join(["base_optimizer"] * (base_optimizer is not None) + list(base_arguments))
                raise SettingsError(f"{given} given with an optimizer instance; set them on the instance")
        elif base_optimizer is None:
            raise SettingsError("parameters given without a class; pass an optimizer instance, or base_optimizer=")
        else:
            optimizer = base_optimizer(optimizer, **base_arguments)
        check_micro_batching(micro_batches, micro_batch_size)
        if adaptive not in _ADAPTIVE:
            raise SettingsError(f"adaptive={adaptive!r} must be False, True, 'squared' or 'asam'")
        if eta < 0:
            raise SettingsError(f"eta={eta!r} must be at least 0")
        self._schedule: RhoSchedule | None = rho if callable(rho) else None
        self._rho = check_rho(rho(0) if callable(rho) else rho)
        self.adaptive, self.eta = _ADAPTIVE[adaptive], eta
        self.micro_batches, self.micro_batch_size = micro_batches, micro_batch_size
        self.engine: EngineName = engine
        if isinstance(optimizer, SAM):
            raise SettingsError("optimizer is a SAM already; pass the optimizer that it wraps")
        self._progress = _Progress()
        self._warned = False
        self._plans = _no_plans()
        super().__init__(optimizer)

    @property
    def rho(self) -> float:
        """Radius of the next step."""
        return self._rho if self._schedule is None else check_rho(self._schedule(self.steps_taken))

    @rho.setter
    def rho(self, value: float) -> None:
        self._rho, self._schedule = check_rho(value), None

    @property
    def steps_taken(self) -> int:
        """Steps of the base optimizer."""
        return self._progress.taken

    @property
    def skipped_steps(self) -> int:
        """Steps left out because the gradient was not finite."""
        return self._progress.skipped

    @property
    def choices(self) -> list[EngineChoice]:
        """What was chosen for every model, its states and the shapes seen, and why."""
        return [
            plan.choice for states in self._plans.values() for shapes in states.values() for plan in shapes.values()
        ]

    # --- gradient production -------------------------------------------------------------------------------------

    def backward(
        self,
        model: torch.nn.Module,
        inputs: Any,
        targets: Any,
        loss: LossFunction,
        *,
        weights: torch.Tensor | None = None,
        share: float = 1.0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> torch.Tensor:
        """Add the mSAM gradient of a mini-batch to ``.grad``, in place of ``loss.backward()``.

        Parameters
        ----------
        model : torch.nn.Module
            The model, or its DistributedDataParallel wrapper: then each rank perturbs with its own gradient and one
            all-reduce averages the result.
        inputs, targets : nested containers of tensors
            With the rows as leading axis; a tuple of inputs is passed as positional, a mapping as keyword arguments.
        loss : callable
            ``loss(outputs, targets)``: one loss a row (``reduction="none"``), or the scalar mean over the rows it is
            given; the scalar costs one call a micro-batch.
        weights : tensor, optional
            Weights of the losses, for instance a padding mask; a micro-batch then counts by its sum of weights.
        share : float
            Part of the accumulated mini-batch that this call holds, 1 / steps for equal parts.
        scaler : torch.amp.GradScaler, optional
            Scales the losses; step with ``scaler.step(optimizer)``.

        Returns
        -------
        tensor
            The loss at the unperturbed weights, detached.

        Raises
        ------
        SettingsError
            If rows do not match, or a parameter is sharded over ranks.
        EngineError
            If the engine that was asked for is not exact for this model.
        GradientError
            If no parameter that moves gets a gradient (the optimizer does not hold this model), the model writes into
            the mini-batch, or a first step is open. A mini-batch of fewer rows than micro-batches has one row in each.
        """
        if self._progress.first_pass is not None:
            raise GradientError("backward() between first_step() and second_step(); finish one way before the other")
        inner = unwrapped(model)
        objective = make_objective(inner, inputs, targets, loss, weights, self.micro_batches, self.micro_batch_size)
        perturbation = self._perturbation()

        def scaling(value: torch.Tensor) -> torch.Tensor:
            value = value * share if share != 1.0 else value
            return value if scaler is None else scaler.scale(value)

        before = _marks(perturbation.parameters)
        with torch.enable_grad():
            if perturbation.is_zero:
                result = objective.mean_loss(slice(0, objective.rows), model)
                scaling(result).backward()
                result = result.detach()
            else:
                result = self._produce(objective, perturbation, scaling, model)
        if _same(before, _marks(perturbation.parameters)):
            raise GradientError(
                "backward() left no gradient on the optimizer's parameters: the optimizer does not hold this model's "
                "parameters, or a hook took the gradients away"
            )
        self._progress.pending = True
        self._progress.share += share
        return result

    def _produce(
        self, objective: Objective, perturbation: Perturbation, scaling: Scaling, through: torch.nn.Module
    ) -> torch.Tensor:
        anew = False
        while True:
            plan, plans, key = self._plan(objective, perturbation, through, anew)
            known = replace(objective, probed=plan.probed, probed_rows=plan.probed_rows, structure=plan.structure)
            try:
                return engine_of(plan.choice)(known, perturbation, scaling, through, INTO_GRAD)
            except EngineError as error:  # raised before anything reaches .grad
                if isinstance(error, UncheckedError) and not anew and plan.renewed < STATES:
                    anew = True
                    continue
                if self.engine != "auto":
                    raise
                reason = f"the {plan.choice.engine} engine is not exact here: {error}"
                plans[key] = Plan(EngineChoice("loop", reason))
                anew = False

    def _plan(
        self, objective: Objective, perturbation: Perturbation, through: torch.nn.Module, anew: bool
    ) -> tuple[Plan, dict[Any, Plan], Any]:
        """The engine for this call: the one chosen before where nothing that it depends on has changed."""
        if self.engine == "loop":
            states = self._plans.setdefault(objective.model, {})
            plans = states.setdefault("loop", {})
            return plans.setdefault("loop", choose_engine(objective, perturbation, through, "loop")), plans, "loop"
        states = self._plans.setdefault(objective.model, {})
        state: Any = (self.engine, *model_key(objective, perturbation))
        key: Any = call_key(objective, through)
        if state not in states and len(states) >= STATES and self.engine == "auto":
            reason = f"the model's modes, hooks or attributes have changed {STATES} times: nothing can be relied on"
            state, key = "changing", "changing"
            states.setdefault(state, {}).setdefault(key, Plan(EngineChoice("loop", reason)))
        plans = states.setdefault(state, {})
        plan = plans.get(key)
        if plan is None or plan.is_due or anew or not plan.lasting:
            before = plan
            uses = 0 if before is None else before.uses
            known = before.choice if before is not None and before.lasting else _timed_alike(plans, objective)
            plan = choose_engine(objective, perturbation, through, self.engine, first_row=uses, known=known)
            plan.uses = uses
            if before is not None:
                plan.renewed, plan.elements = before.renewed + anew, before.elements
            while len(plans) >= SHAPES:
                del plans[next(iter(plans))]
            plans[key] = plan
        plan.uses += 1
        return plan, plans, key

    def _perturbation(self) -> Perturbation:
        rho = self.rho
        trained = [(w, g) for g in self.param_groups for w in g["params"] if w.requires_grad]
        if not trained:
            raise GradientError("no parameter of the optimizer requires a gradient")
        check_unsharded([w for w, _ in trained])
        if not self._warned and any(w.dtype in (torch.bfloat16, torch.float16) for w, _ in trained):
            self._warned = True
            warnings.warn(
                "weights of 16 bits round most of a perturbation away; keep float32 weights and use torch.autocast",
                PrecisionWarning,
                stacklevel=3,
            )
        radii = [rho * check_rho(group.get("rho_scale", 1.0)) for _, group in trained]
        return Perturbation([w for w, _ in trained], radii, self.adaptive, self.eta)

    # --- stepping ------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[..., Any] | None = None, *, rows: int | None = None) -> Any:
        """Step the base optimizer with the gradient from ``backward``, or with one made here by a closure.

        Parameters
        ----------
        closure : callable, optional
            Computes a loss and its gradients; ``.grad`` is cleared before each call. Without micro-batches it takes
            no argument and is called twice. With micro-batches it takes a ``slice`` of the mini-batch's rows, returns
            their mean loss, and is called twice a micro-batch.
        rows : int, optional
            Rows of the mini-batch, needed with micro-batches.

        Returns
        -------
        The closure's loss at the unperturbed weights, None without a closure.

        Raises
        ------
        GradientError
            If there is no gradient from ``backward`` and no closure, the closure made no gradient, or an accumulation
            was lost: gradients that were in ``.grad`` before the closure, a part that ``zero_grad`` discarded.
        """
        progress = self._progress
        if progress.first_pass is not None:
            raise GradientError("step() between first_step() and second_step(); call second_step()")
        loss = None
        if closure is not None:
            loss = self._after_backward(closure) if progress.pending else self._closed(closure, rows)
        elif not progress.pending:
            if self._is_initialisation():
                self.base_optimizer.step()
                return None
            raise GradientError(
                "step() without a SAM gradient: call optimizer.backward(model, inputs, targets, loss) first, or "
                "step(closure); loss.backward() alone would be a step of the base optimizer"
            )
        self._check_whole()
        progress.pending, progress.share, progress.lost = False, 0.0, 0.0
        if self._finite():
            self.base_optimizer.step()
            progress.taken += 1
        else:
            progress.skipped += 1
        progress.spent = _marks(self._held())
        return loss

    def _check_whole(self) -> None:
        """Refuse a step that lacks its gradient or a part of it."""
        progress = self._progress
        if all(w.grad is None for w in self._held()):
            raise GradientError("the gradient from backward() is gone: model.zero_grad() or a hook cleared it")
        if progress.pending and progress.lost and progress.share < 1 - 1e-6:
            raise GradientError(
                f"an accumulation was lost: zero_grad() discarded a part of {progress.lost:g} of the mini-batch, and "
                f"{progress.share:g} of it is left; call zero_grad() only after step()"
            )

    def _after_backward(self, closure: Callable[..., Any]) -> Any:
        """A closure beside a gradient from ``backward``, as trainers pass one that does nothing: it may not add any."""
        before = _marks(self._held())
        with torch.enable_grad():
            loss = closure()
        if not _same(before, _marks(self._held())):
            raise GradientError(
                "step(closure) after backward(): the closure made gradients of its own, not SAM's; use one way"
            )
        return loss

    def _held(self) -> list[torch.Tensor]:
        return [w for group in self.param_groups for w in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, accumulated ones included."""
        super().zero_grad(set_to_none)
        progress = self._progress
        if progress.pending and progress.share < 1 - 1e-6:
            progress.lost += progress.share
        progress.pending, progress.share = False, 0.0

    def first_step(self, zero_grad: bool = False) -> None:
        """Move the weights by eps of the gradients in ``.grad`` (the interface of davda54/sam)."""
        if self._progress.first_pass is not None:
            raise GradientError("first_step() twice: call second_step() to put the weights back first")
        perturbation = self._perturbation()
        weights = perturbation.parameters
        snapshot = [w.detach().clone() for w in weights]
        if not perturbation.is_zero:
            perturb(weights, perturbation.ascent(self._gradients(weights, "first_step")))
        self._progress.first_pass = (weights, snapshot, _marks(weights))
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Put the weights back and step with the gradients in ``.grad`` (the interface of davda54/sam)."""
        progress = self._progress
        if progress.first_pass is None:
            raise GradientError("second_step() without first_step()")
        weights, snapshot, before = progress.first_pass
        progress.first_pass = None
        write_back(weights, snapshot)
        if _same(before, _marks(weights)) or all(w.grad is None for w in weights):
            raise GradientError("second_step() without a gradient at the perturbed weights: call loss.backward()")
        progress.pending, progress.share, progress.lost = True, 1.0, 0.0
        self.step()
        if zero_grad:
            self.zero_grad()

    def _closed(self, closure: Callable[..., Any], rows: int | None) -> Any:
        parts = self._parts(rows)
        perturbation = self._perturbation()
        weights = perturbation.parameters
        self._check_nothing_accumulated()
        statistics, total = RunningStatistics(), sum(part.stop - part.start for part in parts if part) or 1
        summed: list[torch.Tensor | None] = [None] * len(weights)
        mean: Any = 0.0
        if perturbation.is_zero:
            parts = parts[:1] if parts == [None] else [slice(0, total)]
        with kept_weights(weights) as snapshot:
            for part in parts:
                share = (part.stop - part.start) / total if part else 1.0
                call = closure if part is None else (lambda part=part: closure(part))
                random = RandomState.now()
                with statistics.observed(share) if len(parts) > 1 else nullcontext():
                    loss, gradients = self._called(call, weights)
                mean = loss if part is None else mean + share * loss.detach()
                if not perturbation.is_zero:
                    perturb(weights, perturbation.ascent(gradients))
                    random.restore()
                    with statistics.frozen():
                        _, gradients = self._called(call, weights)
                    write_back(weights, snapshot)
                for i, gradient in enumerate(gradients):
                    if gradient is not None:
                        part_of = gradient if share == 1.0 else gradient * share
                        kept = summed[i]
                        summed[i] = part_of if kept is None else kept + part_of
        statistics.commit()
        for weight, gradient in zip(weights, summed, strict=True):
            weight.grad = gradient
        return mean

    def _check_nothing_accumulated(self) -> None:
        marks = _marks(self._held())
        if any(mark is not None for mark in marks) and not _same(marks, self._progress.spent):
            raise GradientError(
                "step(closure) found gradients in .grad that no step has used: an accumulated mini-batch, or a "
                "backward pass before the closure. They are not SAM's and would be lost, because the closure makes "
                "both passes itself; accumulate with optimizer.backward(..., share=1 / steps) and step(), or call "
                "zero_grad() before"
            )

    def _parts(self, rows: int | None) -> list[Any]:
        if self.micro_batches in (None, 1) and self.micro_batch_size is None:
            return [None]
        if rows is None:
            raise SettingsError(
                "step(closure) with micro-batches needs rows=, the rows of the mini-batch; the closure is then called "
                "with a slice of them. For a closure without argument use backward() and step()"
            )
        return list(shard_slices(shard_sizes(rows, self.micro_batches, self.micro_batch_size)))

    def _called(self, closure: Callable[[], Any], weights: list[torch.Tensor]) -> tuple[Any, list[torch.Tensor | None]]:
        super().zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = closure()
        gradients = self._gradients(weights, "the closure")
        super().zero_grad(set_to_none=True)
        return loss, gradients

    @staticmethod
    def _gradients(weights: list[torch.Tensor], where: str) -> list[torch.Tensor | None]:
        gradients = [w.grad for w in weights]
        if all(g is None for g in gradients):
            raise GradientError(f"{where} found no gradient on any parameter; call loss.backward() before it returns")
        return gradients

    def _finite(self) -> bool:
        gradients = [w.grad for group in self.param_groups for w in group["params"] if w.grad is not None]
        if not gradients:
            return True
        # l2: the maximum norm is not vectorised on a CPU; squares of large finite gradients may overflow
        values = [g.coalesce().values() if g.is_sparse else g for g in gradients]
        return bool(torch.isfinite(global_norm(values))) or all(bool(torch.isfinite(g).all()) for g in values)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _copied(self) -> dict[str, Any]:
        own = ("_schedule", "_rho", "adaptive", "eta", "micro_batches", "micro_batch_size", "engine", "_warned")
        first_pass, spent = None, list[Any]()
        return {name: self.__dict__[name] for name in own} | {
            "_progress": replace(self._progress, first_pass=first_pass, spent=spent)
        }

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds; choices of engines are made anew."""
        if self._progress.first_pass is not None:
            raise GradientError("copied between first_step() and second_step(), with the weights perturbed")
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what ``__getstate__`` gave."""
        super().__setstate__(state)
        self._plans = _no_plans()

    def _own_state(self) -> dict[str, Any]:
        progress = self._progress
        gradients = [w.grad for w in self._held()] if progress.pending else []
        return {
            "rho": self._rho,
            "steps_taken": progress.taken,
            "skipped_steps": progress.skipped,
            # gradients accumulated so far: a checkpoint between backward() and step() resumes exactly
            "pending": [None if g is None else g.detach().clone() for g in gradients],
            "share": progress.share,
        }

    def _load_own_state(self, own: dict[str, Any]) -> None:
        self._rho = check_rho(own["rho"])
        progress = self._progress = _Progress(int(own["steps_taken"]), int(own["skipped_steps"]), bool(own["pending"]))
        progress.share = float(own.get("share", 1.0))
        for weight, gradient in zip(self._held(), own["pending"], strict=False):
            weight.grad = None if gradient is None else gradient.to(weight.device, weight.dtype).clone()


INTO_GRAD = IntoGrad()


def _timed_alike(plans: dict[Any, Plan], objective: Objective) -> EngineChoice | None:
    """What was the fastest on a mini-batch of about this size, cut alike."""
    elements = input_elements(objective)
    for (sizes, *_), plan in plans.items():
        if sizes == objective.sizes and elements <= 2 * plan.elements <= 4 * elements:
            return plan.choice
    return None


def _no_plans() -> WeakKeyDictionary[torch.nn.Module, dict[Any, dict[Any, Plan]]]:
    return WeakKeyDictionary()


def _marks(weights: list[torch.Tensor]) -> list[Any]:
    """Which gradients there are, and how often each was written: equal marks are the same gradients."""
    return [None if w.grad is None else (weakref.ref(w.grad), w.grad._version) for w in weights]


def _same(before: list[Any], after: list[Any]) -> bool:
    """Whether nothing was written into any gradient between two marks."""
    if len(before) != len(after):
        return False
    for a, b in zip(before, after, strict=True):
        if (a is None) != (b is None):
            return False
        if a is not None and (a[0]() is not b[0]() or a[1] != b[1]):
            return False
    return True
