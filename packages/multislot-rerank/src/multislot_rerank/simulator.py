"""Many slates at once, slot by slot: the influence world as arrays over B requests.

The same world as ``influence_world``, drawn and stepped for a whole batch with numpy. One step places one item in every
request, draws its click from the true probability, and brings the context of all candidates up to date.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.admission import whole
from multislot_rerank.arrays import Floats, Ints, integers
from multislot_rerank.candidates import Candidates
from multislot_rerank.errors import InvalidInput

if TYPE_CHECKING:
    from multislot_rerank.influence_world import InfluenceWorld

__all__ = ["FEATURES", "SlateSimulator", "StepResult", "click_law"]

FEATURES = ("score_0", "score_1", "max_cosine", "creator_repeats", "slot")


def click_law(appeal: Floats, slot: int | Ints, nearest: Floats, repeats: Floats, influence: float) -> Floats:
    """Click probability of items by appeal, slot, largest cosine above (at least 0) and creator repeats above."""
    logit = appeal - 0.5 - 0.12 * slot - influence * (1.2 * nearest + 0.8 * repeats)
    probability: Floats = 1 / (1 + np.exp(-logit))
    return probability


@dataclass(frozen=True)
class StepResult:
    """What one slot brought, for every request: click, its true probability, and whether the item was free to place."""

    clicks: Floats
    probability: Floats
    legal: NDArray[np.bool_]


class SlateSimulator:
    """B requests of one world, filled slot by slot.

    Parameters
    ----------
    world : InfluenceWorld
    batch : int
        Number of requests, B.

    Attributes
    ----------
    mask : ndarray of bool, shape (B, N)
        Candidates that are still free.
    slot : int
        Slots filled so far.
    """

    def __init__(self, world: "InfluenceWorld", batch: int) -> None:
        if not hasattr(world, "influence") or isinstance(world, type):
            raise InvalidInput(f"world={world!r} is no InfluenceWorld; give an instance")
        self.world, self.batch = world, whole("batch", batch, 1)
        shape = (batch, world.candidates)
        self._centres = np.random.default_rng(7).normal(size=(world.topics, world.dimension))
        self._rows = np.arange(batch)
        self.mask = np.ones(shape, np.bool_)
        self.scores = np.zeros((*shape, 2))
        self.unit = np.zeros((*shape, world.dimension))
        self.creator = np.zeros(shape, np.int64)
        self.topic = np.zeros(shape, np.int64)
        self.appeal = np.zeros(shape)
        self._nearest = np.zeros(shape)
        self._repeats = np.zeros(shape)
        self.slot = 0

    def reset(self, rng: np.random.Generator) -> None:
        """Draw B new requests."""
        world, shape = self.world, self.mask.shape
        self.topic = rng.integers(world.topics, size=shape)
        embeddings = self._centres[self.topic] + 0.4 * rng.normal(size=self.unit.shape)
        self.unit = embeddings / np.sqrt(np.einsum("bnd,bnd->bn", embeddings, embeddings))[:, :, None]
        self.scores = rng.normal(size=self.scores.shape)
        self.appeal = self.scores @ np.array([1.1, 0.5]) + world.unseen * rng.normal(size=shape)
        self.creator = rng.integers(world.creators, size=shape)
        self.mask = np.ones(shape, np.bool_)
        self._nearest = np.zeros(shape)
        self._repeats = np.zeros(shape)
        self.slot = 0

    def click_probability(self) -> Floats:
        """True click probability of every candidate in the next slot, shape (B, N)."""
        return click_law(self.appeal, self.slot, self._nearest, self._repeats, self.world.influence)

    def candidates(self, row: int) -> Candidates:
        """One of the requests, as the re-rankers take it."""
        attributes = {"creator": self.creator[row].tolist(), "topic": self.topic[row].tolist()}
        return Candidates(self.scores[row], self.unit[row], attributes)

    def place(self, items: Ints, rng: np.random.Generator) -> StepResult:
        """Put one item of every request into the next slot.

        An item that is placed already earns nothing and leaves the slot empty (``legal`` is False there).

        Raises
        ------
        InvalidInput
            If an item is no candidate's number or every slot is filled.
        """
        rows, items = self._rows, integers("items", items, 1)
        if len(items) != self.batch or items.min() < 0 or items.max() >= self.world.candidates:
            raise InvalidInput(
                f"items must name one of the {self.world.candidates} candidates in each of the {self.batch} requests"
            )
        if self.slot >= self.world.slots:
            raise InvalidInput(f"all {self.world.slots} slots are filled; call reset")
        legal = self.mask[rows, items]
        nearest, repeats = self._nearest[rows, items], self._repeats[rows, items]
        law = click_law(self.appeal[rows, items], self.slot, nearest, repeats, self.world.influence)
        probability = np.where(legal, law, 0.0)
        clicks = (rng.random(self.batch) < probability).astype(np.float64)
        cosine = np.einsum("bnd,bd->bn", self.unit, self.unit[rows, items])
        placed = legal[:, None]
        np.maximum(self._nearest, np.where(placed, cosine, 0.0), out=self._nearest)
        self._repeats += placed & (self.creator == self.creator[rows, items][:, None])
        self.mask[rows, items] = False
        self.slot += 1
        return StepResult(clicks, probability, legal)

    def observation(self) -> NDArray[np.float32]:
        """Features of every candidate for the next slot (``FEATURES``), shape (B, N, 5)."""
        seen = np.empty((*self.mask.shape, len(FEATURES)), np.float32)
        seen[:, :, :2] = self.scores
        seen[:, :, 2] = self._nearest
        seen[:, :, 3] = self._repeats
        seen[:, :, 4] = self.slot
        return seen
