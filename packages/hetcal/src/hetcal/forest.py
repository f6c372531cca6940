"""A boosted forest of leaves beside the base model: F(x, z) = c0 + c1 g(x) + c2 (a + b z), c1, c2 >= 0.

a + b z is the global Platt fit; g is a LightGBM forest on the features, by default *without* the score, so that
within any cell of feature space the ranking stays the base model's. The forest's capacity is raced:

1. every candidate (8, 16 or 63 leaves; categories as sets or as numbers; with ``thorough`` one that sees z too) is
   fitted on the first fold and ranked by that fold's log-loss after blending with the Platt logit;
2. the best (two with ``thorough``) run on the other folds; the number of rounds minimises the mean curve of the folds;
3. c is a non-negative logistic stacking on the out-of-fold logits;
4. the winner is refitted on all rows with a tenth more rounds, one model that predicts as fast as one fold's. Or,
   with ``thorough``, the fold models themselves are the forest: their mean logit varies less than one model,
   which calls for a slope V / (V - s^2 (1 - 1/K)), V the variance of the out-of-fold logits and s^2 that between
   fold models; a little more accurate, K times slower to predict.

Where categories are sets, a missing one is a category of its own, code n of n known ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetcal.folds import Folds, out_of_fold
from hetcal.leafwise import fit_leaves
from hetcal.links import Floats, logistic_loss
from hetcal.neutral import with_neutral_branches

__all__ = ["Candidate", "Forest", "fit_forest", "stack"]

COMMON: dict[str, Any] = {
    "learning_rate": 0.1,
    "feature_fraction": 0.6,
    "lambda_l2": 1.0,
    "max_bin": 63,
    "cat_smooth": 20,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}
COUNTS = {"min_child_samples": 20, "min_data_per_group": 30}  # of rows that are worth one each
ROUNDS, PATIENCE = 400, 20
REFIT_ROUNDS = 1.1  # all rows instead of four fifths bear a few more rounds
STACK_PENALTY = 1e-3  # towards equal weights, per row
SPREAD_ROWS = 1500  # rows on which the spread between fold models is measured


@dataclass(frozen=True)
class Candidate:
    """One capacity in the race."""

    name: str
    num_leaves: int
    category_sets: bool = False
    with_score: bool = False


CANDIDATES = (
    Candidate("X8", 8),
    Candidate("X16-sets", 16, category_sets=True),
    Candidate("X63", 63),
)
WITH_SCORE = Candidate("XZ16", 16, with_score=True)


@dataclass(frozen=True)
class Part:
    """One kept candidate: its models, their common number of rounds and the slope of their mean about a centre."""

    candidate: Candidate
    boosters: tuple[Any, ...]
    rounds: int
    slope: float
    centre: float
    sizes: dict[int, int]

    def logits(self, X: Floats, z: Floats) -> Floats:
        """Mean logit of the fold models, with the slope about the centre applied."""
        matrix = _matrix(self.candidate, X, z, self.sizes)
        total = np.zeros(len(X))
        for booster in self.boosters:
            total += booster.predict(matrix, raw_score=True, num_iteration=self.rounds)
        return np.asarray(self.centre + self.slope * (total / len(self.boosters) - self.centre))


def _matrix(candidate: Candidate, X: Floats, z: Floats, sizes: dict[int, int]) -> Floats:
    """What a candidate's trees read; where categories are sets, their missing values are a code of their own."""
    matrix = np.column_stack([X, z]) if candidate.with_score else X
    if candidate.category_sets:
        missing = {i: np.isnan(X[:, i]) for i in sizes}
        if any(rows.any() for rows in missing.values()):
            matrix = matrix.copy()
            for i, rows in missing.items():
                matrix[rows, i] = sizes[i]
    return matrix


@dataclass(frozen=True)
class Forest:
    """The kept parts, the stacking coefficients (c0, one per part, c2) and what the race saw."""

    parts: tuple[Part, ...]
    coefficients: Floats
    race: tuple[tuple[str, float], ...]
    out_of_fold: Floats
    features_only: Floats

    @property
    def keeps_features(self) -> bool:
        """Whether any part has a weight; without one this is but another global map."""
        return bool((self.coefficients[1:-1] > 0).any())

    def logits(self, X: Floats, z: Floats, platt_logits: Floats) -> Floats:
        """Calibrated logit of each row from encoded features, the raw logit and its Platt logit."""
        total = self.coefficients[0] + self.coefficients[-1] * platt_logits
        for weight, part in zip(self.coefficients[1:-1], self.parts, strict=True):
            if weight > 0:
                total = total + weight * part.logits(X, z)
        return np.asarray(total)


