"""Policies that fill slates in the simulator, and one table of what they earn.

A policy maps an observation (features of B x N candidates given what is placed, and the mask of those that may be
placed) to one candidate a request. Their value is measured with the simulator's true click probabilities on the same
requests, so that differences are paired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.admission import instance, number, whole
from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.errors import InvalidInput
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.simulator import FEATURES, SlateSimulator

if TYPE_CHECKING:
    from multislot_rerank.model_reranker import ModelReranker
    from multislot_rerank.reranker import SequentialGreedyReranker

__all__ = [
    "Policy",
    "PolicyRow",
    "PolicyTable",
    "by_relevance",
    "compare_policies",
    "greedy_truth",
    "linear",
    "whole_slate",
]

# Fills the next slot of every request: takes the simulator, returns candidates, shape (B,).
Policy = Callable[[SlateSimulator], Ints]


@dataclass(frozen=True)
class PolicyRow:
    """One policy: expected clicks a slate, standard error, its difference to the first policy with its own error."""

    name: str
    value: float
    standard_error: float
    gain: float
    gain_error: float
    illegal: int


@dataclass(frozen=True)
class PolicyTable:
    """What policies earn on the same requests; prints as a table."""

    rows: tuple[PolicyRow, ...]
    requests: int

    def __str__(self) -> str:
        against = f"vs {self.rows[0].name}"
        lines = [f"{'policy':<24} {'clicks/slate':>12} {'s.e.':>7} {against:>20} {'s.e.':>7} {'illegal':>8}"]
        for row in self.rows:
            relative = row.gain / self.rows[0].value
            lines.append(
                f"{row.name:<24} {row.value:>12.4f} {row.standard_error:>7.4f} {row.gain:>+11.4f} ({relative:+6.1%}) "
                f"{row.gain_error:>7.4f} {row.illegal:>8}"
            )
        return "\n".join(lines)


def by_relevance(simulator: SlateSimulator) -> Ints:
    """Sort by the first second-pass score: what a system without re-ranking does."""
    return _best(simulator.scores[:, :, 0], simulator.mask)


def linear(weights: Mapping[str, float]) -> Policy:
    """Return the greedy policy of a linear objective on the simulator's features.

    Parameters
    ----------
    weights : mapping of feature to weight
        Features of ``simulator.FEATURES``.
    """
    unknown = set(weights) - set(FEATURES)
    if unknown:
        raise InvalidInput(f"weights name {', '.join(sorted(unknown))}; the features are {', '.join(FEATURES)}")
    vector = np.array([number(f"weights[{name!r}]", weights.get(name, 0.0)) for name in FEATURES], np.float32)
    return lambda simulator: _best(simulator.observation() @ vector, simulator.mask)


def greedy_truth(simulator: SlateSimulator) -> Ints:
    """Greedy on the true click probability, unseen appeal included: an upper mark that no policy can know."""
    return _best(simulator.click_probability(), simulator.mask)


def whole_slate(reranker: "SequentialGreedyReranker | ModelReranker") -> Policy:
    """Return the policy that lets a re-ranker of this package fill the slate of every request."""
    if not callable(getattr(reranker, "rerank", None)) or isinstance(reranker, type):
        raise InvalidInput(f"reranker={reranker!r} is no re-ranker; give an instance with rerank(candidates)")
    slates: dict[int, Ints] = {}

    def place(simulator: SlateSimulator) -> Ints:
        if simulator.slot == 0:
            slates[id(simulator)] = np.stack(
                [reranker.rerank(simulator.candidates(row)).items for row in range(simulator.batch)]
            )
        return slates[id(simulator)][:, simulator.slot]

    return place


def compare_policies(
    world: InfluenceWorld, policies: Mapping[str, Policy], *, requests: int = 4000, seed: int = 0
) -> PolicyTable:
    """Measure policies on the same requests; the first is the one that the others are compared with.

    Parameters
    ----------
    world : InfluenceWorld
    policies : mapping of name to Policy
    requests : int
    seed : int

    Returns
    -------
    PolicyTable

    Raises
    ------
    InvalidInput
        No policy, or fewer than two requests.

    Examples
    --------
    >>> table = compare_policies(InfluenceWorld(), {"relevance": by_relevance, "truth": greedy_truth}, requests=200)
    >>> table.rows[1].gain > 0
    True
    """
    instance("world", world, InfluenceWorld)
    if not isinstance(policies, Mapping) or any(isinstance(p, type) or not callable(p) for p in policies.values()):
        raise InvalidInput("policies is no mapping of names to policies; give {name: policy}")
    if not policies:
        raise InvalidInput("policies is empty; name at least one")
    if whole("requests", requests, 0) < 2:
        raise InvalidInput(f"requests={requests} must be at least 2")
    earned = {name: _earned(world, policy, requests, seed) for name, policy in policies.items()}
    first, _ = next(iter(earned.values()))
    rows = []
    for name, (value, illegal) in earned.items():
        gain = value - first
        rows.append(
            PolicyRow(
                name,
                float(value.mean()),
                float(value.std(ddof=1) / np.sqrt(requests)),
                float(gain.mean()),
                float(gain.std(ddof=1) / np.sqrt(requests)),
                illegal,
            )
        )
    return PolicyTable(tuple(rows), requests)


def _earned(world: InfluenceWorld, policy: Policy, requests: int, seed: int) -> tuple[Floats, int]:
    """Expected clicks of every request, and how often a forbidden candidate was picked."""
    rng = np.random.default_rng(seed)
    simulator = SlateSimulator(world, requests)
    simulator.reset(rng)
    total, illegal = np.zeros(requests), 0
    for _ in range(world.slots):
        result = simulator.place(policy(simulator), rng)
        total += result.probability
        illegal += int((~result.legal).sum())
    return total, illegal


def _best(utility: NDArray[np.floating], mask: NDArray[np.bool_]) -> Ints:
    best: Ints = np.where(mask, utility, -np.inf).argmax(axis=1).astype(np.int64)
    return best
