"""What the items above say about the next one: context features, kept up to date one placed item at a time.

For candidate i, slot k and the items S placed above it:

    score_m, score_m minus the pool's mean, log(1 + age), slot k
    max (at least 0), mean and last cosine to S
    per attribute: how many of S share its value; how many slots ago the last one did (K if none)
    mean first score of S minus the candidate's own

The monotone layout keeps only what can but grow while a slate is filled (slot, max cosine, repeats). A model that falls
in each of these makes a prediction of some slots ago an upper bound of today's, and greedy lazy and still exact.

The same kernel fills training rows (the prefix as it was shown) and serving rows (the prefix chosen so far), so that
the two cannot drift apart. One placed item costs one cosine a candidate: O(N d) a slot, O(K N d) a slate.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.admission import instance, names, whole
from multislot_rerank.arrays import Floats, Ints, distinct_rows, integers
from multislot_rerank.candidates import Candidates
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import cosine_of

__all__ = ["ContextFeatures"]

# columns between the static ones and those of the attributes: slot, max, mean and last cosine, score against the prefix
SHARED = 5


class ContextFeatures:
    """The layout of the feature matrix for M scores and the named attributes.

    Parameters
    ----------
    scores : int
        Number of second-pass scores, M.
    attributes : sequence of str
        Attributes whose repetition matters.
    slots : int
        Slots of a slate, K.
    monotone : bool
        Keep only the context that can but grow.
    dimension : int
        Length of the embeddings; 0 for requests without any.
    aged : bool
        Whether requests say the age of their candidates.

    Raises
    ------
    InvalidInput
        For numbers below their least or names that are no texts.

    Attributes
    ----------
    names : tuple of str
        Column names, in order.
    directions : tuple of int
        -1 for context that can but grow in the monotone layout, else 0: LightGBM's ``monotone_constraints``.
    """

    def __init__(
        self,
        scores: int,
        attributes: tuple[str, ...],
        slots: int,
        monotone: bool = False,
        *,
        dimension: int,
        aged: bool,
    ) -> None:
        self.scores, self.slots = whole("scores", scores, 1), whole("slots", slots, 1)
        self.attributes, self.dimension = names("attributes", attributes), whole("dimension", dimension, 0)
        for name, value in (("monotone", monotone), ("aged", aged)):
            if not isinstance(value, bool):
                raise InvalidInput(f"{name}={value!r} must be True or False")
        self.monotone, self.aged = monotone, aged
        self.static = 2 * scores + 1
        repeats = tuple(f"{name}_repeats" for name in attributes)
        since = tuple(f"slots_since_{name}" for name in attributes)
        context = ("mean_cosine", "last_cosine", "score_0_against_prefix")
        self.names = (
            *(f"score_{m}" for m in range(scores)),
            *(f"score_{m}_above_pool" for m in range(scores)),
            "log_age",
            "slot",
            "max_cosine",
            *(repeats if monotone else (*context, *repeats, *since)),
        )
        falling = len(self.names) - self.static
        self.directions = (0,) * self.static + ((-1,) * falling if monotone else (0,) * falling)

    @classmethod
    def of(
        cls, request: Candidates, attributes: Sequence[str], slots: int, monotone: bool = False
    ) -> "ContextFeatures":
        """The layout for requests that have the fields of this one."""
        instance("requests[0]", request, Candidates)
        assert request.embeddings is not None
        return cls(
            request.scores.shape[1],
            names("attributes", attributes),
            slots,
            monotone,
            dimension=request.embeddings.shape[1],
            aged=request.age_s is not None,
        )

    def rows(self, candidates: Candidates, slate: Ints) -> Floats:
        """Features of each item of a slate as it was shown; shape (K, F)."""
        shown = integers("slate", slate, 1)
        distinct_rows("slate", shown[None, :])
        if len(shown) > self.slots or shown.min() < 0 or shown.max() >= len(candidates):
            raise InvalidInput(
                f"slate={shown.tolist()} must hold at most {self.slots} of the {len(candidates)} candidates, by number"
            )
        rows: Floats = context_rows(*self.arrays(candidates), shown, self.slots)
        return rows[:, self.columns] if self.monotone else rows

    @property
    def columns(self) -> list[int]:
        """Columns of the full layout that this one has."""
        first, count = self.static, len(self.attributes)
        if not self.monotone:
            return list(range(first + SHARED + 2 * count))
        return [*range(first + 2), *range(first + SHARED, first + SHARED + count)]

    def arrays(self, candidates: Candidates) -> tuple[Floats, NDArray[np.floating], Floats, Ints]:
        """Static columns, embeddings, inverse norms and attribute codes of one request.

        Raises
        ------
        InvalidInput
            If the request has other fields than the layout: more or fewer scores, no attribute of that name, embeddings
            or ages where there were none, none where there were, or another dimension; or scores too large to centre.
        """
        assert candidates.embeddings is not None
        if candidates.scores.shape[1] != self.scores:
            raise InvalidInput(f"scores has {candidates.scores.shape[1]} columns where the model has {self.scores}")
        for name in self.attributes:
            if name not in candidates.codes:
                raise InvalidInput(f"candidates have no attribute {name!r}, which the model uses")
        dimension, aged = candidates.embeddings.shape[1], candidates.age_s is not None
        if dimension != self.dimension:
            ours, theirs = (f"embeddings of length {d}" if d else "no embeddings" for d in (self.dimension, dimension))
            raise InvalidInput(f"candidates have {theirs} where the model was fitted with {ours}; give the same fields")
        if aged != self.aged:
            ours, theirs = ("age_s" if has else "no age_s" for has in (self.aged, aged))
            raise InvalidInput(f"candidates have {theirs} where the model was fitted with {ours}; give the same fields")
        static = np.empty((len(candidates), self.static))
        static[:, : self.scores] = candidates.scores
        with np.errstate(over="ignore", invalid="ignore"):
            static[:, self.scores : -1] = candidates.scores - candidates.scores.mean(axis=0)
            if not np.isfinite(static[:, self.scores : -1]).all():
                raise InvalidInput(
                    "scores are too large to subtract their mean; scale them as when the model was fitted"
                )
        static[:, -1] = 0.0 if candidates.age_s is None else np.log1p(candidates.age_s)
        codes = np.empty((len(candidates), len(self.attributes)), np.int64)
        for column, name in enumerate(self.attributes):
            codes[:, column] = candidates.codes[name]
        return static, candidates.embeddings, candidates.inverse_norm, codes


@njit(cache=True, nogil=True)
def start(features, static, attributes, slots):  # type: ignore[no-untyped-def]
    """Fill the static columns and the dynamic ones of an empty prefix."""
    first = static.shape[1]
    for i in range(features.shape[0]):
        for column in range(first):
            features[i, column] = static[i, column]
        for column in range(first, features.shape[1]):
            features[i, column] = 0.0
        for p in range(attributes):
            features[i, first + SHARED + attributes + p] = slots


@njit(cache=True, nogil=True)
def place(features, static, embeddings, inverse_norm, codes, item, slot, score_sum, slots):  # type: ignore[no-untyped-def]
    """Bring every row up to date after ``item`` took ``slot``; returns the new sum of placed first scores."""
    first, attributes = static.shape[1], codes.shape[1]
    score_sum += static[item, 0]
    for i in range(features.shape[0]):
        features[i, first] = slot + 1
        if embeddings.shape[1] > 0:
            cosine = cosine_of(embeddings, inverse_norm, i, item)
            features[i, first + 1] = max(features[i, first + 1], cosine)
            features[i, first + 2] += (cosine - features[i, first + 2]) / (slot + 1)
            features[i, first + 3] = cosine
        features[i, first + 4] = score_sum / (slot + 1) - static[i, 0]
        for p in range(attributes):
            since = first + SHARED + attributes + p
            if codes[i, p] == codes[item, p]:
                features[i, first + SHARED + p] += 1.0
                features[i, since] = 1.0
            elif features[i, since] < slots:
                features[i, since] += 1.0
    return score_sum


@njit(cache=True, nogil=True)
def context_rows(static, embeddings, inverse_norm, codes, slate, slots):  # type: ignore[no-untyped-def]
    """Features of each item of a slate given those above it, by the serving kernel; the full layout."""
    width = static.shape[1] + SHARED + 2 * codes.shape[1]
    features = np.empty((static.shape[0], width))
    rows = np.empty((slate.size, width))
    start(features, static, codes.shape[1], slots)
    score_sum = 0.0
    for slot in range(slate.size):
        rows[slot] = features[slate[slot]]
        score_sum = place(features, static, embeddings, inverse_norm, codes, slate[slot], slot, score_sum, slots)
    return rows
