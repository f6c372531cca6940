"""A small world of cascading clicks, whose policy values are known exactly.

Item a is liked with probability b_a; what stands above dampens it by how alike the two are:

    P(click in slot k | s_1:k) = b_{s_k} prod_{j<k} (1 - g A_{s_k, s_j}),      A in [0, 1].

Rewards depend on the items down to the slot and on nothing below: the CASCADE interaction.
"""

from dataclasses import dataclass

import numpy as np

from multislot_rerank.admission import number, whole
from multislot_rerank.arrays import Floats, Ints, finite
from multislot_rerank.errors import InvalidInput
from multislot_rerank.log import SlateLog, TargetPolicy

__all__ = ["CascadeWorld"]


@dataclass(frozen=True)
class CascadeWorld:
    """N items with appeal b and likeness A, K slots.

    Attributes
    ----------
    appeal : ndarray, shape (N,)
    likeness : ndarray, shape (N, N)
    damping : float
        g, in [0, 1]; 0 is a world without influence among items.
    slots : int
    """

    appeal: Floats
    likeness: Floats
    damping: float
    slots: int

    def __post_init__(self) -> None:
        appeal, likeness = finite("appeal", self.appeal, 1), finite("likeness", self.likeness, 2)
        if likeness.shape != (len(appeal), len(appeal)):
            raise InvalidInput(f"likeness has shape {likeness.shape} for {len(appeal)} items; give a square")
        for name, values in (("appeal", appeal), ("likeness", likeness), ("damping", number("damping", self.damping))):
            if np.min(values) < 0 or np.max(values) > 1:
                raise InvalidInput(f"{name} leaves [0, 1]; clicks would have no probability")
        if whole("slots", self.slots, 1) > len(appeal):
            raise InvalidInput(f"slots={self.slots} must be between 1 and the {len(appeal)} items")
        object.__setattr__(self, "appeal", appeal)
        object.__setattr__(self, "likeness", likeness)

    @classmethod
    def random(cls, items: int, slots: int, damping: float, seed: int) -> "CascadeWorld":
        """Draw a world."""
        rng = np.random.default_rng(seed)
        likeness = rng.random((items, items))
        return cls(rng.uniform(0.1, 0.6, items), (likeness + likeness.T) / 2, damping, slots)

    def click_probability(self, slates: Ints) -> Floats:
        """Probability of a click in each slot, shape (n, K)."""
        probability = self.appeal[slates].copy()
        for slot in range(1, slates.shape[1]):
            for above in range(slot):
                probability[:, slot] *= 1 - self.damping * self.likeness[slates[:, slot], slates[:, above]]
        return probability

    def value(self, slate: Ints) -> float:
        """Exact expected clicks of a slate."""
        return float(self.click_probability(slate[None, :]).sum())

    def log(self, records: int, seed: int) -> SlateLog:
        """Log uniformly drawn slates and their clicks."""
        rng = np.random.default_rng(seed)
        items = len(self.appeal)
        slates = np.argsort(rng.random((records, items)), axis=1)[:, : self.slots]
        clicks = rng.random(slates.shape) < self.click_probability(slates)
        return SlateLog.uniform(slates, clicks, items, ["click"])

    def target(self, log: SlateLog) -> TargetPolicy:
        """The policy that shows the items of highest appeal, for every record of a log."""
        return TargetPolicy.deterministic(log, np.tile(self.best_by_appeal, (len(log), 1)))

    @property
    def best_by_appeal(self) -> Ints:
        """Items of highest appeal, in order."""
        return np.argsort(-self.appeal, kind="stable")[: self.slots]
