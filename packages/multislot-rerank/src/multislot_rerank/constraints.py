"""What a slate must keep to: pins, caps within a window, gaps, a quota of fresh items.

Pins always hold. A slate that keeps every constraint is found wherever there is one. Where there is none, the
constraints that can hold together are kept, chosen one by one: the fresh quota first, then in the order of the list;
the others hold in as many slots as greedy can give them, the last of the list let go first. List them by importance.
Whatever the finished slate breaks, pins included, it reports.
"""

import math
from dataclasses import dataclass

from multislot_rerank.admission import names, number, whole
from multislot_rerank.errors import InvalidInput

__all__ = ["Constraint", "FreshQuota", "MaxPerWindow", "MinGap", "Pin"]


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
class FreshQuota:
    """At least ``count`` items of the slate are no older than ``max_age_s`` seconds."""

    count: int
    max_age_s: float

    def __post_init__(self) -> None:
        count = whole("FreshQuota: count", self.count, 1)
        age = math.inf if self.max_age_s == math.inf else number("FreshQuota: max_age_s", self.max_age_s)
        if age <= 0:
            raise InvalidInput(f"FreshQuota: max_age_s={self.max_age_s} must be positive")
        _keep(self, count=count, max_age_s=age)


Constraint = Pin | MaxPerWindow | MinGap | FreshQuota


def _keep(constraint: object, **fields: object) -> None:
    """Store what was checked, as plain Python values."""
    for name, value in fields.items():
        object.__setattr__(constraint, name, value)
