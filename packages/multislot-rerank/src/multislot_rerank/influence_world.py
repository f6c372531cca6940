"""A configurable world of slates in which items influence each other; every click probability is known.

    P(click | i in slot k below S) = sigmoid(q_i - .5 - .12 k - influence (1.2 max(0, max_j cos_ij) + .8 #same creator))
    q_i = 1.1 score_i0 + .5 score_i1 + noise

The second-pass rankers score two sides of an item's appeal q_i; a little of it no ranker sees. ``influence`` = 0 is the
world without mutual influence, 1 the default, 2 strong.
"""

from dataclasses import dataclass

import numpy as np

from multislot_rerank.arrays import Floats, Ints
from multislot_rerank.candidates import Candidates

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
    """

    influence: float = 1.0
    candidates: int = 20
    slots: int = 8
    dimension: int = 8
    topics: int = 6
    creators: int = 8
    unseen: float = 0.1

    def request(self, rng: np.random.Generator) -> tuple[Candidates, Floats]:
        """Draw one request; returns the candidates and their true appeal q."""
        topic = rng.integers(self.topics, size=self.candidates)
        centres = np.random.default_rng(7).normal(size=(self.topics, self.dimension))
        embeddings = centres[topic] + 0.4 * rng.normal(size=(self.candidates, self.dimension))
        scores = rng.normal(size=(self.candidates, 2))
        appeal = scores @ [1.1, 0.5] + self.unseen * rng.normal(size=self.candidates)
        creator = rng.integers(self.creators, size=self.candidates)
        return Candidates(scores, embeddings, {"creator": creator.tolist(), "topic": topic.tolist()}), appeal

    def click_probability(self, candidates: Candidates, appeal: Floats, slate: Ints) -> Floats:
        """True click probability of each slot of a slate, shape (K,)."""
        assert candidates.embeddings is not None
        unit = candidates.embeddings * candidates.inverse_norm[:, None]
        cosine = unit[slate] @ unit[slate].T
        creator = candidates.codes["creator"][slate]
        logit = appeal[slate] - 0.5 - 0.12 * np.arange(len(slate))
        for slot in range(1, len(slate)):
            alike = 1.2 * max(0.0, float(cosine[slot, :slot].max()))
            logit[slot] -= self.influence * (alike + 0.8 * float((creator[:slot] == creator[slot]).sum()))
        return np.asarray(1 / (1 + np.exp(-logit)))

    def log(self, requests: int, seed: int, temperature: float = 0.7) -> LoggedSlates:
        """Log slates of a Plackett-Luce policy on the first score."""
        from multislot_rerank.simulator import SlateSimulator

        rng = np.random.default_rng(seed)
        simulator = SlateSimulator(self, requests)
        simulator.reset(rng)
        keys = simulator.scores[:, :, 0] / temperature + rng.gumbel(size=simulator.mask.shape)
        slates = np.argsort(-keys, axis=1)[:, : self.slots]
        steps = [simulator.place(slates[:, slot], rng) for slot in range(self.slots)]
        drawn = [
            Candidates(scores, unit, {"creator": creator, "topic": topic})
            for scores, unit, creator, topic in zip(
                simulator.scores,
                simulator.unit,
                simulator.creator.tolist(),
                simulator.topic.tolist(),
                strict=True,
            )
        ]
        clicks = np.stack([step.clicks for step in steps], axis=1).astype(np.int64)
        return LoggedSlates(drawn, slates, clicks, np.stack([step.probability for step in steps], axis=1))
