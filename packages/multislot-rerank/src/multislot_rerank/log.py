"""Logged slates and the policy to evaluate on them.

Record i shows the slate s_i = (s_i1 .. s_iK) in context x_i and brings rewards r_ik in R^M (M objectives, a slot each).
The logging policy mu is kept as per-step conditionals mu(s_ik | x_i, s_i1 .. s_i,k-1); the probability of a prefix is
their running product and that of the slate its last entry, so the three can't be mixed up:

    mu(s_1:k | x) = prod_{l<=k} mu(s_l | x, s_1:l-1).

The marginal mu_k(a | x), summed over everything shown elsewhere, is a different number and a field of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from multislot_rerank.arrays import Floats, Ints, distinct_rows, finite, integers, probabilities
from multislot_rerank.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SlateLog", "TargetPolicy"]


@dataclass(frozen=True)
class SlateLog:
    """Slates as they were shown, with rewards and propensities.

    Build one with ``SlateLog.uniform`` (slates drawn uniformly without replacement), ``SlateLog.from_propensities`` or
    ``SlateLog.from_frame``; these validate.

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
        """The log of some of the records, by number."""
        kept = integers("rows", rows, 1)
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
        return cls._checked(shown, rewards, conditionals, marginals, counts, objectives, True)

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
        _same_shape("conditionals", steps, shown)
        _same_shape("marginals", margins, shown)
        unequal = ~np.isclose(steps[:, 0], margins[:, 0], rtol=1e-6, atol=0)
        if unequal.any():
            row = int(np.flatnonzero(unequal)[0])
            raise InvalidInput(
                f"marginals[{row}, 0]={margins[row, 0]:g} and conditionals[{row}, 0]={steps[row, 0]:g} differ; in the "
                "first slot they are one number (are prefix or slate probabilities in one of the fields?)"
            )
        return cls._checked(shown, rewards, steps, margins, _candidates(candidates, shown), objectives, False)

    @classmethod
    def from_frame(cls, frame: "pd.DataFrame", objectives: Sequence[str] = ("reward",)) -> "SlateLog":
        """Read a long table: one row a slot.

        Parameters
        ----------
        frame : DataFrame
            Columns ``request``, ``slot`` (0 is the first), ``item``, ``candidates``, the objectives, and, unless the
            log is uniform, ``conditional`` and ``marginal``.
        objectives : sequence of str
            Reward columns.

        Raises
        ------
        InvalidInput
            If a column is missing, a request has not every slot once, or as ``from_propensities``.
        """
        needed = ["request", "slot", "item", "candidates", *objectives]
        missing = [column for column in needed if column not in frame.columns]
        if missing:
            raise InvalidInput(f"frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
        if not len(frame):
            raise InvalidInput("frame has no rows; give a row a slot")
        ordered = frame.sort_values(["request", "slot"], kind="stable")
        slot = finite("slot", ordered["slot"].to_numpy(), 1)
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

        slates = integers("item", wide("item"), 2)
        rewards = np.stack([wide(objective) for objective in objectives], axis=2)
        candidates = integers("candidates", wide("candidates"), 2)[:, 0]
        if "conditional" not in frame.columns:
            return cls.uniform(slates, rewards, candidates, objectives)
        if "marginal" not in frame.columns:
            raise InvalidInput("frame has 'conditional' and no 'marginal'; give both, or neither for a uniform log")
        return cls.from_propensities(slates, rewards, wide("conditional"), candidates, wide("marginal"), objectives)

    @classmethod
    def _checked(
        cls,
        slates: Ints,
        rewards: ArrayLike,
        conditionals: Floats,
        marginals: Floats,
        candidates: Ints,
        objectives: Sequence[str] | None,
        is_uniform: bool,
    ) -> "SlateLog":
        distinct_rows("slates", slates)
        values = finite("rewards", rewards, 3 if np.ndim(rewards) == 3 else 2)
        values = values.reshape(*values.shape[:2], -1)
        _same_shape("rewards", values[:, :, 0], slates)
        count = values.shape[2]
        names = tuple(objectives or (["reward"] if count == 1 else [f"reward_{m}" for m in range(count)]))
        if len(names) != count:
            raise InvalidInput(f"objectives has {len(names)} names for {count} rewards; give one name a reward")
        # records contiguous in memory, slot by slot: the order in which estimators read
        rewards, conditionals, marginals = (np.asfortranarray(array) for array in (values, conditionals, marginals))
        return cls(slates, rewards, conditionals, marginals, candidates, names, is_uniform)


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
        chosen = integers("target slates", slates, 2)
        _same_shape("target slates", chosen, log.slates)
        distinct_rows("target slates", chosen)
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
        steps, margins = finite("conditionals", conditionals, 2), finite("marginals", marginals, 2)
        for name, array in (("conditionals", steps), ("marginals", margins)):
            _same_shape(f"target {name}", array, log.slates)
            if ((array < 0) | (array > 1)).any():
                raise InvalidInput(f"target {name} holds values outside [0, 1]; give probabilities")
        return cls(running_product(steps), np.asfortranarray(margins))


def running_product(steps: Floats) -> Floats:
    """Probability of each prefix from the probability of each step, shape (n, K); slot by slot in memory."""
    product = np.array(steps, dtype=np.float64, order="F")
    for slot in range(1, product.shape[1]):
        product[:, slot] *= product[:, slot - 1]
    return product


def _candidates(candidates: ArrayLike, slates: Ints) -> Ints:
    counts = integers("candidates", np.broadcast_to(np.asarray(candidates), (len(slates),)), 1)
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


def _same_shape(name: str, array: Floats | Ints, slates: Ints) -> None:
    if array.shape != slates.shape:
        raise InvalidInput(f"{name} has shape {array.shape} where the logged slates have {slates.shape}")
