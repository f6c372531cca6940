"""Score a saved calibrator with numpy alone: this file needs nothing else, so it can be copied into a service.

The artefact is JSON (schema below); rows come in as a list of columns, a dict of columns or a table. Thresholds of
CART trees compare float32(x), those of LightGBM float64(x); a missing value or an unseen category goes where the
tree sends missing values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["SCHEMA", "Scorer"]

SCHEMA = 1
FORMAT = "hetcal"
BLOCK = 8192  # rows of a tree at a time, so that they stay in cache
FEW_NODES = 3  # levels of a tree in which comparing at every node is cheaper than gathering each row's own node


def _sigmoid(z: Any) -> Any:
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


class Tree:
    """Arrays of one tree; ``leaf`` holds a leaf number, ``value`` the addend of a boosted tree."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.feature = np.asarray(spec["feature"], dtype=np.int64)
        self.threshold = np.asarray(spec["threshold"], dtype=np.float64)
        self.left = np.asarray(spec["left"], dtype=np.int64)
        self.right = np.asarray(spec["right"], dtype=np.int64)
        self.missing_left = np.asarray(spec["missing_left"], dtype=bool)
        self.missing_zero = np.asarray(spec.get("missing_zero", [0] * self.feature.size), dtype=bool)
        self.output = np.asarray(spec["leaf"] if "leaf" in spec else spec["value"])
        self.sets = {int(k): np.asarray(v, dtype=bool) for k, v in spec.get("sets", {}).items()}
        self.single = bool(spec["single"])
        if not self.sets and not self.missing_zero.any():
            self._complete()

    def _complete(self) -> None:
        """Shallow trees as perfect ones, children of i at 2i + 1 and 2i + 2: no pointers to chase."""
        depth = self._depth(0)
        self.depth = depth if depth <= 10 else -1
        if self.depth < 0:
            return
        size = 2**depth - 1
        self.full_feature = np.full(size, self.feature[0], dtype=np.intp)  # below a leaf any used feature will do
        self.full_threshold = np.full(size, np.inf)
        self.full_missing = np.ones(size, dtype=bool)
        self.full_output = np.zeros(2**depth, dtype=self.output.dtype)
        self._fill(0, 0, 0, depth)
        if self.single:  # x > t holds for a float32 x where it holds for the largest float32 that is not above t
            nearest = self.full_threshold.astype(np.float32)
            below = np.nextafter(nearest, np.float32(-np.inf))
            self.full_threshold = np.where(nearest > self.full_threshold, below, nearest)
        self.used, place = np.unique(self.full_feature, return_inverse=True)
        self.place = place.astype(np.intp)

    def _depth(self, node: int) -> int:
        if self.feature[node] < 0:
            return 0
        return 1 + max(self._depth(int(self.left[node])), self._depth(int(self.right[node])))

    def _fill(self, node: int, at: int, level: int, depth: int) -> None:
        if level == depth:
            self.full_output[at - (2**depth - 1)] = self.output[node]
            return
        if self.feature[node] < 0:  # a leaf above the bottom: everything goes left below it
            self._fill(node, 2 * at + 1, level + 1, depth)
            self._fill(node, 2 * at + 2, level + 1, depth)
            return
        self.full_feature[at] = self.feature[node]
        self.full_threshold[at] = self.threshold[node]
        self.full_missing[at] = self.missing_left[node]
        self._fill(int(self.left[node]), 2 * at + 1, level + 1, depth)
        self._fill(int(self.right[node]), 2 * at + 2, level + 1, depth)

    def score(self, columns: Any, rows: int) -> Any:
        """Leaf number or addend of each row, from columns by position."""
        if not self.sets and not self.missing_zero.any() and self.depth >= 0:
            return self._score_complete(columns, rows)
        node = np.zeros(rows, dtype=np.int64)
        active = np.arange(rows) if self.feature[0] >= 0 else np.empty(0, dtype=np.int64)
        while active.size:
            here = node[active]
            after = np.empty_like(here)
            for f in np.unique(self.feature[here]):
                mine = self.feature[here] == f
                after[mine] = self._step(here[mine], columns[f][active[mine]])
            node[active] = after
            active = active[self.feature[after] >= 0]
        return self.output[node]

    def _step(self, here: Any, values: Any) -> Any:
        values = values.astype(np.float32).astype(np.float64) if self.single else values
        values = np.where(np.isnan(values) & self.missing_zero[here], 0.0, values)
        left = values <= self.threshold[here]
        left = np.where(np.isnan(values), self.missing_left[here], left)
        if self.sets:
            for n in np.unique(here):
                if int(n) in self.sets:
                    mine = here == n
                    members = self.sets[int(n)]
                    code = np.where(np.isnan(values[mine]), -1, values[mine]).astype(np.int64)
                    known = (code >= 0) & (code < members.size)
                    left[mine] = known & members[np.where(known, code, 0)]
        return np.where(left, self.left[here], self.right[here])

    def _score_complete(self, columns: Any, rows: int) -> Any:
        result = np.empty(rows, dtype=self.output.dtype)
        for first in range(0, rows, BLOCK):
            part = slice(first, min(first + BLOCK, rows))
            values = np.empty((self.used.size, part.stop - first), dtype=np.float32 if self.single else np.float64)
            for i, f in enumerate(self.used):
                values[i] = columns[f][part]
            result[part] = self.full_output.take(self._bottom(values))
        return result

    def _bottom(self, values: Any) -> Any:
        """Place of each row in the bottom level of the complete tree, from the used columns (features, rows)."""
        missing = np.isnan(values)
        missing = missing if missing.any() else None
        bits: list[Any] = []  # of the place, the highest first: went right at each level
        for level in range(min(self.depth, FEW_NODES)):  # few nodes: compare at all of them, then choose by path
            sides = [self._right(node, values, missing) for node in range(2**level - 1, 2 ** (level + 1) - 1)]
            for bit in reversed(bits):
                sides = [low ^ (bit & (low ^ high)) for low, high in zip(sides[::2], sides[1::2], strict=True)]
            bits += sides
        at = np.zeros(values.shape[1], dtype=np.intp)
        for bit in bits:
            at += at
            at += bit
        flat, row, start = values.ravel(), np.arange(values.shape[1]), self.place * values.shape[1]
        for level in range(len(bits), self.depth):
            nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
            where = start[nodes].take(at)
            where += row
            right = flat.take(where) > self.full_threshold[nodes].take(at)  # False for NaN, which then goes left
            if missing is not None:
                right |= missing.ravel().take(where) & ~self.full_missing[nodes].take(at)
            at += at
            at += right
        return at

    def _right(self, node: int, values: Any, missing: Any) -> Any:
        right = values[self.place[node]] > self.full_threshold[node]
        if missing is not None and not self.full_missing[node]:
            right |= missing[self.place[node]]
        return right


