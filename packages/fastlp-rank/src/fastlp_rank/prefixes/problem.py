r"""A request whose every prefix must hold so many items of each group, in every list and not on average.

.. math:: \max_\pi \sum_j v_j u_{\pi(j)} \quad \text{s.t.} \quad L_{gl} \le \#\{j \le l : \pi(j) \in g\} \le U_{gl}
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlp_rank.errors import InvalidProblemError
from fastlp_rank.problem import SlotWeights, checked_labels, checked_mask, checked_vector, is_missing, require_slots

__all__ = ["PrefixCount", "PrefixProblem", "proportional_prefixes"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PrefixCount:
    """Bound how many items of a group stand in the first slots: at_least <= #group in slots 1..first <= at_most.

    Parameters
    ----------
    group : label
        One of the problem's groups.
    first : int
        Length of the prefix, in slots.
    at_least, at_most : int
        At least one of them.
    name : str, optional
        Key in prices; ``group[first]`` by default.
    """

    group: Hashable
    first: int
    at_least: int | None = None
    at_most: int | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """The name, or one made of group and prefix."""
        return self.name or f"{self.group}[{self.first}]"


def proportional_prefixes(shares: Mapping[Hashable, float], m: int) -> list[PrefixCount]:
    """Bound every prefix of every group by its share of it, rounded down and up (floor and ceiling of share · l).

    Parameters
    ----------
    shares : mapping of label to share
        Each in [0, 1]; they need not sum to 1.
    m : int
        Number of slots.

    Raises
    ------
    InvalidProblemError
        A share that is none.

    Examples
    --------
    >>> [(b.first, b.at_least, b.at_most) for b in proportional_prefixes({"a": 0.5}, 3)]
    [(1, 0, 1), (2, 1, 1), (3, 1, 2)]
    """
    bounds = []
    for group, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0.0 <= share <= 1.0:
            raise InvalidProblemError(f"share of {group!r} = {share!r}: give a number in [0, 1]")
        for first in range(1, m + 1):
            exact = float(share) * first
            low, high = int(np.floor(exact + 1e-9)), int(np.ceil(exact - 1e-9))
            bounds.append(PrefixCount(group, first, low, high))
    return bounds


@dataclass(frozen=True, eq=False)
class PrefixProblem:
    """One request: scores of the candidates, slots to fill, one group a candidate, bounds on prefixes.

    Parameters
    ----------
    scores : array of float64, shape (n,)
        Utility u_i of showing item i in a slot of weight 1.
    slots : SlotWeights
        m <= n slots, by falling weight; every slot is filled.
    groups : array, shape (n,)
        One label a candidate; None or NaN for none. Groups exclude each other.
    bounds : sequence of PrefixCount
        Several of one prefix and group: the tightest holds.
    blocked : mask of shape (n,), optional
        Items that must not be shown.
    known : sequence of labels
        Groups that bounds may name although a request has no candidate of theirs.

    Attributes
    ----------
    labels : tuple
        Groups in the order of the rows below, None last where items have no group.
    group : array of int64, shape (n,)
        Row of every candidate, -1 where it is blocked.
    lower, upper : array of int64, shape (G, m)
        Bounds of every prefix, as stated.

    Raises
    ------
    InvalidProblemError
        For input without meaning; bounds that contradict each other are found by `rank_prefixes`.

    Examples
    --------
    >>> problem = PrefixProblem([3.0, 2.0, 1.0], SlotWeights.dcg(2), ["a", "a", "b"], [PrefixCount("b", 2, at_least=1)])
    >>> problem.labels, problem.lower.tolist()
    (('a', 'b'), [[0, 0], [0, 1]])
    """

    scores: NDArray[np.float64]
    slots: SlotWeights
    groups: ArrayLike
    bounds: Sequence[PrefixCount] = ()
    blocked: NDArray[np.bool_] | None = None
    known: Sequence[Hashable] = ()
    labels: tuple[Hashable, ...] = field(init=False, repr=False)
    group: Ints = field(init=False, repr=False)
    lower: Ints = field(init=False, repr=False)
    upper: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scores = checked_vector(self.scores, "scores")
        require_slots(self.slots)
        blocked = None if self.blocked is None else checked_mask(self.blocked, scores.size, "blocked")
        shown = scores.size if blocked is None else int((~blocked).sum())
        if self.slots.m > shown:
            raise InvalidProblemError(
                f"slots: {self.slots.m} slots for {shown} candidates; every slot is filled, so give fewer slots or add "
                "filler items"
            )
        with np.errstate(over="ignore"):
            largest = 4.0 * np.abs(scores).max() * self.slots.total
        if not np.isfinite(largest):
            raise InvalidProblemError(
                f"scores reach {np.abs(scores).max():g}, times Σ v = {self.slots.total:g}: no float holds the sums; "
                "divide all scores by one number (items that must not be shown go into blocked)"
            )
        labels, group = _number_groups(self.groups, scores.size, self.known)
        if blocked is not None:
            group[blocked] = -1
        if not isinstance(self.bounds, Sequence):
            raise InvalidProblemError(f"bounds is a {type(self.bounds).__name__}; pass a list of PrefixCount")
        lower, upper = _tables(tuple(self.bounds), labels, self.slots.m)
        for name, value in (
            ("scores", scores),
            ("blocked", blocked),
            ("bounds", tuple(self.bounds)),
            ("labels", labels),
            ("group", group),
            ("lower", lower),
            ("upper", upper),
        ):
            object.__setattr__(self, name, value)


def _number_groups(groups: Any, n: int, known: Sequence[Hashable]) -> tuple[tuple[Hashable, ...], Ints]:
    """The labels in order of appearance, those known, None where items have none; and the place of each item's."""
    place: dict[Hashable, int] = {}
    group = np.empty(n, dtype=np.int64)
    for i, label in enumerate(checked_labels(groups, n, "the problem").tolist()):
        if is_missing(label):
            group[i] = -1
            continue
        try:
            group[i] = place.setdefault(label, len(place))
        except TypeError:
            raise InvalidProblemError(
                f"groups[{i}] = {label!r} is no single label; give one a candidate (groups exclude each other here; "
                "several attributes need GroupExposure or GroupCount)"
            ) from None
    for label in known:
        place.setdefault(label, len(place))
    without = group == -1
    if without.any():
        group[without] = len(place)
        return (*place, None), group
    return tuple(place), group


