"""LAWN as an optax transformation around another: the update ends on the sphere of each held weight.

    free      u = inner(g)
    then      u = c_l (w + a u') / ||w + a u'|| - w,    u' = inner(g - (<g, w> / ||w||^2) w),    a the warm-up factor,

with c_l = ||w_l|| recorded at the switch. The phase is data, not structure: one compilation serves all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from msam_lawn.errors import SettingsError

__all__ = ["LawnState", "lawn"]

Tree = Any


class LawnState(NamedTuple):
    """State of ``lawn``.

    Attributes
    ----------
    steps_taken : int32 scalar
        Saturates at its largest value.
    norms : tree
        c_l of each tensor, 0 before the switch and for tensors that are not constrained.
    inner : tree
        State of the inner transformation.
    """

    steps_taken: jax.Array
    norms: Tree
    inner: Any


def lawn(
    inner: optax.GradientTransformation,
    constrained: Tree | Callable[[Tree], Tree],
    *,
    free_steps: int,
    warmup_steps: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Hold the norms of some weights after a free phase, on top of any optax optimizer without weight decay.

    Parameters
    ----------
    inner : optax.GradientTransformation
        The whole optimizer, its learning rate included.
    constrained : tree of bool, or callable
        Which leaves of the parameters are held; a callable gets the parameters and returns such a tree.
    free_steps, warmup_steps : int
        Steps before the switch; steps after it over which the inner update grows to its full length.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        ``update`` needs ``params``.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> optimizer = lawn(optax.sgd(0.1), {"w": True}, free_steps=0)
    >>> params = {"w": jnp.array([[3.0, 4.0]])}
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update({"w": jnp.array([[1.0, 0.0]])}, state, params)
    >>> round(float(jnp.linalg.norm(optax.apply_updates(params, updates)["w"])), 4)
    5.0
    """
    for name, value in (("free_steps", free_steps), ("warmup_steps", warmup_steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SettingsError(f"{name}={value!r} must be an integer of at least 0")
    inner = optax.with_extra_args_support(inner)

    def mask(params: Tree) -> Tree:
        return constrained(params) if callable(constrained) else constrained

    def init(params: Tree) -> LawnState:
        norms = jax.tree.map(lambda w: jnp.zeros((), _exact(w)), params)
        return LawnState(jnp.zeros((), jnp.int32), norms, inner.init(params))

    def update(grads: Tree, state: LawnState, params: Tree = None, **extra: Any) -> tuple[Tree, LawnState]:
        if params is None:
            raise SettingsError("lawn's update needs params; call optimizer.update(grads, state, params)")
        t = state.steps_taken
        held = mask(params)
        norms = jax.tree.map(
            lambda w, c, keep: jnp.where(t == free_steps, _norm(w), c) if keep else c, params, state.norms, held
        )
        after = t >= free_steps
        # a tensor that is zero at the switch has norm 0 and stays free
        on = jax.tree.map(lambda c: after & (c > 0), norms)
        tangent = jax.tree.map(_tangent, grads, params, norms, on)
        updates, inner_state = inner.update(tangent, state.inner, params, **extra)
        factor = jnp.where(after, jnp.minimum((t - free_steps + 1) / max(warmup_steps, 1), 1.0), 1.0)
        updates = jax.tree.map(lambda u: u * factor.astype(u.dtype), updates)
        updates = jax.tree.map(_retracted, updates, params, norms, on)
        return updates, LawnState(optax.safe_increment(t), norms, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _exact(w: jax.Array) -> Any:
    return jnp.promote_types(w.dtype, jnp.float32)


def _norm(w: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(w.astype(_exact(w)))))


def _tangent(g: jax.Array, w: jax.Array, norm: jax.Array, on: jax.Array) -> jax.Array:
    radial = jnp.sum(g.astype(_exact(w)) * w) / jnp.square(jnp.where(on, norm, 1.0))
    return jnp.where(on, g - (radial * w).astype(g.dtype), g)


def _retracted(u: jax.Array, w: jax.Array, norm: jax.Array, on: jax.Array) -> jax.Array:
    length = _norm(w + u)
    back = (w + u) * (norm / jnp.where(length > 0, length, 1.0)) - w
    return jnp.where(on, back.astype(u.dtype), u)