class _Map:
    """The calibrators of all leaves."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        if "theta" in spec:
            self.theta = np.asarray(spec["theta"], dtype=np.float64).reshape(spec["leaves"], -1)
        else:
            self.knots = [np.asarray(k, dtype=np.float64) for k in spec["knots"]]
            self.values = [np.asarray(v, dtype=np.float64) for v in spec["values"]]
            self.share = np.asarray(spec["share"], dtype=np.float64)

    def logits(self, z: Any, leaf: Any) -> Any:
        family = self.spec["family"]
        if family == "platt":
            flat = self.theta[:, 0] - self.theta[:, 1] * self.spec["centre"]
            return flat[leaf] + self.theta[:, 1][leaf] * z
        if "theta" in self.spec:
            eta = self.spec["slope"] * z
            for d, x in enumerate(self._features(family, z)):
                eta = eta + self.theta[leaf, d] * x
            return eta
        p = np.zeros_like(z)
        for k in np.unique(leaf):
            rows = leaf == k
            if family == "histogram" and self.values[k].size:
                p[rows] = self.values[k][np.searchsorted(self.knots[k], z[rows], side="right")]
            elif self.knots[k].size:
                p[rows] = np.interp(z[rows], self.knots[k], self.values[k])
        share = self.share[leaf]
        p = share * p + (1 - share) * _sigmoid(self.spec["intercept"] + self.spec["slope"] * z)
        p = np.clip(p, 1e-15, 1 - 1e-15)
        return np.log(p) - np.log1p(-p)

    @staticmethod
    def _features(family: str, z: Any) -> list[Any]:
        one = np.ones_like(z)
        soft = np.log1p(np.exp(-np.abs(z)))
        return {
            "temperature": [z],
            "shift": [one],
            "beta": [one, -(np.maximum(-z, 0) + soft), np.maximum(z, 0) + soft],
            "identity": [],
        }[family]


class Scorer:
    """A saved calibrator, ready to score.

    Parameters
    ----------
    artefact : dict
        The parsed JSON of ``hetcal.save``.

    Examples
    --------
    >>> scorer = Scorer({"format": "hetcal", "schema": 1, "columns": [], "clip": 15.0, "shift": 0.0,
    ...                  "model": {"way": "global", "intercept": 0.0, "slope": 2.0}})
    >>> float(scorer.predict_proba([], logits=[0.0])[0])
    0.5
    """

    def __init__(self, artefact: dict[str, Any]) -> None:
        if not isinstance(artefact, dict) or artefact.get("format") != FORMAT:
            raise ValueError("not a hetcal artefact: the field 'format' is missing or different")
        if artefact["schema"] > SCHEMA:
            raise ValueError(
                f"the artefact has schema {artefact['schema']}, this version reads up to {SCHEMA}; upgrade hetcal"
            )
        self.artefact = artefact
        self.columns = artefact["columns"]
        self.names = [c["name"] for c in self.columns]
        self.model = artefact["model"]
        self.trees = [Tree(t) for t in self.model.get("trees", [])]
        self.maps = [_Map(m) for m in self.model.get("maps", [])]
        self.codes = [
            None if c.get("values") is None else {v: i for i, v in enumerate(c["values"])} for c in self.columns
        ]
        self.ranks = {
            int(k): np.append(np.asarray(v, dtype=np.float64), np.nan) for k, v in self.model.get("ranks", {}).items()
        }
        # a forest reads every column, a tree or a bag those of its splits, anything else none
        seen = {int(f) for tree in self.trees for f in tree.feature if f >= 0}
        self.reads = set(range(len(self.columns))) if self.model["way"] == "forest" else seen
        groups = self.model.get("groups")
        self.groups = None if groups is None else {tuple(k): i for i, k in enumerate(groups["keys"])}

    @classmethod
    def from_file(cls, path: str | Path) -> Scorer:
        """Read the JSON file written by ``hetcal.save``."""
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def encode(self, X: Any) -> list[Any]:
        """Columns as float64 arrays: categories by the stored vocabulary, unseen and missing ones as NaN.

        None stands for a column that the calibrator does not read.
        """
        columns = zip(self.names, self._raw(X), self.codes, strict=True)
        return [
            None if i not in self.reads else _numbers(name, raw) if codes is None else _coded(raw, codes)
            for i, (name, raw, codes) in enumerate(columns)
        ]

    def _raw(self, X: Any) -> list[Any]:
        if isinstance(X, dict) or hasattr(X, "columns"):
            keys = X.keys() if isinstance(X, dict) else X.columns
            by_name = {str(k): k for k in keys}
            missing = [n for n in self.names if n not in by_name]
            if missing:
                raise ValueError(f"the columns {missing} are missing")
            return [X[by_name[n]] for n in self.names]
        if isinstance(X, np.ndarray) and X.ndim == 2:
            X = list(X.T)
        if len(X) != len(self.names):
            raise ValueError(f"{len(X)} columns given, {len(self.names)} needed: {self.names}")
        return list(X)

    def predict_proba(self, X: Any, *, logits: Any, groups: Any = None) -> Any:
        """Probability of the second class, shape (n,), from features and base logits."""
        return self.score_encoded(self.encode(X), logits, self._group_leaf(X, groups, len(np.asarray(logits))))

    def _group_leaf(self, X: Any, groups: Any, rows: int) -> Any:
        if self.groups is None:
            return None
        columns = self.model["groups"]["columns"]
        if columns is None:
            if groups is None:
                raise ValueError("this calibrator needs groups=")
            values = np.asarray(groups, dtype=object)
            parts = [values] if values.ndim == 1 else list(values.T)
        else:
            raw = dict(zip(self.names, self._raw(X), strict=True))
            parts = [raw[str(c)] for c in columns]
        keys = zip(*([_plain(v) for v in list(p)] for p in parts), strict=True)
        return np.fromiter((self.groups.get(key, -1) for key in keys), dtype=np.intp, count=rows)

    def score_encoded(self, columns: list[Any], logits: Any, leaf: Any = None) -> Any:
        """Probability of the second class from encoded columns (see ``encode``)."""
        z = np.clip(np.asarray(logits, dtype=np.float64), -self.artefact["clip"], self.artefact["clip"])
        if np.isnan(z).any():
            raise ValueError(f"logits has {int(np.isnan(z).sum())} NaN")
        model, way = self.model, self.model["way"]
        if way == "identity":
            total = z
        elif way == "global":
            total = model["intercept"] + model["slope"] * z
        elif way == "regions":
            if leaf is None:
                leaf = self.trees[0].score(self._ordered(columns), z.size)
            total = model["intercept"] + model["slope"] * z
            known = leaf >= 0
            if known.all():
                total = self.maps[0].logits(z, leaf)
            else:
                total[known] = self.maps[0].logits(z[known], leaf[known])
        elif way == "bag":
            ordered = self._ordered(columns)
            total = np.zeros_like(z)
            for tree, leaf_map in zip(self.trees, self.maps, strict=True):
                total += leaf_map.logits(z, tree.score(ordered, z.size))
            total = model["intercept"] + model["slope"] * total / len(self.trees)
        else:
            total = self._forest(columns, z)
        return _sigmoid(total + self.artefact["shift"])

    def _forest(self, columns: list[Any], z: Any) -> Any:
        model = self.model
        total = model["coefficients"][0] + model["coefficients"][-1] * (model["intercept"] + model["slope"] * z)
        seen = [*columns, z]
        start = 0
        for weight, part in zip(model["coefficients"][1:-1], model["parts"], strict=True):
            trees = self.trees[start : start + part["trees"]]
            start += part["trees"]
            addends = np.zeros_like(z)
            for tree in trees:
                addends += tree.score(seen, z.size)
            mean = addends / part["models"]
            total = total + weight * (part["centre"] + part["scale"] * (mean - part["centre"]))
        return total

    def _ordered(self, columns: list[Any]) -> list[Any]:
        if not self.ranks:
            return columns
        ordered = list(columns)
        for i, rank in self.ranks.items():
            if columns[i] is None:
                continue
            codes = np.where(np.isnan(columns[i]), rank.size - 1, columns[i]).astype(np.intp)
            ordered[i] = rank[codes]
        return ordered


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or value != value else value


def _numbers(name: str, raw: Any) -> Any:
    try:
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} holds what is no number ({error}); it held numbers at fit") from None
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise ValueError(f"column {name!r} has {infinite.size} infinity values (first in row {infinite[0]}); use NaN")
    return values


def _coded(raw: Any, codes: dict[Any, int]) -> Any:
    if hasattr(raw, "factorize"):
        number, values = raw.factorize()
        rank = np.array([*(codes.get(_plain(v), np.nan) for v in values), np.nan], dtype=np.float64)
        return rank[np.asarray(number)]
    return np.array([codes.get(_plain(v), np.nan) for v in list(raw)], dtype=np.float64)
