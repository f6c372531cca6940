"""Choosing among trade-offs: the Pareto front of policies that were evaluated on one log, and an honest choice from it.

Each trade-off theta gives a policy pi_theta and, on one log, an estimate of its value vector V(theta). A policy is on
the front if no other is at least as good in every objective and better in one. The best of many estimates is optimistic
on the log that chose it, so the choice is made on one part of the log and its value stated on the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multislot_rerank.admission import instance
from multislot_rerank.arrays import Floats, finite, integers
from multislot_rerank.errors import InvalidInput
from multislot_rerank.log import SlateLog, TargetPolicy
from multislot_rerank.slate_replay import Interaction, replay
from multislot_rerank.value import ValueEstimate

__all__ = ["HonestChoice", "ParetoFront", "choose_honestly", "pareto_front", "sweep"]

Sense = Literal["max", "min"]


@dataclass(frozen=True)
class ParetoFront:
    """Evaluated trade-offs and which of them are on the front.

    Attributes
    ----------
    names : tuple of str
        Trade-offs, in the order given.
    estimates : tuple of ValueEstimate
    senses : tuple of {"max", "min"}
        One an objective.
    optimal : ndarray of bool, shape (trade-offs,)
        True on the front.
    """

    names: tuple[str, ...]
    estimates: tuple[ValueEstimate, ...]
    senses: tuple[Sense, ...]
    optimal: NDArray[np.bool_]

    @property
    def values(self) -> Floats:
        """Values of every trade-off, shape (trade-offs, M)."""
        return np.array([estimate.value for estimate in self.estimates])

    def knee(self) -> str:
        """The trade-off on the front that is nearest to the best of every objective, each scaled to its range."""
        gains = _as_gains(self.values, self.senses)[self.optimal]
        spread = gains.max(axis=0) - gains.min(axis=0)
        scaled = (gains.max(axis=0) - gains) / np.where(spread > 0, spread, 1.0)
        return self._name_of(int(np.argmin(np.linalg.norm(scaled, axis=1))))

    def best(self, objective: str, at_least: Mapping[str, float] | None = None) -> str:
        """The trade-off that is best in one objective among those that keep the others' bounds.

        Parameters
        ----------
        objective : str
        at_least : mapping of objective to float, optional
            Bounds on the others: the least value of one to maximise, the largest of one to minimise.

        Raises
        ------
        InvalidInput
            If an objective is unknown or no trade-off keeps the bounds.
        """
        gains = _as_gains(self.values, self.senses)
        keeps = np.ones(len(self.names), np.bool_)
        for name, bound in (at_least or {}).items():
            column = self._column(name)
            keeps &= gains[:, column] >= (bound if self.senses[column] == "max" else -bound)
        if not keeps.any():
            raise InvalidInput(f"at_least={dict(at_least or {})} is kept by none of the {len(self.names)} trade-offs")
        return self.names[int(np.argmax(np.where(keeps, gains[:, self._column(objective)], -np.inf)))]

    def hypervolume(self, reference: ArrayLike) -> float:
        """Volume between the front and a reference point that every trade-off beats (extra ``pareto``: moocore)."""
        import moocore

        point = finite("reference", reference, 1)
        if len(point) != len(self.senses):
            raise InvalidInput(f"reference has {len(point)} entries for {len(self.senses)} objectives")
        losses = -_as_gains(self.values, self.senses)
        reference_losses = -_as_gains(point[None, :], self.senses)[0]
        return float(moocore.hypervolume(losses, ref=reference_losses))

    def _column(self, objective: str) -> int:
        known = self.estimates[0].objectives
        if objective not in known:
            raise InvalidInput(f"objective={objective!r} is unknown; the log has {', '.join(known)}")
        return known.index(objective)

    def _name_of(self, position_on_front: int) -> str:
        return self.names[int(np.flatnonzero(self.optimal)[position_on_front])]


@dataclass(frozen=True)
class HonestChoice:
    """A trade-off chosen on one part of a log, with its value on that part and on the other.

    Attributes
    ----------
    name : str
    optimistic : ValueEstimate
        On the part that chose it.
    honest : ValueEstimate
        On the part that did not.
    """

    name: str
    optimistic: ValueEstimate
    honest: ValueEstimate


def sweep(
    log: SlateLog,
    slates: Mapping[str, ArrayLike],
    interaction: Interaction | str = Interaction.CASCADE,
    *,
    senses: Sequence[Sense] | None = None,
) -> ParetoFront:
    """Evaluate many deterministic policies on one log by replay, and find the front.

    Parameters
    ----------
    log : SlateLog
    slates : mapping of trade-off to array-like of int, shape (n, K)
        What each trade-off's policy would show in the context of every record.
    interaction : Interaction or str
        As ``replay``.
    senses : sequence of {"max", "min"}, optional
        Whether more or less of each objective is better; ``max`` by default.

    Returns
    -------
    ParetoFront

    Raises
    ------
    InvalidInput
        If nothing is given to compare, senses do not fit, or a policy has no match (its value is unknown).

    Examples
    --------
    >>> log = SlateLog.uniform([[0], [1], [0], [1]], [[[1, 0]], [[0, 1]], [[1, 1]], [[0, 1]]], candidates=2)
    >>> front = sweep(log, {"first": [[0]] * 4, "second": [[1]] * 4})
    >>> front.values
    array([[1. , 0.5],
           [0. , 1. ]])
    """
    _check_trade_offs(log, slates)
    chosen = chosen_senses(log, senses)
    estimates = []
    for name, shown in slates.items():
        estimate = replay(log, TargetPolicy.deterministic(log, shown), interaction, on_varying="weight")
        if np.isnan(estimate.value).any():
            raise InvalidInput(f"trade-off {name!r}: {estimate.warnings[0]}; log more, or assume less interaction")
        estimates.append(estimate)
    optimal = pareto_front(np.array([estimate.value for estimate in estimates]), chosen)
    return ParetoFront(tuple(slates), tuple(estimates), chosen, optimal)


def chosen_senses(log: SlateLog, senses: Sequence[Sense] | None) -> tuple[Sense, ...]:
    """Return one sense an objective, ``max`` unless said."""
    more: Sense = "max"
    if senses is None:
        return (more,) * len(log.objectives)
    chosen = () if isinstance(senses, str) else tuple(senses)
    if len(chosen) != len(log.objectives) or any(sense not in ("max", "min") for sense in chosen):
        raise InvalidInput(f"senses={senses!r} must hold 'max' or 'min' for each of {', '.join(log.objectives)}")
    return chosen


def _check_trade_offs(log: SlateLog, slates: object) -> None:
    instance("log", log, SlateLog)
    if not isinstance(slates, Mapping):
        raise InvalidInput(f"slates is no mapping but {type(slates).__name__}; give {{trade-off: slates}}")
    if not slates:
        raise InvalidInput("slates is empty; give at least one trade-off")


def pareto_front(values: ArrayLike, senses: Sequence[Sense]) -> NDArray[np.bool_]:
    """Mark the rows that no other row dominates; equal rows do not dominate each other.

    Parameters
    ----------
    values : array-like, shape (n, M)
    senses : sequence of {"max", "min"}, length M

    Returns
    -------
    ndarray of bool, shape (n,)

    Examples
    --------
    >>> pareto_front([[1, 3], [2, 2], [1, 2]], ["max", "max"])
    array([ True,  True, False])
    """
    table = finite("values", values, 2)
    if isinstance(senses, str) or len(senses) != table.shape[1] or any(s not in ("max", "min") for s in senses):
        raise InvalidInput(f"senses={senses!r} must hold 'max' or 'min' for each of {table.shape[1]} columns")
    gains = _as_gains(table, senses)
    optimal = np.ones(len(gains), np.bool_)
    for row, gain in enumerate(gains):
        rivals = (gains >= gain).all(axis=1) & (gains > gain).any(axis=1)
        optimal[row] = not rivals.any()
    return optimal


def choose_honestly(
    log: SlateLog,
    slates: Mapping[str, ArrayLike],
    choose: Callable[[ParetoFront], str],
    interaction: Interaction | str = Interaction.CASCADE,
    *,
    senses: Sequence[Sense] | None = None,
    seed: int = 0,
) -> HonestChoice:
    """Choose on one half of the log, and state the value on the other.

    Parameters
    ----------
    log, slates, interaction, senses
        As ``sweep``.
    choose : callable
        Takes the front of the search half and returns the name of a trade-off, e.g. ``ParetoFront.knee``.
    seed : int
        Decides the halves.

    Returns
    -------
    HonestChoice
    """
    _check_trade_offs(log, slates)
    order = np.random.default_rng(seed).permutation(len(log))
    halves = [np.sort(order[: len(log) // 2]), np.sort(order[len(log) // 2 :])]
    arrays = {name: integers(f"slates[{name!r}]", shown, 2) for name, shown in slates.items()}
    for name, shown in arrays.items():
        if len(shown) != len(log):
            raise InvalidInput(f"slates[{name!r}] has {len(shown)} rows for {len(log)} records; give one a record")
    front = sweep(log.subset(halves[0]), {n: s[halves[0]] for n, s in arrays.items()}, interaction, senses=senses)
    name = choose(front)
    if name not in arrays:
        raise InvalidInput(f"choose returned {name!r}, which is none of {', '.join(arrays)}")
    confirm = log.subset(halves[1])
    target = TargetPolicy.deterministic(confirm, arrays[name][halves[1]])
    honest = replay(confirm, target, interaction, on_varying="weight")
    return HonestChoice(name, front.estimates[front.names.index(name)], honest)


def _as_gains(values: Floats, senses: Sequence[Sense]) -> Floats:
    """Turn what is minimised around, so that more is better everywhere."""
    signs: Floats = np.array([1.0 if sense == "max" else -1.0 for sense in senses])
    return np.multiply(values, signs)
