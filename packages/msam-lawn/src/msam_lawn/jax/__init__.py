"""mSAM, LAWN and flatness for JAX (extra ``jax``)."""

from __future__ import annotations

import importlib.util

for _needed in ("jax", "optax"):
    if importlib.util.find_spec(_needed) is None:
        raise ModuleNotFoundError("msam_lawn.jax needs the extra: pip install 'msam-lawn[jax]'", name=_needed)

from msam_lawn.jax.flatness import hessian_product, micro_batch_sharpness  # noqa: E402 - after the check
from msam_lawn.jax.gradient import msam_value_and_grad  # noqa: E402 - after the check
from msam_lawn.jax.lawn import LawnState, lawn  # noqa: E402 - after the check

__all__ = ["LawnState", "hessian_product", "lawn", "micro_batch_sharpness", "msam_value_and_grad"]
