"""The choice among fitted ways by out-of-fold log-loss, and the record of it.

To leave the global map a way must gain two standard errors, and to replace a simpler regional way one more, so that
luck ends at the global map and no gain comes out as no gain and no harm. A tree that loses to the forest by three
standard errors on the folds so far is not fitted on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hetcal.links import Floats, logistic_loss

__all__ = ["Choice", "Selection", "behind", "choose", "paired"]


@dataclass(frozen=True)
class Choice:
    """One way that was compared.

    Attributes
    ----------
    name : str
    log_loss : float
        Mean out-of-fold log-loss on the calibration rows.
    auc : float
        AUC of the same out-of-fold logits, NaN for soft labels.
    gain, standard_error : float
        Log-loss of the global map minus this one's, and the paired standard error of that difference.
    """

    name: str
    log_loss: float
    auc: float
    gain: float
    standard_error: float


@dataclass(frozen=True)
class Selection:
    """What was compared, what was chosen and why.

    Attributes
    ----------
    chosen : str
    reason : str
    choices : tuple of Choice
    lift : float
        Out-of-fold AUC of the chosen way minus the AUC of the base score.
    features_only : float or None
        Out-of-fold AUC minus the base score's AUC of the forest's g(x), which never saw the score: where it is
        close to ``lift``, the calibrator is mostly a second model. None where no such forest was fitted.
    race : tuple of (str, float)
        The forest's candidates and their log-loss on the first fold, best first.
    """

    chosen: str
    reason: str
    choices: tuple[Choice, ...]
    lift: float
    features_only: float | None
    race: tuple[tuple[str, float], ...] = ()


def paired(difference: Floats, weight: Floats | None) -> tuple[float, float]:
    """Weighted mean and its standard error."""
    w = np.ones_like(difference) if weight is None else weight
    mean = float(np.average(difference, weights=w))
    error = float(np.sqrt((w**2 * (difference - mean) ** 2).sum()) / w.sum())
    return mean, error


def behind(logits: Floats, rival: Floats, y: Floats, weight: Floats | None, rows: Any) -> str:
    """How much log-loss the first loses to the second on some rows, if it is three standard errors; else nothing."""
    w = None if weight is None else weight[rows]
    loss, error = paired(logistic_loss(y[rows], logits[rows]) - logistic_loss(y[rows], rival[rows]), w)
    return f"{loss:.5f} (s.e. {error:.5f})" if loss > 3.0 * error else ""


def choose(ways: list[str], oof: dict[str, Floats], y: Floats, weight: Floats | None) -> tuple[str, str]:
    """Climb from the simplest way: two standard errors to leave the global map, one from there on."""
    best = ways[0] if ways[0] == "global" else "global"
    steps = []
    for way in [w for w in ways if w not in ("identity", "global")]:
        gain, error = paired(logistic_loss(y, oof[best]) - logistic_loss(y, oof[way]), weight)
        worth = gain > (2.0 if best == "global" else 1.0) * error
        steps.append(f"{way} {'gains' if gain >= 0 else 'loses'} {abs(gain):.5f} (s.e. {error:.5f}) on {best}")
        if worth:
            best = way
    if best == "global" and "identity" in ways:
        gain, error = paired(logistic_loss(y, oof["identity"]) - logistic_loss(y, oof["global"]), weight)
        if gain < -error:
            best = "identity"
        steps.append(f"global gains {gain:.5f} (s.e. {error:.5f}) on identity")
    return best, "; ".join(steps) + f": {best} it is"
