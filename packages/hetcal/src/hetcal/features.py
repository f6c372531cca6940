"""Tables to matrices: numbers as they are, categories as codes of a vocabulary learnt at fit.

A category unseen at fit and a missing value both become NaN, for which every partitioner has a defined branch.
Columns are matched by name, never by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.errors import DataError
from hetcal.links import Floats

__all__ = ["Columns", "FeatureEncoder"]

Columns = Sequence[Any] | Floats  # encoded features by position, (n,) or None where not needed; a matrix's .T is one


Codes = NDArray[Any]
STRAY_SHARE = 0.05  # so little text in a column of numbers is taken for a mistake
FEW_NUMBERS = 20  # distinct; up to so many numbers beside text are taken for categories ("1", "2", "3", "other")


@dataclass(frozen=True)
class Column:
    """One feature: its name and, for a category, its values in the order of their codes."""

    name: str
    values: tuple[Any, ...] | None = None

    @property
    def is_category(self) -> bool:
        """Whether the column is coded by a vocabulary."""
        return self.values is not None

    def encode(self, raw: Any) -> Floats:
        """Numbers as they are, categories as codes."""
        return _numbers(self.name, raw) if self.values is None else _encode(raw, self.values)


def is_table(X: Any) -> bool:
    """Whether X has named columns (pandas, polars and their like); the class is asked, as ``dtypes`` takes its time."""
    return hasattr(type(X), "columns") and hasattr(type(X), "dtypes")


def keys_of(X: Any) -> list[Any]:
    """The columns of a table as X itself names them."""
    return list(X.columns.tolist() if hasattr(X.columns, "tolist") else X.columns)


def _plain(value: Any) -> Any:
    """A category as JSON can hold it: text, number or bool."""
    return value.item() if isinstance(value, np.generic) else value


def _is_text(column: Any) -> bool:
    return np.asarray(column).dtype.kind in "OUSbT"


class FeatureEncoder:
    """Fit the vocabulary of a table; encode tables of the same columns as a float matrix.

    Parameters
    ----------
    categorical : sequence of names or positions, optional
        Columns to treat as categories besides those that hold text or a pandas category.
    """

    columns: tuple[Column, ...]

    def __init__(self, categorical: Sequence[Any] | None = None) -> None:
        self.categorical = categorical

    def fit_transform(self, X: Any) -> Floats:
        """Learn names and vocabularies; a category's codes are sorted by its value, as text."""
        named = is_table(X)
        names = [str(c) for c in keys_of(X)] if named else [f"x{i}" for i in range(np.shape(X)[1])]
        extra = set()
        for wanted in self.categorical or ():
            position = names.index(str(wanted)) if str(wanted) in names else wanted
            if not isinstance(position, int | np.integer) or not 0 <= position < len(names):
                raise DataError(f"categorical column {wanted!r} is not in X; X has {names}")
            extra.add(int(position))
        self.named = named
        columns, coded = [], []
        for i, name in enumerate(names):
            raw = X[X.columns[i]] if named else np.asarray(X)[:, i]
            declared = i in extra or _is_declared(raw)
            if declared or self._categorical(raw):
                codes, found = _factorised(raw)
                if not declared:
                    _refuse_stray_text(name, codes, found)
                ranks, values = _vocabulary(codes, found)
                columns.append(Column(name, values))
                coded.append(ranks)
            else:
                columns.append(Column(name))
                coded.append(_numbers(name, raw))
        self.columns = tuple(columns)
        self.names = frozenset(names)
        return np.array(coded).T if coded else np.empty((len(X), 0))  # columns stay contiguous

    def transform(self, X: Any) -> Floats:
        """Encode all columns as a matrix; see ``read``."""
        return np.column_stack([*self.read(X), np.empty((len(X), 0))])

    def read(self, X: Any, used: frozenset[int] | None = None) -> list[Any]:
        """Encoded columns by position, None for those not ``used``, which are not read.

        Refuses missing columns and text where numbers were; ignores extra columns of a table.
        """
        if is_table(X):
            keys = self._keys(X)
        else:
            X = np.asarray(X).T
            keys = list(range(len(X)))
        if len(keys) != len(self.columns):
            raise DataError(f"X has {len(keys)} features, but the calibrator was fitted on {len(self.columns)}")
        return [
            None if used is not None and i not in used else column.encode(X[key])
            for i, (column, key) in enumerate(zip(self.columns, keys, strict=True))
        ]

    def _keys(self, X: Any) -> list[Any]:
        """The columns of a table in the order of the fit, as X itself names them."""
        given = keys_of(X)
        if self.names <= set(given):
            return [column.name for column in self.columns]
        by_name = {str(key): key for key in given}
        missing = [column.name for column in self.columns if column.name not in by_name]
        if missing and self.named:
            raise DataError(f"X lacks the columns {missing} that the calibrator was fitted on")
        return given if missing else [by_name[column.name] for column in self.columns]

    @property
    def category_positions(self) -> list[int]:
        """Positions of the category columns."""
        return [i for i, column in enumerate(self.columns) if column.is_category]

    @staticmethod
    def _categorical(raw: Any) -> bool:
        if not _is_text(raw):
            return False
        if np.asarray(raw).dtype.kind != "O":
            return np.asarray(raw).dtype.kind != "b"
        try:  # an object array may hold plain numbers
            np.asarray(raw, dtype=np.float64)
        except (TypeError, ValueError):
            return True
        return False


