"""Tables to matrices: numbers as they are, times as days, categories as codes of a vocabulary learnt at fit.

A category unseen at fit and a missing value both become NaN, for which every partition has a neutral branch; how many
there were can be asked. Columns are matched by name, never by position. A text column with nearly as many values as
rows is an identifier: it is named in a warning and set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.errors import DataError
from hetcal.links import Floats
from hetcal.scorer import LARGEST
from hetcal.tables import Cells, cells_of, column_of, is_table, keys_of

__all__ = ["Column", "Columns", "FeatureEncoder"]

Columns = Sequence[Any] | Floats  # encoded features by position, (n,) or None where not needed; a matrix's .T is one


Codes = NDArray[Any]
STRAY_SHARE = 0.05  # so little text in a column of numbers is taken for a mistake
FEW_NUMBERS = 20  # distinct; up to so many numbers beside text are taken for categories ("1", "2", "3", "other")
ID_SHARE = 0.5  # more values than so many of the rows (or of their clusters) make a category an identifier
FEWEST_IDS = 30  # fewer values are no identifier, however few the rows


@dataclass(frozen=True)
class Column:
    """One feature.

    Attributes
    ----------
    name : str
    values : tuple of str or None
        A category's canonical texts in the order of their codes.
    kind : {"number", "time", "category"}
    missing : bool
        Whether fit met a missing value.
    aside : bool
        An identifier, which is not used; its values are not kept.
    """

    name: str
    values: tuple[str, ...] | None = None
    kind: str = "number"
    missing: bool = False
    aside: bool = False

    @property
    def is_category(self) -> bool:
        """Whether the column is coded by a vocabulary."""
        return self.values is not None

    def encode(self, raw: Any) -> tuple[Floats, int]:
        """Numbers as they are, categories as codes; and how many cells hold what fit never met."""
        cells = cells_of(self.name, raw, category=self.is_category)
        if self.values is not None:
            codes = _ranks(cells, self.values)
            return codes, int(np.count_nonzero(np.isnan(codes) if not self.missing else np.isnan(codes) & _held(cells)))
        if cells.kind != self.kind and not _empty(cells):
            raise DataError(
                f"argument must be a string or a number: column {self.name!r} held {self.kind}s at fit and now does "
                f"not ({cells.kind})"
            )
        values, missing = _numbers(self.name, cells)
        return values, 0 if self.missing or not missing else int(np.count_nonzero(np.isnan(values)))


class FeatureEncoder:
    """Fit the vocabulary of a table; encode tables of the same columns as a float matrix.

    Parameters
    ----------
    categorical : sequence of names or positions, optional
        Columns to treat as categories besides those that hold text or a categorical.
    """

    columns: tuple[Column, ...]

    def __init__(self, categorical: Sequence[Any] | None = None) -> None:
        self.categorical = categorical

    def fit_transform(self, X: Any) -> Floats:
        """Learn columns and vocabularies; a category's codes are sorted by its canonical text."""
        named = is_table(X)
        keys = keys_of(X) if named else list(range(np.shape(X)[1]))
        names = [str(c) for c in keys] if named else [f"x{i}" for i in keys]
        extra = set()
        for wanted in self.categorical or ():
            position = names.index(str(wanted)) if str(wanted) in names else wanted
            if not isinstance(position, int | np.integer) or not 0 <= position < len(names):
                raise DataError(f"categorical column {wanted!r} is not in X; X has {names}")
            extra.add(int(position))
        self.named = named
        columns, coded = [], []
        for i, name in enumerate(names):
            raw = column_of(X, keys[i])
            cells = cells_of(name, raw, category=i in extra)
            if cells.kind != "category":
                values, missing = _numbers(name, cells)
                columns.append(Column(name, kind=cells.kind, missing=missing))
                coded.append(values)
                continue
            if i not in extra and not hasattr(getattr(raw, "dtype", None), "categories"):
                _refuse_stray_text(name, cells)
            held = _held(cells)
            assert cells.codes is not None
            vocabulary = tuple(sorted(cells.texts[code] for code in np.unique(cells.codes[held])))
            columns.append(Column(name, vocabulary, "category", bool(not held.all())))
            coded.append(_ranks(cells, vocabulary))
        self.columns = tuple(columns)
        self.names = frozenset(names)
        return np.array(coded).T if coded else np.empty((len(X), 0))  # columns stay contiguous

    def set_aside(self, encoded: Floats, rows: float) -> list[str]:
        """Blank the identifiers among ``rows`` independent rows, forget their values, and name them."""
        found = []
        for i, column in enumerate(self.columns):
            if column.values is not None and len(column.values) > max(ID_SHARE * rows, FEWEST_IDS):
                found.append(column.name)
                encoded[:, i] = np.nan
        self.columns = tuple(
            replace(c, values=(), missing=True, aside=True) if c.name in found else c for c in self.columns
        )
        return found

    def transform(self, X: Any) -> Floats:
        """Encode all columns as a matrix; see ``read``."""
        return np.column_stack([*self.read(X)[0], np.empty((len(X), 0))])

    def read(self, X: Any, used: frozenset[int] | None = None) -> tuple[list[Any], dict[str, int]]:
        """Encoded columns by position, None for those not ``used``, which are not read; and what fit never met.

        Refuses missing columns and text where numbers were; ignores extra columns of a table.
        """
        if is_table(X):
            keys = self._keys(X)
        else:
            X = np.asarray(X)
            keys = list(range(X.shape[1]))
        if len(keys) != len(self.columns):
            raise DataError(f"X has {len(keys)} features, but the calibrator was fitted on {len(self.columns)}")
        encoded: list[Any] = []
        unseen: dict[str, int] = {}
        for i, (column, key) in enumerate(zip(self.columns, keys, strict=True)):
            if used is not None and i not in used:
                encoded.append(None)
            elif column.aside:
                encoded.append(np.full(len(X), np.nan))
            else:
                values, new = column.encode(column_of(X, key))
                encoded.append(values)
                if new:
                    unseen[column.name] = new
        return encoded, unseen

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
        """Positions of the category columns that are used."""
        return [i for i, column in enumerate(self.columns) if column.is_category and not column.aside]


