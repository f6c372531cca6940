"""Boosted candidates on the folds: LightGBM forests of several capacities, some with the score among their features.

The rows are binned once for each kind of matrix, and cut to a fold once. A candidate's number of rounds minimises the
mean curve of its folds. Its model for new rows is fitted on all of them with a tenth more rounds; or ``slowly``, with
half the learning rate and twice the rounds, as good as the mean of the fold models where one candidate stands alone.

Where categories are sets, a missing one is a category of its own, code n of n known ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hetcal.folds import Folds
from hetcal.links import Floats
from hetcal.neutral import with_neutral_branches

__all__ = ["CANDIDATES", "COUNTS", "Boosted", "Candidate", "Rows", "Run"]

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
SLOWLY = 2.0


@dataclass(frozen=True)
class Candidate:
    """One capacity."""

    name: str
    num_leaves: int
    category_sets: bool = False
    with_score: bool = False


CANDIDATES = (
    Candidate("X4", 4),
    Candidate("X8-sets", 8, category_sets=True),
    Candidate("X16-sets", 16, category_sets=True),
    Candidate("X63", 63),
    Candidate("XZ8", 8, with_score=True),
    Candidate("XZ16", 16, with_score=True),
)


@dataclass(frozen=True)
class Boosted:
    """The models of one candidate, whose mean logit is its answer."""

    candidate: Candidate
    boosters: tuple[Any, ...]
    sizes: dict[int, int]

    def logits(self, X: Floats, z: Floats) -> Floats:
        """Mean logit of the models."""
        seen = matrix(self.candidate, X, z, self.sizes)
        total = np.zeros(len(X))
        for booster in self.boosters:
            total += booster.predict(seen, raw_score=True)
        return np.asarray(total / len(self.boosters))


def matrix(candidate: Candidate, X: Floats, z: Floats, sizes: dict[int, int]) -> Floats:
    """What a candidate's trees read; where categories are sets, their missing values are a code of their own."""
    seen = np.column_stack([X, z]) if candidate.with_score else X
    if candidate.category_sets:
        missing = {i: np.isnan(X[:, i]) for i in sizes}
        if any(rows.any() for rows in missing.values()):
            seen = seen.copy()
            for i, rows in missing.items():
                seen[rows, i] = sizes[i]
    return seen


@dataclass
class Run:
    """One candidate on the folds of one shuffle: a booster and a curve of the validation loss from each fold so far."""

    candidate: Candidate
    folds: Folds
    boosters: list[Any] = field(default_factory=list)
    curves: list[Floats] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """The common number of rounds: the lowest point of the mean curve."""
        length = min(curve.size for curve in self.curves)
        return int(np.argmin(np.mean([curve[:length] for curve in self.curves], axis=0))) + 1


