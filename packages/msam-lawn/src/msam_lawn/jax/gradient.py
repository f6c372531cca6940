"""The mSAM gradient as a function: what ``jax.value_and_grad`` is to gradient descent.

    g = sum_i q_i grad L_i(w + eps_i),    eps_i = rho grad L_i(w) / (||grad L_i(w)|| + 1e-12),

eps_i a constant. Any optax chain takes it from there; under ``shard_map`` every device perturbs with its own gradient
and one ``pmean`` averages the result.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any, Literal

import jax
import jax.numpy as jnp

from msam_lawn.errors import SettingsError
from msam_lawn.shards import check_micro_batching, shard_sizes

__all__ = ["msam_value_and_grad"]

Tree = Any
TINY = 1e-12


def msam_value_and_grad(
    loss: Callable[..., jax.Array],
    rho: float | jax.Array,
    *,
    micro_batches: int | None = None,
    micro_batch_size: int | None = None,
    adaptive: Literal["squared"] | None = None,
    engine: Literal["map", "vmap"] = "map",
    axis_name: str | None = None,
) -> Callable[..., tuple[jax.Array, Tree]]:
    """Make a function of the signature of ``jax.value_and_grad(loss)`` that returns the mSAM gradient.

    Parameters
    ----------
    loss : callable
        ``loss(params, *batch) -> scalar``: the mean loss of the rows in ``batch``, arrays with the rows leading.
    rho : float or traced scalar
        Radius; a schedule's value may be passed per call as the keyword ``rho``.
    micro_batches, micro_batch_size : int, optional
        How the rows are cut; neither: SAM.
    adaptive : {None, "squared"}
        "squared" scales the perturbation by w^2.
    engine : {"map", "vmap"}
        One micro-batch after the other (one copy of the weights), or all of one size at once (as many copies).
    axis_name : str, optional
        Mapped axis of devices: average value and gradient over it, once, at the end.

    Returns
    -------
    callable
        ``(params, *batch, rho=None) -> (loss at params, gradient)``.

    Raises
    ------
    SettingsError
        If rho is negative, or the micro-batching cannot be.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> gradient = msam_value_and_grad(lambda w, x: jnp.mean((w - x) ** 2) / 2, rho=0.1, micro_batches=2)
    >>> value, slope = gradient(jnp.array(1.0), jnp.array([0.0, 0.0, 3.0, 3.0]))
    >>> round(float(value), 4), round(float(slope), 4)
    (1.25, -0.5)
    """
    check_micro_batching(micro_batches, micro_batch_size)
    if engine not in ("map", "vmap"):
        raise SettingsError(f"engine={engine!r} must be 'map' or 'vmap'")
    if adaptive not in (None, "squared"):
        raise SettingsError(f"adaptive={adaptive!r} must be None or 'squared'")
    if isinstance(rho, (int, float)) and not (rho >= 0 and rho < float("inf")):
        raise SettingsError(f"rho={rho!r} must be a finite number of at least 0")
    default = rho
    plain = jax.value_and_grad(loss)

    def gradient(params: Tree, *batch: Tree, rho: float | jax.Array | None = None) -> tuple[jax.Array, Tree]:
        radius = default if rho is None else rho
        rows = _rows(batch)

        def one(shard: tuple[Tree, ...]) -> tuple[jax.Array, Tree]:
            value, ascent = plain(params, *shard)
            moved = _moved(params, ascent, radius, adaptive)
            return value, plain(moved, *shard)[1]

        mapped = jax.vmap(one) if engine == "vmap" else (lambda shards: jax.lax.map(one, shards))
        value: Any = 0.0
        total: Tree = None
        start = 0
        for size, group in groupby(shard_sizes(rows, micro_batches, micro_batch_size)):
            count = len(list(group))
            stop = start + count * size
            values, gradients = mapped(
                jax.tree.map(lambda x, a=start, b=stop, c=count, s=size: x[a:b].reshape(c, s, *x.shape[1:]), batch)
            )
            start = stop
            value = value + values.sum() * (size / rows)
            part = jax.tree.map(lambda g, s=size: g.sum(0) * (s / rows), gradients)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        if axis_name is not None:
            value, total = jax.lax.pmean((value, total), axis_name)
        return value, total

    return gradient


def _rows(batch: tuple[Tree, ...]) -> int:
    leaves = jax.tree.leaves(batch)
    shapes = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(shapes) != 1 or shapes == {()}:
        raise SettingsError(
            f"batch arrays have leading axes {sorted(shapes)}; every array needs the rows of the mini-batch first"
        )
    return int(shapes.pop()[0])


def _moved(params: Tree, ascent: Tree, rho: Any, adaptive: str | None) -> Tree:
    if adaptive == "squared":
        ascent = jax.tree.map(lambda w, g: jnp.abs(w) * g, params, ascent)
    # of a real loss jax gives the conjugate of the direction of steepest ascent in complex parameters
    ascent = jax.tree.map(jnp.conj, ascent)
    exact = [g.astype(jnp.promote_types(g.dtype, jnp.float32)) for g in jax.tree.leaves(ascent)]
    squares = [jnp.sum(jnp.square(jnp.abs(g))) for g in exact]
    scale = rho / (jnp.sqrt(sum(squares)) + TINY)  # 0 at a stationary point
    if adaptive == "squared":
        ascent = jax.tree.map(lambda w, g: jnp.abs(w) * g, params, ascent)
    return jax.tree.map(lambda w, g: jax.lax.stop_gradient(w + (scale * g).astype(w.dtype)), params, ascent)
