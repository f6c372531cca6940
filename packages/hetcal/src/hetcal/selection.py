"""The choice among ways other than boosted forests by out-of-fold log-loss, and the record of any choice.

To leave the global map a way must gain two standard errors, on the base score too, and to replace a simpler regional
way one more, so that luck ends at the global map and no gain comes out as no gain and no harm. A tree that loses to the
bag by three standard errors on the folds so far is not fitted on the others. Only rows that every way has an
out-of-fold logit for are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetcal.links import Floats, logistic_loss
from hetcal.rows import Clusters

__all__ = ["Choice", "Judge", "Selection", "behind", "choose", "paired"]


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
        Out-of-fold AUC of the chosen way minus the AUC of the base score on the same rows; 0 for maps that keep the
        order of the scores. Of small problems it is too high in the mean, as the same rows chose how far to go.
    features_only : float or None
        Out-of-fold AUC minus the base score's AUC of the forest's g(x), which never saw the score: where it is
        close to ``lift``, the calibrator is mostly a second model. None where no such forest was fitted.
    race : tuple of (str, float)
        The boosted candidates and their log-loss out of fold beside the global map, best first.
    weights : tuple of (str, float)
        What share the candidates have that the chosen forest is made of.
    trust : float
        How far from the global map to their stack the chosen forest goes, from 0 to 1.
    """

    chosen: str
    reason: str
    choices: tuple[Choice, ...]
    lift: float
    features_only: float | None
    race: tuple[tuple[str, float], ...] = ()
    weights: tuple[tuple[str, float], ...] = ()
    trust: float = 0.0


@dataclass(frozen=True)
class Judge:
    """Labels, worths and clusters of the rows on which ways are compared."""

    y: Floats
    weight: Floats | None
    clusters: Clusters | None

    def on(self, rows: NDArray[np.bool_]) -> Judge:
        """The same for some of the rows."""
        if rows.all():
            return self
        return Judge(*(None if v is None else v[rows] for v in (self.y, self.weight, self.clusters)))  # type: ignore[arg-type]

    @property
    def rows(self) -> float:
        """Independent rows that these amount to."""
        return float(self.y.size if self.weight is None else self.weight.sum())

    @property
    def scarcer(self) -> float:
        """Independent rows of the class that has fewer."""
        positives = float(self.y.sum() if self.weight is None else self.y @ self.weight)
        return min(positives, self.rows - positives)

    def gain(self, worse: Floats, better: Floats) -> tuple[float, float]:
        """Log-loss of the first logits minus that of the second, and its standard error."""
        return self.paired(logistic_loss(self.y, worse) - logistic_loss(self.y, better))

    def paired(self, difference: Floats) -> tuple[float, float]:
        """Mean of a number a row, and its standard error."""
        return paired(difference, self.weight, self.clusters)


def paired(difference: Floats, weight: Floats | None, clusters: Clusters | None = None) -> tuple[float, float]:
    """Weighted mean and its standard error, to which rows of a cluster contribute their sum."""
    w = np.ones_like(difference) if weight is None else weight
    mean = float(np.average(difference, weights=w))
    parts = w * (difference - mean)
    parts = parts if clusters is None else np.asarray(np.bincount(clusters, parts), dtype=np.float64)
    return mean, float(np.sqrt((parts**2).sum()) / w.sum())


def behind(logits: Floats, rival: Floats, judge: Judge) -> str:
    """How much log-loss the first loses to the second, if it is three standard errors; else nothing."""
    rows = ~np.isnan(logits) & ~np.isnan(rival)
    if not rows.any():
        return ""
    loss, error = judge.on(rows).gain(logits[rows], rival[rows])
    return f"{loss:.5f} (s.e. {error:.5f})" if loss > 3.0 * error else ""


def choose(ways: list[str], oof: dict[str, Floats], fitted: Floats, judge: Judge) -> tuple[str, str]:
    """Climb from the global map: two standard errors to leave it, either way, and one from there on.

    ``fitted`` holds the logits of the global map of all rows. The identity must besides gain more out of fold than the
    map gains on the rows that it was fitted to: a single error among saturated scores is all the evidence there is, and
    no map that was fitted without that row foresees it.
    """
    best, steps = "global", []
    for way in [w for w in ways if w not in ("identity", "global")]:
        gain, error = judge.gain(oof[best], oof[way])
        worth = gain > (2.0 if best == "global" else 1.0) * error
        if worth and "identity" in ways:  # a poor global map, as of few early rows, must not make others look good
            more, doubt = judge.gain(oof["identity"], oof[way])
            worth = more > 2.0 * doubt
        steps.append(f"{way} {'gains' if gain >= 0 else 'loses'} {abs(gain):.5f} (s.e. {error:.5f}) on {best}")
        if worth:
            best = way
    if best == "global" and "identity" in ways:
        gain, error = judge.gain(oof["identity"], oof["global"])
        if gain < -2.0 * error and -gain > judge.gain(oof["identity"], fitted)[0]:
            best = "identity"
        steps.append(f"global gains {gain:.5f} (s.e. {error:.5f}) on identity")
    return best, "; ".join(steps) + f": {best} it is"
