"""Flatness of a loss at trained weights, for JAX: Hessian products and micro-batch sharpness.

H v = d/dt grad L(w + t v) at t = 0,    sharpness = sum_i q_i [ L_i(w + rho g_i / ||g_i||) - L_i(w) ].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from msam_lawn.jax.gradient import _moved, _rows
from msam_lawn.lanczos import Floats, Product
from msam_lawn.rho import check_rho
from msam_lawn.shards import shard_sizes, shard_slices

__all__ = ["hessian_product", "micro_batch_sharpness"]


def hessian_product(loss: Callable[..., jax.Array], params: Any, *batch: Any) -> tuple[Product, int]:
    """``v -> H v`` of ``loss(params, *batch)`` in ``params``, and the length of v.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from msam_lawn.lanczos import top_eigenvalues
    >>> product, size = hessian_product(lambda w: jnp.sum(jnp.array([1.0, 2.0, 5.0]) * w**2) / 2, jnp.ones(3))
    >>> round(float(top_eigenvalues(product, size).values[0]), 4)
    5.0
    """
    flat, unravel = ravel_pytree(params)
    slope = jax.grad(lambda w: loss(unravel(w), *batch))
    multiply = jax.jit(lambda v: jax.jvp(slope, (flat,), (v,))[1])

    def product(vector: Floats) -> Floats:
        return np.asarray(multiply(jnp.asarray(vector, flat.dtype)), dtype=np.float64)

    return product, int(flat.size)


def micro_batch_sharpness(
    loss: Callable[..., jax.Array],
    params: Any,
    *batch: Any,
    rho: float,
    micro_batches: int | None = None,
    micro_batch_size: int | None = None,
) -> float:
    """Mean rise of the loss of a micro-batch after one step of SAM on it; torch's twin gives the same number.

    Parameters
    ----------
    loss : callable
        ``loss(params, *batch) -> scalar`` mean over the rows.
    params, *batch
        As in ``msam_value_and_grad``.
    rho : float
    micro_batches, micro_batch_size : int, optional
    """
    rows = _rows(batch)
    radius = check_rho(rho)
    total = 0.0
    for part in shard_slices(shard_sizes(rows, micro_batches, micro_batch_size)):
        shard = jax.tree.map(lambda x, cut=part: x[cut], batch)
        value, ascent = jax.value_and_grad(loss)(params, *shard)
        rise = loss(_moved(params, ascent, radius, None), *shard) - value
        total += (part.stop - part.start) / rows * float(rise)
    return total
