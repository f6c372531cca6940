"""Partitions of feature space: a leaf number for every row.

``TreePartitioner``     CART on the labels, structure from any rows, values always from the calibration rows
``GroupPartitioner``    the values of chosen columns, nested in the given order
``CallablePartitioner`` any function of the table

A partitioner has ``fit(X, y, weight, encoder, encoded)`` and ``leaves(X, columns) -> int array`` (``columns``: the
encoded features by position, None for those it does not use), ``n_leaves``,
``ancestors`` (levels, K) for hierarchical shrinkage, and ``describe() -> list[str]``. A leaf number of -1 means "not
seen at fit"; such rows get the global map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from hetcal.errors import DataError, LeafMapError
from hetcal.features import Columns, FeatureEncoder
from hetcal.leafwise import Leaves
from hetcal.links import Floats
from hetcal.scorer import as_text
from hetcal.tables import column_of, is_table, keys_of, values_of
from hetcal.trees import FlatTree, from_cart

__all__ = ["CallablePartitioner", "GroupPartitioner", "TreePartitioner", "label_order"]


def label_order(codes: Floats, y: Floats, weight: Floats | None, n_values: int) -> Floats:
    """Rank of each category by its share of positives, (sum y + 5 mean) / (n + 5), so that one cut splits best."""
    seen = ~np.isnan(codes)
    index = codes[seen].astype(np.intp)
    w = np.ones_like(y) if weight is None else weight
    mass = np.bincount(index, weights=w[seen], minlength=n_values)
    total = np.bincount(index, weights=(w * y)[seen], minlength=n_values)
    rate = (total + 5.0 * np.average(y, weights=weight)) / (mass + 5.0)
    rank = np.empty(n_values)
    rank[np.argsort(rate, kind="stable")] = np.arange(n_values)
    return rank


class TreePartitioner(BaseEstimator):  # type: ignore[misc]
    """CART on the labels; its leaves are the regions.

    Parameters
    ----------
    max_depth : int, default=5
    min_leaf : int, default=100
        Least calibration rows in a leaf, and least effective rows where they are weighted.
    structure : (X, y) tuple, optional
        Rows that choose the splits, such as those the base model was trained on (the values in the leaves always
        come from the calibration rows: an honest tree). The calibration rows themselves by default.
    max_features : float, default=1.0
        Share of the features tried at each split.
    random_state : int, default=0

    Attributes
    ----------
    tree_ : FlatTree
    """

    def __init__(
        self,
        max_depth: int = 5,
        min_leaf: int = 100,
        structure: tuple[Any, Any] | None = None,
        max_features: float = 1.0,
        random_state: int = 0,
    ) -> None:
        self.max_depth = max_depth
        self.min_leaf = min_leaf
        self.structure = structure
        self.max_features = max_features
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Floats,
        weight: Floats | None = None,
        *,
        encoder: FeatureEncoder,
        encoded: Floats,
    ) -> TreePartitioner:
        """Grow the tree; categories are ordered by their share of positives first."""
        if self.structure is not None:
            table, labels = self.structure
            encoded, y, weight = encoder.transform(table), np.asarray(labels, dtype=np.float64), None
        self.ranks_ = {
            i: label_order(encoded[:, i], y, weight, len(encoder.columns[i].values or ()))
            for i in encoder.category_positions
        }
        self.names_ = [column.name for column in encoder.columns]
        self.vocabularies_ = [
            None if i not in self.ranks_ else dict(zip(column.values or (), self.ranks_[i].tolist(), strict=True))
            for i, column in enumerate(encoder.columns)
        ]
        self.tree_ = grow(
            np.array(ranked(encoded.T, self.ranks_), dtype=np.float32).T,
            y,
            weight,
            max_depth=self.max_depth,
            min_leaf=self.min_leaf,
            max_features=self.max_features,
            seed=self.random_state,
        )
        self.n_leaves = self.tree_.n_leaves
        self.ancestors = self.tree_.ancestors()
        return self

    @property
    def used(self) -> frozenset[int]:
        """Features that the tree looks at."""
        return self.tree_.used

    def leaves(self, X: Any, columns: Columns) -> Leaves:
        """Leaf number of each row."""
        return self.tree_.apply(ranked(columns, self.ranks_), len(X))

    def describe(self) -> list[str]:
        """The rule of each leaf."""
        return self.tree_.describe(self.names_, self.vocabularies_)


def ranked(columns: Columns, ranks: dict[int, Floats]) -> list[Any]:
    """The columns with category codes replaced by ranks; NaN stays NaN."""
    return [column if column is None or i not in ranks else _rank(column, ranks[i]) for i, column in enumerate(columns)]


def _rank(codes: Floats, rank: Floats) -> Floats:
    table = np.append(rank, np.nan)
    return np.asarray(table[np.where(np.isnan(codes), rank.size, codes).astype(np.intp)])


def grow(
    matrix: NDArray[np.float32],
    y: Floats,
    weight: Floats | None,
    *,
    max_depth: int,
    min_leaf: int,
    max_features: float = 1.0,
    seed: int = 0,
) -> FlatTree:
    """CART by squared error of the label, which for 0/1 labels is the Gini index and takes soft labels as well."""
    from sklearn.tree import DecisionTreeRegressor

    share = 0.0 if weight is None else min(0.5, (1.0 - 1e-9) * min_leaf / float(weight.sum()))
    model = DecisionTreeRegressor(
        max_depth=max_depth,
        min_samples_leaf=min_leaf,
        min_weight_fraction_leaf=share,
        max_features=max_features,
        random_state=seed,
    )
    return from_cart(model.fit(matrix, y, sample_weight=weight).tree_)


class GroupPartitioner(BaseEstimator):  # type: ignore[misc]
    """The user's own groups: the distinct values of some columns, each column nested in those before it.

    Parameters
    ----------
    columns : sequence of names or positions, optional
        Columns of X that hold the groups; without them the calibrator's ``groups=`` argument is used.
    min_rows : int, default=1
        A group with fewer calibration rows (effective ones where rows are weighted) is treated as unseen.
    """

    def __init__(self, columns: Sequence[Any] | None = None, min_rows: int = 1) -> None:
        self.columns = columns
        self.min_rows = min_rows

    def keys(self, X: Any) -> list[tuple[Any, ...]]:
        """The group key of each row, one entry per column."""
        if self.columns is None:
            values = np.asarray(values_of("groups", X))
            parts = [values] if values.ndim == 1 else list(values.T)
        elif is_table(X):
            given = keys_of(X)
            missing = [c for c in self.columns if c not in given]
            if missing:
                raise DataError(f"X lacks the group columns {missing}")
            parts = [np.asarray(values_of(str(c), column_of(X, c))) for c in self.columns]
        else:
            width = np.shape(X)[1]
            missing = [c for c in self.columns if not isinstance(c, int | np.integer) or not 0 <= c < width]
            if missing:
                raise DataError(f"X is an array of {width} columns and lacks the group columns {missing}")
            parts = [np.asarray(X)[:, c] for c in self.columns]
        return list(zip(*([as_text(v) for v in part] for part in parts), strict=True))

    def fit(self, X: Any, y: Floats, weight: Floats | None = None, **_: Any) -> GroupPartitioner:
        """Number the groups in sorted order; ``weight`` is what each row counts for."""
        keys = self.keys(X)
        counts: dict[tuple[Any, ...], float] = {}
        for key, rows in zip(keys, np.ones(len(keys)) if weight is None else weight, strict=True):
            counts[key] = counts.get(key, 0.0) + float(rows)
        least = self.min_rows * (1.0 - 1e-9) if self.min_rows > 1 else 0.0  # a row of little weight is seen as well
        self.keys_ = sorted((k for k, n in counts.items() if n >= least), key=lambda k: [str(v) for v in k])
        if not self.keys_:
            raise DataError(
                f"no group has min_rows={self.min_rows} calibration rows; the largest has {max(counts.values()):g}"
            )
        self.index_ = {key: number for number, key in enumerate(self.keys_)}
        self.n_leaves = len(self.keys_)
        levels = []
        for depth in range(1, len(self.keys_[0])):
            prefixes = [key[:depth] for key in self.keys_]
            number = {prefix: i for i, prefix in enumerate(dict.fromkeys(prefixes))}
            levels.append([number[prefix] for prefix in prefixes])
        self.ancestors = np.array([*levels, list(range(self.n_leaves))], dtype=np.intp)
        return self

    def leaves(self, X: Any, columns: Columns) -> Leaves:
        """Number of each row's group, -1 for one unseen at fit."""
        return np.array([self.index_.get(key, -1) for key in self.keys(X)], dtype=np.intp)

    def describe(self) -> list[str]:
        """The key of each group."""
        return [" / ".join(str(v) for v in key) for key in self.keys_]


