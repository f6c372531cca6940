"""What a forward pass computes, as the kinds of nodes in autograd's graph: a step may hold none that the check lacked.

Switches that no key shows (a buffer's value, an attribute of a configuration, a global, an argument of the loss, a
branch on the data or on the number of rows) change which operations run. Whatever flips them, an engine's check holds
only for operations that it saw.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msam_lawn.errors import EngineError

__all__ = ["Structure", "UncheckedError", "both", "graph_nodes", "kinds_of"]

# Nodes that change a tensor's form or type alone: strides and autocast decide which of them there are.
_FORM = frozenset(
    f"{name}Backward{number}"
    for name in ("ToCopy", "View", "ReshapeAlias", "UnsafeView", "Clone", "Alias", "Expand", "Squeeze", "Unsqueeze")
    for number in range(3)
)


class UncheckedError(EngineError):
    """A step computes something else than what the engine was checked with."""


class Structure:
    """Kinds of operations: recorded in a check, looked up in every step after it.

    Attributes
    ----------
    axes : dict
        Of operations on weights: which of their arguments had the rows leading, in every run of the check.
    """

    def __init__(self) -> None:
        self.axes: dict[Any, tuple[bool, ...]] = {}
        self._kinds: set[Hashable] = set()
        self._operations: set[Hashable] = set()
        self._recording = True

    def close(self) -> None:
        """End the check."""
        self._recording = False

    def learn(self, axes: Mapping[Any, tuple[bool, ...]]) -> None:
        """Take over what another number of rows shows of the axes."""
        for operation, leading in axes.items():
            self.axes[operation] = both(self.axes.get(operation, leading), leading)

    def meet(self, kinds: set[Hashable], axes: Mapping[Any, tuple[bool, ...]]) -> None:
        """Record a forward pass, or compare it with what was recorded.

        Raises
        ------
        UncheckedError
            If the check saw no such operation.
        """
        if self._recording:
            self._kinds |= kinds
            self._operations |= axes.keys()
            self.learn(axes)
        elif not kinds <= self._kinds or not axes.keys() <= self._operations:
            raise UncheckedError(
                "the forward pass runs operations that the check on a few rows did not see: the model or the loss "
                "branches on its data, on the number of rows, or on a state that nothing shows"
            )


def both(one: tuple[bool, ...], other: tuple[bool, ...]) -> tuple[bool, ...]:
    """Where both hold."""
    return tuple(a and b for a, b in zip(one, other, strict=True))


def graph_nodes(starts: Sequence[Any], stops: Iterable[Any] = ()) -> Iterator[Any]:
    """Nodes of an autograd graph that are reached from some without passing others."""
    seen, stack = set(stops), [node for node in starts if node is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack += [following for following, _ in node.next_functions if following is not None]


def kinds_of(starts: Sequence[Any]) -> set[Hashable]:
    """Every node's name and axis, with the names of those that it reads."""
    kinds: set[Hashable] = set()
    for node in graph_nodes(starts):
        name = type(node).__name__
        if name not in _FORM:
            axis = getattr(node, "_saved_dim", None)
            reads = frozenset(_formless(following) for following, _ in node.next_functions if following is not None)
            kinds.add((name, tuple(axis) if isinstance(axis, (list, tuple)) else axis, reads))
    return kinds


def _formless(node: Any) -> str:
    while type(node).__name__ in _FORM:
        following = node.next_functions[0][0]
        if following is None:
            break
        node = following
    return type(node).__name__
