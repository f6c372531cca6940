"""How well probabilities are calibrated within segments: the range of cumulative differences.

Order the rows of a segment by probability and let C_j = sum_{i <= j} w_i (y_i - p_i) / sum w. The estimated
cumulative calibration error is max C - min C (0 included); divided by its standard deviation under perfect
calibration, sqrt(sum w^2 p (1 - p)) / sum w, it is comparable between segments. The multicalibration error is the
largest such ratio over the segments (Guy et al., arXiv:2506.11251).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hetcal.errors import DataError
from hetcal.links import Floats

__all__ = ["MulticalibrationError", "ecce", "multicalibration_error"]


def ecce(y: Any, probabilities: Any, sample_weight: Any = None) -> float:
    """Estimated cumulative calibration error: the range of the cumulative differences.

    Parameters
    ----------
    y : array of shape (n,)
        Labels or shares in [0, 1].
    probabilities : array of shape (n,)
    sample_weight : array of shape (n,), optional

    Returns
    -------
    float

    Raises
    ------
    DataError

    Examples
    --------
    >>> ecce([0, 1], [0.25, 0.75])
    0.125
    """
    label, p, w = _arrays(y, probabilities, sample_weight)
    return _range_and_scale(label, p, w)[0]


@dataclass(frozen=True)
class MulticalibrationError:
    """The worst segment and all of them.

    Attributes
    ----------
    value : float
        Largest ratio of a segment's error to its standard deviation.
    worst : int
        Number of that segment.
    ecce, standard_deviation : array (segments,)
    absolute : float
        ``value`` times the standard deviation over all rows: on the scale of probabilities.
    """

    value: float
    worst: int
    ecce: Floats
    standard_deviation: Floats
    absolute: float


def multicalibration_error(
    y: Any, probabilities: Any, segments: Any, sample_weight: Any = None
) -> MulticalibrationError:
    """Largest standardised calibration error over segments, which may overlap.

    Parameters
    ----------
    y, probabilities : arrays of shape (n,)
    segments : boolean array of shape (segments, n), or integer array of shape (n,)
        Masks, or a leaf number a row.
    sample_weight : array of shape (n,), optional

    Returns
    -------
    MulticalibrationError

    Raises
    ------
    DataError

    Examples
    --------
    >>> e = multicalibration_error([0, 1, 0, 1], [0.5, 0.5, 0.1, 0.9], [0, 0, 1, 1])
    >>> e.worst
    0
    """
    label, p, w = _arrays(y, probabilities, sample_weight)
    masks = np.asarray(segments)
    if masks.ndim == 1 and masks.dtype.kind in "iu" and masks.shape == label.shape:
        masks = np.arange(int(masks.max()) + 1)[:, None] == masks[None, :]
    if masks.ndim != 2 or masks.dtype != bool or masks.shape[1] != label.size:
        raise DataError("segments must be boolean masks of shape (segments, rows) or one leaf number a row")
    pairs = [_range_and_scale(label[m], p[m], w[m]) if m.any() else (0.0, 0.0) for m in masks]
    errors, scales = (np.array(column) for column in zip(*pairs, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(scales > 0, errors / scales, 0.0)
    worst = int(np.argmax(ratio))
    overall = _range_and_scale(label, p, w)[1]
    return MulticalibrationError(float(ratio[worst]), worst, errors, scales, float(ratio[worst] * overall))


def _arrays(y: Any, probabilities: Any, sample_weight: Any) -> tuple[Floats, Floats, Floats]:
    label = np.asarray(y, dtype=np.float64)
    p = np.asarray(probabilities, dtype=np.float64)
    w = np.ones_like(label) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if label.ndim != 1 or p.shape != label.shape or w.shape != label.shape or label.size == 0:
        raise DataError(
            f"y, probabilities and sample_weight must be vectors of one length: {label.shape}, {p.shape}, {w.shape}"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("probabilities must lie in [0, 1] without NaN")
    if not (np.isfinite(w) & (w >= 0)).all() or not w.sum() > 0:
        raise DataError("sample_weight must be finite, not negative, with a positive sum")
    return label, p, w


def _range_and_scale(y: Floats, p: Floats, w: Floats) -> tuple[float, float]:
    order = np.argsort(p, kind="stable")
    mass = float(w.sum())
    if mass == 0:
        return 0.0, 0.0
    path = np.r_[0.0, np.cumsum((w * (y - p))[order])] / mass
    return float(np.ptp(path)), float(np.sqrt(np.sum(w**2 * p * (1.0 - p))) / mass)
