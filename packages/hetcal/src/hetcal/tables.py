"""Tables of every kind as columns: pandas, polars, pyarrow and whatever else narwhals reads, and 2-d arrays.

A column is what its cells are, not what holds them:

    number    integers, floats, decimals, booleans, nullable or not: float64, NaN for none
    time      dates and date-times: days since 1970 (UTC), NaN for none
    category  text, categoricals and enums: codes and the canonical text of each, -1 for none

Anything else (durations, lists, structs, bytes) is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.errors import DataError
from hetcal.links import Floats
from hetcal.scorer import DAY, as_days, as_text, is_missing, kinds_of

__all__ = ["Cells", "cells_of", "column_of", "is_table", "keys_of", "take_columns", "take_rows", "values_of"]

FLOAT_MAX = np.finfo(np.float64).max
REFUSED = "give numbers, text, categories, dates or date-times, or leave it out"


@dataclass(frozen=True)
class Cells:
    """One column: its kind, and its numbers or else codes with the texts that they stand for."""

    kind: str
    numbers: Floats | None = None
    codes: NDArray[np.intp] | None = None
    texts: tuple[str, ...] = ()


def is_table(X: Any) -> bool:
    """Whether X has named columns; the class is asked first, as looking closer takes its time."""
    if isinstance(X, np.ndarray | list | tuple):
        return False
    if hasattr(type(X), "iloc"):
        return hasattr(type(X), "columns")
    from narwhals.dependencies import is_into_dataframe

    if hasattr(X, "collect") and hasattr(X, "columns"):
        raise DataError(f"X is a {type(X).__name__}, which holds no rows yet; call its collect() first")
    return bool(is_into_dataframe(X))


def keys_of(X: Any) -> list[Any]:
    """The columns of a table as X itself names them."""
    names = getattr(X, "column_names", None)
    if names is not None:
        return list(names)
    return list(X.columns.tolist() if hasattr(X.columns, "tolist") else X.columns)


def column_of(X: Any, key: Any) -> Any:
    """One column of a table or of a 2-d array."""
    if hasattr(X, "iloc"):
        return X[key]
    if not is_table(X):
        return np.asarray(X)[:, key]
    import narwhals as nw

    return nw.from_native(X, eager_only=True).get_column(key)


def take_rows(X: Any, rows: Any) -> Any:
    """Some rows, by number or by mask, in the kind of table that X is."""
    rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    if not is_table(X):
        return X[rows] if hasattr(X, "shape") else np.asarray(X, dtype=object)[rows]
    import narwhals as nw

    return nw.from_native(X, eager_only=True)[rows.tolist()].to_native()


def take_columns(X: Any, keys: list[Any]) -> Any:
    """Some columns, in the kind of table that X is."""
    if hasattr(X, "iloc"):
        return X[keys]
    if not is_table(X):
        return np.asarray(X)[:, keys]
    import narwhals as nw

    return nw.from_native(X, eager_only=True).select(keys).to_native()


def values_of(name: str, values: Any) -> Any:
    """A one-dimensional argument (labels, scores, weights, groups) as numpy, None for missing cells of objects."""
    if values is None or isinstance(values, np.ndarray | list | tuple | int | float):
        return values
    import narwhals as nw

    if is_table(values):
        columns = [np.asarray(values_of(name, column_of(values, key)), dtype=object) for key in keys_of(values)]
        return np.stack(columns, axis=1)
    series = nw.from_native(values, series_only=True, pass_through=True)
    if not isinstance(series, nw.Series):
        return values
    plain = series.dtype == nw.Boolean or (series.dtype.is_numeric() and series.dtype not in (nw.Int128, nw.UInt128))
    if plain and not series.is_null().any():  # numpy has no integers of 128 bits
        return series.to_numpy()
    return np.array([None if is_missing(v) else v for v in series.to_list()] + [None], dtype=object)[:-1]


def cells_of(name: str, raw: Any, *, category: bool = False) -> Cells:
    """What a column holds; ``category`` takes numbers and times as categories too.

    Parameters
    ----------
    name : str
        For the message of a refusal.
    raw : array of shape (n,), or a series

    Raises
    ------
    DataError
        For a column of another kind than those above.
    """
    if not isinstance(raw, np.ndarray):
        read = _from_series(name, raw, category)
        if read is not None:
            return read
        raw = raw.to_numpy()
    if raw.dtype.kind in "fiub" and not category:
        return Cells("number", raw.astype(np.float64, copy=False))
    if raw.dtype.kind == "S":
        raw = raw.astype("U")
    kinds = kinds_of(raw)
    if kinds - {"number", "text", "time"} or kinds > {"time"}:
        raise DataError(f"X column {name!r} holds {' and '.join(sorted(kinds))}; {REFUSED}")
    if category or "text" in kinds:
        as_numbers = None if category else _parsed(raw)
        if as_numbers is not None:
            return Cells("number", as_numbers)
        return _coded(raw.astype("datetime64[us]").tolist() if raw.dtype.kind == "M" else raw.tolist())
    if kinds == {"time"}:
        return Cells("time", as_days(raw))
    try:
        numbers = [np.nan if is_missing(v) else float(v) for v in raw.tolist()]
    except OverflowError as error:
        raise DataError(
            f"X column {name!r} holds a number beyond {FLOAT_MAX:g} ({error}); make it smaller or NaN"
        ) from error
    return Cells("number", np.array(numbers, dtype=np.float64))


def _from_series(name: str, raw: Any, category: bool) -> Cells | None:
    """A column of pandas, polars or another library; None where its cells are Python objects."""
    dtype = getattr(raw, "dtype", None)
    if hasattr(raw, "cat") and hasattr(dtype, "categories") and hasattr(raw, "factorize"):
        return _merged(np.asarray(raw.cat.codes, dtype=np.intp), [as_text(v) for v in raw.cat.categories])
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub" and not category:
        return Cells("number", raw.to_numpy().astype(np.float64, copy=False))
    import narwhals as nw

    series = raw if isinstance(raw, nw.Series) else nw.from_native(raw, series_only=True)
    kind = series.dtype
    if kind == nw.Object:
        return None
    if kind.is_numeric() or kind == nw.Boolean:
        return _coded(series.to_list()) if category else Cells("number", _floats(series))
    if kind in (nw.Datetime, nw.Date):
        if category:
            return _coded(series.to_list())
        moments = series.cast(nw.Datetime("us")) if kind == nw.Date else series  # a zone's times are counted in UTC
        return Cells("time", _floats(moments.dt.timestamp("us")) / DAY)
    if kind in (nw.String, nw.Categorical, nw.Enum):
        native = series.to_native()
        if hasattr(native, "factorize"):
            codes, values = native.factorize()
            found = _merged(np.asarray(codes, dtype=np.intp), [as_text(v) for v in values])
        else:
            found = _coded(series.to_list())
        numbers = None if category or kind != nw.String else _parsed(np.array(found.texts, dtype=object))
        if numbers is None:
            return found
        return Cells("number", np.append(numbers, np.nan)[found.codes])
    if kind == nw.Unknown and series.is_null().all():
        return Cells("number", np.full(len(series), np.nan))
    raise DataError(f"X column {name!r} holds {kind}; {REFUSED}")


def _floats(series: Any) -> Floats:
    import narwhals as nw

    native = series.cast(nw.Float64).to_native()
    if hasattr(native, "iloc"):
        return np.asarray(native.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64)


def _parsed(values: Any) -> Floats | None:
    """Text that spells numbers in every cell, as numbers."""
    try:
        if values.dtype.kind == "O":
            values = np.array([None if is_missing(v) else v for v in values.tolist()] + [None], dtype=object)[:-1]
        return np.asarray(values.astype(np.float64))
    except (TypeError, ValueError):
        return None


def _coded(cells: list[Any]) -> Cells:
    seen: dict[Any, int] = {}
    codes = np.array([-1 if is_missing(v) else seen.setdefault(v, len(seen)) for v in cells], dtype=np.intp)
    return _merged(codes, [as_text(v) for v in seen])


def _merged(codes: NDArray[np.intp], texts: list[str | None]) -> Cells:
    """Values of one canonical text under one code."""
    distinct = {text: number for number, text in enumerate(dict.fromkeys(t for t in texts if t is not None))}
    place = np.array([*(-1 if text is None else distinct[text] for text in texts), -1], dtype=np.intp)
    return Cells("category", None, place[codes], tuple(distinct))