class CallablePartitioner(BaseEstimator):  # type: ignore[misc]
    """A function from the table to integer leaf numbers ``0 .. n_leaves - 1`` (-1: use the global map)."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def fit(self, X: Any, y: Floats, weight: Floats | None = None, **_: Any) -> CallablePartitioner:
        """Count the leaves that the function gives on the calibration rows."""
        leaf = self._call(X)
        self.n_leaves = int(leaf.max()) + 1
        if self.n_leaves < 1:
            raise LeafMapError("the partition function put no calibration row into a leaf (all were -1)")
        self.ancestors = np.arange(self.n_leaves)[None, :]
        return self

    def leaves(self, X: Any, columns: Columns) -> Leaves:
        """The function's answer; leaves beyond those seen at fit become -1."""
        leaf = self._call(X)
        return np.where(leaf < self.n_leaves, leaf, -1)

    def describe(self) -> list[str]:
        """The leaf numbers."""
        return [f"leaf {k}" for k in range(self.n_leaves)]

    def _call(self, X: Any) -> Leaves:
        leaf = np.asarray(self.function(X))
        if leaf.shape != (len(X),) or leaf.dtype.kind not in "iu":
            raise LeafMapError(
                f"the partition function returned {leaf.dtype} of shape {leaf.shape}; it must return one integer a row"
            )
        if (leaf < -1).any():
            raise LeafMapError(f"the partition function returned leaf {leaf.min()}; use 0.. or -1 for the global map")
        return leaf.astype(np.intp)