def _is_declared(raw: Any) -> bool:
    """Whether the column is a pandas category; its dtype is asked, as the accessor ``cat`` takes its time to refuse."""
    return hasattr(getattr(raw, "dtype", None), "categories") and hasattr(raw, "cat")


def _factorised(raw: Any) -> tuple[Codes, list[Any]]:
    """Codes (-1 for missing) and distinct values, by hashing where pandas offers it."""
    if _is_declared(raw):
        return np.asarray(raw.cat.codes), [_plain(v) for v in raw.cat.categories]
    if hasattr(raw, "factorize"):
        codes, values = raw.factorize()
        return np.asarray(codes), [_plain(v) for v in values]
    seen: dict[Any, int] = {}
    codes = np.array([-1 if v is None or v != v else seen.setdefault(_plain(v), len(seen)) for v in raw.tolist()])
    return codes, list(seen)


def _refuse_stray_text(name: str, codes: Codes, values: list[Any]) -> None:
    """A column of numbers with a few cells of text is a mistake, which as a category would go unnoticed."""
    text = np.flatnonzero([not _is_number(value) for value in values])
    stray = np.flatnonzero(np.isin(codes, text))
    if len(values) - text.size > FEW_NUMBERS and 0 < stray.size <= STRAY_SHARE * np.count_nonzero(codes >= 0):
        first = f"row {stray[0]}: {values[codes[stray[0]]]!r}"
        raise DataError(
            f"X column {name!r} holds numbers but for {stray.size} cells ({first}); correct these or make them NaN, "
            "or name the column in categorical= if its numbers are categories"
        )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _vocabulary(codes: Codes, values: list[Any]) -> tuple[Floats, tuple[Any, ...]]:
    """The rank of each row's value among those that occur, sorted as text, and these values."""
    order = sorted(set(codes[codes >= 0].tolist()), key=lambda code: (str(type(values[code])), str(values[code])))
    rank = np.full(len(values) + 1, np.nan)
    rank[order] = np.arange(len(order))
    return rank[codes], tuple(values[code] for code in order)


def _encode(raw: Any, vocabulary: tuple[Any, ...]) -> Floats:
    codes, values = _factorised(raw)
    index = {value: code for code, value in enumerate(vocabulary)}
    rank = np.array([*(index.get(value, np.nan) for value in values), np.nan], dtype=np.float64)
    return np.asarray(rank[codes])  # code -1 reads the NaN at the end


def _numbers(name: str, raw: Any) -> Floats:
    try:
        values = np.asarray(raw.to_numpy() if hasattr(raw, "to_numpy") else raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"argument must be a string or a number: column {name!r} held numbers at fit and now does not ({error})"
        ) from error
    if not np.isfinite(np.vdot(values, values)) and np.isinf(values).any():  # the square is finite for most columns
        infinite = np.flatnonzero(np.isinf(values))
        raise DataError(f"X column {name!r} has {infinite.size} infinity values (first in row {infinite[0]}); use NaN")
    return values
