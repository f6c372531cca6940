"""Boosted trees as arrays, walked inside the greedy loop.

A booster's ``predict`` costs a call of some hundred microseconds; a re-ranker needs a prediction a slot. The trees go
into flat arrays once: node n tests ``x[feature[n]] <= threshold[n]`` and goes to ``left[n]`` or ``right[n]``; a
negative child is leaf ~child. Sums agree with LightGBM's raw score to the last bits.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Floats, Ints, integers, real
from multislot_rerank.errors import InvalidInput

__all__ = ["TreeEnsemble", "raw_score"]


@dataclass(frozen=True)
class TreeEnsemble:
    """An ensemble of binary trees over numeric features.

    Attributes
    ----------
    roots : ndarray of int64, shape (T,)
        Root of each tree: a node, or ~leaf for a tree of one leaf.
    feature, threshold, left, right : ndarray, shape (nodes,)
    leaf : ndarray, shape (leaves,)
    """

    roots: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    leaf: Floats

    @classmethod
    def from_lightgbm(cls, booster: Any) -> "TreeEnsemble":
        """Read a LightGBM booster.

        Raises
        ------
        InvalidInput
            If a split is not numeric (categorical splits have no place here; encode before fitting).
        """
        nodes: list[list[float]] = []
        leaves: list[float] = []

        def walk(node: dict[str, Any]) -> int:
            if "split_feature" not in node:
                leaves.append(node["leaf_value"])
                return ~(len(leaves) - 1)
            if node["decision_type"] != "<=":
                raise InvalidInput(
                    f"booster has a {node['decision_type']!r} split; only numeric splits can be compiled"
                )
            index = len(nodes)
            nodes.append([node["split_feature"], node["threshold"], 0, 0])
            nodes[index][2] = walk(node["left_child"])
            nodes[index][3] = walk(node["right_child"])
            return index

        roots = [walk(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
        table = np.array(nodes, np.float64).reshape(-1, 4)
        return cls(
            np.array(roots, np.int64),
            table[:, 0].astype(np.int64),
            np.ascontiguousarray(table[:, 1]),
            table[:, 2].astype(np.int64),
            table[:, 3].astype(np.int64),
            np.array(leaves, np.float64),
        )

    @property
    def arrays(self) -> tuple[Ints, Ints, Floats, Ints, Ints, Floats]:
        """What the kernels take."""
        return self.roots, self.feature, self.threshold, self.left, self.right, self.leaf

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists, for JSON."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, fields: dict[str, list[float]]) -> "TreeEnsemble":
        """Read what ``to_dict`` wrote, and refuse trees that could walk out of their arrays.

        Raises
        ------
        InvalidInput
            If a field is missing or of another length, a number is not finite, or a child does not lie below its node.
        """
        if not isinstance(fields, dict):
            raise InvalidInput(f"trees are no object but {type(fields).__name__}")
        missing = set(cls.__dataclass_fields__) - set(fields)
        if missing:
            raise InvalidInput(f"trees lack {', '.join(sorted(missing))}")
        ensemble = cls(
            _whole_numbers("roots", fields),
            _whole_numbers("feature", fields),
            _numbers("threshold", fields),
            _whole_numbers("left", fields),
            _whole_numbers("right", fields),
            _numbers("leaf", fields),
        )
        nodes, leaves = len(ensemble.feature), len(ensemble.leaf)
        if not len(ensemble.threshold) == len(ensemble.left) == len(ensemble.right) == nodes:
            raise InvalidInput("trees: feature, threshold, left and right differ in length")
        with np.errstate(over="ignore"):
            if not (np.isfinite(ensemble.threshold).all() and np.isfinite(np.abs(ensemble.leaf).sum())):
                raise InvalidInput("trees: a threshold or a leaf is not finite, or leaves sum beyond a double")
        for name, children in (("left", ensemble.left), ("right", ensemble.right)):
            # children come after their node, so that a walk must end
            if ((children >= nodes) | (children < -leaves) | ((children >= 0) & (children <= np.arange(nodes)))).any():
                raise InvalidInput(f"trees: {name} points outside the nodes below")
        if ((ensemble.roots >= nodes) | (ensemble.roots < -leaves)).any() or (ensemble.feature < 0).any():
            raise InvalidInput("trees: a root or a feature is out of range")
        return ensemble


def _numbers(name: str, fields: dict[str, list[float]]) -> Floats:
    array = real(f"trees: {name}", fields[name])
    if array.ndim != 1 or array.dtype.kind == "b":
        raise InvalidInput(f"trees: {name} is no list of numbers")
    return array.astype(np.float64)


def _whole_numbers(name: str, fields: dict[str, list[float]]) -> Ints:
    array = real(f"trees: {name}", fields[name])
    if array.size == 0:
        return np.zeros(0, np.int64)
    return integers(f"trees: {name}", array, 1)


@njit(cache=True, nogil=True)
def raw_score(row: Floats, trees: tuple[NDArray[Any], ...]) -> float:
    """Sum of the leaves that a row falls into."""
    roots, feature, threshold, left, right, leaf = trees
    total = 0.0
    for tree in range(roots.size):
        node = roots[tree]
        while node >= 0:
            node = left[node] if row[feature[node]] <= threshold[node] else right[node]
        total += leaf[~node]
    return total


@njit(cache=True, nogil=True)
def probability(row: Floats, trees: tuple[NDArray[Any], ...]) -> float:
    """Logistic function of the raw score."""
    return 1.0 / (1.0 + math.exp(-raw_score(row, trees)))
