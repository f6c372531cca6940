"""The candidates of one request: scores, embeddings, attributes and ages, validated once."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multislot_rerank.arrays import Floats, Ints, Vectors, finite, plain_array, real, seconds
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import inverse_norms

__all__ = ["Candidates", "Labels", "unit_scale"]

_SEVERAL = (list, set, frozenset, np.ndarray)
"""What holds the labels of one candidate; a tuple is one value."""


@dataclass(frozen=True)
class Labels:
    """An attribute of N candidates.

    Attributes
    ----------
    numbers : dict of value to int
    code : ndarray of int64, shape (N,), or None
        Number of each candidate's one value, its own where it has none; None where candidates have several.
    pairs : ndarray of int64, shape (L, 2), or None
        Candidate and number, for every label that a candidate has; None where they have one value.
    """

    numbers: dict[object, int]
    code: Ints | None
    pairs: Ints | None = None

    def members(self, number: int, rows: int) -> NDArray[np.bool_]:
        """Which of the candidates have the value or label of that number."""
        found = np.zeros(rows, np.bool_)
        if self.code is not None:
            np.equal(self.code, number, out=found)
        else:
            assert self.pairs is not None
            found[self.pairs[self.pairs[:, 1] == number, 0]] = True
        return found


@dataclass(frozen=True)
class Candidates:
    """N candidate items of one request.

    Attributes
    ----------
    scores : ndarray, shape (N, M)
        Scores of the second-pass rankers, one column an objective; a vector counts as one column.
    embeddings : ndarray, shape (N, d), optional
        Vectors whose cosine says how alike two items are, of any length from 1e-308 to 1e308: a row whose square would
        leave double precision is kept times a power of two. A zero vector is similar to nothing.
    attributes : mapping of str to sequence of length N
        Values such as a creator or a topic, of any kind that compares for equality. None, NaN, NaT and NA mean "no
        value": equal to nothing, not even to each other. Where one is a list, a set or a vector, every item has a list
        of labels (none, one or several; a lone value is one), and two items are alike in each label they share.
    age_s : ndarray, shape (N,), optional
        Age of each item at the time of the request, at least 0: numbers are seconds, durations are converted.

    Raises
    ------
    InvalidInput
        For what is no finite real number (NaN, None, text, complex, dates, masked entries), lengths that differ, a
        negative age, or an attribute that cannot be compared.

    Examples
    --------
    >>> Candidates(scores=[0.9, 0.4], attributes={"creator": ["ann", "bob"]}).codes["creator"]
    array([0, 1])
    >>> Candidates(scores=[0.9, 0.4], attributes={"tags": [["news", "local"], []]}).holders("tags", "news")
    array([ True, False])
    """

    scores: Floats
    embeddings: Vectors | None = None
    attributes: Mapping[str, Sequence[object]] = field(default_factory=dict)
    age_s: Floats | None = None
    codes: dict[str, Ints] = field(init=False)
    labels: dict[str, "Labels"] = field(init=False)
    inverse_norm: Floats = field(init=False)

    def __post_init__(self) -> None:
        given = plain_array("scores", self.scores)
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
        read = {name: _read(name, values, rows) for name, values in self.attributes.items()}
        store(self, "labels", read)
        store(self, "codes", {name: labels.code for name, labels in read.items() if labels.code is not None})
        if self.age_s is not None:
            age = seconds("age_s", self.age_s)
            _length("age_s", len(age), rows)
            if (age < 0).any():
                row = int(np.argmax(age < 0))
                raise InvalidInput(f"age_s[{row}]={age[row]:g} is negative; an item is published before the request")
            store(self, "age_s", age)

    def __len__(self) -> int:
        return len(self.scores)

    def holders(self, attribute: str, value: object) -> NDArray[np.bool_]:
        """Whether each candidate has the value, alone or among its labels; shape (N,)."""
        labels = self.labels[attribute]
        return labels.members(labels.numbers.get(value, -1), len(self))


def unit_scale(embeddings: ArrayLike) -> tuple[Vectors, Floats]:
    """Embeddings (float32 or float64) and 1 / |e_i|, scaled by powers of two where squares would over- or underflow."""
    array = real("embeddings", embeddings)
    if array.ndim != 2 or array.size == 0 or array.dtype not in (np.float32, np.float64):
        array = finite("embeddings", array, 2)
    vectors: Vectors = np.ascontiguousarray(array)
    inverse_norm, odd = inverse_norms(vectors)
    if odd >= 0:
        unfit = ~np.isfinite(vectors).all(axis=1)
        if unfit.any():
            raise InvalidInput(f"embeddings[{int(np.argmax(unfit))}] is not finite; drop or mend this row")
        _, exponent = np.frexp(np.abs(vectors).max(axis=1))
        vectors = np.ascontiguousarray(np.ldexp(vectors, -exponent[:, None]))  # exact: rows peak in [1/2, 1)
        inverse_norm, _ = inverse_norms(vectors)
    return vectors, inverse_norm


def _read(name: object, values: Any, rows: int) -> Labels:
    """Number the values; each missing one gets a number of its own, as it is equal to nothing."""
    if not isinstance(name, str):
        raise InvalidInput(f"attributes has the key {name!r}; name attributes by texts")
    label = f"attributes[{name!r}]"
    if isinstance(values, (str, bytes)):
        raise InvalidInput(f"{label}={values!r} is one text; give a value a candidate")
    if isinstance(values, (Set, Mapping)) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
        raise InvalidInput(f"{label} is no sequence; give a list with a value a candidate, in their order")
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.getmaskarray(values).any():
            raise InvalidInput(f"{label} has masked entries; fill them, with None where there is no value")
        values = values.data
    if hasattr(values, "to_pylist"):  # Arrow's own scalars would call two nulls equal
        values = values.to_pylist()
    if getattr(values, "ndim", 1) != 1:
        raise InvalidInput(f"{label} has {getattr(values, 'ndim', 1)} axes; give one value a candidate")
    _length(label, len(values), rows)
    seen: dict[object, int] = {}
    try:
        codes = np.array([seen.setdefault(value, len(seen)) for value in values], np.int64)
    except TypeError as error:
        if any(isinstance(value, _SEVERAL) for value in values):
            return _several(label, values)
        raise InvalidInput(
            f"{label} holds a value that cannot be compared ({error}); give one text or number"
        ) from None
    absent = []
    for value, code in seen.items():
        if isinstance(value, frozenset):
            return _several(label, values)
        if _is_missing(label, value):
            absent.append(code)
    if absent:
        nowhere = np.isin(codes, absent)
        codes[nowhere] = len(seen) + np.arange(int(nowhere.sum()))
    return Labels(seen, codes)


def _several(label: str, values: Any) -> Labels:
    """Number the labels of every candidate, each once; missing ones are left out."""
    seen: dict[object, int] = {}
    pairs: list[tuple[int, int]] = []
    for row, value in enumerate(values):
        if getattr(value, "ndim", 1) > 1:
            raise InvalidInput(f"{label}[{row}] has {value.ndim} axes; give a list of labels")
        listed = value if isinstance(value, _SEVERAL) and getattr(value, "ndim", 1) == 1 else [value]
        try:
            own = [seen.setdefault(one, len(seen)) for one in listed if not _is_missing(label, one)]
        except TypeError as error:
            raise InvalidInput(f"{label}[{row}] holds a label that cannot be compared ({error}); give texts") from None
        pairs += [(row, number) for number in dict.fromkeys(own)]
    return Labels(seen, None, np.array(pairs, np.int64).reshape(-1, 2))


def _is_missing(label: str, value: object) -> bool:
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError) as error:
        if type(value).__name__ in ("NAType", "NullScalar"):  # pandas' NA: neither equal nor unequal to itself
            return True
        raise InvalidInput(f"{label} holds {value!r}, which does not compare; give one text or number") from error


def _length(name: str, found: int, rows: int) -> None:
    if found != rows:
        raise InvalidInput(f"{name} has {found} entries for {rows} candidates; give one an item")
