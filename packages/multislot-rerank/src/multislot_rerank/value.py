"""The value of a policy, estimated: a vector of objectives with one joint covariance.

Every estimator here gives record i and slot k a weight w_ik. Per slot and objective,

    V_k = mean_i w_ik r_ik                (importance weighting)
    V_k = sum_i w_ik r_ik / sum_i w_ik    (self-normalised; replay is the case w_ik = 1 for a match, else 0)

and V = sum_k alpha_k V_k. The covariance comes from the influence of a record on V,

    psi_i = sum_k alpha_k w_ik r_ik - V,      psi_i = sum_k alpha_k w_ik (r_ik - V_k) / mean_i w_ik,

as Cov = t/(t-1) sum_i psi_i psi_i' / n^2 with t the records that carry weight in every slot. One covariance serves any
trade-off: Var(u'V) = u' Cov u.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from multislot_rerank.admission import number
from multislot_rerank.arrays import Floats, Ints, finite
from multislot_rerank.errors import InvalidInput
from multislot_rerank.slot_moments import slot_moments

__all__ = ["Interval", "ValueEstimate", "weighted_value"]


_NO_OFFSET: Floats = np.empty((0, 0, 0))


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ValueEstimate:
    """Estimated value of a policy.

    Attributes
    ----------
    estimator : str
    value : ndarray, shape (M,)
        NaN where the log cannot tell; ``warnings`` says why.
    per_slot : ndarray, shape (K, M)
    covariance : ndarray, shape (M, M)
        Of ``value``.
    matched : ndarray of int64, shape (K,)
        Records that carry weight in each slot.
    effective : ndarray, shape (K,)
        Kish's effective sample size of each slot, (sum w)^2 / sum w^2.
    max_weight : float
    records : int
    objectives : tuple of str
    warnings : tuple of str
    """

    estimator: str
    value: Floats
    per_slot: Floats
    covariance: Floats
    matched: Ints
    effective: Floats
    max_weight: float
    records: int
    objectives: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def standard_error(self) -> Floats:
        """Standard error of each objective, shape (M,)."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, trade_off: ArrayLike | None = None, level: float = 0.95) -> Interval:
        """Confidence interval of the trade-off u'V.

        Parameters
        ----------
        trade_off : array-like of shape (M,), optional
            Weight u of each objective; needed where there is more than one.
        level : float
            Coverage, inside (0, 1).

        Returns
        -------
        Interval
            Normal interval on the joint covariance.

        Raises
        ------
        InvalidInput
            If the trade-off has another length than the objectives or the level is outside (0, 1).
        """
        if not 0 < number("level", level) < 1:
            raise InvalidInput(f"level={level} must be inside (0, 1)")
        if trade_off is None:
            if len(self.value) > 1:
                raise InvalidInput(f"trade_off is needed: one weight for each of {', '.join(self.objectives)}")
            trade_off = [1.0]
        weights = finite("trade_off", trade_off, 1)
        if len(weights) != len(self.value):
            raise InvalidInput(f"trade_off has {len(weights)} weights for {len(self.value)} objectives")
        centre = float(weights @ self.value)
        half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(float(weights @ self.covariance @ weights))
        return Interval(centre, centre - half, centre + half)

    def __str__(self) -> str:
        lines = [
            f"{name:<16} {value: .5f} +- {error:.5f}"
            for name, value, error in zip(self.objectives, self.value, self.standard_error, strict=True)
        ]
        matched = "/".join(str(count) for count in self.matched)
        tail = f"{self.estimator}: {matched} of {self.records} records a slot, effective {self.effective.min():.0f}"
        return "\n".join([*lines, tail, *self.warnings])


def weighted_value(
    estimator: str,
    weights: Floats,
    rewards: Floats,
    objectives: tuple[str, ...],
    *,
    normalize: bool,
    slot_weights: Floats | None = None,
    offset: Floats | None = None,
    warnings: Sequence[str] = (),
) -> ValueEstimate:
    """Value and covariance from the weights of an estimator.

    Parameters
    ----------
    estimator : str
        Name for reports.
    weights : ndarray, shape (n, K)
    rewards : ndarray, shape (n, K, M)
    objectives : tuple of str
    normalize : bool
        Divide by the mean weight of each slot.
    slot_weights : ndarray, shape (K,), optional
        alpha_k; ones by default.
    offset : ndarray, shape (n, K, M), optional
        What a control variate adds to each record and slot (not with ``normalize``).
    warnings : sequence of str

    Returns
    -------
    ValueEstimate
        NaN with a warning where a slot has no weight at all: no match is no evidence, not a value of 0.
    """
    records, slots = weights.shape
    objective_count = rewards.shape[2]
    alpha = np.ones(slots) if slot_weights is None else slot_weights
    matched, effective, per_slot, value, cross = slot_moments(
        np.ascontiguousarray(weights.T),
        np.ascontiguousarray(rewards.T),
        _NO_OFFSET if offset is None else np.ascontiguousarray(offset.T),
        alpha,
        normalize,
    )
    notes = list(warnings)
    least = min(matched.tolist())
    if least == 0 and offset is None:
        first = matched.tolist().index(0)
        notes.append(f"no logged record matches the policy in slot {first}: the log says nothing of its value")
        if not normalize:
            per_slot = np.full((slots, objective_count), np.nan)
        value = np.full(objective_count, np.nan)
        covariance = np.full((objective_count, objective_count), np.nan)
    else:
        support = least if normalize else records
        correction = support / (support - 1) if support > 1 else math.nan
        covariance = cross * (correction / records**2)
        if not (np.isfinite(value).all() and (support == 1 or np.isfinite(covariance).all())):
            raise InvalidInput("rewards times weights leave the range of doubles; scale the rewards down")
        if support == 1:
            notes.append("one record carries all the weight of a slot: no standard error can be had")
    top = max(float(weights.max()), 0.0)
    return ValueEstimate(
        estimator, value, per_slot, covariance, matched, effective, top, records, objectives, tuple(notes)
    )
