r"""A ranking request as a linear program, in the words of a recommender.

.. math:: \max \sum_{ij} u_i v_j x_{ij} \quad \text{s.t.} \quad \sum_i x_{ij} = 1,\; \sum_j x_{ij} \le 1,\;
          L_k \le \sum_{ij} a_{ki} v_j x_{ij} \le U_k,\; x \ge 0

with scores u of n candidates, weights v of m slots and one row (a_k, L_k, U_k) a constraint; x_ij is the probability
that slot j shows item i. With equal slot weights only the selection matters (family "selection"), otherwise the
exposure of an item is the weight of its slots (family "exposure").
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlp_rank.errors import InvalidProblemError

__all__ = ["Constraint", "GroupCount", "GroupExposure", "LinearExposure", "RankingProblem", "SlotWeights"]

Row = tuple[NDArray[np.float64], float, float]


def real_array(values: Any, name: str) -> NDArray[np.float64]:
    """Copy into a contiguous float64 array; refuse text, dates, complex numbers and missing entries by name."""
    _refuse_masked(values, name)
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            strange = next((x for x in array.ravel().tolist() if not isinstance(x, (Real, Decimal))), None)
            if strange is not None:
                raise TypeError(f"{strange!r} is a {type(strange).__name__}")
        elif array.dtype.kind not in "biuf":
            raise TypeError(f"its entries are {array.dtype}")
        return np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidProblemError(f"{name} is not an array of numbers ({error}); pass one float an entry") from None


def _refuse_masked(values: Any, name: str) -> None:
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        where = int(np.flatnonzero(np.ma.getmaskarray(values))[0])
        raise InvalidProblemError(
            f"{name}[{where}] is masked; fill it in, leave the item out, or name it in blocked=mask of the problem"
        )


def checked_vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Copy into a contiguous float64 vector; refuse what is no finite vector."""
    vector = real_array(values, name)
    if vector.ndim != 1:
        raise InvalidProblemError(f"{name} has shape {vector.shape}; pass a vector with one float an entry")
    if not np.isfinite(vector).all():
        i = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise InvalidProblemError(
            f"{name}[{i}] = {vector[i]} is not finite; give a finite number or leave the item out of the candidates"
        )
    return vector


def checked_mask(values: Any, n: int, name: str) -> NDArray[np.bool_]:
    """Read a mask: booleans, or numbers that are all 0 or 1, in any container that NumPy reads; none missing."""
    _refuse_masked(values, name)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InvalidProblemError(f"{name} is no mask ({error}); give True or False a candidate") from None
    if array.shape != (n,):
        raise InvalidProblemError(f"{name} has shape {array.shape}; give one entry a candidate, ({n},)")
    if array.dtype == np.bool_:
        return array.copy()
    for i, entry in enumerate(array.tolist()):
        if not isinstance(entry, Real) or entry not in (0, 1):
            raise InvalidProblemError(f"{name}[{i}] = {entry!r} is neither True nor False (nor 1 or 0); give a mask")
    return array.astype(np.bool_)


