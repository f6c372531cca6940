"""What makes a slate good: terms that add up to the utility of the next item given those already placed.

    u_i(S) = sum_m w_m score_im + w_f 2^(-age_i / h)                            known before the first slot
             - a max_{j in S} max(0, cos_ij) - sum_p r_p #{j in S: p_j = p_i} + g log d_i(S)     falls as S grows

Terms that fall as items are placed are what makes greedy lazy and still exact (see ``lazy_greedy``). A window lets them
rise again; ``scan`` serves those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multislot_rerank.errors import InvalidInput

__all__ = ["AttributeRepeat", "Freshness", "LogDeterminant", "MaxSimilarity", "Objective", "Relevance"]


@dataclass(frozen=True)
class Relevance:
    """Weighted sum of the second-pass scores; one weight a score column."""

    weights: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        for weight in self.weights:
            if not math.isfinite(weight):
                raise InvalidInput(f"Relevance: weight {weight} is not finite")


@dataclass(frozen=True)
class Freshness:
    """``weight * 2 ** (-age_s / half_life_s)``."""

    weight: float
    half_life_s: float

    def __post_init__(self) -> None:
        _not_negative("Freshness", "weight", self.weight)
        if not (math.isfinite(self.half_life_s) and self.half_life_s > 0):
            raise InvalidInput(f"Freshness: half_life_s={self.half_life_s} must be positive")


@dataclass(frozen=True)
class MaxSimilarity:
    """Minus ``weight`` times the largest cosine to an item placed above, negative cosines counted as 0 (MMR).

    With a ``window`` only the last so many slots count; utilities can rise again then, and the slate is scanned whole.
    """

    weight: float
    window: int | None = None

    def __post_init__(self) -> None:
        _not_negative("MaxSimilarity", "weight", self.weight)
        _window("MaxSimilarity", self.window)


@dataclass(frozen=True)
class AttributeRepeat:
    """Minus ``weight`` for every item above (within ``window`` slots, if given) of the same value of an attribute."""

    attribute: str
    weight: float
    window: int | None = None

    def __post_init__(self) -> None:
        _not_negative("AttributeRepeat", "weight", self.weight)
        _window("AttributeRepeat", self.window)


@dataclass(frozen=True)
class LogDeterminant:
    """``weight`` times the growth of log det(cos + jitter I) (a determinantal point process)."""

    weight: float
    jitter: float = 1e-6

    def __post_init__(self) -> None:
        _not_negative("LogDeterminant", "weight", self.weight)
        if not 0 < self.jitter <= 1:
            raise InvalidInput(f"LogDeterminant: jitter={self.jitter} must be inside (0, 1]")


Objective = Relevance | Freshness | MaxSimilarity | AttributeRepeat | LogDeterminant


def _window(objective: str, window: int | None) -> None:
    if window is not None and window < 1:
        raise InvalidInput(f"{objective}: window={window} must be at least 1 slot, or None for all")


def _not_negative(objective: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidInput(f"{objective}: {name}={value} must be finite and >= 0; the term's sign is its own")
