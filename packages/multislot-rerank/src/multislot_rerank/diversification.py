"""One call that re-ranks for diversity: drop-in for pyversity's ``diversify``, exact in double precision and lazy.

With s the relevance, cos the cosine similarity, t = diversity in [0, 1]:

    mmr   next = argmax (1 - t) s_i - t max_{j in S} max(0, cos_ij)          (Carbonell & Goldstein, SIGIR 1998)
    msd   next = argmax (1 - t) s_i + t sum_{j in S} (1 - cos_ij)            (Borodin, Lee & Ye, PODS 2012)
    dpp   next = argmax det L_{S+i}, L = diag(q) cos diag(q), q_i = exp((1 - t) (s_i - mean s) / sd s)
                                                                             (Chen, Zhang & Zhou, NeurIPS 2018)

The first item of mmr and msd is the most relevant one. Parameters mean what they mean in pyversity 0.2.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multislot_rerank.admission import number, whole
from multislot_rerank.arrays import Floats, Ints, Vectors, finite
from multislot_rerank.candidates import unit_scale
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import exponential_quality, lazy_dpp, lazy_sga

__all__ = ["Diversified", "Strategy", "diversify"]

_RANK_TOLERANCE = 1e-10
_LARGEST_QUALITY = 1e150  # squares stay finite


class Strategy(StrEnum):
    """How relevance and diversity are combined."""

    MMR = "mmr"
    MSD = "msd"
    DPP = "dpp"


@dataclass(frozen=True)
class Diversified:
    """A selection in order.

    Attributes
    ----------
    indices : ndarray of int64, shape (k,)
    selection_scores : ndarray, shape (k,)
        Value of each item when it was chosen; NaN for items that only filled up.
    strategy : Strategy
    diversity : float
    filled : int
        Items at the end that were added by relevance because the embeddings span no more dimensions (dpp only).
    """

    indices: Ints
    selection_scores: Floats
    strategy: Strategy
    diversity: float
    filled: int = 0


def diversify(
    embeddings: ArrayLike, scores: ArrayLike, k: int, strategy: Strategy | str = Strategy.DPP, diversity: float = 0.5
) -> Diversified:
    """Select ``k`` items that are relevant and differ from each other.

    Parameters
    ----------
    embeddings : array-like, shape (n, d)
        One vector an item; their lengths do not matter. A zero vector is similar to nothing.
    scores : array-like, shape (n,)
        Relevance of each item.
    k : int
        Items to select, at most n.
    strategy : {"dpp", "mmr", "msd"}
    diversity : float
        0 is relevance alone, 1 is diversity alone.

    Returns
    -------
    Diversified

    Raises
    ------
    InvalidInput
        For NaN or infinite input, lengths that differ, ``k`` outside [1, n], ``diversity`` outside [0, 1] or an unknown
        strategy.

    Examples
    --------
    >>> vectors = [[1, 0], [1, 0.1], [0, 1]]
    >>> diversify(vectors, [0.9, 0.8, 0.5], k=2, strategy="mmr").indices
    array([0, 2])
    """
    vectors, inverse_norm = unit_scale(embeddings)
    relevance = finite("scores", scores, 1)
    if len(relevance) != len(vectors):
        raise InvalidInput(f"scores has {len(relevance)} entries for {len(vectors)} embeddings; give one an item")
    if whole("k", k, 0) > len(relevance) or k < 1:
        raise InvalidInput(f"k={k!r} must be between 1 and the {len(relevance)} items there are")
    if not 0 <= number("diversity", diversity) <= 1:
        raise InvalidInput(f"diversity={diversity} must be inside [0, 1]")
    try:
        kind = Strategy(strategy)
    except ValueError:
        raise InvalidInput(f"strategy={strategy!r} is unknown; use one of {', '.join(Strategy)}") from None
    if kind == Strategy.MMR:
        return _mmr(vectors, inverse_norm, relevance, k, diversity)
    if kind == Strategy.MSD:
        return _msd(vectors, inverse_norm, relevance, k, diversity)
    return _dpp(vectors, inverse_norm, relevance, k, diversity)


def _mmr(vectors: Vectors, inverse_norm: Floats, relevance: Floats, k: int, diversity: float) -> Diversified:
    pinned = np.full(k, -1, np.int64)
    if diversity == 1.0:
        pinned[0] = np.argmax(relevance)  # at diversity 1 relevance decides the first item alone
    items, values = lazy_sga(
        (1 - diversity) * relevance,
        vectors,
        inverse_norm,
        np.array([diversity, 0.0, 0.0]),
        np.zeros((len(relevance), 0), np.int64),
        _NO_WEIGHTS,
        pinned,
        _NO_ROWS,
        _NO_ROWS,
    )
    return Diversified(items, values, Strategy.MMR, diversity)


def _msd(vectors: Vectors, inverse_norm: Floats, relevance: Floats, k: int, diversity: float) -> Diversified:
    unit = vectors * inverse_norm[:, None]
    values = (1 - diversity) * relevance
    gain, items = np.empty(k), np.empty(k, np.int64)
    free = np.arange(len(relevance))
    for step in range(k):
        # at diversity 1 relevance decides the first item alone
        compared = relevance if step == 0 and diversity == 1 else values
        items[step] = free[np.argmax(compared[free])]
        gain[step] = values[items[step]]
        values = values + diversity * (1 - unit @ unit[items[step]])
        free = free[free != items[step]]
    return Diversified(items, gain, Strategy.MSD, diversity)


def _dpp(vectors: Vectors, inverse_norm: Floats, relevance: Floats, k: int, diversity: float) -> Diversified:
    if diversity == 0:
        items = np.argsort(-relevance, kind="stable")[:k]
        return Diversified(items, relevance[items], Strategy.DPP, diversity)
    quality = exponential_quality(relevance, 1 - diversity)
    if not quality.max() < _LARGEST_QUALITY:
        raise InvalidInput(
            f"scores[{int(np.argmax(relevance))}] is an outlier whose quality overflows; clip the scores"
        )
    items, gains, found = lazy_dpp(vectors, inverse_norm, quality, k, _RANK_TOLERANCE)
    if found < k:
        rest = np.argsort(-relevance, kind="stable")
        rest = rest[~np.isin(rest, items)][: k - found]
        items, gains = np.concatenate([items, rest]), np.concatenate([gains, np.full(k - found, np.nan)])
    return Diversified(items, gains, Strategy.DPP, diversity, k - found)


_NO_WEIGHTS = np.zeros(0)
_NO_ROWS: NDArray[np.int64] = np.zeros((0, 4), np.int64)