@dataclass(frozen=True, eq=False)
class SlotWeights:
    """Weight v_j of every slot, from the first to the last: how much attention, or value, a slot has.

    Parameters
    ----------
    values : array of float64, shape (m,)
        Finite, not negative, not increasing, not all zero.

    Raises
    ------
    InvalidProblemError
        If a weight is negative, not finite or larger than the one before, or all are zero.

    Examples
    --------
    >>> SlotWeights.dcg(3).values.round(3)
    array([1. , 0.631, 0.5 ])
    >>> SlotWeights.uniform(2).uniform_value
    1.0
    """

    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = checked_vector(self.values, "slots")
        if values.size == 0:
            raise InvalidProblemError("slots is empty; give the weight of at least one slot")
        if values[-1] < 0 or (values < 0).any():
            j = int(np.flatnonzero(values < 0)[0])
            raise InvalidProblemError(f"slots[{j}] = {values[j]} is negative; a slot weight is at least 0")
        rises = np.flatnonzero(values[1:] > values[:-1])
        if rises.size:
            j = int(rises[0]) + 1
            raise InvalidProblemError(
                f"slots[{j}] = {values[j]} is larger than slots[{j - 1}] = {values[j - 1]}; number the slots by "
                "falling weight and map the resulting positions back to the page"
            )
        if values[0] == 0.0:
            raise InvalidProblemError("slots are all 0: nothing to maximise; give the first slot a positive weight")
        object.__setattr__(self, "values", values)

    @classmethod
    def dcg(cls, m: int) -> "SlotWeights":
        """Discounted cumulative gain, v_j = 1 / log2(j + 1) for j = 1..m."""
        return cls(1.0 / np.log2(np.arange(2, _slot_count(m) + 2)))

    @classmethod
    def uniform(cls, m: int) -> "SlotWeights":
        """Every slot weighs 1: which m items are shown matters, not where."""
        return cls(np.ones(_slot_count(m)))

    @classmethod
    def explicit(cls, values: ArrayLike) -> "SlotWeights":
        """Weights as given, for instance the examination probabilities of a click model."""
        return cls(cast(Any, values))

    @property
    def m(self) -> int:
        """Number of slots."""
        return self.values.size

    @property
    def total(self) -> float:
        """Exposure that a ranking hands out, Σ v_j."""
        return float(self.values.sum())

    @property
    def uniform_value(self) -> float | None:
        """The common weight when all slots weigh the same, else None."""
        return float(self.values[0]) if self.values[0] == self.values[-1] else None


def require_slots(slots: object) -> None:
    """Refuse what are no slot weights."""
    if not isinstance(slots, SlotWeights):
        raise InvalidProblemError(
            f"slots is a {type(slots).__name__}; pass SlotWeights.dcg(m), .uniform(m) or .explicit(weights)"
        )


def _slot_count(m: int) -> int:
    if not isinstance(m, (int, np.integer)) or isinstance(m, bool) or m < 1:
        raise InvalidProblemError(f"m = {m!r} slots; give a whole number of at least 1")
    return int(m)


class Constraint(Protocol):
    """What `RankingProblem` needs of a constraint."""

    @property
    def label(self) -> str:
        """Name under which prices and violations are reported."""
        ...

    def row(self, n: int, slots: SlotWeights) -> Row:
        """Coefficients a_k of shape (n,), and the bounds L_k and U_k of Σ a_ki v_j x_ij."""
        ...


def _membership(groups: Any, group: object, n: int, where: str) -> NDArray[np.float64]:
    """1 for the members of a group, given a label or a list of labels a candidate, or a mask."""
    if np.ndim(group) > 0:  # type: ignore[arg-type]
        raise InvalidProblemError(f"{where}: group = {group!r} is no label; name one label, or pass a boolean mask")
    labels = checked_labels(groups, n, where)
    if group is None:
        if labels.dtype.kind not in "biuf" and not any(isinstance(x, Real) for x in labels.tolist()):
            raise InvalidProblemError(f"{where}: group is missing; name one of the labels, or pass a boolean mask")
        return checked_mask(labels, n, f"{where}: groups").astype(np.float64)
    if labels.dtype.kind == "O":
        member = np.array([_has(entry, group) for entry in labels.tolist()], dtype=np.bool_)
    else:
        member = np.asarray(labels == group, dtype=np.bool_)
    if not member.any():
        known = sorted({str(label) for entry in labels.tolist() for label in _each(entry)})
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise InvalidProblemError(
            f"{where}: group {group!r} is unknown; the labels are {shown}. For a group that may have no candidate in a "
            "request pass the mask `labels == group` instead"
        )
    return member.astype(np.float64)


