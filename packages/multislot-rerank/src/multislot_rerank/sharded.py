"""Replay of a log that is too large for one array: shards give sums, sums are added, the estimate comes from the total.

Self-normalised values and their covariance need nothing of a log but its moments. With w_ik the weight of record i in
slot k and r_ik its reward vector,

    W_kl = sum_i w_ik w_il,   A_kl = sum_i w_ik w_il r_ik,   B_kl = sum_i w_ik w_il r_ik r_il',
    s_k = sum_i w_ik,         t_k = sum_i w_ik r_ik,         V_k = t_k / s_k,

    sum_i psi_i psi_i' = sum_kl alpha_k alpha_l n^2 / (s_k s_l) [ B_kl - A_kl V_l' - V_k A_lk' + W_kl V_k V_l' ].

Shards are added in their order, so that the numbers do not depend on how many workers computed them.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np

from multislot_rerank.admission import whole
from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.cluster import local_cluster
from multislot_rerank.errors import InvalidInput
from multislot_rerank.log import SlateLog, TargetPolicy
from multislot_rerank.slate_replay import Interaction, replay_weights
from multislot_rerank.value import ValueEstimate

__all__ = ["ReplayTotals", "replay_shards"]

Shard = Callable[[], tuple[SlateLog, TargetPolicy]]


@dataclass(frozen=True)
class ReplayTotals:
    """Sums over the records of a shard; ``a + b`` is the sums over both.

    Attributes
    ----------
    interaction : Interaction
    objectives : tuple of str
    records : int
    matched : ndarray of int64, shape (K,)
    weight, weighted_reward : ndarray, shapes (K,) and (K, M)
        s_k and t_k.
    weight_pairs, reward_pairs, product_pairs : ndarray, shapes (K, K), (K, K, M), (K, K, M, M)
        W, A and B.
    max_weight : float
    """

    interaction: Interaction
    objectives: tuple[str, ...]
    records: int
    matched: Ints
    weight: Floats
    weighted_reward: Floats
    weight_pairs: Floats
    reward_pairs: Floats
    product_pairs: Floats
    max_weight: float

    @classmethod
    def of(
        cls, log: SlateLog, target: TargetPolicy, interaction: Interaction | str = Interaction.CASCADE
    ) -> "ReplayTotals":
        """Sums of one shard; matches are weighted by 1 / probability, so that shards of different N add up.

        Raises
        ------
        InvalidInput
            As ``replay``.
        """
        kind, weights = replay_weights(log, target, interaction)
        w, r = weights, log.rewards
        pairs = np.einsum("ik,il->kl", w, w)
        return cls(
            interaction=kind,
            objectives=log.objectives,
            records=len(log),
            matched=(w != 0).sum(axis=0).astype(np.int64),
            weight=w.sum(axis=0),
            weighted_reward=np.einsum("ik,ikm->km", w, r),
            weight_pairs=pairs,
            reward_pairs=np.einsum("ik,il,ikm->klm", w, w, r, optimize=True),
            product_pairs=np.einsum("ik,il,ikm,iln->klmn", w, w, r, r, optimize=True),
            max_weight=float(w.max(initial=0.0)),
        )

    def __add__(self, other: "ReplayTotals") -> "ReplayTotals":
        if (self.interaction, self.objectives, self.weight.shape) != (
            other.interaction,
            other.objectives,
            other.weight.shape,
        ):
            raise InvalidInput("shards differ in interaction, objectives or slots; only sums of one kind add up")
        return ReplayTotals(
            self.interaction,
            self.objectives,
            self.records + other.records,
            self.matched + other.matched,
            self.weight + other.weight,
            self.weighted_reward + other.weighted_reward,
            self.weight_pairs + other.weight_pairs,
            self.reward_pairs + other.reward_pairs,
            self.product_pairs + other.product_pairs,
            max(self.max_weight, other.max_weight),
        )

    def estimate(self) -> ValueEstimate:
        """Value and covariance of all shards together; NaN with a reason where a slot has no match."""
        slots, objectives = self.weighted_reward.shape
        squares = np.diag(self.weight_pairs)
        effective = np.divide(self.weight**2, squares, out=np.zeros(slots), where=squares > 0)
        title = f"replay ({self.interaction})"
        if (self.matched == 0).any():
            first = int(np.flatnonzero(self.matched == 0)[0])
            reason = f"no logged record matches the policy in slot {first}: the log says nothing of its value"
            unknown, square = np.full(objectives, np.nan), np.full((objectives, objectives), np.nan)
            per_slot = np.full((slots, objectives), np.nan)
            known = self.matched > 0
            per_slot[known] = self.weighted_reward[known] / self.weight[known, None]
            return ValueEstimate(
                title, unknown, per_slot, square, self.matched, effective, self.max_weight, self.records,
                self.objectives, (reason,),
            )  # fmt: skip
        per_slot = self.weighted_reward / self.weight[:, None]
        scaled = 1.0 / self.weight
        centred = (
            self.product_pairs
            - np.einsum("klm,ln->klmn", self.reward_pairs, per_slot)
            - np.einsum("km,lkn->klmn", per_slot, self.reward_pairs)
            + np.einsum("kl,km,ln->klmn", self.weight_pairs, per_slot, per_slot)
        )
        covariance = np.einsum("k,l,klmn->mn", scaled, scaled, centred)
        fewest = int(self.matched.min())
        warnings: tuple[str, ...] = ()
        if fewest == 1:
            covariance = np.full_like(covariance, np.nan)
            warnings = ("one record carries all the weight of a slot: no standard error can be had",)
        else:
            covariance = covariance * fewest / (fewest - 1)
            if not np.isfinite(covariance).all():
                raise InvalidInput("rewards times weights leave the range of doubles; scale the rewards down")
        return ValueEstimate(
            title, per_slot.sum(axis=0), per_slot, covariance, self.matched, effective, self.max_weight, self.records,
            self.objectives, warnings,
        )  # fmt: skip


def replay_shards(
    shards: Iterable[Shard],
    interaction: Interaction | str = Interaction.CASCADE,
    *,
    workers: int = 1,
    executor: Literal["processes", "ray"] = "processes",
) -> ValueEstimate:
    """Replay a log shard by shard, on one process, several, or Ray.

    Parameters
    ----------
    shards : iterable of callable
        Each returns the log and target of one shard when called; with several workers it must be picklable (a function
        of a module, or ``functools.partial`` of one), and is called in the worker.
    interaction : Interaction or str
        As ``replay``.
    workers : int
        Processes, or shards in flight on Ray; the result does not depend on it.
    executor : {"processes", "ray"}
        Ray (extra ``ray``) uses the cluster that is connected, or a local one that is shut down at the end.

    Returns
    -------
    ValueEstimate

    Raises
    ------
    InvalidInput
        If there is no shard, shards do not fit together, or ``workers < 1``.
    """
    whole("workers", workers, 1)
    if callable(shards) or isinstance(shards, (str, Mapping)) or not isinstance(shards, Iterable):
        raise InvalidInput(f"shards is no list but {type(shards).__name__}; give a list of callables")
    jobs = [(shard, interaction) for shard in shards]
    for number, (shard, _) in enumerate(jobs):
        if isinstance(shard, type) or not callable(shard):
            raise InvalidInput(f"shards[{number}]={shard!r} cannot be called; give functions that return (log, target)")
    if not jobs:
        raise InvalidInput("shards is empty; give at least one")
    if executor not in ("processes", "ray"):
        raise InvalidInput(f"executor={executor!r} must be 'processes' or 'ray'")
    if executor == "ray":
        return reduce(ReplayTotals.__add__, _on_ray(jobs, workers)).estimate()
    if workers == 1:
        return reduce(ReplayTotals.__add__, map(_totals, jobs)).estimate()
    # a fork of a process that runs threads (as JAX and torch do) can deadlock
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return reduce(ReplayTotals.__add__, pool.map(_totals, jobs)).estimate()


def _totals(job: tuple[Shard, Interaction | str]) -> ReplayTotals:
    shard, interaction = job
    made = shard()
    if not isinstance(made, tuple) or len(made) != 2:
        raise InvalidInput(f"a shard returned {type(made).__name__}; return (log, target)")
    return ReplayTotals.of(*made, interaction)


def _on_ray(jobs: list[tuple[Shard, Interaction | str]], workers: int) -> list[ReplayTotals]:
    """Totals of every shard in their order, at most ``workers`` at a time."""
    with local_cluster(workers) as ray:
        remote = ray.remote(num_cpus=1)(_totals)
        totals: dict[int, ReplayTotals] = {}
        pending: dict[object, int] = {}
        for number, job in enumerate(jobs):
            if len(pending) == workers:
                _collect(ray, pending, totals)
            pending[remote.remote(job)] = number
        while pending:
            _collect(ray, pending, totals)
    return [totals[number] for number in range(len(jobs))]


def _collect(ray: Any, pending: dict[object, int], totals: dict[int, ReplayTotals]) -> None:
    (done,), _ = ray.wait(list(pending), num_returns=1)
    totals[pending.pop(done)] = ray.get(done)
