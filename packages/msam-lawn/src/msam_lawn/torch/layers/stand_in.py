"""A tensor in a parameter's place that holds the parameter of every micro-batch.

To the model it is one weight W of the parameter's shape; operations on it compute every row with the weights of the
micro-batch that the row belongs to. In pass 1 these are M views of W, and a leaf of autograd that collects the stacked
gradients G_i; in pass 2 W_i = W + s_i G_i, as constants, and what reaches them is summed into the gradient of W.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import Function
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from msam_lawn.errors import EngineError
from msam_lawn.torch.engines.structure import both
from msam_lawn.torch.layers.registry import RULES

__all__ = ["Lookup", "Pass", "Rows", "StandIn", "WeightStack", "weights_alone"]


@dataclass(frozen=True)
class Rows:
    """Where the rows of M micro-batches of b rows each stand.

    Attributes
    ----------
    count, each : int
        M and b.
    interleaved : bool
        Row r of micro-batch i is at r M + i; otherwise at i b + r.
    """

    count: int
    each: int
    interleaved: bool

    @property
    def total(self) -> int:
        """Rows of all micro-batches."""
        return self.count * self.each

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The leading axis as two, and the place of the micro-batches among them."""
        if self.interleaved:
            return x.reshape(self.each, self.count, *x.shape[1:]), 1
        return x.reshape(self.count, self.each, *x.shape[1:]), 0

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """Undo ``split``."""
        return x.reshape(self.total, *x.shape[2:])

    def stack(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors of each micro-batch: (B k, ..., d) as (M, R, d)."""
        if self.interleaved:
            x = x.reshape(self.each, self.count, -1, x.shape[-1]).transpose(0, 1)
        return x.reshape(self.count, -1, x.shape[-1])

    def back(self, x: torch.Tensor, shape: Any) -> torch.Tensor:
        """Undo ``stack``."""
        if self.interleaved:
            x = x.reshape(self.count, self.each, -1).transpose(0, 1)
        return x.reshape(shape)

    def owners(self, each: int, device: torch.device) -> torch.Tensor:
        """The micro-batch of every row, repeated for its vectors."""
        numbers = torch.arange(self.count, device=device)
        rows = numbers.repeat(self.each) if self.interleaved else numbers.repeat_interleave(self.each)
        return rows.repeat_interleave(each)

    def spread(self, stack: torch.Tensor) -> torch.Tensor:
        """(M, ...) as one entry a row, (B, ...)."""
        return stack.index_select(0, self.owners(1, stack.device))


@dataclass
class Lookup:
    """Rows of a table that micro-batches read in pass 1: a leaf of their own, so that no whole table is a gradient."""

    keys: torch.Tensor
    leaf: torch.Tensor


@dataclass
class WeightStack:
    """One parameter in a pass.

    Attributes
    ----------
    weight : torch.Tensor
        The parameter.
    stack : tensor
        (M, *shape): in pass 1 a leaf, in pass 2 constants.
    lookups : list of Lookup
        Of pass 1.
    keys, moved : tensor or None
        Of pass 2, where nothing but lookups used the parameter: i V + id of the rows that move, in order, and
        by how much.
    """

    weight: torch.Tensor
    stack: torch.Tensor
    lookups: list[Lookup] = field(default_factory=list)
    keys: torch.Tensor | None = None
    moved: torch.Tensor | None = None


@dataclass
class Pass:
    """What the rules need to know of the pass that runs.

    Attributes
    ----------
    rows : Rows
    first : bool
    shares : tensor
        Of the micro-batches, summing to 1.
    known, operations : dict
        For operations and the parameters they met: which of their arguments had the rows leading, in the check and
        here.
    closed : bool
        Set once the forward pass is over: what is recomputed in the backward pass records nothing.
    """

    rows: Rows
    first: bool
    shares: torch.Tensor
    known: Mapping[Any, tuple[bool, ...]] = field(default_factory=dict)
    operations: dict[Any, tuple[bool, ...]] = field(default_factory=dict)
    closed: bool = False

    def leading(self, name: str, weights: Sequence[Any], possible: tuple[bool, ...]) -> tuple[bool, ...]:
        """Which arguments of an operation have the rows leading, of those whose shapes allow it.

        The check ran other numbers of rows: what was no row there and has their number here has it by chance.
        """
        met = tuple(id(w.of.weight) if w.of else 0 for w in weights if isinstance(w, StandIn))
        key = (name, met, len(possible))
        taken = both(possible, self.known.get(key, possible))
        if not self.closed:
            self.operations[key] = both(taken, self.operations.get(key, taken))
        return taken

    def rows_lead(self, name: str, x: torch.Tensor, *weights: Any) -> bool:
        """Whether the one argument beside weights has the rows leading, each perhaps as several vectors."""
        possible = x.ndim > 0 and x.shape[0] > 0 and x.shape[0] % self.rows.total == 0
        return self.leading(name, weights, (possible,))[0]


# Properties and methods that say what a weight is, not what it holds.
_DESCRIBING = frozenset(
    [
        "shape",
        "dtype",
        "device",
        "layout",
        "ndim",
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "element_size",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "is_cuda",
        "is_cpu",
        "is_sparse",
        "is_quantized",
        "is_meta",
        "is_leaf",
        "is_nested",
        "is_mkldnn",
        "requires_grad",
        "grad",
        "names",
        "__len__",
        "__hash__",
        "storage_offset",
        "itemsize",
        "nbytes",
        "is_inference",
        "is_conj",
        "is_neg",
        "is_signed",
        "get_device",
        "has_names",
        "is_same_size",
    ]
)
_WRITING = frozenset({"__set__", "__setitem__", "backward", "register_hook", "retain_grad", "set_", "requires_grad_"})


class StandIn(torch.Tensor):
    """Stands for a parameter (``of``) or for what was computed from parameters alone (``derived``)."""

    of: WeightStack | None
    derived: torch.Tensor | None
    run: Pass

    @staticmethod
    def make(like: torch.Tensor, run: Pass, of: WeightStack | None, derived: torch.Tensor | None = None) -> StandIn:
        """A stand-in of some tensor's shape, type and device."""
        made: StandIn = torch.Tensor._make_subclass(
            StandIn, like.detach(), like.is_floating_point() or like.is_complex()
        )
        made.of, made.derived, made.run = of, derived, run
        return made

    def stacked(self) -> torch.Tensor:
        """(M, *shape), with its way to the gradient."""
        if self.of is None:
            assert self.derived is not None
            return self.derived
        if self.run.first:
            return self.of.stack
        return shared(self.of)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation by its rule, or by vmap."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # a property
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in _DESCRIBING:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if name in _WRITING or (name.endswith("_") and not name.endswith("__")):
            raise EngineError(f"a weight is written in the forward pass ({name})")
        known = RULES.get(func)
        if known is not None:
            out = known(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return _vmapped(func, name, args, kwargs)


class _Shared(Function):
    """W_i of pass 2 as constants whose gradients, summed over the micro-batches, are that of W."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, stack: torch.Tensor) -> Any:
        return stack.view_as(stack)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0].sum(0), None


def shared(of: WeightStack) -> torch.Tensor:
    """(M, *shape) of pass 2, whole."""
    if of.moved is not None:  # so far only the rows that lookups read
        assert of.keys is not None
        whole = of.weight.detach().expand_as(of.stack).clone().flatten(0, 1)
        of.stack, of.moved = whole.index_add_(0, of.keys, of.moved).view_as(of.stack), None
    out: torch.Tensor = _Shared.apply(of.weight, of.stack)  # type: ignore[no-untyped-call]
    return out


def weights_alone(*weights: Any) -> bool:
    """Whether these are parameters in full precision, or None: what rules with a backward of their own can take."""
    given = [w for w in weights if w is not None]
    if not all(isinstance(w, StandIn) and w.of is not None and w.of.weight.is_floating_point() for w in given):
        return False
    return not torch.is_autocast_enabled(given[0].of.weight.device.type)


def _vmapped(func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
    """One operation for all micro-batches at once: rows with the weights of their own."""
    flat, spec = tree_flatten((args, kwargs))
    run = next(x for x in flat if isinstance(x, StandIn)).run
    rows = run.rows
    if name in ("expand", "repeat", "broadcast_to", "tile"):
        spread = _spread_over_rows(run, name, args)
        if spread is not None:
            return spread
    places = [place for place, x in enumerate(flat) if isinstance(x, torch.Tensor)]
    given = [flat[place] for place in places]
    possible = tuple(not isinstance(x, StandIn) and x.ndim > 0 and x.shape[0] == rows.total for x in given)
    leading = run.leading(f"{name}, vmapped", given, possible)
    tensors = list[torch.Tensor]()
    axes = list[int | None]()
    for x, leads in zip(given, leading, strict=True):
        tensor, axis = (x.stacked(), 0) if isinstance(x, StandIn) else rows.split(x) if leads else (x, None)
        tensors.append(tensor)
        axes.append(axis)

    def one(*parts: torch.Tensor) -> Any:
        values = list(flat)
        for place, part in zip(places, parts, strict=True):
            values[place] = part
        positional, named = tree_unflatten(values, spec)
        return func(*positional, **named)

    along = int(rows.interleaved) if any(leading) else 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # the choice of engine is timed
        out = vmap(one, tuple(axes), along, randomness="different")(*tensors)
    if any(leading):
        return tree_map(lambda y: rows.joined(y) if isinstance(y, torch.Tensor) else y, out)
    return tree_map(lambda y: StandIn.make(y[0], run, None, y) if isinstance(y, torch.Tensor) else y, out)


def _spread_over_rows(run: Pass, name: str, args: Any) -> torch.Tensor | None:
    """A weight repeated for every row: each row gets its micro-batch's."""
    x, sizes = args[0], args[1:]
    sizes = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list, torch.Size)) else tuple(sizes)
    if len(sizes) < x.ndim or sizes[0] != run.rows.total or (len(sizes) == x.ndim and x.shape[0] != 1):
        return None
    if not run.leading(name, [x], (True,))[0]:
        return None
    stack = x.stacked()
    each = run.rows.spread(stack[:, 0] if len(sizes) == x.ndim else stack)
    each = each.reshape(run.rows.total, *([1] * (len(sizes) - each.ndim)), *each.shape[1:])
    out: torch.Tensor = each.repeat(1, *sizes[1:]) if name in ("repeat", "tile") else each.expand(sizes)
    return out