def checked_labels(groups: Any, n: int, where: str) -> NDArray[Any]:
    """One entry a candidate, as a vector: of NumPy's types where all are of one, of objects where not."""
    _refuse_masked(groups, f"{where}: groups")
    if isinstance(groups, (list, tuple)):
        kinds = {type(entry) for entry in groups}
        if len(kinds) == 1 and not kinds & set(_SEVERAL):
            labels = np.asarray(groups)
        else:
            labels = np.empty(len(groups), dtype=object)
            for i, entry in enumerate(groups):
                labels[i] = entry
    else:
        labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InvalidProblemError(f"{where}: groups has shape {labels.shape}; give one entry a candidate, ({n},)")
    return labels


_SEVERAL = (list, tuple, set, frozenset, np.ndarray)
"""Containers of the labels of one candidate."""


def _each(entry: object) -> Iterable[object]:
    """Labels of one candidate."""
    return entry if isinstance(entry, _SEVERAL) else (entry,)


def _has(entry: object, group: object) -> bool:
    """Whether a candidate carries the label; a missing label equals none."""
    return any(bool(label == group) for label in _each(entry) if not is_missing(label))


def is_missing(label: object) -> bool:
    """Whether a label is None, NaN or a data frame's NA, none of which equals itself."""
    try:
        return label is None or bool(label != label)
    except TypeError:
        return True


def _bounds(low: float | None, high: float | None, names: tuple[str, str], where: str) -> tuple[float, float]:
    """Both bounds as numbers, infinite where not given; refuse a pair that no value can keep."""
    lower = -np.inf if low is None else _number(low, names[0], where)
    upper = np.inf if high is None else _number(high, names[1], where)
    if np.isnan(lower) or np.isnan(upper):
        raise InvalidProblemError(f"{where}: {names[0] if np.isnan(lower) else names[1]} is NaN; give a number")
    if lower > upper:
        raise InvalidProblemError(f"{where}: {names[0]} = {lower} exceeds {names[1]} = {upper}; swap or relax them")
    if lower == np.inf or upper == -np.inf:
        raise InvalidProblemError(f"{where}: bounds [{lower}, {upper}] hold no number; give finite ones")
    if lower == -np.inf and upper == np.inf:
        raise InvalidProblemError(f"{where}: neither {names[0]} nor {names[1]} is given; give at least one")
    return lower, upper