def stack(columns: list[Floats], y: Floats, weight: Floats | None) -> Floats:
    """Intercept and non-negative weights of a logistic regression on logits, drawn lightly to equal weights."""
    features = np.stack([np.ones_like(y), *columns])
    size = len(columns)
    mass = float(y.size if weight is None else weight.sum())
    mean = np.array([[0.0, *([1.0 / size] * size)]])
    precision = np.array([[0.0, *([STACK_PENALTY * mass] * size)]])
    lower = np.array([-np.inf, *([0.0] * size)])
    leaf = np.zeros(y.size, dtype=np.intp)
    fit = fit_leaves(features, y, weight, leaf, 1, prior_mean=mean, prior_precision=precision, lower=lower)
    return np.asarray(fit.theta[0])


def fit_forest(
    X: Floats,
    z: Floats,
    platt_logits: Floats,
    y: Floats,
    weight: Floats | None,
    *,
    sizes: dict[int, int],
    folds: Folds,
    platt_out_of_fold: Floats | None = None,
    thorough: bool = False,
    seed: int = 0,
    threads: int = 0,
) -> Forest:
    """Race the candidates, stack the winners with the Platt logit; see the module's text.

    ``sizes`` holds the number of categories by position of the column. ``thorough`` adds the candidate that sees the
    score, keeps two winners and serves all of their fold models.
    """
    candidates = [c for c in CANDIDATES if sizes or not c.category_sets]
    if thorough:
        candidates.append(WITH_SCORE)
    if not sizes:
        candidates.insert(1, Candidate("X16", 16))
    track = _Track(X, z, y, weight, sizes, folds, seed, threads, compact=not thorough)
    heats = []
    for candidate in candidates:
        heat = track.run(candidate, 0)
        valid = folds.pairs[0][1]
        w = None if weight is None else weight[valid]
        logits = track.logits(candidate, heat, 0, heat.booster.best_iteration)
        blend = stack([logits, platt_logits[valid]], y[valid], w)
        fitted = blend[0] + blend[1] * logits + blend[2] * platt_logits[valid]
        heats.append((float(np.average(logistic_loss(y[valid], fitted), weights=w)), candidate, heat))
    heats.sort(key=lambda entry: entry[0])
    parts, columns = [], []
    for _, candidate, heat in heats[: 2 if thorough else 1]:
        runs = [heat]
        for fold in range(1, len(folds.pairs)):  # rounds that not every fold has are of no use
            runs.append(track.run(candidate, fold, min(run.curve.size for run in runs)))
        part, oof = track.close(candidate, runs)
        parts.append(part)
        columns.append(oof)
    seen = folds.covered
    w = None if weight is None else weight[seen]
    coefficients = stack([column[seen] for column in (*columns, platt_logits)], y[seen], w)
    beside = platt_logits if platt_out_of_fold is None else platt_out_of_fold  # compared with its like
    oof_logits = _stacked_out_of_fold([*columns, beside], y, weight, folds)
    race = tuple((candidate.name, loss) for loss, candidate, _ in heats)
    return Forest(tuple(parts), coefficients, race, oof_logits, np.asarray(np.mean(columns, axis=0)))


def _stacked_out_of_fold(columns: list[Floats], y: Floats, weight: Floats | None, folds: Folds) -> Floats:
    """The stacking cross-fitted, so that its parameters do not flatter the forest beside the global map."""

    def fit(train: Any) -> Callable[[Any], Floats]:
        rows = train[folds.covered[train]]
        c = stack([column[rows] for column in columns], y[rows], None if weight is None else weight[rows])
        return lambda test: np.asarray(c[0] + np.stack([column[test] for column in columns]).T @ c[1:])

    if len(folds.pairs) > 1 and all(folds.covered[train].any() for train, _ in folds.pairs):
        return out_of_fold(folds, fit)
    everywhere = fit(np.flatnonzero(folds.covered))(np.arange(y.size))
    return np.where(folds.covered, everywhere, np.nan)


@dataclass
class _Run:
    """One candidate on one fold."""

    booster: Any
    curve: Floats