class Rows:
    """The calibration rows as LightGBM takes them; ``sizes``: the number of categories by position of the column."""

    def __init__(
        self, X: Floats, z: Floats, y: Floats, weight: Floats | None, sizes: dict[int, int], seed: int, threads: int
    ) -> None:
        self.X, self.z, self.y, self.weight, self.sizes = X, z, y, weight, sizes
        self.seed, self.threads = seed, threads
        self.rows_each = 1.0 if weight is None else y.size / float(weight.sum())  # rows that count for one
        self.hard = bool(np.all((y == 0) | (y == 1)))
        self.matrices: dict[tuple[bool, bool], Floats] = {}
        self.binned: dict[tuple[bool, bool], Any] = {}
        self.parts: dict[tuple[bool, bool, int, int], tuple[Any, Any]] = {}

    def advance(self, run: Run) -> None:
        """Fit the candidate on the run's next fold."""
        import lightgbm as lgb

        fold = len(run.boosters)
        train, valid = self._part(run, fold)
        history: dict[str, Any] = {}
        booster = lgb.train(
            self._parameters(run.candidate),
            train,
            min([ROUNDS, *(curve.size for curve in run.curves)]),  # rounds that not every fold has are of no use
            valid_sets=[valid],
            valid_names=["valid"],
            callbacks=[lgb.early_stopping(PATIENCE, verbose=False), lgb.record_evaluation(history)],
            keep_training_booster=True,  # with the rounds past its own best one, which the common number may call for
        )
        run.boosters.append(booster)
        run.curves.append(np.asarray(next(iter(history["valid"].values()))))

    def out_of_fold(self, run: Run) -> Floats:
        """Logits of the rows that the folds so far test, at the common number of rounds; NaN elsewhere."""
        logits, rounds, seen = np.full_like(self.y, np.nan), run.rounds, self._matrix(run.candidate)
        for booster, (_, test) in zip(run.boosters, run.folds.pairs, strict=False):
            logits[test] = booster.predict(seen[test], raw_score=True, num_iteration=rounds)
        return logits

    def refit(self, runs: list[Run], slowly: bool) -> Boosted:
        """One model on all rows, for a candidate that ran on the folds of one or more shuffles."""
        import lightgbm as lgb

        candidate, slow = runs[0].candidate, SLOWLY if slowly else 1.0
        rounds = max(1, round(slow * REFIT_ROUNDS * float(np.mean([run.rounds for run in runs]))))
        parameters = {**self._parameters(candidate), "learning_rate": COMMON["learning_rate"] / slow}
        booster = lgb.train(parameters, self._data(candidate), rounds)
        return Boosted(candidate, (self._neutral(candidate, booster, rounds),), self.sizes)

    def keep(self, runs: list[Run]) -> Boosted:
        """The models of the folds themselves."""
        boosters = [self._neutral(run.candidate, booster, run.rounds) for run in runs for booster in run.boosters]
        return Boosted(runs[0].candidate, tuple(boosters), self.sizes)

    def _parameters(self, candidate: Candidate) -> dict[str, Any]:
        return {
            **COMMON,
            **{name: round(COUNTS[name] * self.rows_each) for name in COUNTS},
            "objective": "binary" if self.hard else "cross_entropy",
            "metric": "binary_logloss" if self.hard else "cross_entropy",
            "num_leaves": candidate.num_leaves,
            "seed": self.seed,
            "num_threads": self.threads,
        }

    def _matrix(self, candidate: Candidate) -> Floats:
        key = _kind(candidate)
        if key not in self.matrices:
            self.matrices[key] = matrix(candidate, self.X, self.z, self.sizes)
        return self.matrices[key]

    def _data(self, candidate: Candidate) -> Any:
        import lightgbm as lgb

        key = _kind(candidate)
        if key not in self.binned:
            self.binned[key] = lgb.Dataset(
                self._matrix(candidate),
                self.y,
                weight=self.weight,
                categorical_feature=list(self.sizes) if candidate.category_sets else [],
                params=self._parameters(candidate),
                free_raw_data=False,
            ).construct()
        return self.binned[key]

    def _part(self, run: Run, fold: int) -> tuple[Any, Any]:
        """Training and validation rows of a fold, cut from the binned data once for all candidates."""
        key = (*_kind(run.candidate), id(run.folds), fold)
        if key not in self.parts:
            data = self._data(run.candidate)
            cut = (data.subset(np.sort(rows)).construct() for rows in run.folds.pairs[fold])
            self.parts[key] = tuple(cut)
        return self.parts[key]

    def _neutral(self, candidate: Candidate, booster: Any, rounds: int) -> Any:
        """A copy that sends what a split never met to the larger child, and leaves the training rows behind."""
        unmet = {i: size for i, size in self.sizes.items() if not np.isnan(self.X[:, i]).any()}
        sets = unmet if candidate.category_sets else {}
        return with_neutral_branches(booster.model_to_string(num_iteration=rounds), sets)


def _kind(candidate: Candidate) -> tuple[bool, bool]:
    return candidate.category_sets, candidate.with_score