def _number(value: Any, name: str, where: str) -> float:
    try:
        if isinstance(value, (str, bytes)) or np.asarray(value).dtype.kind in "USc" or np.ma.is_masked(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidProblemError(f"{where}: {name} = {value!r} is no number; give a float, or leave it out") from None


@dataclass(frozen=True, eq=False)
class GroupExposure:
    """Bound the share of the exposure that a group of items receives.

    min_share <= Σ_{i in group} Σ_j v_j x_ij / Σ_j v_j <= max_share.

    Parameters
    ----------
    groups : array, shape (n,)
        Label of every candidate, a list of labels of every candidate, or a mask of the group.
    group : label, optional
        Which label; left out with a mask.
    min_share, max_share : float in [0, 1]
        At least one of them.
    name : str, optional
        Key in prices and violations; ``exposure[group]`` by default.
    """

    groups: ArrayLike
    group: object = None
    min_share: float | None = None
    max_share: float | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """The name, or one made of the group."""
        return self.name or f"exposure[{'mask' if self.group is None else self.group}]"

    def row(self, n: int, slots: SlotWeights) -> Row:
        """Membership; bounds in exposure, share · Σ v."""
        lower, upper = _bounds(self.min_share, self.max_share, ("min_share", "max_share"), self.label)
        for field_name, share in (("min_share", self.min_share), ("max_share", self.max_share)):
            if share is not None and not 0.0 <= share <= 1.0:
                raise InvalidProblemError(
                    f"{self.label}: {field_name} = {share} is no share; give a number in [0, 1] (for absolute exposure "
                    "use LinearExposure)"
                )
        return _membership(self.groups, self.group, n, self.label), lower * slots.total, upper * slots.total


@dataclass(frozen=True, eq=False)
class GroupCount:
    """Bound the expected number of items of a group among those shown: at_least <= Σ_{i in group} Σ_j x_ij <= at_most.

    Needs uniform slot weights: a count looks at every slot alike, and with position weights in the objective the
    pricing step would no longer be one sort. Use `GroupExposure` there.

    Parameters
    ----------
    groups : array, shape (n,)
        Label of every candidate, a list of labels of every candidate, or a mask of the group.
    group : label, optional
        Which label; left out with a mask.
    at_least, at_most : float
        At least one of them.
    name : str, optional
        Key in prices and violations; ``count[group]`` by default.
    """

    groups: ArrayLike
    group: object = None
    at_least: float | None = None
    at_most: float | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """The name, or one made of the group."""
        return self.name or f"count[{'mask' if self.group is None else self.group}]"

    def row(self, n: int, slots: SlotWeights) -> Row:
        """Membership divided by the common slot weight; bounds in items."""
        weight = slots.uniform_value
        if weight is None:
            raise InvalidProblemError(
                f"{self.label}: a count needs equal slot weights, these fall from {slots.values[0]:g} to "
                f"{slots.values[-1]:g}; use GroupExposure, or SlotWeights.uniform({slots.m})"
            )
        lower, upper = _bounds(self.at_least, self.at_most, ("at_least", "at_most"), self.label)
        return _membership(self.groups, self.group, n, self.label) / weight, lower, upper


@dataclass(frozen=True, eq=False)
class LinearExposure:
    """Bound an exposure-weighted sum of item values: lower <= Σ_ij a_i v_j x_ij <= upper.

    Parameters
    ----------
    values : array of float64, shape (n,)
        a_i: a margin, an age, a predicted number of actions, +1 / -1 for the difference of two groups.
    lower, upper : float
        In units of value times slot weight; at least one of them; equal for an equality.
    name : str, optional
        Key in prices and violations; ``linear`` by default.
    """

    values: ArrayLike
    lower: float | None = None
    upper: float | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """The name, or ``linear``."""
        return self.name or "linear"

    def row(self, n: int, slots: SlotWeights) -> Row:
        """Values and bounds as given."""
        values = checked_vector(self.values, f"{self.label}: values")
        if values.shape != (n,):
            raise InvalidProblemError(f"{self.label}: values has shape {values.shape}; give one a candidate, ({n},)")
        lower, upper = _bounds(self.lower, self.upper, ("lower", "upper"), self.label)
        return values, lower, upper


@dataclass(frozen=True, eq=False)
class RankingProblem:
    """One request: scores of the candidates, slots to fill, constraints in expectation.

    Everything is checked and turned into rows here, once; `solve` trusts it.

    Parameters
    ----------
    scores : array of float64, shape (n,)
        Utility u_i of showing item i in a slot of weight 1.
    slots : SlotWeights
        m <= n slots; every slot is filled.
    constraints : sequence of GroupExposure, GroupCount or LinearExposure
        They hold for the lottery in expectation, not for every single list.
    blocked : mask of shape (n,), optional
        Items that must not be shown; at least m remain.
    feasibility_tol : float
        By how much a bound may be missed, in units of its row's size times Σ v (see `fastlp_rank.certificate`); used
        only where the bounds as stated contradict each other. Shares that were computed in float32 need about 1e-6.

    Attributes
    ----------
    rows : array of float64, shape (K, n)
        Coefficients a_k.
    lower, upper : array of float64, shape (K,)
        Bounds of Σ a_ki v_j x_ij; infinite where there is none.
    names : tuple of str
        Of the constraints.

    Raises
    ------
    InvalidProblemError
        For input without meaning; bounds that contradict each other are found by `solve` (``Status.INFEASIBLE``).

    Examples
    --------
    >>> fair = GroupExposure(["a", "a", "b"], "b", min_share=0.2)
    >>> problem = RankingProblem([3.0, 2.0, 1.0], SlotWeights.dcg(2), [fair])
    >>> problem.family, problem.names, problem.lower.round(4)
    ('exposure', ('exposure[b]',), array([0.3262]))
    """

    scores: NDArray[np.float64]
    slots: SlotWeights
    constraints: Sequence[Constraint] = ()
    blocked: NDArray[np.bool_] | None = None
    feasibility_tol: float = 1e-9
    rows: NDArray[np.float64] = field(init=False, repr=False)
    lower: NDArray[np.float64] = field(init=False, repr=False)
    upper: NDArray[np.float64] = field(init=False, repr=False)
    names: tuple[str, ...] = field(init=False, repr=False)
    _candidates: NDArray[np.int64] | None = field(init=False, repr=False)
    _candidate_scores: NDArray[np.float64] = field(init=False, repr=False)
    _candidate_rows: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scores = checked_vector(self.scores, "scores")
        require_slots(self.slots)
        n, m = scores.size, self.slots.m
        if m > n:
            raise InvalidProblemError(
                f"slots: {m} slots for {n} candidates; every slot is filled, so give fewer slots or add filler items"
            )
        blocked = None if self.blocked is None else checked_mask(self.blocked, n, "blocked")
        if blocked is not None and n - int(blocked.sum()) < m:
            raise InvalidProblemError(
                f"blocked: {n - int(blocked.sum())} of {n} candidates remain for {m} slots; every slot is filled, so "
                "block fewer or give fewer slots"
            )
        feasibility_tol = _number(self.feasibility_tol, "feasibility_tol", "the problem")
        if not 0.0 <= feasibility_tol < 1.0:
            raise InvalidProblemError(f"feasibility_tol = {feasibility_tol}; give a number in [0, 1), such as 1e-6")
        if not isinstance(self.constraints, Sequence):
            raise InvalidProblemError(f"constraints is a {type(self.constraints).__name__}; pass a list of constraints")
        constraints = tuple(self.constraints)
        K = len(constraints)
        rows, lower, upper = np.empty((K, n)), np.empty(K), np.empty(K)
        names: list[str] = []
        for k, constraint in enumerate(constraints):
            if not isinstance(constraint, (GroupExposure, GroupCount, LinearExposure)):
                raise InvalidProblemError(
                    f"constraints[{k}] is a {type(constraint).__name__}; this version takes GroupExposure, GroupCount "
                    "and LinearExposure (no slot windows, no pinned items)"
                )
            rows[k], lower[k], upper[k] = constraint.row(n, self.slots)
            if not isinstance(constraint.label, str):
                raise InvalidProblemError(f"constraints[{k}]: name = {constraint.label!r} is no text; give a str")
            if constraint.label in names:
                raise InvalidProblemError(
                    f"constraints[{k}]: the name {constraint.label!r} is taken; give each constraint a name of its own"
                )
            names.append(constraint.label)
        candidates = None if blocked is None else np.flatnonzero(~blocked)
        for name, value in (
            ("blocked", blocked),
            ("feasibility_tol", feasibility_tol),
            ("_candidates", candidates),
            ("_candidate_scores", scores if candidates is None else np.ascontiguousarray(scores[candidates])),
            ("_candidate_rows", rows if candidates is None else np.ascontiguousarray(rows[:, candidates])),
            ("scores", scores),
            ("constraints", constraints),
            ("rows", rows),
            ("lower", lower),
            ("upper", upper),
            ("names", tuple(names)),
        ):
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Number of candidates."""
        return self.scores.size

    @property
    def m(self) -> int:
        """Number of slots."""
        return self.slots.m

    @property
    def family(self) -> Literal["selection", "exposure"]:
        """Whether slot positions matter."""
        return "exposure" if self.slots.uniform_value is None else "selection"
