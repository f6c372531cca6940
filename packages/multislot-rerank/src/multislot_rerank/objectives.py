"""What makes a slate good: terms that add up to the utility of the next item given those already placed.

    u_i(S) = sum_m w_m score_im + w_f 2^(-age_i / h)                            known before the first slot
             - a max_{j in S} max(0, cos_ij) - sum_p r_p #{j in S: p_j = p_i} + g log d_i(S)     falls as S grows

Terms that fall as items are placed are what makes greedy lazy and still exact (see ``lazy_greedy``). A window lets them
rise again; ``scan`` serves those.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from multislot_rerank.admission import names, number, whole
from multislot_rerank.arrays import finite
from multislot_rerank.errors import InvalidInput

__all__ = ["AttributeRepeat", "Freshness", "LogDeterminant", "MaxSimilarity", "Objective", "Relevance"]

LEAST_JITTER = 1e-12
"""Below it the residual of a duplicate drowns in the rounding of 1 + jitter."""


@dataclass(frozen=True)
class Relevance:
    """Weighted sum of the second-pass scores; one weight a score column."""

    weights: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        _keep(self, weights=tuple(finite("Relevance: weights", self.weights, 1).tolist()))


@dataclass(frozen=True)
class Freshness:
    """``weight * 2 ** (-age_s / half_life_s)``."""

    weight: float
    half_life_s: float

    def __post_init__(self) -> None:
        half_life_s = number("Freshness: half_life_s", self.half_life_s)
        if half_life_s <= 0:
            raise InvalidInput(f"Freshness: half_life_s={self.half_life_s} must be positive")
        _keep(self, weight=_not_negative("Freshness", self.weight), half_life_s=half_life_s)


@dataclass(frozen=True)
class MaxSimilarity:
    """Minus ``weight`` times the largest cosine to an item placed above, negative cosines counted as 0 (MMR).

    With a ``window`` only the last so many slots count; utilities can rise again then, and the slate is scanned whole.
    """

    weight: float
    window: int | None = None

    def __post_init__(self) -> None:
        weight = _not_negative("MaxSimilarity", self.weight)
        _keep(self, weight=weight, window=_window("MaxSimilarity", self.window))


@dataclass(frozen=True)
class AttributeRepeat:
    """Minus ``weight`` for every item above (within ``window`` slots, if given) of the same value of an attribute."""

    attribute: str
    weight: float
    window: int | None = None

    def __post_init__(self) -> None:
        (attribute,) = names("AttributeRepeat: attribute", [self.attribute])
        weight = _not_negative("AttributeRepeat", self.weight)
        _keep(self, attribute=attribute, weight=weight, window=_window("AttributeRepeat", self.window))


@dataclass(frozen=True)
class LogDeterminant:
    """``weight`` times the growth of log det(cos + jitter I) (a determinantal point process)."""

    weight: float
    jitter: float = 1e-6

    def __post_init__(self) -> None:
        jitter = number("LogDeterminant: jitter", self.jitter)
        if not LEAST_JITTER <= jitter <= 1:
            raise InvalidInput(f"LogDeterminant: jitter={self.jitter} must be inside [{LEAST_JITTER:g}, 1]")
        _keep(self, weight=_not_negative("LogDeterminant", self.weight), jitter=jitter)


Objective = Relevance | Freshness | MaxSimilarity | AttributeRepeat | LogDeterminant


def _window(objective: str, window: int | None) -> int | None:
    if window is None:
        return None
    try:
        return whole("window", window, 1)
    except InvalidInput:
        raise InvalidInput(f"{objective}: window={window!r} must be at least 1 slot, or None for all") from None


def _not_negative(objective: str, value: float) -> float:
    weight = number(f"{objective}: weight", value)
    if weight < 0:
        raise InvalidInput(f"{objective}: weight={value} must be finite and >= 0; the term's sign is its own")
    return weight


def _keep(objective: object, **fields: object) -> None:
    """Store what was checked: plain Python numbers and tuples, so that no later change of an array can enter."""
    for name, value in fields.items():
        object.__setattr__(objective, name, value)
