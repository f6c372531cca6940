"""Logged slates and the policy to evaluate on them.

Record i shows the slate s_i = (s_i1 .. s_iK) in context x_i and brings rewards r_ik in R^M (M objectives, a slot each).
The logging policy mu is kept as per-step conditionals mu(s_ik | x_i, s_i1 .. s_i,k-1); the probability of a prefix is
their running product and that of the slate its last entry, so the three can't be mixed up:

    mu(s_1:k | x) = prod_{l<=k} mu(s_l | x, s_1:l-1).

The marginal mu_k(a | x), summed over everything shown elsewhere, is a different number and a field of its own.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from multislot_rerank.admission import instance, names
from multislot_rerank.arrays import Floats, Ints, distinct_rows, finite, integers, plain_array, probabilities
from multislot_rerank.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SlateLog", "TargetPolicy", "check_pair"]

# products of propensities below it: their inverse squares, which variances need, leave the range of doubles
_LEAST_PREFIX = 1e-140


@dataclass(frozen=True)
class SlateLog:
    """Slates as they were shown, with rewards and propensities.

    Build one with ``SlateLog.uniform`` (slates drawn uniformly without replacement), ``SlateLog.from_propensities`` or
    ``SlateLog.from_frame``. Every way to make one validates.

    Attributes
    ----------
    slates : ndarray of int64, shape (n, K)
        Item shown in each slot, numbered within the request.
    rewards : ndarray, shape (n, K, M)
        Reward of each slot for each objective.
    conditionals : ndarray, shape (n, K)
        Probability of each item given the context and the items above it.
    marginals : ndarray, shape (n, K)
        Probability that the logging policy puts that item into that slot, whatever is above.
    candidates : ndarray of int64, shape (n,)
        Number of candidate items of each request.
    objectives : tuple of str
        Names of the M rewards.
    is_uniform : bool
        Whether every ordered slate of the candidates was equally likely.
    """

    slates: Ints
    rewards: Floats
    conditionals: Floats
    marginals: Floats
    candidates: Ints
    objectives: tuple[str, ...]
    is_uniform: bool

    def __post_init__(self) -> None:
        slates = integers("slates", self.slates, 2)
        rewards = _rewards(self.rewards)
        counts = _candidates(self.candidates, slates)
        steps, margins = (probabilities(name, getattr(self, name), 2) for name in ("conditionals", "marginals"))
        distinct_rows("slates", slates)
        for name, array in (("rewards", rewards[:, :, 0]), ("conditionals", steps), ("marginals", margins)):
            _same_shape(name, array, slates)
        objectives = names("objectives", self.objectives)
        if len(objectives) != rewards.shape[2]:
            raise InvalidInput(
                f"objectives has {len(objectives)} names for {rewards.shape[2]} rewards; give one name a reward"
            )
        if not isinstance(self.is_uniform, (bool, np.bool_)):
            raise InvalidInput(f"is_uniform={self.is_uniform!r} must be True or False")
        _consistent(steps, margins, counts, bool(self.is_uniform))
        # records contiguous in memory, slot by slot: the order in which estimators read
        rewards, steps, margins = (np.asfortranarray(array) for array in (rewards, steps, margins))
        checked = (slates, rewards, steps, margins, counts, objectives, bool(self.is_uniform))
        for name, value in zip(self.__dataclass_fields__, checked, strict=True):
            object.__setattr__(self, name, value)

    @cached_property
    def prefixes(self) -> Floats:
        """Probability of each prefix, shape (n, K): the running product of ``conditionals``."""
        return running_product(self.conditionals)

    def __len__(self) -> int:
        return len(self.slates)

    @property
    def slots(self) -> int:
        """Number of slots, K."""
        return int(self.slates.shape[1])

    def subset(self, rows: ArrayLike) -> "SlateLog":
        """The log of some of the records, by number.

        Raises
        ------
        InvalidInput
            If a number is no record of the log, or ``rows`` is a mask.
        """
        kept = integers("rows", rows, 1)
        if kept.min() < 0 or kept.max() >= len(self):
            raise InvalidInput(f"rows holds a number outside [0, {len(self)}), the records there are")
        return SlateLog(
            self.slates[kept],
            self.rewards[kept],
            self.conditionals[kept],
            self.marginals[kept],
            self.candidates[kept],
            self.objectives,
            self.is_uniform,
        )

    @classmethod
    def uniform(
        cls, slates: ArrayLike, rewards: ArrayLike, candidates: ArrayLike, objectives: Sequence[str] | None = None
    ) -> "SlateLog":
        """Log of a policy that shows every ordered slate with equal probability.

        Parameters
        ----------
        slates : array-like of int, shape (n, K)
            Item numbers in [0, candidates).
        rewards : array-like, shape (n, K) or (n, K, M)
        candidates : int or array-like of shape (n,)
            Candidate items of each request, at least K.
        objectives : sequence of str, optional
            Names of the M rewards; ``reward`` for one, else ``reward_0`` and so on.

        Returns
        -------
        SlateLog

        Raises
        ------
        InvalidInput
            For repeated items, items outside the candidates, NaN rewards, K > N, ragged or empty input.

        Examples
        --------
        >>> log = SlateLog.uniform([[0, 1], [2, 0]], [[1, 0], [0, 0]], candidates=3)
        >>> log.prefixes[0]
        array([0.33333333, 0.16666667])
        """
        shown = integers("slates", slates, 2)
        counts = _candidates(candidates, shown)
        steps = np.arange(shown.shape[1])
        left = counts[:, None] - steps
        conditionals = 1.0 / left
        marginals = np.broadcast_to(1.0 / counts[:, None], shown.shape)
        values = _rewards(rewards)
        return cls(shown, values, conditionals, marginals, counts, _named(objectives, values), True)

    @classmethod
    def from_propensities(
        cls,
        slates: ArrayLike,
        rewards: ArrayLike,
        conditionals: ArrayLike,
        candidates: ArrayLike,
        marginals: ArrayLike,
        objectives: Sequence[str] | None = None,
    ) -> "SlateLog":
        """Log of any policy that recorded its probabilities.

        Parameters
        ----------
        slates, rewards, candidates, objectives
            As ``SlateLog.uniform``.
        conditionals : array-like, shape (n, K)
            Probability of each shown item given those above it, in (0, 1].
        marginals : array-like, shape (n, K)
            Probability of each shown item in its slot, in (0, 1]; equal to ``conditionals`` in the first slot.

        Raises
        ------
        InvalidInput
            As ``SlateLog.uniform``, for probabilities outside (0, 1], or where the first slot's two numbers differ.
        """
        shown = integers("slates", slates, 2)
        steps = probabilities("conditionals", conditionals, 2)
        margins = probabilities("marginals", marginals, 2)
        values, counts = _rewards(rewards), _candidates(candidates, shown)
        return cls(shown, values, steps, margins, counts, _named(objectives, values), False)

    @classmethod
    def from_frame(
        cls,
        frame: "pd.DataFrame",
        objectives: Sequence[str] = ("reward",),
        *,
        logging: Literal["uniform"] | None = None,
    ) -> "SlateLog":
        """Read a long table: one row a slot.

        Parameters
        ----------
        frame : DataFrame
            Columns ``request``, ``slot`` (0 is the first), ``item``, ``candidates``, the objectives, and the
            propensities ``conditional`` and ``marginal``.
        objectives : sequence of str
            Reward columns.
        logging : {"uniform"}, optional
            Says that every ordered slate was equally likely; the frame then has no propensities.

        Raises
        ------
        InvalidInput
            If a column is missing, a request has not every slot once or rows that contradict each other, the frame
            has neither propensities nor ``logging="uniform"`` or both, or as ``from_propensities``.
        """
        pandas = sys.modules.get("pandas")
        if pandas is None or not isinstance(frame, pandas.DataFrame):
            raise InvalidInput(f"frame is no pandas DataFrame but {type(frame).__name__}; give one, a row a slot")
        rewarded = names("objectives", objectives)
        propensities = _propensity_columns(frame, logging)
        needed = ["request", "slot", "item", "candidates", *rewarded, *propensities]
        missing = [column for column in needed if column not in frame.columns]
        if missing:
            raise InvalidInput(f"frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
        twice = [column for column in needed if list(frame.columns).count(column) > 1]
        if twice:
            raise InvalidInput(f"frame has the column {twice[0]} twice; keep one")
        if not len(frame):
            raise InvalidInput("frame has no rows; give a row a slot")
        if frame["request"].isna().any():
            raise InvalidInput("request has missing values; every row belongs to a request")
        try:
            ordered = frame.sort_values(["request", "slot"], kind="stable")
        except TypeError as error:
            raise InvalidInput(f"request mixes kinds of values ({error}); give one kind") from error
        slot = integers("slot", ordered["slot"].to_numpy(), 1)
        slots, request = int(slot.max()) + 1, ordered["request"].to_numpy()
        if (
            len(slot) % slots
            or (slot.reshape(-1, slots) != np.arange(slots)).any()
            or ordered["request"].nunique() != len(slot) // slots
            or (request.reshape(-1, slots) != request[::slots, None]).any()
        ):
            raise InvalidInput(f"frame: every request needs slots 0 .. {slots - 1}, each once")
        n = len(slot) // slots

        def wide(column: str) -> Floats:
            return finite(column, ordered[column].to_numpy(), 1).reshape(n, slots)

        def wide_whole(column: str) -> Ints:
            return integers(column, ordered[column].to_numpy(), 1).reshape(n, slots)

        slates, counts = wide_whole("item"), wide_whole("candidates")
        differs = (counts != counts[:, :1]).any(axis=1)
        if differs.any():
            row = int(np.argmax(differs))
            raise InvalidInput(
                f"candidates is {' and '.join(map(str, np.unique(counts[row])))} in request {request[row * slots]}; a "
                "request has one number of candidates"
            )
        rewards = np.stack([wide(objective) for objective in rewarded], axis=2)
        if logging == "uniform":
            return cls.uniform(slates, rewards, counts[:, 0], rewarded)
        return cls.from_propensities(slates, rewards, wide("conditional"), counts[:, 0], wide("marginal"), rewarded)


@dataclass(frozen=True)
class TargetPolicy:
    """The policy pi to evaluate, as far as a log needs to know it.

    Attributes
    ----------
    prefixes : ndarray, shape (n, K)
        pi(s_1:k | x) of the logged prefixes.
    marginals : ndarray, shape (n, K)
        pi_k(s_k | x) of the logged items in their slots.
    slates : ndarray of int64, shape (n, K), or None
        The slates it would show, where it is deterministic.
    """

    prefixes: Floats
    marginals: Floats
    slates: Ints | None = None

    def __post_init__(self) -> None:
        prefixes, margins = (finite(f"target {name}", getattr(self, name), 2) for name in ("prefixes", "marginals"))
        for name, array in (("prefixes", prefixes), ("marginals", margins)):
            if ((array < 0) | (array > 1)).any():
                raise InvalidInput(f"target {name} holds values outside [0, 1]; give probabilities")
        _same_shape("target marginals", margins, prefixes)
        if (np.diff(prefixes, axis=1) > 0).any():
            raise InvalidInput("target prefixes grow along a slate; a longer prefix is no likelier than a shorter one")
        slates = self.slates
        if slates is not None:
            slates = integers("target slates", slates, 2)
            _same_shape("target slates", slates, prefixes)
            distinct_rows("target slates", slates)
        store = object.__setattr__
        store(self, "prefixes", np.asfortranarray(prefixes))
        store(self, "marginals", np.asfortranarray(margins))
        store(self, "slates", slates)

    @classmethod
    def deterministic(cls, log: SlateLog, slates: ArrayLike) -> "TargetPolicy":
        """A policy that shows ``slates[i]`` in the context of record i.

        Raises
        ------
        InvalidInput
            For another shape than the log's, repeated items, or items outside the candidates.

        Examples
        --------
        >>> log = SlateLog.uniform([[0, 1], [2, 0]], [[1, 0], [0, 0]], candidates=3)
        >>> TargetPolicy.deterministic(log, [[0, 2], [2, 0]]).prefixes
        array([[1., 0.],
               [1., 1.]])
        """
        instance("log", log, SlateLog)
        chosen = integers("target slates", slates, 2)
        _same_shape("target slates", chosen, log.slates)
        _inside("target slates", chosen, log.candidates)
        agrees = (chosen == log.slates).astype(np.float64)
        return cls(running_product(agrees), agrees, chosen)

    @classmethod
    def stochastic(cls, log: SlateLog, conditionals: ArrayLike, marginals: ArrayLike) -> "TargetPolicy":
        """A randomised policy, by its probabilities of what was logged.

        Parameters
        ----------
        log : SlateLog
        conditionals : array-like, shape (n, K)
            pi(s_k | x, s_1:k-1) of each logged item, in [0, 1].
        marginals : array-like, shape (n, K)
            pi_k(s_k | x) of each logged item, in [0, 1].
        """
        instance("log", log, SlateLog)
        steps, margins = finite("conditionals", conditionals, 2), finite("marginals", marginals, 2)
        for name, array in (("conditionals", steps), ("marginals", margins)):
            _same_shape(f"target {name}", array, log.slates)
            if ((array < 0) | (array > 1)).any():
                raise InvalidInput(f"target {name} holds values outside [0, 1]; give probabilities")
        return cls(running_product(steps), np.asfortranarray(margins))


def check_pair(log: SlateLog, target: TargetPolicy) -> None:
    """Refuse what is no log, no target, or a target of another number of records or slots."""
    instance("log", log, SlateLog)
    instance("target", target, TargetPolicy)
    _same_shape("target", target.prefixes, log.slates)
    if target.slates is not None:
        _inside("target slates", target.slates, log.candidates)


def running_product(steps: Floats) -> Floats:
    """Probability of each prefix from the probability of each step, shape (n, K); slot by slot in memory."""
    product = np.array(steps, dtype=np.float64, order="F")
    for slot in range(1, product.shape[1]):
        product[:, slot] *= product[:, slot - 1]
    return product


def _rewards(rewards: ArrayLike) -> Floats:
    """Rewards with an axis for objectives, shape (n, K, M)."""
    given = plain_array("rewards", rewards)
    values = finite("rewards", given, 3 if given.ndim == 3 else 2)
    return values.reshape(*values.shape[:2], -1)


def _named(objectives: Sequence[str] | None, rewards: Floats) -> tuple[str, ...]:
    """Names of the rewards: those given, else ``reward``, or ``reward_0`` and so on."""
    if objectives is not None:
        return names("objectives", objectives)
    count = rewards.shape[2]
    return ("reward",) if count == 1 else tuple(f"reward_{m}" for m in range(count))


def _propensity_columns(frame: "pd.DataFrame", logging: str | None) -> tuple[str, ...]:
    """Columns that say how likely each item was; none for logging that is said to be uniform."""
    known = [column for column in ("conditional", "marginal") if column in frame.columns]
    if logging not in (None, "uniform"):
        raise InvalidInput(f"logging={logging!r} is unknown; say 'uniform', or leave it out for recorded propensities")
    if logging == "uniform":
        if known:
            raise InvalidInput(
                f"frame has {' and '.join(known)} where logging='uniform' leaves nothing to record; drop one"
            )
        return ()
    if len(known) < 2:
        raise InvalidInput(
            "frame has no column "
            + " and no ".join(c for c in ("conditional", "marginal") if c not in known)
            + "; give both propensities, or say logging='uniform' if every ordered slate was equally likely"
        )
    return tuple(known)


def _consistent(steps: Floats, margins: Floats, candidates: Ints, is_uniform: bool) -> None:
    """Refuse propensities that contradict each other, the uniform law, or the range of doubles."""
    unequal = ~np.isclose(steps[:, 0], margins[:, 0], rtol=1e-6, atol=0)
    if unequal.any():
        row = int(np.flatnonzero(unequal)[0])
        raise InvalidInput(
            f"marginals[{row}, 0]={margins[row, 0]:g} and conditionals[{row}, 0]={steps[row, 0]:g} differ; in the "
            "first slot they are one number (are prefix or slate probabilities in one of the fields?)"
        )
    if is_uniform:
        left = candidates[:, None] - np.arange(steps.shape[1])
        if not (np.allclose(steps * left, 1) and np.allclose(margins * candidates[:, None], 1)):
            raise InvalidInput("is_uniform contradicts the propensities; build uniform logs with SlateLog.uniform")
    elif not min(float(steps.min()) ** steps.shape[1], float(margins.min())) > _LEAST_PREFIX:
        smallest = np.minimum(np.prod(steps, axis=1), margins.min(axis=1))
        if smallest.min() < _LEAST_PREFIX:
            row = int(np.argmin(smallest))
            raise InvalidInput(
                f"conditionals[{row}] multiply to {smallest[row]:g}, less than can be divided by; a logged slate has a "
                "probability that means something"
            )


def _candidates(candidates: ArrayLike, slates: Ints) -> Ints:
    given = plain_array("candidates", candidates)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(slates)):
        raise InvalidInput(
            f"candidates has shape {given.shape} for {len(slates)} slates; give one number, or one a slate"
        )
    counts = integers("candidates", np.broadcast_to(given, (len(slates),)), 1)
    few = counts < slates.shape[1]
    if few.any():
        row = int(np.flatnonzero(few)[0])
        raise InvalidInput(f"candidates[{row}]={counts[row]} is less than the {slates.shape[1]} slots of a slate")
    _inside("slates", slates, counts)
    return counts


def _inside(name: str, slates: Ints, candidates: Ints) -> None:
    outside = ((slates < 0) | (slates >= candidates[:, None])).any(axis=1)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise InvalidInput(
            f"{name}[{row}]={slates[row].tolist()} holds an item outside [0, {candidates[row]}), the candidates there"
        )


def _same_shape(name: str, array: Floats | Ints, slates: Floats | Ints) -> None:
    if array.shape != slates.shape:
        raise InvalidInput(f"{name} has shape {array.shape} where the logged slates have {slates.shape}")
