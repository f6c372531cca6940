"""DistributedDataParallel: local perturbations, one all-reduce.

Every rank perturbs with its own, un-synchronised gradient, taken on the wrapped module; only the gradient at the
perturbed weights is reduced, with the last micro-batch. R ranks with M micro-batches each make R M perturbations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["unwrapped", "without_reduction"]


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside a DistributedDataParallel wrapper, or the model itself."""
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


@contextmanager
def without_reduction(model: Any) -> Iterator[None]:
    """No all-reduce for the forward and backward passes inside."""
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield
