"""Multi-slot replay: average the rewards of logged slates on which the policy would have shown the same.

Our formulation of replay for K slots (for one slot: Li, Chu, Langford & Wang, WSDM 2011, arXiv:1003.5956). What counts
as "the same" depends on how slots interact:

    interaction     reward of slot k depends on         record i is kept for slot k when
    FULL            the whole slate                     s_i = pi(x_i)
    CASCADE         the items down to slot k            s_i and pi(x_i) agree down to slot k
    INDEPENDENT     the item of slot k                  s_ik = pi(x_i)_k
    SET             the unordered slate                 set(s_i) = set(pi(x_i))

Theorem. If a record is kept with the same probability c_k > 0 in every context, the mean of slot k over the kept
records has expectation V_k(pi) exactly, given at least one is kept. Uniform logging over the same number N of
candidates has c = (N-K)!/N!, (N-k)!/N!, 1/N and K!(N-K)!/N!.

Where the probability varies (N varies, logging is not uniform) plain replay is biased. Thinning keeps a match with
probability c_min / c_i and restores the theorem; weighting by 1/c_i is consistent.
"""

import math
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.admission import number
from multislot_rerank.arrays import Floats, Ints, finite
from multislot_rerank.errors import InvalidInput
from multislot_rerank.log import SlateLog, TargetPolicy, check_pair, running_product
from multislot_rerank.value import ValueEstimate, weighted_value

__all__ = ["Interaction", "acceptance", "matches", "replay", "replay_weights"]

_CONSTANT = 1e-9


class Interaction(StrEnum):
    """What the reward of a slot depends on besides the context."""

    FULL = "full"
    CASCADE = "cascade"
    INDEPENDENT = "independent"
    SET = "set"


def matches(slates: Ints, targets: Ints, interaction: Interaction) -> Floats:
    """1 where record i counts for slot k, else 0; shape (n, K)."""
    if interaction == Interaction.SET:
        kept = (np.sort(slates, axis=1) == np.sort(targets, axis=1)).all(axis=1)
        return _in_every_slot(kept, slates)
    agrees: NDArray[np.bool_] = np.equal(slates, targets)
    if interaction == Interaction.INDEPENDENT:
        return agrees.astype(np.float64)
    prefix: NDArray[np.bool_] = np.logical_and.accumulate(agrees, axis=1)
    if interaction == Interaction.FULL:
        return _in_every_slot(prefix[:, -1], slates)
    return prefix.astype(np.float64)


def _in_every_slot(kept: NDArray[np.bool_], slates: Ints) -> Floats:
    return np.repeat(kept[:, None], slates.shape[1], axis=1).astype(np.float64)


def acceptance(candidates: Ints, slots: int, interaction: Interaction) -> Floats:
    """Probability that uniform logging matches a given slate, for each record and slot; shape (n, K).

    Examples
    --------
    >>> acceptance(np.array([10]), 3, Interaction.CASCADE)
    array([[0.1       , 0.01111111, 0.00138889]])
    """
    left = candidates[:, None] - np.arange(slots)
    prefix = running_product(1.0 / left)
    if interaction == Interaction.CASCADE:
        return prefix
    if interaction == Interaction.INDEPENDENT:
        return np.repeat(1.0 / candidates[:, None], slots, axis=1)
    whole = prefix[:, -1:] * (math.factorial(slots) if interaction == Interaction.SET else 1)
    return np.repeat(whole, slots, axis=1)


