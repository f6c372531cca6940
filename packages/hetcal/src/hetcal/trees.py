"""Binary trees as flat arrays, scored with numpy alone: the form in which every partition and forest is kept.

Node i of a tree sends a row left when

    number:    float32(x) <= threshold        (scikit-learn), or x <= threshold (LightGBM)
    category:  code in the node's set

and a missing value where ``missing_left`` says: with those that the split met at fit, or to the larger child if it met
none. Leaves have feature -1 and a number in ``leaf``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetcal.features import Columns
from hetcal.leafwise import Leaves
from hetcal.links import Floats
from hetcal.scorer import LARGEST, Tree

__all__ = ["FlatTree", "from_cart"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class FlatTree:
    """One tree; arrays over its nodes."""

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    missing_left: NDArray[np.bool_]
    leaf: Integers
    single: bool

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""
        return int(self.leaf.max()) + 1

    @cached_property
    def used(self) -> frozenset[int]:
        """Features that some split looks at."""
        return frozenset(int(f) for f in np.unique(self.feature) if f >= 0)

    @cached_property
    def _walk(self) -> Tree:
        return Tree(
            {
                "feature": self.feature,
                "threshold": self.threshold,
                "left": self.left,
                "right": self.right,
                "missing_left": self.missing_left,
                "leaf": self.leaf,
                "single": self.single,
            }
        )

    def apply(self, columns: Columns, rows: int) -> Leaves:
        """Leaf number of each row, as the exported scorer finds it; reads used columns alone."""
        return np.asarray(self._walk.score(columns, rows), dtype=np.intp)

    def ancestors(self) -> Leaves:
        """(levels, K): the ancestor of every leaf at each depth below the root, numbered within the depth."""
        parent = np.full(self.feature.size, -1)
        inner = np.flatnonzero(self.feature >= 0)
        parent[self.left[inner]] = inner
        parent[self.right[inner]] = inner
        paths: list[list[int]] = [[] for _ in range(self.n_leaves)]
        for node in np.flatnonzero(self.feature < 0):
            path, at = [], int(node)
            while at > 0:
                path.append(at)
                at = int(parent[at])
            paths[int(self.leaf[node])] = path[::-1] or [0]
        depth = max(len(path) for path in paths)
        table = np.array([path + [path[-1]] * (depth - len(path)) for path in paths]).T
        return np.stack([np.unique(row, return_inverse=True)[1] for row in table[:-1]] + [np.arange(len(paths))])

    def describe(self, names: list[str], vocabularies: list[Any]) -> list[str]:
        """The rule of each leaf in words, in the order of the leaf numbers."""
        rules = [""] * self.n_leaves
        stack: list[tuple[int, list[str]]] = [(0, [])]
        while stack:
            node, path = stack.pop()
            if self.feature[node] < 0:
                rules[int(self.leaf[node])] = " and ".join(path) or "all rows"
                continue
            low, high = self.sides(node, names, vocabularies)
            stack.append((int(self.left[node]), [*path, low]))
            stack.append((int(self.right[node]), [*path, high]))
        return rules

    def sides(self, node: int, names: list[str], vocabularies: list[Any]) -> tuple[str, str]:
        """What sends a row left and what sends it right, in words."""
        feature = int(self.feature[node])
        return _sides(names[feature], vocabularies[feature], float(self.threshold[node]))


def _sides(name: str, ranks: dict[Any, float] | None, threshold: float) -> tuple[str, str]:
    if ranks is None:
        return f"{name} <= {threshold:.6g}", f"{name} > {threshold:.6g}"
    inside = [str(value) for value, rank in ranks.items() if rank <= threshold]
    outside = [str(value) for value, rank in ranks.items() if rank > threshold]
    return f"{name} in {{{', '.join(inside)}}}", f"{name} in {{{', '.join(outside)}}}"


def from_cart(tree: Any) -> FlatTree:
    """Arrays of a fitted scikit-learn ``tree_``; leaves numbered from 0 in the order of the nodes."""
    is_leaf = tree.children_left < 0
    leaf = np.full(tree.node_count, -1)
    leaf[is_leaf] = np.arange(is_leaf.sum())
    return FlatTree(
        np.where(is_leaf, -1, tree.feature).astype(np.int64),
        np.where(
            is_leaf, 0.0, np.minimum(tree.threshold, LARGEST)
        ),  # infinite where a split parts missing values alone
        tree.children_left.astype(np.int64),
        tree.children_right.astype(np.int64),
        np.asarray(tree.missing_go_to_left, dtype=bool),
        leaf.astype(np.int64),
        True,
    )
