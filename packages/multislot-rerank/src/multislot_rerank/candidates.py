"""The candidates of one request: scores, embeddings, attributes and ages, validated once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from multislot_rerank.arrays import Floats, Ints, Vectors, finite
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import inverse_norms

__all__ = ["Candidates", "unit_scale"]


@dataclass(frozen=True)
class Candidates:
    """N candidate items of one request.

    Attributes
    ----------
    scores : ndarray, shape (N, M)
        Scores of the second-pass rankers, one column an objective; a vector counts as one column.
    embeddings : ndarray, shape (N, d), optional
        Vectors whose cosine says how alike two items are.
    attributes : mapping of str to sequence of length N
        Values such as a creator or a topic, of any kind that compares for equality.
    age_s : ndarray, shape (N,), optional
        Age of each item at the time of the request, in seconds, at least 0.

    Raises
    ------
    InvalidInput
        For NaN or infinite numbers, lengths that differ, or a negative age.

    Examples
    --------
    >>> Candidates(scores=[0.9, 0.4], attributes={"creator": ["ann", "bob"]}).codes["creator"]
    array([0, 1])
    """

    scores: Floats
    embeddings: Vectors | None = None
    attributes: Mapping[str, Sequence[object]] = field(default_factory=dict)
    age_s: Floats | None = None
    codes: dict[str, Ints] = field(init=False)
    inverse_norm: Floats = field(init=False)

    def __post_init__(self) -> None:
        given = np.asarray(self.scores)
        scores = finite("scores", given.reshape(-1, 1) if given.ndim == 1 else given, 2)
        rows = len(scores)
        store = object.__setattr__
        store(self, "scores", scores)
        if self.embeddings is None:
            store(self, "embeddings", np.zeros((rows, 0)))
            store(self, "inverse_norm", np.zeros(rows))
        else:
            vectors, inverse_norm = unit_scale(self.embeddings)
            _length("embeddings", len(vectors), rows)
            store(self, "embeddings", vectors)
            store(self, "inverse_norm", inverse_norm)
        if not isinstance(self.attributes, Mapping):
            raise InvalidInput('attributes is no mapping; give {"name": [a value a candidate]} or leave it out')
        store(self, "codes", {name: _codes(name, values, rows) for name, values in self.attributes.items()})
        if self.age_s is not None:
            age = finite("age_s", self.age_s, 1)
            _length("age_s", len(age), rows)
            if (age < 0).any():
                row = int(np.argmax(age < 0))
                raise InvalidInput(f"age_s[{row}]={age[row]:g} is negative; an item is published before the request")
            store(self, "age_s", age)

    def __len__(self) -> int:
        return len(self.scores)


def unit_scale(embeddings: ArrayLike) -> tuple[Vectors, Floats]:
    """Embeddings as they are (float32 or float64) and 1 / |e_i|; taking the norms finds rows that are not finite."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.size == 0 or array.dtype not in (np.float32, np.float64):
        array = finite("embeddings", embeddings, 2)
    vectors: Vectors = np.ascontiguousarray(array)
    inverse_norm, bad = inverse_norms(vectors)
    if bad >= 0:
        raise InvalidInput(f"embeddings[{bad}] is not finite or too long to square; drop or mend this row")
    return vectors, inverse_norm


def _codes(name: str, values: Sequence[object], rows: int) -> Ints:
    if isinstance(values, (str, bytes)):
        raise InvalidInput(f"attributes[{name!r}]={values!r} is one text; give a value a candidate")
    _length(f"attributes[{name!r}]", len(values), rows)
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values], np.int64)


def _length(name: str, found: int, rows: int) -> None:
    if found != rows:
        raise InvalidInput(f"{name} has {found} entries for {rows} candidates; give one an item")
