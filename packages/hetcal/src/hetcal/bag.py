"""Bagged shrunk trees, the middle way between one tree and a boosted forest; needs scikit-learn alone.

Each of B trees is grown on a Poisson(1) bootstrap with half of the features tried at a split and gets
empirical-Bayes Platt maps in its leaves; the ranks of categories are those of its own bag. Rows of a cluster are drawn
together. Rows that a tree did not see get its vote for their out-of-bag logit; the mean logit is put on the right scale
by one Platt fit on the out-of-bag logits, which is cross-fitted where it is to be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hetcal.calibrators import LogisticMap, fit_leaf_map, platt
from hetcal.features import Columns, FeatureEncoder
from hetcal.links import Floats
from hetcal.partition import grow, label_order, ranked
from hetcal.rows import Clusters
from hetcal.trees import FlatTree

__all__ = ["Bag", "fit_bag"]


@dataclass(frozen=True)
class Bag:
    """The trees, their leaf maps, the ranks of categories, and the closing Platt fit."""

    trees: tuple[FlatTree, ...]
    maps: tuple[LogisticMap, ...]
    ranks: tuple[dict[int, Floats], ...]
    intercept: float
    slope: float
    out_of_bag: Floats

    @property
    def used(self) -> frozenset[int]:
        """Features that some tree looks at."""
        return frozenset().union(*(tree.used for tree in self.trees))

    def logits(self, columns: Columns, z: Floats) -> Floats:
        """Calibrated logit of each row."""
        single = [None if c is None else c.astype(np.float32) for c in columns]
        total = np.zeros_like(z)
        for tree, leaf_map, ranks in zip(self.trees, self.maps, self.ranks, strict=True):
            total += leaf_map.logits(z, tree.apply(ranked(single, ranks), z.size))
        return np.asarray(self.intercept + self.slope * total / len(self.trees))


def fit_bag(
    X: Floats,
    z: Floats,
    y: Floats,
    weight: Floats | None,
    encoder: FeatureEncoder,
    overall: tuple[float, float],
    *,
    clusters: Clusters | None = None,
    n_trees: int = 8,
    max_depth: int = 8,
    min_leaf: int = 30,
    max_features: float = 0.5,
    seed: int = 0,
) -> Bag:
    """Grow and calibrate the trees, then scale their mean on out-of-bag logits; ``overall`` is the global Platt fit.

    The bag's ``out_of_bag`` is the mean vote before scaling, NaN for the rows that every tree saw.
    """
    rng = np.random.default_rng(seed)
    w = np.ones_like(y) if weight is None else weight
    single = X.astype(np.float32)
    trees, maps, orders = [], [], []
    votes, voters = np.zeros_like(y), np.zeros_like(y)
    for number in range(n_trees):
        times = rng.poisson(1.0, y.size) if clusters is None else rng.poisson(1.0, int(clusters.max()) + 1)[clusters]
        bag, out = np.flatnonzero(times > 0), np.flatnonzero(times == 0)
        mass = (w * times)[bag]
        ranks = {
            i: label_order(X[bag, i], y[bag], mass, len(encoder.columns[i].values or ()))
            for i in encoder.category_positions
        }
        matrix = np.array(ranked(list(single.T), ranks), dtype=np.float32).T
        tree = grow(
            matrix[bag],
            y[bag],
            mass,
            max_depth=max_depth,
            min_leaf=min_leaf,
            max_features=max_features,
            seed=seed + number,
        )
        leaf = tree.apply(list(matrix.T), y.size)
        leaf_map = fit_leaf_map("platt", z[bag], y[bag], mass, leaf[bag], tree.n_leaves, overall=overall)
        assert isinstance(leaf_map, LogisticMap)
        votes[out] += leaf_map.logits(z[out], leaf[out])
        voters[out] += 1
        trees.append(tree)
        maps.append(leaf_map)
        orders.append(ranks)
    with np.errstate(invalid="ignore"):
        mean = votes / voters
    heard = voters > 0
    a, b = platt(mean[heard], y[heard], None if weight is None else weight[heard]) if heard.any() else (0.0, 1.0)
    return Bag(tuple(trees), tuple(maps), tuple(orders), a, b, mean)
