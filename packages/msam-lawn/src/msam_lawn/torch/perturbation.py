"""The ascent step of one micro-batch.

    SAM                  eps = rho g / (||g|| + 1e-12)
    adaptive "squared"   eps = rho w^2 g / (|| |w| g || + 1e-12)                every tensor
    adaptive "asam"      eps = rho T^2 g / (||T g|| + 1e-12), T = |w| + eta     two or more axes; T = 1 elsewhere

The norm runs over the tensors that move, of all parameter groups together (Foret et al. 2021, algorithm 1; Kwon et al.
2021 for ASAM). A non-finite norm makes every eps NaN, so that the gradient that follows is seen to be unusable on every
rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from msam_lawn.errors import GradientError

__all__ = ["Adaptive", "Perturbation", "global_norm", "length_scale"]

Adaptive = Literal["squared", "asam"]
TINY = 1e-12  # keeps a zero gradient from dividing by zero


@dataclass(frozen=True)
class Perturbation:
    """Which tensors move, and how far.

    Attributes
    ----------
    parameters : list of tensor
        Trainable tensors.
    radii : list of float
        Radius rho of each tensor (groups may scale it).
    adaptive : {None, "squared", "asam"}
    eta : float
        Offset of T in "asam".
    """

    parameters: list[torch.Tensor]
    radii: list[float]
    adaptive: Adaptive | None = None
    eta: float = 0.01

    @property
    def is_zero(self) -> bool:
        """Whether nothing moves at all."""
        return not any(self.radii)

    def ascent(self, gradients: Sequence[torch.Tensor | None]) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
        """Eps of each tensor as a direction and its scale; None where there is no gradient or no radius.

        Raises
        ------
        GradientError
            If nothing moves: no tensor with a radius has a gradient.
        """
        lengths = [self._length(w) for w in self.parameters]
        gradients = [None if g is None else g.coalesce() if g.is_sparse else g for g in gradients]
        stretched = [_stretched(g, t) for g, t in zip(gradients, lengths, strict=True)]
        moving = [g for g, rho in zip(stretched, self.radii, strict=True) if g is not None and g.numel() and rho]
        if not moving:
            raise GradientError(
                "no parameter of the optimizer that moves got a gradient from the loss: the step would be one of the "
                "base optimizer; does the optimizer hold this model's parameters, and does the loss depend on them?"
            )
        norm = global_norm(moving)
        steps: list[tuple[torch.Tensor, torch.Tensor] | None] = []
        for g, t, rho in zip(stretched, lengths, self.radii, strict=True):
            direction = _stretched(g, t) if rho else None
            steps.append(None if direction is None else (direction, length_scale(norm, rho).to(direction)))
        return steps

    def _length(self, w: torch.Tensor) -> torch.Tensor | None:
        if self.adaptive == "squared":
            return w.detach().abs()
        if self.adaptive == "asam" and w.ndim >= 2:
            return w.detach().abs() + self.eta
        return None


def _stretched(g: torch.Tensor | None, length: torch.Tensor | None) -> torch.Tensor | None:
    """Elementwise product; a sparse gradient has the lengths of its own rows."""
    if g is None or length is None:
        return g
    if not g.is_sparse:
        return length * g
    rows = tuple(g.indices())
    values = g.values() * length[rows]
    return torch.sparse_coo_tensor(g.indices(), values, g.shape, is_coalesced=True, check_invariants=False)


def global_norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """l2 norm over all tensors, in the widest of their types and at least float32."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    dtype = torch.float32
    for found in {t.dtype for t in dense}:
        dtype = torch.promote_types(found.to_real() if found.is_complex else found, dtype)
    first = dense[0].device
    if any(t.is_complex() for t in dense):
        dense = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in dense]
    norms = torch._foreach_norm(dense, 2, dtype=dtype)
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack([n.to(first) for n in norms]))
    return norm


def length_scale(norm: torch.Tensor, rho: float) -> torch.Tensor:
    """Rho / (norm + 1e-12), NaN where the norm is not finite."""
    return torch.where(torch.isfinite(norm), rho / (norm + TINY), torch.nan)