def _held(cells: Cells) -> Codes:
    assert cells.codes is not None
    return cells.codes >= 0


def _empty(cells: Cells) -> bool:
    """Whether no cell holds anything, so that the column may be of any kind."""
    return not _held(cells).any() if cells.numbers is None else bool(np.isnan(cells.numbers).all())


def _refuse_stray_text(name: str, cells: Cells) -> None:
    """A column of numbers with a few cells of text is a mistake, which as a category would go unnoticed."""
    text = np.flatnonzero([not _is_number(value) for value in cells.texts])
    assert cells.codes is not None
    stray = np.flatnonzero(np.isin(cells.codes, text))
    if len(cells.texts) - text.size > FEW_NUMBERS and 0 < stray.size <= STRAY_SHARE * np.count_nonzero(_held(cells)):
        first = f"row {stray[0]}: {cells.texts[cells.codes[stray[0]]]!r}"
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


def _ranks(cells: Cells, vocabulary: tuple[str, ...]) -> Floats:
    """The place of each cell's text in the vocabulary, NaN for one that is missing or not in it."""
    if cells.codes is None:  # numbers where fit saw categories; only without any value
        return np.full(cells.numbers.shape if cells.numbers is not None else 0, np.nan)
    index = {value: code for code, value in enumerate(vocabulary)}
    rank = np.array([*(index.get(text, np.nan) for text in cells.texts), np.nan], dtype=np.float64)
    return np.asarray(rank[cells.codes])  # code -1 reads the NaN at the end


def _numbers(name: str, cells: Cells) -> tuple[Floats, bool]:
    """Finite numbers within the range of float32, NaN for missing ones, and whether there are such."""
    values = cells.numbers
    if values is None:
        values = np.full(len(cells.codes) if cells.codes is not None else 0, np.nan)
    squares = np.vdot(values, values)
    if abs(squares) < LARGEST:  # as most columns are: nothing missing, nothing infinite, nothing too large
        return values, False
    if np.isinf(values).any():
        infinite = np.flatnonzero(np.isinf(values))
        raise DataError(f"X column {name!r} has {infinite.size} infinity values (first in row {infinite[0]}); use NaN")
    return np.clip(values, -LARGEST, LARGEST), bool(np.isnan(values).any())
