"""A configurable world of slates in which items influence each other; every click probability is known.

    P(click | i in slot k below S) = sigmoid(q_i - .5 - .12 k - influence (1.2 max(0, max_j cos_ij) + .8 #same creator))
    q_i = 1.1 score_i0 + .5 score_i1 + noise

The second-pass rankers score two sides of an item's appeal q_i; a little of it no ranker sees. ``influence`` = 0 is the
world without mutual influence, 1 the default, 2 strong.
"""

from dataclasses import dataclass

import numpy as np

from multislot_rerank.admission import number, whole
from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.candidates import Candidates
from multislot_rerank.errors import InvalidInput
from multislot_rerank.simulator import SlateSimulator, click_law

__all__ = ["InfluenceWorld", "LoggedSlates"]


@dataclass(frozen=True)
class LoggedSlates:
    """Requests, the slates shown, the clicks, and the true probability of each click."""

    requests: list[Candidates]
    slates: Ints
    clicks: Ints
    probability: Floats


@dataclass(frozen=True)
class InfluenceWorld:
    """Requests of N candidates and K slots.

    Attributes
    ----------
    influence : float
        Strength of mutual influence.
    candidates, slots, dimension, topics, creators : int
    unseen : float
        Standard deviation of the appeal that no ranker sees.

    Raises
    ------
    InvalidInput
        For numbers out of range or more slots than candidates.
    """

    influence: float = 1.0
    candidates: int = 20
    slots: int = 8
    dimension: int = 8
    topics: int = 6
    creators: int = 8
    unseen: float = 0.1

    def __post_init__(self) -> None:
        for name in ("candidates", "slots", "dimension", "topics", "creators"):
            whole(name, getattr(self, name), 1)
        for name in ("influence", "unseen"):
            if number(name, getattr(self, name)) < 0:
                raise InvalidInput(f"{name}={getattr(self, name)} must be >= 0")
        if self.slots > self.candidates:
            raise InvalidInput(f"slots={self.slots} must be between 1 and candidates={self.candidates}")

    def request(self, rng: np.random.Generator) -> tuple[Candidates, Floats]:
        """Draw one request; returns the candidates and their true appeal q."""
        simulator = SlateSimulator(self, 1)
        simulator.reset(rng)
        return simulator.candidates(0), simulator.appeal[0]

    def click_probability(self, candidates: Candidates, appeal: Floats, slate: Ints) -> Floats:
        """True click probability of each slot of a slate, shape (K,)."""
        assert candidates.embeddings is not None
        unit = candidates.embeddings * candidates.inverse_norm[:, None]
        cosine = unit[slate] @ unit[slate].T
        creator = candidates.codes["creator"][slate]
        nearest, repeats = np.zeros(len(slate)), np.zeros(len(slate))
        for slot in range(1, len(slate)):
            nearest[slot] = max(0.0, float(cosine[slot, :slot].max()))
            repeats[slot] = (creator[:slot] == creator[slot]).sum()
        return click_law(appeal[slate], np.arange(len(slate)), nearest, repeats, self.influence)

    def log(self, requests: int, seed: int, temperature: float = 0.7) -> LoggedSlates:
        """Log slates of a Plackett-Luce policy on the first score."""
        rng = np.random.default_rng(seed)
        simulator = SlateSimulator(self, requests)
        simulator.reset(rng)
        keys = simulator.scores[:, :, 0] / temperature + rng.gumbel(size=simulator.mask.shape)
        slates = np.argsort(-keys, axis=1)[:, : self.slots]
        steps = [simulator.place(slates[:, slot], rng) for slot in range(self.slots)]
        drawn = [simulator.candidates(row) for row in range(requests)]
        clicks = np.stack([step.clicks for step in steps], axis=1).astype(np.int64)
        return LoggedSlates(drawn, slates, clicks, np.stack([step.probability for step in steps], axis=1))
