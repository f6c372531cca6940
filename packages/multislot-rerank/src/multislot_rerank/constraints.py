"""What a slate must keep to: pins, latest slots, caps within a window, gaps, minima among the first slots.

Pins always hold. A slate that keeps every constraint is found wherever there is one. Where there is none, the
constraints that can hold together are kept, chosen one by one: minima (FreshQuota, MinOfValue, MaxSlot) before caps
(MaxPerWindow, MinGap, MaxOfValue), each kind in the order of the list; the others hold in as many slots as greedy can
give them, the last let go first. List them by importance. All that the slate breaks, pins included, it reports.

``Soft`` gives a constraint a price instead: the slate may break it where that is worth more.
"""

import math
from dataclasses import dataclass

from multislot_rerank.admission import instance, label, names, number, whole
from multislot_rerank.errors import InvalidInput

__all__ = [
    "Constraint",
    "FreshQuota",
    "MaxOfValue",
    "MaxPerWindow",
    "MaxSlot",
    "MinGap",
    "MinOfValue",
    "Pin",
    "Soft",
]


@dataclass(frozen=True)
class Pin:
    """Candidate ``item`` takes ``slot`` (0 is the first)."""

    item: int
    slot: int

    def __post_init__(self) -> None:
        _keep(self, item=whole("Pin: item", self.item, 0), slot=whole("Pin: slot", self.slot, 0))


@dataclass(frozen=True)
class MaxPerWindow:
    """At most ``count`` items of one value of an attribute within any ``window`` consecutive slots."""

    attribute: str
    window: int
    count: int

    def __post_init__(self) -> None:
        (attribute,) = names("MaxPerWindow: attribute", [self.attribute])
        window = whole("MaxPerWindow: window", self.window, 1)
        _keep(self, attribute=attribute, window=window, count=whole("MaxPerWindow: count", self.count, 1))


@dataclass(frozen=True)
class MinGap:
    """Items of one value of an attribute are at least ``gap`` slots apart; 2 means never adjacent."""

    attribute: str
    gap: int

    def __post_init__(self) -> None:
        (attribute,) = names("MinGap: attribute", [self.attribute])
        _keep(self, attribute=attribute, gap=whole("MinGap: gap", self.gap, 2))


@dataclass(frozen=True)
class MaxOfValue:
    """At most ``count`` items that have one value within any ``window`` consecutive slots: at most 1 ad in any 5."""

    attribute: str
    value: object
    window: int
    count: int

    def __post_init__(self) -> None:
        (attribute,) = names("MaxOfValue: attribute", [self.attribute])
        window = whole("MaxOfValue: window", self.window, 1)
        _keep(self, attribute=attribute, value=label("MaxOfValue: value", self.value), window=window)
        _keep(self, count=whole("MaxOfValue: count", self.count, 1))


@dataclass(frozen=True)
class MinOfValue:
    """At least ``count`` items that have one value among the first ``first`` slots (None: the whole slate)."""

    attribute: str
    value: object
    count: int
    first: int | None = None

    def __post_init__(self) -> None:
        (attribute,) = names("MinOfValue: attribute", [self.attribute])
        _keep(self, attribute=attribute, value=label("MinOfValue: value", self.value))
        _keep(self, count=whole("MinOfValue: count", self.count, 1), first=_first("MinOfValue", self.first))


@dataclass(frozen=True)
class FreshQuota:
    """At least ``count`` items no older than ``max_age_s`` seconds among the first ``first`` slots (None: all)."""

    count: int
    max_age_s: float
    first: int | None = None

    def __post_init__(self) -> None:
        count = whole("FreshQuota: count", self.count, 1)
        age = math.inf if self.max_age_s == math.inf else number("FreshQuota: max_age_s", self.max_age_s)
        if age <= 0:
            raise InvalidInput(f"FreshQuota: max_age_s={self.max_age_s} must be positive")
        _keep(self, count=count, max_age_s=age, first=_first("FreshQuota", self.first))


@dataclass(frozen=True)
class MaxSlot:
    """Candidate ``item`` is shown, in ``slot`` at the latest (0 is the first)."""

    item: int
    slot: int

    def __post_init__(self) -> None:
        _keep(self, item=whole("MaxSlot: item", self.item, 0), slot=whole("MaxSlot: slot", self.slot, 0))


Cap = MaxPerWindow | MinGap | MaxOfValue
Minimum = FreshQuota | MinOfValue | MaxSlot


@dataclass(frozen=True)
class Soft:
    """A constraint that may be broken: each slot that does costs ``price``, in the unit of the utilities.

    A cap is charged where the item placed is one too many of the window that ends there, a minimum where it takes a
    slot that the minimum still needs. ``Slate.relaxed`` names these slots too.
    """

    constraint: "Cap | Minimum"
    price: float

    def __post_init__(self) -> None:
        instance("Soft: constraint", self.constraint, Cap | Minimum)
        price = number("Soft: price", self.price)
        if price < 0:
            raise InvalidInput(f"Soft: price={price} must be at least 0")
        _keep(self, price=price)


Constraint = Pin | MaxPerWindow | MinGap | MaxOfValue | MinOfValue | FreshQuota | MaxSlot | Soft


def _first(name: str, first: object) -> int | None:
    return None if first is None else whole(f"{name}: first", first, 1)


def _keep(constraint: object, **fields: object) -> None:
    """Store what was checked, as plain Python values."""
    for name, value in fields.items():
        object.__setattr__(constraint, name, value)