def replay(
    log: SlateLog,
    target: TargetPolicy,
    interaction: Interaction | str = Interaction.CASCADE,
    *,
    on_varying: Literal["refuse", "thin", "weight"] = "refuse",
    floor: float | None = None,
    slot_weights: Floats | None = None,
    seed: int = 0,
) -> ValueEstimate:
    """Estimate the value of a deterministic policy by replay.

    Parameters
    ----------
    log : SlateLog
    target : TargetPolicy
        Deterministic: made by ``TargetPolicy.deterministic``.
    interaction : Interaction or str
        What a slot's reward may depend on: ``full``, ``cascade``, ``independent`` or ``set``.
    on_varying : {"refuse", "thin", "weight"}
        Where matches are not equally probable in every context: raise, thin the matches (unbiased, keeps fewer), or
        weight them by the inverse probability (consistent, keeps all).
    floor : float, optional
        For thinning a log that is not uniform: a lower bound of the probability that the logging policy shows the
        target's slate. Uniform logs know theirs.
    slot_weights : array-like of shape (K,), optional
        Weight of each slot in the value; ones by default.
    seed : int
        Decides which matches thinning keeps.

    Returns
    -------
    ValueEstimate
        NaN with a warning where nothing matches.

    Raises
    ------
    InvalidInput
        If the target is not deterministic, the matching probability varies and ``on_varying="refuse"``, the floor is
        missing or above an observed probability, or set replay is asked of a log that is not uniform.

    Examples
    --------
    >>> log = SlateLog.uniform([[0, 1], [0, 2], [2, 1]], [[1, 0], [0, 1], [1, 1]], candidates=3)
    >>> replay(log, TargetPolicy.deterministic(log, [[0, 1]] * 3)).per_slot.ravel()
    array([0.5, 0. ])
    """
    check_pair(log, target)
    kind = _interaction(interaction)
    if target.slates is None:
        raise InvalidInput("target is stochastic; replay needs the slates it shows: TargetPolicy.deterministic")
    if on_varying not in ("refuse", "thin", "weight"):
        raise InvalidInput(f"on_varying={on_varying!r} is unknown; use refuse, thin or weight")
    alpha = None if slot_weights is None else finite("slot_weights", slot_weights, 1)
    if alpha is not None and len(alpha) != log.slots:
        raise InvalidInput(f"slot_weights has {len(alpha)} entries for {log.slots} slots")
    kept = matches(log.slates, target.slates, kind)
    probability = _probability(log, kind)
    known = np.where(kept > 0, probability, np.nan) if not log.is_uniform else probability
    if _varies(known):
        if on_varying == "refuse":
            raise InvalidInput(
                f"the probability of a {kind} match varies over contexts (from {np.nanmin(known):.3g} to "
                f"{np.nanmax(known):.3g}), which biases plain replay; use on_varying='thin' or 'weight'"
            )
        kept = _thinned(kept, known, log, floor, seed) if on_varying == "thin" else kept / probability
    return weighted_value(f"replay ({kind})", kept, log.rewards, log.objectives, normalize=True, slot_weights=alpha)


def replay_weights(log: SlateLog, target: TargetPolicy, interaction: Interaction | str) -> tuple[Interaction, Floats]:
    """Match over probability of each record and slot, shape (n, K): what self-normalised replay weighs by."""
    check_pair(log, target)
    kind = _interaction(interaction)
    if target.slates is None:
        raise InvalidInput("target is stochastic; replay needs the slates it shows: TargetPolicy.deterministic")
    return kind, matches(log.slates, target.slates, kind) / _probability(log, kind)


def _interaction(given: Interaction | str) -> Interaction:
    try:
        return Interaction(given)
    except (ValueError, TypeError):
        raise InvalidInput(f"interaction={given!r} is unknown; use one of {', '.join(Interaction)}") from None


def _probability(log: SlateLog, kind: Interaction) -> Floats:
    """Probability with which the logging policy shows what it showed, in the sense of the interaction."""
    if log.is_uniform:
        return acceptance(log.candidates, log.slots, kind)
    if kind == Interaction.INDEPENDENT:
        return log.marginals
    if kind == Interaction.CASCADE:
        return log.prefixes
    if kind == Interaction.FULL:
        return np.repeat(log.prefixes[:, -1:], log.slots, axis=1)
    raise InvalidInput("set replay needs the probability of every order of a slate; it is available for uniform logs")


def _varies(probability: Floats) -> bool:
    """Whether any slot's probability differs over the records that are known."""
    if np.isnan(probability).all(axis=0).any():
        known = ~np.isnan(probability).all(axis=0)
        probability = probability[:, known]
    if probability.size == 0:
        return False
    low, high = np.nanmin(probability, axis=0), np.nanmax(probability, axis=0)
    return bool((high - low > _CONSTANT * high).any())


def _thinned(kept: Floats, probability: Floats, log: SlateLog, floor: float | None, seed: int) -> Floats:
    """Keep a match with probability c_min / c_i; one draw a record, so that prefixes stay nested."""
    lowest = np.nanmin(probability, axis=0)
    if not log.is_uniform:
        if floor is None:
            raise InvalidInput(
                "floor is needed to thin a log that is not uniform: a lower bound of the probability that the logging "
                "policy shows the target's slate in any context; or use on_varying='weight'"
            )
        if not 0 < number("floor", floor) <= lowest.min():
            raise InvalidInput(f"floor={floor:g} must be positive and not above {lowest.min():g}, the lowest observed")
        lowest = np.full_like(lowest, floor)
    draw = np.random.default_rng(seed).random((len(kept), 1))
    accepted = draw * np.where(np.isnan(probability), np.inf, probability) < lowest
    thinned: Floats = kept * accepted
    return thinned
