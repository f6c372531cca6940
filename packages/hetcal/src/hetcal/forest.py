"""Boosted forests beside the base model: F(x, z) = c0 + sum_k c_k g_k(x, z) + c (a + b z), c_k, c >= 0.

a + b z is the global Platt fit; the g_k are LightGBM forests (``boosting``) on the features, most of them *without*
the score, so that within any cell of feature space the ranking stays the base model's. ``combination`` says how much
each is worth and how far the sum is trusted:

1. every candidate that has rows for its leaves is fitted on the folds, of three shuffles where rows are few; one that
   is three standard errors behind the best on the first two folds is not fitted on the others;
2. the heaviest of those that are left are kept, stacked with the Platt logit, and shrunk towards it;
3. each is refitted on all rows. With ``thorough`` all are kept, and the fold models themselves are the forest, many
   times slower to predict.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetcal.boosting import CANDIDATES, COUNTS, Boosted, Rows, Run
from hetcal.combination import ALONE, TOGETHER, mix, stacked, trust
from hetcal.folds import Folds
from hetcal.links import Floats, logistic_loss
from hetcal.selection import Judge, paired

__all__ = ["Forest", "fit_forest"]

HEATS = 2  # folds after which a candidate may be given up
HOPELESS = 3.0  # standard errors behind the best
SMALLEST = 8  # leaves that a candidate may have however few the rows
KEPT = 4  # candidates that are refitted
LIGHTEST = 0.05  # weight below which one is not kept
ALONE_AT = 0.6  # of the sum of squared weights, from which on hardly anything is averaged


@dataclass(frozen=True)
class Forest:
    """The kept candidates with their coefficients (c0, one each, c), and what the folds saw.

    Attributes
    ----------
    parts : tuple of Boosted
    coefficients : (2 + parts,) array
    race : tuple of (str, float)
        Log-loss of each candidate beside the Platt logit, out of fold; of those given up, on the folds they ran.
    weights : tuple of (str, float)
        Share of each kept candidate in g.
    trust : float
        s in P + s (f - P).
    gain, standard_error : float
        Log-loss of the Platt logit minus that of f.
    out_of_fold, features_only : (n,) arrays
        Logits of the answer, and of the candidates that did not see the score, if one was left.
    """

    parts: tuple[Boosted, ...]
    coefficients: Floats
    race: tuple[tuple[str, float], ...]
    weights: tuple[tuple[str, float], ...]
    trust: float
    gain: float
    standard_error: float
    out_of_fold: Floats
    features_only: Floats | None

    def logits(self, X: Floats, z: Floats, platt_logits: Floats) -> Floats:
        """Calibrated logit of each row from encoded features, the raw logit and its Platt logit."""
        total = self.coefficients[0] + self.coefficients[-1] * platt_logits
        for weight, part in zip(self.coefficients[1:-1], self.parts, strict=True):
            total = total + weight * part.logits(X, z)
        return np.asarray(total)


def fit_forest(
    X: Floats,
    z: Floats,
    platt_logits: Floats,
    judge: Judge,
    *,
    sizes: dict[int, int],
    shuffles: list[Folds],
    thorough: bool = False,
    shrunk: bool = True,
    seed: int = 0,
    threads: int = 0,
) -> Forest:
    """Fit the candidates on the folds of every shuffle and combine them with the Platt logit; see the module's text.

    ``sizes`` holds the number of categories by position of the column. Without ``shrunk`` the stack is taken as it is.
    """
    rows = Rows(X, z, judge.y, judge.weight, sizes, seed, threads)
    runs, given_up = _run(rows, platt_logits, judge, shuffles)
    columns = [np.mean([rows.out_of_fold(run) for run in each], axis=0) for each in runs]
    seen = shuffles[0].covered
    platt, inside = platt_logits[seen], judge.on(seen)
    share, losses = mix([column[seen] for column in columns], platt, inside)
    order = np.argsort(-share, kind="stable")
    kept = [k for k in order if share[k] >= LIGHTEST][: len(runs) if thorough else KEPT]
    weights = share[kept] / share[kept].sum()
    together = np.asarray(weights @ np.stack([columns[k] for k in kept]))
    t, moved = stacked(together[seen], platt, inside, TOGETHER)
    s, gain, error = trust(platt, moved, inside)
    s = s if shrunk else 1.0
    answer = np.full_like(z, np.nan)
    answer[seen] = platt + s * (moved - platt)
    going = s * t[1] > 0
    slowly = len(shuffles) > 1 or float((weights**2).sum()) > ALONE_AT
    return Forest(
        parts=tuple(rows.keep(runs[k]) if thorough else rows.refit(runs[k], slowly) for k in kept) if going else (),
        coefficients=np.array([s * t[0], *(s * t[1] * weights if going else ()), 1.0 - s + s * t[2]]),
        race=tuple(
            sorted([*((runs[k][0].candidate.name, float(losses[k])) for k in order), *given_up], key=lambda r: r[1])
        ),
        weights=tuple((runs[k][0].candidate.name, float(w)) for k, w in zip(kept, weights, strict=True)),
        trust=s,
        gain=gain,
        standard_error=error,
        out_of_fold=answer,
        features_only=_without_score(runs, columns, share),
    )


def _run(
    rows: Rows, platt: Floats, judge: Judge, shuffles: list[Folds]
) -> tuple[list[list[Run]], list[tuple[str, float]]]:
    """The runs of each candidate, one a shuffle; and the log-loss of those that were given up."""
    room = 0.8 * judge.rows / COUNTS["min_child_samples"]  # leaves that the rows of four folds can fill
    fitting = [candidate for candidate in CANDIDATES if candidate.num_leaves <= max(room, SMALLEST)]
    first = [Run(candidate, shuffles[0]) for candidate in fitting]
    heats = min(HEATS, len(shuffles[0].pairs))
    for run in first:
        for _ in range(heats):
            rows.advance(run)
    given_up: list[tuple[str, float]] = []
    if heats < len(shuffles[0].pairs):
        losses, inside = [], judge
        for run in first:
            column = rows.out_of_fold(run)
            tested: NDArray[np.bool_] = ~np.isnan(column)
            inside = judge.on(tested)
            losses.append(logistic_loss(inside.y, stacked(column[tested], platt[tested], inside, ALONE)[1]))
        means = [float(np.average(loss, weights=inside.weight)) for loss in losses]
        best = losses[int(np.argmin(means))]
        for run, loss, mean in zip(list(first), losses, means, strict=True):
            lost, error = paired(loss - best, inside.weight, inside.clusters)
            if lost > HOPELESS * error and mean > min(means):
                given_up.append((run.candidate.name, mean))
                first.remove(run)
    runs = []
    for run in first:
        each = [run, *(Run(run.candidate, folds) for folds in shuffles[1:])]
        for shuffle in each:
            while len(shuffle.boosters) < len(shuffle.folds.pairs):
                rows.advance(shuffle)
        runs.append(each)
    return runs, given_up


def _without_score(runs: list[list[Run]], columns: list[Floats], share: Floats) -> Floats | None:
    """The candidates that did not see the score, by their shares; a forest of the features alone."""
    blind = [k for k, each in enumerate(runs) if not each[0].candidate.with_score]
    if not blind:
        return None
    weights = share[blind] + 1e-12
    return np.asarray((weights / weights.sum()) @ np.stack([columns[k] for k in blind]))
