"""The constraints of one request as rows of numbers over columns of codes, which the kernels read.

    cap (column, window, count, rank)      at most count items of one code within any window consecutive slots
    minimum (column, end, count, rank)     at least count items of code 0 among the first ``end`` slots

An attribute is a column. So is every property that a constraint names (to have a value, to be fresh, to be one item):
code 0 for the items that have it, a code of its own for each other item, as they are alike in nothing. ``rank`` is the
place of the constraint by importance, minima before caps; a cap on an attribute of several labels has a row for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.admission import members
from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.candidates import Candidates
from multislot_rerank.constraints import (
    Cap,
    Constraint,
    FreshQuota,
    MaxOfValue,
    MaxPerWindow,
    MaxSlot,
    MinGap,
    MinOfValue,
    Pin,
    Soft,
)
from multislot_rerank.errors import InvalidInput

__all__ = ["ConstraintRows", "ages", "checked_constraints", "constraint_rows"]

_NO_ROWS: Ints = np.empty((0, 4), np.int64)


@dataclass(frozen=True)
class ConstraintRows:
    """What the slate of a request must keep to.

    Attributes
    ----------
    codes : ndarray of int64, shape (N, P)
    pinned : ndarray of int64, shape (K,)
        Item of a slot or -1.
    caps, minima : ndarray of int64, shape (C, 4) and (M, 4)
        Rows as above, of ``hard``.
    hard : tuple of Constraint
        By rank.
    soft_caps, soft_minima, soft : the same of soft constraints
    """

    codes: Ints
    pinned: Ints
    caps: Ints
    minima: Ints
    hard: tuple[Constraint, ...]
    soft_caps: Ints
    soft_minima: Ints
    soft: tuple[Soft, ...]

    @property
    def prices(self) -> list[float]:
        """Of the soft constraints."""
        return [constraint.price for constraint in self.soft]


def checked_constraints(values: object, k: int) -> tuple[Constraint, ...]:
    """Return the constraints as a tuple, if they can be those of a slate of ``k`` slots."""
    found: tuple[Constraint, ...] = members("constraints", values, Constraint)
    pins = [constraint for constraint in found if isinstance(constraint, Pin)]
    for name, numbers in (("slot", [pin.slot for pin in pins]), ("item", [pin.item for pin in pins])):
        if len(set(numbers)) < len(numbers):
            raise InvalidInput(f"constraints: two pins share one {name}")
    for constraint in found:
        named = constraint.constraint if isinstance(constraint, Soft) else constraint
        if isinstance(named, Pin | MaxSlot) and named.slot >= k:
            raise InvalidInput(f"{type(named).__name__}: slot={named.slot} is outside the {k} slots")
    return found


def constraint_rows(
    constraints: Sequence[Constraint], candidates: Candidates, k: int, attributes: Sequence[str] = ()
) -> ConstraintRows:
    """The rows of a request; the first columns are those of ``attributes``, of which candidates have one value each.

    Raises
    ------
    InvalidInput
        If the candidates lack an attribute, ages or an item that a constraint names.
    """
    columns = _Columns(candidates)
    for name in attributes:
        columns.of_attribute(name)
    pinned = np.full(k, -1, np.int64)
    if not constraints:
        return ConstraintRows(columns.table(), pinned, _NO_ROWS, _NO_ROWS, (), _NO_ROWS, _NO_ROWS, ())
    caps: list[Constraint] = []
    minima: list[Constraint] = []
    soft: list[Soft] = []
    for constraint in constraints:
        if isinstance(constraint, Pin):
            pinned[constraint.slot] = columns.item(constraint)
        elif isinstance(constraint, Soft):
            soft.append(constraint)
        else:
            (caps if isinstance(constraint, Cap) else minima).append(constraint)
    hard = (*minima, *caps)
    hard_rows = columns.rows(hard, k)
    soft_rows = columns.rows(soft, k) if soft else (_NO_ROWS, _NO_ROWS)
    return ConstraintRows(columns.table(), pinned, *hard_rows, hard, *soft_rows, tuple(soft))


def ages(needed_by: str, candidates: Candidates) -> Floats:
    """Ages of the candidates, or an error that says what needs them."""
    if candidates.age_s is None:
        raise InvalidInput(f"candidates have no age_s, which {needed_by} needs")
    return candidates.age_s


def _bare(constraint: Constraint) -> Constraint:
    return constraint.constraint if isinstance(constraint, Soft) else constraint


class _Columns:
    """Columns of codes as constraints ask for them, each once."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._codes: list[Ints] = []
        self._place: dict[object, int] = {}

    def table(self) -> Ints:
        codes = np.empty((len(self._candidates), len(self._codes)), np.int64)
        for column, values in enumerate(self._codes):
            codes[:, column] = values
        return codes

    def rows(self, constraints: Sequence[Constraint], k: int) -> tuple[Ints, Ints]:
        """Caps and minima of constraints ordered by rank."""
        caps: list[tuple[int, int, int, int]] = []
        minima: list[tuple[int, int, int, int]] = []
        for rank, constraint in enumerate(map(_bare, constraints)):
            if isinstance(constraint, Cap):
                window, count = (
                    (constraint.gap, 1) if isinstance(constraint, MinGap) else (constraint.window, constraint.count)
                )
                sizes = min(window, k), min(count, k), rank
                caps += [(column, *sizes) for column in self._of_cap(constraint, count)]
            elif isinstance(constraint, FreshQuota):
                fresh = ages("FreshQuota", self._candidates) <= constraint.max_age_s
                column = self._having(("age", constraint.max_age_s), fresh)
                minima.append((column, min(constraint.first or k, k), min(constraint.count, k + 1), rank))
            elif isinstance(constraint, MinOfValue):
                column = self._of_value(constraint.attribute, constraint.value)
                minima.append((column, min(constraint.first or k, k), min(constraint.count, k + 1), rank))
            elif isinstance(constraint, MaxSlot):
                item = self.item(constraint)
                column = self._having(("item", item), np.arange(len(self._candidates)) == item)
                minima.append((column, constraint.slot + 1, 1, rank))
        return np.array(caps, np.int64).reshape(-1, 4), np.array(minima, np.int64).reshape(-1, 4)

    def of_attribute(self, name: str) -> int:
        if self._labels(name).code is None:
            raise InvalidInput(f"attribute {name!r} holds several labels a candidate, where one value is needed")
        return self._column(("attribute", name), self._candidates.codes[name])

    def item(self, constraint: Pin | MaxSlot) -> int:
        if constraint.item >= len(self._candidates):
            kind = type(constraint).__name__
            raise InvalidInput(f"{kind}: item={constraint.item} is not one of the {len(self._candidates)} candidates")
        return constraint.item

    def _of_cap(self, cap: MaxPerWindow | MinGap | MaxOfValue, count: int) -> list[int]:
        if isinstance(cap, MaxOfValue):
            return [self._of_value(cap.attribute, cap.value)]
        labels = self._labels(cap.attribute)
        if labels.code is not None:
            return [self.of_attribute(cap.attribute)]
        # labels that fewer candidates have cannot exceed the cap
        assert labels.pairs is not None
        frequent = np.flatnonzero(np.bincount(labels.pairs[:, 1], minlength=1) > count)
        return [
            self._having(("label", cap.attribute, number), labels.members(number, len(self._candidates)))
            for number in frequent.tolist()
        ]

    def _of_value(self, attribute: str, value: object) -> int:
        number = self._labels(attribute).numbers.get(value, -1)
        return self._having(("label", attribute, number), self._candidates.holders(attribute, value))

    def _labels(self, name: str):  # type: ignore[no-untyped-def]
        if name not in self._candidates.labels:
            known = ", ".join(self._candidates.labels) or "none"
            raise InvalidInput(f"candidates have no attribute {name!r}; they have {known}")
        return self._candidates.labels[name]

    def _having(self, key: object, has: NDArray[np.bool_]) -> int:
        return self._column(key, np.where(has, 0, np.arange(1, len(has) + 1)))

    def _column(self, key: object, codes: Ints) -> int:
        if key not in self._place:
            self._place[key] = len(self._codes)
            self._codes.append(codes)
        return self._place[key]