class _Track:
    """The calibration rows, binned once per kind of candidate and shared between folds."""

    def __init__(
        self,
        X: Floats,
        z: Floats,
        y: Floats,
        weight: Floats | None,
        sizes: dict[int, int],
        folds: Folds,
        seed: int,
        threads: int,
        *,
        compact: bool,
    ) -> None:
        self.compact = compact
        self.X, self.z, self.y, self.weight, self.sizes = X, z, y, weight, sizes
        self.matrices: dict[tuple[bool, bool], Floats] = {}
        self.folds, self.seed, self.threads = folds.pairs, seed, threads
        self.rows_each = 1.0 if weight is None else y.size / float(weight.sum())  # rows that count for one
        self.binned: dict[tuple[bool, bool], Any] = {}
        self.hard = bool(np.all((y == 0) | (y == 1)))

    def parameters(self, candidate: Candidate) -> dict[str, Any]:
        return {
            **COMMON,
            **{name: round(COUNTS[name] * self.rows_each) for name in COUNTS},
            "objective": "binary" if self.hard else "cross_entropy",
            "metric": "binary_logloss" if self.hard else "cross_entropy",
            "num_leaves": candidate.num_leaves,
            "seed": self.seed,
            "num_threads": self.threads,
        }

    def matrix(self, candidate: Candidate) -> Floats:
        key = (candidate.category_sets, candidate.with_score)
        if key not in self.matrices:
            self.matrices[key] = _matrix(candidate, self.X, self.z, self.sizes)
        return self.matrices[key]

    def data(self, candidate: Candidate) -> Any:
        import lightgbm as lgb

        key = (candidate.category_sets, candidate.with_score)
        if key not in self.binned:
            self.binned[key] = lgb.Dataset(
                self.matrix(candidate),
                self.y,
                weight=self.weight,
                categorical_feature=list(self.sizes) if candidate.category_sets else [],
                params=self.parameters(candidate),
                free_raw_data=False,
            ).construct()
        return self.binned[key]

    def run(self, candidate: Candidate, fold: int, rounds: int = ROUNDS) -> _Run:
        import lightgbm as lgb

        train, valid = self.folds[fold]
        data = self.data(candidate)
        history: dict[str, Any] = {}
        booster = lgb.train(
            self.parameters(candidate),
            data.subset(np.sort(train)),
            rounds,
            valid_sets=[data.subset(np.sort(valid))],
            valid_names=["valid"],
            callbacks=[lgb.early_stopping(PATIENCE, verbose=False), lgb.record_evaluation(history)],
            keep_training_booster=True,  # with the rounds past its own best one, which the common number may call for
        )
        return _Run(booster, np.asarray(next(iter(history["valid"].values()))))

    def logits(self, candidate: Candidate, run: _Run, fold: int, rounds: int) -> Floats:
        """What the model of a fold says about the fold's own rows."""
        matrix = self.matrix(candidate)[self.folds[fold][1]]
        return np.asarray(run.booster.predict(matrix, raw_score=True, num_iteration=rounds))

    def close(self, candidate: Candidate, runs: list[_Run]) -> tuple[Part, Floats]:
        """Common rounds, out-of-fold logits, and either one refitted model or all of the folds with their slope."""
        length = min(run.curve.size for run in runs)
        rounds = int(np.argmin(np.mean([run.curve[:length] for run in runs], axis=0))) + 1
        matrix = self.matrix(candidate)
        oof = np.full_like(self.y, np.nan)
        for fold, (run, (_, valid)) in enumerate(zip(runs, self.folds, strict=True)):
            oof[valid] = self.logits(candidate, run, fold, rounds)
        import lightgbm as lgb

        if self.compact:
            rounds = max(1, round(rounds * REFIT_ROUNDS))
            booster = lgb.train(self.parameters(candidate), self.data(candidate), rounds)
            return Part(candidate, (self.neutral(candidate, booster, rounds),), rounds, 1.0, 0.0, self.sizes), oof
        some = matrix[:: max(1, len(matrix) // SPREAD_ROWS)][:SPREAD_ROWS]
        each = np.stack([run.booster.predict(some, raw_score=True, num_iteration=rounds) for run in runs])
        spread = float(np.mean(np.var(each, axis=0, ddof=1))) * (1.0 - 1.0 / len(runs)) if len(runs) > 1 else 0.0
        seen = oof[~np.isnan(oof)]
        total = float(np.var(seen))
        slope = total / (total - spread) if spread < 0.5 * total else 1.0
        boosters = tuple(self.neutral(candidate, run.booster, rounds) for run in runs)
        return Part(candidate, boosters, rounds, slope, float(np.mean(seen)), self.sizes), oof

    def neutral(self, candidate: Candidate, booster: Any, rounds: int) -> Any:
        """A copy that sends what a split never met to the larger child, and leaves the training rows behind."""
        unmet = {i: size for i, size in self.sizes.items() if not np.isnan(self.X[:, i]).any()}
        sets = unmet if candidate.category_sets else {}
        return with_neutral_branches(booster.model_to_string(num_iteration=rounds), sets)
