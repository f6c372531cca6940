"""Spend a budget of bytes over the layers: each layer takes one of its options, at the least total error.

    minimise sum_l e_l(o_l)   subject to   sum_l b_l(o_l) <= B

is a multiple-choice knapsack. Layers are added one by one; of all (bytes, error) totals that their options can make,
only those are kept that no other total beats in both. While this front stays below ``FRONT`` totals the result is
exact; a longer one keeps the best total of each of ``FRONT`` equal steps of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ffn_heavyhitter.errors import BudgetError

__all__ = ["Allocation", "Option", "allocate"]

FRONT = 4096


@dataclass(frozen=True)
class Option:
    """One way to treat one layer.

    Attributes
    ----------
    label : str
    bytes : int
    error : float
        What it costs the model, comparable across layers.
    """

    label: str
    bytes: int
    error: float


@dataclass(frozen=True)
class Allocation:
    """The chosen option of each layer, with totals."""

    chosen: dict[str, Option]

    @property
    def bytes(self) -> int:
        """Bytes of all chosen options."""
        return sum(option.bytes for option in self.chosen.values())

    @property
    def error(self) -> float:
        """Summed error of all chosen options."""
        return sum(option.error for option in self.chosen.values())


@dataclass(frozen=True)
class _Total:
    """Options of the first layers, as a chain from the last one back."""

    bytes: int
    error: float
    last: Option | None = None
    before: _Total | None = None


def allocate(options: Mapping[str, Sequence[Option]], budget: int) -> Allocation:
    """Choose an option for each layer within a budget.

    Parameters
    ----------
    options : mapping of layer name to options
    budget : int
        Bytes for all layers together; never exceeded.

    Returns
    -------
    Allocation

    Raises
    ------
    BudgetError
        If the smallest options exceed the budget; says the smallest budget that would do.

    Examples
    --------
    >>> cheap, dear = Option("3 bits", 30, 5.0), Option("6 bits", 60, 1.0)
    >>> weak, strong = Option("3 bits", 30, 2.0), Option("6 bits", 60, 1.0)
    >>> plan = allocate({"a": [cheap, dear], "b": [weak, strong]}, budget=100)
    >>> plan.chosen["a"].label, plan.chosen["b"].label, plan.bytes
    ('6 bits', '3 bits', 90)
    """
    empty = [name for name, found in options.items() if not found]
    if empty:
        raise BudgetError(f"layer {empty[0]} has no option; give at least one")
    floors = [min(option.bytes for option in found) for found in options.values()]
    if sum(floors) > budget:
        raise BudgetError(f"budget={budget} bytes is below the floor: the smallest options take {sum(floors)}")
    front, rest = [_Total(0, 0.0)], sum(floors)
    for found, floor in zip(options.values(), floors, strict=True):
        rest -= floor  # what the layers to come take at the least
        totals = [
            _Total(total.bytes + option.bytes, total.error + option.error, option, total)
            for total in front
            for option in found
            if total.bytes + option.bytes + rest <= budget
        ]
        front = _front(totals, budget)
    total: _Total | None = front[-1]
    chosen: list[Option] = []
    while total is not None and total.last is not None:
        chosen.append(total.last)
        total = total.before
    return Allocation(dict(zip(options, reversed(chosen), strict=True)))


def _front(totals: list[_Total], budget: int) -> list[_Total]:
    """Totals that no other beats in both bytes and error, by rising bytes and falling error."""
    front: list[_Total] = []
    for total in sorted(totals, key=lambda total: (total.bytes, total.error)):
        if not front or total.error < front[-1].error:
            front.append(total)
    if len(front) <= FRONT:
        return front
    best: dict[int, _Total] = {}
    for total in front:  # errors fall, so the last of a step is its best
        best[total.bytes * FRONT // max(budget, 1)] = total
    return [front[0], *(total for total in best.values() if total is not front[0])]
