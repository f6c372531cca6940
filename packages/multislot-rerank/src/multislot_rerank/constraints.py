"""What a slate must keep to: pins, caps within a window, gaps, a quota of fresh items.

Pins always hold. Where no candidate satisfies the rest in some slot, constraints are dropped for that slot alone, the
last of the list first and the fresh quota at the very end; the slate reports which. List them by importance.
"""

from dataclasses import dataclass

import numpy as np

from multislot_rerank.errors import InvalidInput

__all__ = ["Constraint", "FreshQuota", "MaxPerWindow", "MinGap", "Pin"]


@dataclass(frozen=True)
class Pin:
    """Candidate ``item`` takes ``slot`` (0 is the first)."""

    item: int
    slot: int

    def __post_init__(self) -> None:
        _at_least("Pin", "item", self.item, 0)
        _at_least("Pin", "slot", self.slot, 0)


@dataclass(frozen=True)
class MaxPerWindow:
    """At most ``count`` items of one value of an attribute within any ``window`` consecutive slots."""

    attribute: str
    window: int
    count: int

    def __post_init__(self) -> None:
        _at_least("MaxPerWindow", "window", self.window, 1)
        _at_least("MaxPerWindow", "count", self.count, 1)


@dataclass(frozen=True)
class MinGap:
    """Items of one value of an attribute are at least ``gap`` slots apart; 2 means never adjacent."""

    attribute: str
    gap: int

    def __post_init__(self) -> None:
        _at_least("MinGap", "gap", self.gap, 2)


@dataclass(frozen=True)
class FreshQuota:
    """At least ``count`` items of the slate are no older than ``max_age_s`` seconds."""

    count: int
    max_age_s: float

    def __post_init__(self) -> None:
        _at_least("FreshQuota", "count", self.count, 1)
        if not self.max_age_s > 0:
            raise InvalidInput(f"FreshQuota: max_age_s={self.max_age_s} must be positive")


Constraint = Pin | MaxPerWindow | MinGap | FreshQuota


def _at_least(constraint: str, name: str, value: int, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidInput(f"{constraint}: {name}={value!r} must be at least {least}, a whole number")
