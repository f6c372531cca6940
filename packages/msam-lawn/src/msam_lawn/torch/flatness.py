"""Flatness of a loss at trained weights, for torch: Hessian products and micro-batch sharpness.

    H v = grad (grad L . v),    sharpness = sum_i q_i [ max_{||e|| <= rho} L_i(w + e) - L_i(w) ]

with the maximum approached by ascent steps projected on the ball (one step: that of mSAM). Measured in evaluation
mode: batch statistics are constants and nothing is dropped. Eigenvalues of a Hessian change when a network is
rescaled without
changing its function (Dinh et al. 2017): between runs of different weight norms compare ``adaptive`` sharpness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector

from msam_lawn.errors import SettingsError
from msam_lawn.lanczos import Floats
from msam_lawn.rho import check_rho
from msam_lawn.torch.engines.loop import kept_weights, perturb, write_back
from msam_lawn.torch.objective import LossFunction, make_objective
from msam_lawn.torch.passes import evaluation_mode
from msam_lawn.torch.perturbation import Adaptive, Perturbation, global_norm

__all__ = ["HessianProduct", "micro_batch_sharpness"]


@dataclass(frozen=True)
class HessianProduct:
    """``v -> H v`` of the mean loss over the given rows, at the weights as they are when it is called.

    Parameters
    ----------
    model : torch.nn.Module
    inputs, targets : nested containers of tensors, rows leading
    loss : callable
        As in ``SAM.backward``.
    chunk_rows : int, optional
        Work on so many rows at a time to bound memory; all at once by default.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from msam_lawn.lanczos import top_eigenvalues
    >>> model = torch.nn.Linear(3, 1, bias=False).double()
    >>> x = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> product = HessianProduct(model, x, torch.zeros(3, 1).double(), lambda o, t: (o - t).square().mean(1))
    >>> [round(float(value), 6) for value in top_eigenvalues(product, product.size, k=2).values]
    [6.0, 2.666667]
    """

    model: torch.nn.Module
    inputs: Any
    targets: Any
    loss: LossFunction
    chunk_rows: int | None = None

    @property
    def weights(self) -> list[torch.Tensor]:
        """Trainable tensors, in the order of the vector."""
        return [w for w in self.model.parameters() if w.requires_grad]

    @property
    def size(self) -> int:
        """Entries of the vector."""
        return sum(w.numel() for w in self.weights)

    def __call__(self, vector: Floats) -> Floats:
        """Multiply a vector of shape (size,)."""
        weights = self.weights
        first = weights[0]
        pieces = torch.from_numpy(np.ascontiguousarray(vector)).to(first.device, first.dtype)
        direction = [
            piece.view_as(w) for piece, w in zip(pieces.split([w.numel() for w in weights]), weights, strict=True)
        ]
        objective = make_objective(
            self.model,
            self.inputs,
            self.targets,
            self.loss,
            weights=None,
            micro_batches=None,
            micro_batch_size=self.chunk_rows,
        )
        total = torch.zeros_like(pieces)
        with evaluation_mode(self.model), torch.enable_grad():
            for share, rows in zip(objective.shares(), objective.slices, strict=True):
                gradients = torch.autograd.grad(objective.mean_loss(rows), weights, create_graph=True)
                slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
                # a weight that the loss is linear in has no second derivative
                parts = torch.autograd.grad(slope, weights, materialize_grads=True)
                total += share * parameters_to_vector([part.contiguous() for part in parts])
        product: Floats = total.double().cpu().numpy()
        return product


def micro_batch_sharpness(
    model: torch.nn.Module,
    inputs: Any,
    targets: Any,
    loss: LossFunction,
    *,
    rho: float,
    micro_batches: int | None = None,
    micro_batch_size: int | None = None,
    adaptive: Adaptive | None = None,
    ascent_steps: int = 1,
) -> float:
    """Mean rise of the loss on a micro-batch within distance rho of the weights, at the worst point found.

    Parameters
    ----------
    model, inputs, targets, loss
        As in ``SAM.backward``.
    rho : float
        Radius of the ball.
    micro_batches, micro_batch_size : int, optional
        How the rows are cut; neither: the sharpness of the mean loss.
    adaptive : {None, "squared", "asam"}
        One step only: perturb in proportion to the weights.
    ascent_steps : int
        1: the step of SAM to the boundary. More: normalised steps of 2 rho / ascent_steps, projected on the ball, and
        the best point on the way counts.

    Returns
    -------
    float

    Raises
    ------
    SettingsError
        If ``ascent_steps`` is below 1, or above 1 with ``adaptive``.
    """
    if ascent_steps < 1 or (adaptive is not None and ascent_steps > 1):
        raise SettingsError(f"ascent_steps={ascent_steps} must be at least 1, and 1 with adaptive={adaptive!r}")
    objective = make_objective(model, inputs, targets, loss, None, micro_batches, micro_batch_size)
    weights: list[torch.Tensor] = [w for w in model.parameters() if w.requires_grad]
    rho = check_rho(rho)
    stride = rho if ascent_steps == 1 else 2 * rho / ascent_steps
    step = Perturbation(weights, [stride] * len(weights), adaptive)
    total = 0.0
    with evaluation_mode(model), kept_weights(weights) as snapshot, torch.enable_grad():
        for share, rows in zip(objective.shares(), objective.slices, strict=True):
            value = objective.mean_loss(rows)
            start = best = float(value.detach())
            for _ in range(ascent_steps):
                perturb(weights, step.ascent(torch.autograd.grad(value, weights, allow_unused=True)))
                if ascent_steps > 1:
                    _project(weights, snapshot, rho)
                value = objective.mean_loss(rows)
                reached = float(value.detach())
                best = max(best, reached) if ascent_steps > 1 else reached
            total += share * (best - start)
            write_back(weights, snapshot)
    return total


@torch.no_grad()
def _project(weights: list[torch.Tensor], centre: list[torch.Tensor], rho: float) -> None:
    """Back onto the ball of radius rho."""
    distance = float(global_norm([w - c for w, c in zip(weights, centre, strict=True)]))
    if distance > rho:
        for w, c in zip(weights, centre, strict=True):
            w.copy_(torch.lerp(c, w, rho / distance))
