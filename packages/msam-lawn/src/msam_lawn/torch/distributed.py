"""DistributedDataParallel: local perturbations, one all-reduce.

Every rank perturbs with its own, un-synchronised gradient, taken on the wrapped module; only the gradient at the
perturbed weights is reduced, with the last micro-batch. R ranks with M micro-batches each make R M perturbations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from msam_lawn.errors import SettingsError

__all__ = ["check_unsharded", "unwrapped", "without_reduction"]


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


def check_unsharded(weights: list[torch.Tensor]) -> None:
    """Refuse parameters of which a rank holds a part: their norms and perturbations would be those of the part."""
    for w in weights:
        if type(w).__name__ in ("DTensor", "FlatParameter") or hasattr(w, "placements") or hasattr(w, "_is_flat_param"):
            raise SettingsError(
                f"a parameter of shape {tuple(w.shape)} is sharded (fully_shard, FullyShardedDataParallel, tensor "
                "parallelism), which SAM does not support; use DistributedDataParallel, or the base optimizer alone"
            )
