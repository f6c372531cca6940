"""Every input rule and its message, in one place. Inside the package arrays are trusted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.errors import CalibrationWarning, DataError
from hetcal.links import Floats, logit
from hetcal.scorer import is_missing
from hetcal.tables import values_of

__all__ = ["base_logits", "labels", "row_groups", "weights", "winsorise"]


def _vector(name: str, values: Any, rows: int) -> Floats:
    try:
        vector = np.asarray(values_of(name, values), dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{name} must be numbers, one a row: {error}") from error
    if vector.ndim == 2 and vector.shape[1] == 1:
        vector = vector[:, 0]
    if vector.ndim == 2 and vector.shape[1] == 2 and name == "scores":
        vector = vector[:, 1]  # predict_proba's two columns
    if vector.ndim != 1:
        raise DataError(f"{name} has shape {vector.shape}; give one value a row")
    if vector.size != rows:
        raise DataError(f"{name} has {vector.size} rows but X has {rows}; they must describe the same rows")
    return vector


def base_logits(scores: Any, logits: Any, rows: int) -> Floats:
    """Logits of the base model from exactly one of ``scores`` (probabilities) and ``logits``."""
    if (scores is None) == (logits is None):
        given = "both scores and logits" if scores is not None else "neither scores nor logits"
        raise DataError(f"{given} given; pass exactly one: scores= for probabilities or logits= for log-odds")
    name = "logits" if scores is None else "scores"
    vector = _vector(name, logits if scores is None else scores, rows)
    bad = np.flatnonzero(np.isnan(vector))
    if bad.size:
        raise DataError(f"{name} has {bad.size} NaN (first in row {bad[0]}); drop these rows or impute them")
    if scores is None:
        return vector
    outside = np.flatnonzero((vector < 0) | (vector > 1))
    if outside.size:
        raise DataError(
            f"scores has {outside.size} values outside [0, 1] (row {outside[0]}: {vector[outside[0]]:g}); "
            "did you mean logits=?"
        )
    return logit(vector)


def winsorise(logits: Floats, clip: float) -> Floats:
    """Keep logits inside [-clip, clip]."""
    return np.minimum(np.maximum(logits, -clip), clip)


def labels(y: Any, rows: int, soft: bool) -> tuple[Floats, NDArray[Any]]:
    """Labels as numbers in [0, 1] and the two classes; soft labels only when asked for."""
    if y is None:
        raise DataError("fit requires y to be passed, but the target y is None")
    values = np.asarray(values_of("y", y))
    if values.dtype.kind == "O" and {type(v) for v in values.ravel().tolist()} <= {int, bool, float}:
        values = np.array(values.tolist())  # numbers and booleans that a nullable column held
    if values.ndim == 2 and values.shape[1] == 1:
        from sklearn.exceptions import DataConversionWarning

        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; ravel it", DataConversionWarning, stacklevel=4
        )
        values = values[:, 0]
    if values.ndim != 1 or values.size != rows:
        raise DataError(f"y has shape {values.shape} but X has {rows} rows; give one label a row")
    if soft:
        vector = _vector("y", values, rows)
        bad = np.flatnonzero(~((vector >= 0) & (vector <= 1)))
        if bad.size:
            raise DataError(f"y[{bad[0]}]={vector[bad[0]]:g} is not in [0, 1]; {bad.size} such rows")
        return vector, np.array([0, 1])
    if values.dtype.kind == "f":
        missing = np.flatnonzero(~np.isfinite(values))
        if missing.size:
            raise DataError(f"y has {missing.size} NaN or infinite labels (first in row {missing[0]}); drop these rows")
    elif values.dtype.kind == "O":
        missing = np.flatnonzero([is_missing(v) for v in values])
        if missing.size:
            raise DataError(f"y has {missing.size} missing labels (first in row {missing[0]}); drop these rows")
    classes, codes = np.unique(values, return_inverse=True)
    if classes.size == 1:
        raise DataError(
            f"y holds one class only ({classes[0]}); a calibrator needs rows of both. "
            "Take more calibration rows or leave the scores as they are"
        )
    if classes.size > 2:
        kind = "soft labels? pass soft_labels=True" if values.dtype.kind == "f" else "fit one calibrator per class"
        raise DataError(
            f"Unknown label type: y has {classes.size} values. Only binary classification is supported ({kind})"
        )
    return codes.astype(np.float64), classes


def weights(sample_weight: Any, rows: int) -> Floats | None:
    """Weights >= 0 with a positive sum, or None."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, int | float):
        sample_weight = [sample_weight] * rows
    vector = _vector("sample_weight", sample_weight, rows)
    bad = np.flatnonzero(~(np.isfinite(vector) & (vector >= 0)))
    if bad.size:
        raise DataError(f"sample_weight[{bad[0]}]={vector[bad[0]]:g} is negative or not finite ({bad.size} such rows)")
    if not vector.sum() > 0:
        raise DataError("sample_weight sums to zero; at least one row needs a positive weight")
    return vector


def row_groups(groups: Any, rows: int) -> Any:
    """One group a row, or one per level, as an array; None stays None."""
    if groups is None:
        return None
    values = np.asarray(values_of("groups", groups))
    if values.ndim not in (1, 2) or len(values) != rows:
        raise DataError(f"groups has shape {values.shape} but X has {rows} rows; give one group a row")
    return values


def warn(message: str) -> None:
    """Tell the user without stopping."""
    warnings.warn(message, CalibrationWarning, stacklevel=4)
