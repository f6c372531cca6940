"""Bagged shrunk trees, the middle way between one tree and a boosted forest; needs scikit-learn alone.

Each of B trees is grown on a Poisson(1) bootstrap with half of the features tried at a split and gets
empirical-Bayes Platt maps in its leaves. Rows a tree did not see vote for its out-of-bag logit; the mean logit is
put on the right scale by one Platt fit on the out-of-bag logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hetcal.calibrators import LogisticMap, fit_leaf_map, platt
from hetcal.features import Columns, FeatureEncoder
from hetcal.links import Floats
from hetcal.partition import grow, label_order, ranked
from hetcal.trees import FlatTree

__all__ = ["Bag", "fit_bag"]


@dataclass(frozen=True)
class Bag:
    """The trees, their leaf maps, the ranks of categories, and the closing Platt fit."""

    trees: tuple[FlatTree, ...]
    maps: tuple[LogisticMap, ...]
    ranks: dict[int, Floats]
    intercept: float
    slope: float
    out_of_fold: Floats

    @property
    def used(self) -> frozenset[int]:
        """Features that some tree looks at."""
        return frozenset().union(*(tree.used for tree in self.trees))

    def logits(self, columns: Columns, z: Floats) -> Floats:
        """Calibrated logit of each row."""
        single = [None if c is None else c.astype(np.float32) for c in ranked(columns, self.ranks)]
        total = np.zeros_like(z)
        for tree, leaf_map in zip(self.trees, self.maps, strict=True):
            total += leaf_map.logits(z, tree.apply(single, z.size))
        return np.asarray(self.intercept + self.slope * total / len(self.trees))


def fit_bag(
    X: Floats,
    z: Floats,
    y: Floats,
    weight: Floats | None,
    encoder: FeatureEncoder,
    overall: tuple[float, float],
    *,
    n_trees: int = 8,
    max_depth: int = 8,
    min_leaf: int = 30,
    max_features: float = 0.5,
    seed: int = 0,
) -> Bag:
    """Grow and calibrate the trees, then scale their mean on out-of-bag logits; ``overall`` is the global Platt fit."""
    rng = np.random.default_rng(seed)
    w = np.ones_like(y) if weight is None else weight
    ranks = {
        i: label_order(X[:, i], y, weight, len(encoder.columns[i].values or ())) for i in encoder.category_positions
    }
    matrix = np.array(ranked(X.T, ranks), dtype=np.float32).T
    trees, maps = [], []
    votes, voters = np.zeros_like(y), np.zeros_like(y)
    for number in range(n_trees):
        mass = w * rng.poisson(1.0, y.size)
        bag = np.flatnonzero(mass > 0)
        out = np.flatnonzero(mass == 0)
        tree = grow(
            matrix[bag],
            y[bag],
            mass[bag],
            max_depth=max_depth,
            min_leaf=min_leaf,
            max_features=max_features,
            seed=seed + number,
        )
        leaf = tree.apply(list(matrix.T), y.size)
        leaf_map = fit_leaf_map("platt", z[bag], y[bag], mass[bag], leaf[bag], tree.n_leaves, overall=overall)
        assert isinstance(leaf_map, LogisticMap)
        votes[out] += leaf_map.logits(z[out], leaf[out])
        voters[out] += 1
        trees.append(tree)
        maps.append(leaf_map)
    heard = voters > 0
    mean = np.where(heard, votes / np.maximum(voters, 1), overall[0] + overall[1] * z)
    a, b = platt(mean[heard], y[heard], None if weight is None else weight[heard])
    return Bag(tuple(trees), tuple(maps), ranks, a, b, a + b * mean)
