"""Spend a budget of bytes over the layers: each layer takes one of its options, at the least total error.

    minimise sum_l e_l(o_l)   subject to   sum_l b_l(o_l) <= B

is a multiple-choice knapsack. Each layer's options are thinned to their lower convex hull in the (bytes, error) plane;
steps along the hulls, best error saved per byte first, solve the linear relaxation, and what the last step leaves
unspent is filled with the best options that still fit. ``exact_allocation`` in the tests' oracles solves small cases
by dynamic programming.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ffn_heavyhitter.errors import BudgetError

__all__ = ["Allocation", "Option", "allocate"]


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
    hulls = {name: lower_hull(found) for name, found in options.items()}
    floor = sum(hull[0].bytes for hull in hulls.values())
    if floor > budget:
        raise BudgetError(f"budget={budget} bytes is below the floor: the smallest options take {floor}")
    step = dict.fromkeys(hulls, 0)
    spent = floor
    queue = [(_slope(hull, 1), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(queue)
    while queue:
        _, name = heapq.heappop(queue)
        hull, position = hulls[name], step[name] + 1
        price = hull[position].bytes - hull[position - 1].bytes
        if spent + price > budget:
            continue
        spent += price
        step[name] = position
        if position + 1 < len(hull):
            heapq.heappush(queue, (_slope(hull, position + 1), name))
    chosen = {name: hull[step[name]] for name, hull in hulls.items()}
    return Allocation(_filled(chosen, options, budget))


def lower_hull(options: Sequence[Option]) -> list[Option]:
    """Options on the lower convex hull of (bytes, error), by rising bytes and falling error."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _above(hull[-2], hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _above(left: Option, middle: Option, right: Option) -> bool:
    """Whether ``middle`` lies on or above the line from ``left`` to ``right``."""
    return (middle.error - left.error) * (right.bytes - left.bytes) >= (right.error - left.error) * (
        middle.bytes - left.bytes
    )


def _slope(hull: list[Option], position: int) -> float:
    """Error change per byte of a step, most negative first."""
    left, right = hull[position - 1], hull[position]
    return (right.error - left.error) / (right.bytes - left.bytes)


def _filled(chosen: dict[str, Option], options: Mapping[str, Sequence[Option]], budget: int) -> dict[str, Option]:
    """Improve by changes of one layer or of two at once, until none fits: what the hull's corners left on the table."""
    current = dict(chosen)
    slack = budget - sum(option.bytes for option in current.values())
    while True:
        moves = [
            (option.error - current[name].error, option.bytes - current[name].bytes, name, option)
            for name, found in options.items()
            for option in found
            if option != current[name]
        ]
        best, change = 0.0, []
        savers = sorted((move for move in moves if move[1] < 0), key=lambda move: move[0])
        for move in moves:
            if move[0] >= best:
                continue
            if move[1] <= slack:
                best, change = move[0], [move]
                continue
            for saver in savers:
                if move[0] + saver[0] >= best:
                    break
                if saver[2] != move[2] and move[1] + saver[1] <= slack:
                    best, change = move[0] + saver[0], [move, saver]
                    break
        if not change or best > -1e-15:
            return current
        for _, price, name, option in change:
            current[name] = option
            slack -= price