def _tables(bounds: tuple[PrefixCount, ...], labels: tuple[Hashable, ...], m: int) -> tuple[Ints, Ints]:
    """Lower and upper bound of every group's count in every prefix."""
    lower, upper = np.zeros((len(labels), m), dtype=np.int64), np.full((len(labels), m), m, dtype=np.int64)
    place = {label: g for g, label in enumerate(labels) if label is not None}
    names: set[str] = set()
    for k, bound in enumerate(bounds):
        if not isinstance(bound, PrefixCount):
            raise InvalidProblemError(f"bounds[{k}] is a {type(bound).__name__}; pass PrefixCount(group, first, ...)")
        if bound.name is not None and not isinstance(bound.name, str):
            raise InvalidProblemError(f"bounds[{k}]: name = {bound.name!r} is no text; give a str")
        if bound.label in names:
            raise InvalidProblemError(f"bounds[{k}]: the name {bound.label!r} is taken; give each bound one of its own")
        names.add(bound.label)
        try:
            g = place.get(bound.group)
        except TypeError:
            g = None
        if g is None:
            shown = ", ".join(map(str, list(place)[:8])) + (", ..." if len(place) > 8 else "")
            raise InvalidProblemError(
                f"{bound.label}: group {bound.group!r} is unknown; the labels are {shown}. Groups that a request may "
                "lack are named in known=[...]"
            )
        first = _whole(bound.first, "first", bound.label)
        if not 1 <= first <= m:
            raise InvalidProblemError(f"{bound.label}: first = {first}; give a number of slots from 1 to {m}")
        if bound.at_least is None and bound.at_most is None:
            raise InvalidProblemError(f"{bound.label}: neither at_least nor at_most is given; give at least one")
        low = 0 if bound.at_least is None else _whole(bound.at_least, "at_least", bound.label)
        high = m if bound.at_most is None else _whole(bound.at_most, "at_most", bound.label)
        if high < 0:
            raise InvalidProblemError(f"{bound.label}: at_most = {high} is negative; give 0 or more")
        if low > high:
            raise InvalidProblemError(f"{bound.label}: at_least = {low} exceeds at_most = {high}; swap or relax them")
        lower[g, first - 1] = max(lower[g, first - 1], low)
        upper[g, first - 1] = min(upper[g, first - 1], high)
    return lower, upper


def _whole(value: Any, name: str, where: str) -> int:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number or number % 1:
        raise InvalidProblemError(
            f"{where}: {name} = {value!r} is no whole number; counts of single lists are whole (bounds in expectation: "
            "GroupExposure, GroupCount)"
        )
    return int(number)
