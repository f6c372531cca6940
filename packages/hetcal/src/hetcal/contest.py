"""The ways to calibrate the rows of a fit, and which of them is taken.

Boosted forests are combined with the global map as far as they are trusted (``combination``); other ways are compared
with it, and a simpler one is kept where two standard errors do not tell them apart (``selection``). Every figure is of
logits that a row got from models that had not seen it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hetcal.bag import Bag, fit_bag
from hetcal.calibrators import platt
from hetcal.folds import Folds, make_folds, out_of_fold
from hetcal.forest import Forest, fit_forest
from hetcal.links import Floats, logistic_loss
from hetcal.partition import CallablePartitioner, GroupPartitioner, TreePartitioner
from hetcal.regions import Regions, fit_regions
from hetcal.selection import Choice, Judge, Selection, behind, choose
from hetcal.tables import take_rows
from hetcal.theory import roc_auc

if TYPE_CHECKING:
    from hetcal.estimator import HeterogeneousCalibrator

__all__ = ["FEWEST_ROWS", "Contest", "Model"]

FEWEST_ROWS = 200  # effective ones; below it nothing but the global map is tried
FEWEST_OF_A_CLASS = 10
FEWEST_FOR_FORESTS = 30  # with fewer of a class, standard errors of log-loss are too small for what it is worth
FEW_FOR_FOLDS, SHUFFLES = 5000, 3  # with fewer effective rows the forest's folds are shuffled so often
Model = Regions | Forest | Bag | None  # none where one map serves all rows


@dataclass(frozen=True)
class Contest:
    """What the ways are fitted on.

    Attributes
    ----------
    settings : HeterogeneousCalibrator
        Its parameters, its encoder and its global map.
    table : table
        What a partitioner reads: the features, or the groups where they are the regions.
    encoded, z : (n, d) and (n,) arrays
    judge : Judge
        Labels, worths and clusters.
    groups, kept : (n,) arrays, optional
        For the folds.
    """

    settings: HeterogeneousCalibrator
    table: Any
    encoded: Floats
    z: Floats
    judge: Judge
    groups: Any
    kept: Any

    @property
    def seed(self) -> int:
        """Of folds, trees and forests."""
        return 0 if self.settings.random_state is None else self.settings.random_state

    def result(self) -> tuple[str, Model, Selection]:
        """The name of the way that is taken, its model and the record of the choice."""
        ways = self.ways()
        if ways[-1] == "forest":
            return self._combined(self._shuffles(SHUFFLES), alone=len(ways) == 1)
        return self._compared(ways, self._shuffles(1)[0] if len(ways) > 1 else None)

    def ways(self) -> list[str]:
        """The ways to look at, simple to costly; the last is the one asked for."""
        settings, judge = self.settings, self.judge
        name = settings.partitioner if isinstance(settings.partitioner, str) else "regions"
        if name in ("identity", "global") or (name != "auto" and settings.selection is None):
            return [name]
        worth = np.ones_like(judge.y) if judge.weight is None else judge.weight
        enough = settings.n_effective_ >= FEWEST_ROWS
        scarcer = min(worth[judge.y >= 0.5].sum(), worth[judge.y < 0.5].sum())
        forest = name == "forest" or (name == "auto" and importlib.util.find_spec("lightgbm") is not None)
        poor = not enough or scarcer < (FEWEST_FOR_FORESTS if forest else FEWEST_OF_A_CLASS)
        usable = sum(not column.aside for column in settings.encoder_.columns)
        if name in ("auto", "tree", "bag", "forest") and (poor or usable == 0):
            return ["identity", "global"] if enough else ["global"]
        if name == "auto":
            return ["identity", "global", *(["forest"] if forest else ["tree", "bag"])]
        return ["global", name] if poor else ["identity", "global", name]

    def _shuffles(self, count: int) -> list[Folds]:
        """The folds; several shuffles of them where rows are few and ``cv`` is a number."""
        cv = self.settings.cv
        again = self.settings.n_effective_ < FEW_FOR_FOLDS and isinstance(cv, int | np.integer)
        given = {"groups": self.groups, "clusters": self.judge.clusters, "kept": self.kept}
        return [
            make_folds(cv, self.encoded, self.judge.y, weight=self.judge.weight, seed=self.seed + number, **given)
            for number in range(count if again else 1)
        ]

    def _combined(self, shuffles: list[Folds], alone: bool) -> tuple[str, Model, Selection]:
        """The boosted candidates with the global map, as far as they are trusted; else the global map or nothing."""
        z, judge = self.z, self.judge
        forest = self._fit_forest(shuffles, shrunk=not alone)
        oof = {"forest": forest.out_of_fold}
        if not alone:
            oof = {"identity": z, "global": out_of_fold(shuffles[0], self._learner("global")), **oof}
        rows = ~np.isnan(np.sum(list(oof.values()), axis=0))
        oof, seen = {way: logits[rows] for way, logits in oof.items()}, judge.on(rows)
        chosen, reason = "forest", "asked for; nothing was compared"
        if not alone:
            shares = ", ".join(f"{name} {share:.2f}" for name, share in forest.weights)
            gain = f"{abs(forest.gain):.5f} (s.e. {forest.standard_error:.5f}) on global"
            reason = f"boosted candidates ({shares}) {'gain' if forest.gain >= 0 else 'lose'} {gain}"
            if forest.parts and seen.gain(oof["identity"], oof["forest"])[0] > 0:
                reason += f" and are trusted by {forest.trust:.2f}: forest it is"
            else:
                chosen, simple = choose(["identity", "global"], oof, self._global(rows), seen)
                reason += f", which is not enough; {simple}"
        record = self._summary(chosen, reason, oof, z[rows], seen, rows, forest)
        return chosen, forest if chosen == "forest" else None, record

    def _compared(self, ways: list[str], folds: Folds | None) -> tuple[str, Model, Selection]:
        """One way among several by two standard errors; or the only one."""
        z, judge = self.z, self.judge
        fitted: dict[str, Any] = {}
        oof: dict[str, Floats] = {}
        dropped = ""
        # where several regional ways compete the tree comes last, and only as long as it keeps up
        for way in sorted(ways, key=lambda way: way == "tree"):
            if way == "identity":
                oof[way] = z
            elif way == "bag":
                fitted[way] = self._fit_bag()
                oof[way] = self._scaled(fitted[way], folds)
            elif folds is not None:
                rival = oof.get(ways[-1]) if way == "tree" and ways[-1] == "bag" else None
                lost: list[str] = []

                def hopeless(so_far: Floats, rival: Any = rival, lost: list[str] = lost) -> bool:
                    loss = "" if rival is None else behind(so_far, rival, judge)
                    lost += [loss] if loss else []
                    return bool(loss)

                total = out_of_fold(folds, self._learner(way), hopeless)
                if lost:
                    count = sum(not np.isnan(total[test]).all() for _, test in folds.pairs)
                    dropped = f"{way} loses {lost[0]} to {ways[-1]} on the first {count} of {len(folds.pairs)} folds"
                    ways.remove(way)
                else:
                    oof[way] = total
        if len(ways) == 1:
            oof.setdefault(ways[0], z)
        rows = ~np.isnan(np.sum([oof[way] for way in ways], axis=0))
        oof, judge = {way: oof[way][rows] for way in oof if way in ways}, judge.on(rows)
        if len(ways) == 1:
            chosen, reason = ways[0], "asked for; nothing was compared"
            if ways == ["global"] and self.settings.partitioner != "global":
                reason = (
                    f"too few calibration rows or no features ({judge.y.size} rows, worth "
                    f"{self.settings.n_effective_:.0f} independent ones, {self.encoded.shape[1]} features)"
                )
        else:
            chosen, reason = choose(ways, oof, self._global(rows), judge)
            reason = f"{dropped}; {reason}" if dropped else reason
        if chosen in ("tree", "regions", "groups"):
            fitted[chosen] = self._fit_regions(chosen, np.arange(z.size), self.settings.overall_)
        return chosen, fitted.get(chosen), self._summary(chosen, reason, oof, z[rows], judge, rows, None)

    def _fit_bag(self) -> Bag:
        judge, settings = self.judge, self.settings
        return fit_bag(
            self.encoded,
            self.z,
            judge.y,
            judge.weight,
            settings.encoder_,
            settings.overall_,
            clusters=judge.clusters,
            seed=self.seed,
        )

    def _scaled(self, bag: Bag, folds: Folds | None) -> Floats:
        """The bag's out-of-bag logits on the right scale, which other folds give where there are folds."""
        mean, judge = bag.out_of_bag, self.judge
        if folds is None:
            return bag.intercept + bag.slope * mean

        def fit(train: Any) -> Any:
            rows = train[~np.isnan(mean[train])]
            a, b = platt(mean[rows], judge.y[rows], None if judge.weight is None else judge.weight[rows])
            return lambda test: a + b * mean[test]

        return out_of_fold(folds, fit)

    def _global(self, rows: NDArray[np.bool_]) -> Floats:
        a, b = self.settings.overall_
        return np.asarray(a + b * self.z[rows])

    def _learner(self, way: str) -> Any:
        """What ``out_of_fold`` calls: rows to learn from -> (rows to judge -> their logits)."""
        z, judge = self.z, self.judge

        def fit(train: Any) -> Any:
            a, b = platt(z[train], judge.y[train], None if judge.weight is None else judge.weight[train])
            if way == "global":
                return lambda test: a + b * z[test]
            regions = self._fit_regions(way, train, (a, b))
            return lambda test: regions.logits(take_rows(self.table, test), self.encoded[test].T, z[test])

        return fit

    def _fit_forest(self, shuffles: list[Folds], shrunk: bool) -> Forest:
        a, b = self.settings.overall_
        encoder = self.settings.encoder_
        return fit_forest(
            self.encoded,
            self.z,
            a + b * self.z,
            self.judge,
            sizes={i: len(encoder.columns[i].values or ()) for i in encoder.category_positions},
            shuffles=shuffles,
            thorough=self.settings.quality == "high",
            shrunk=shrunk,
            seed=self.seed,
            threads=self.settings.threads,
        )

    def _new_partitioner(self, way: str) -> Any:
        from sklearn.base import clone

        if way == "tree":
            return TreePartitioner(random_state=self.seed)
        if way == "groups":
            return GroupPartitioner()
        if hasattr(self.settings.partitioner, "fit"):
            return clone(self.settings.partitioner)
        return CallablePartitioner(self.settings.partitioner)

    def _fit_regions(self, way: str, rows: Any, overall: tuple[float, float]) -> Regions:
        """Regions learnt from some rows; ``overall`` is the global Platt fit on the same."""
        every, judge, settings = rows.size == self.z.size, self.judge, self.settings
        return fit_regions(
            self._new_partitioner(way),
            self.table if every else take_rows(self.table, rows),
            self.encoded if every else self.encoded[rows],
            self.z[rows],
            judge.y[rows],
            None if judge.weight is None else judge.weight[rows],
            settings.encoder_,
            overall,
            calibrator=settings.calibrator,
            shrinkage=settings.shrinkage,
            monotone=settings.monotone,
        )

    def _summary(
        self,
        chosen: str,
        reason: str,
        oof: dict[str, Floats],
        z: Floats,
        judge: Judge,
        rows: NDArray[np.bool_],
        forest: Forest | None,
    ) -> Selection:
        """Figures of every way on the rows that all of them have an out-of-fold logit for."""
        y, weight = judge.y, judge.weight
        ranked = not self.settings.soft_labels and y.size > 0 and y.min() < y.max()  # there is no AUC of soft labels
        base_auc = roc_auc(y, z, weight) if ranked else float("nan")
        a, b = self.settings.overall_
        reference = oof.get("global", a + b * z)
        choices = []
        for way, logits in oof.items() if y.size else ():
            gain, error = judge.gain(reference, logits)
            loss = float(np.average(logistic_loss(y, logits), weights=weight))
            same_ranks = way in ("identity", "global") or not ranked  # one increasing map serves all rows
            choices.append(Choice(way, loss, base_auc if same_ranks else roc_auc(y, logits, weight), gain, error))
        lift = next((c.auc for c in choices if c.name == chosen), float("nan")) - base_auc
        if forest is None:
            return Selection(chosen, reason, tuple(choices), lift, None)
        blind = forest.features_only
        alone = roc_auc(y, blind[rows], weight) - base_auc if ranked and blind is not None else None
        used = chosen == "forest"
        weights, trust = forest.weights if used else (), forest.trust if used else 0.0
        return Selection(chosen, reason, tuple(choices), lift, alone, forest.race, weights, trust)
