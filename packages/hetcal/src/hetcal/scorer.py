"""Score a saved calibrator with numpy alone: this file needs nothing else, so it can be copied into a service.

The artefact is JSON (schema below); rows come in as a table, a dict of columns, a 2-d array or a list of columns.
Thresholds of CART trees compare float32(x), those of LightGBM float64(x). A missing value or an unseen category takes
the neutral branch: the one of missing values where the split saw some at fit, else that of the larger child.

A category is known by its canonical text, the same for 3, 3.0, "3" and numpy's or a table's spellings of them; a date
is a number of days since 1970 (UTC).
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LARGEST", "SCHEMA", "Scorer", "as_days", "as_text", "as_vector", "content_hash", "is_missing", "kinds_of"]

SCHEMA = 2
FORMAT = "hetcal"
LARGEST = float(np.finfo(np.float32).max)  # larger features are moved to it, as CART's trees read float32
DAY = 86_400_000_000  # microseconds
BLOCK = 8192  # rows of a tree at a time, so that they stay in cache
KEYWORD = {"logit": "logits", "probability": "scores"}
KINDS = ("number", "time", "category")
WAYS = ("identity", "global", "regions", "bag", "forest")
FEW_ROWS = 256  # up to so many, all trees of a forest take a step at once: calls cost more than the numbers do
COMPLETE = 10  # levels up to which a tree is stored with all its places
FEW_NODES = 3  # levels of a tree in which comparing at every node is cheaper than gathering each row's own node


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NaT, or pandas' NA, which is neither equal nor unequal to itself."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def as_text(value: Any) -> str | None:
    """A category's canonical text, None for a missing one: 3, 3.0, "3" and numpy.int8(3) are one category."""
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.astype("datetime64[us]").item() if value.dtype.kind == "M" else value.item()
    if isinstance(value, float | decimal.Decimal) and value == value // 1:
        value = int(value)  # infinity is no multiple of itself
    if isinstance(value, datetime.datetime):
        value = value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value
        value = value if value.time() != datetime.time() else value.date()
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


def kinds_of(values: Any) -> set[str]:
    """What a column's cells are: number, text, time, or the name of a type that no column may hold."""
    array = np.asarray(values)
    if array.dtype.kind != "O":
        name = {"b": "number", "i": "number", "u": "number", "f": "number", "U": "text", "T": "text", "M": "time"}
        return {name.get(array.dtype.kind, array.dtype.name)}
    return {_KINDS.get(kind) or _kind_of(kind) for kind in set(map(type, array.tolist()))} - {"missing"}


_KINDS = {float: "number", int: "number", str: "text", bool: "number", type(None): "missing"}


def _kind_of(kind: type) -> str:
    if kind.__name__ in ("NAType", "NaTType"):
        return "missing"
    for name, base in (
        ("text", (str, np.str_)),
        ("time", (datetime.date, np.datetime64)),
        ("number", (int, float, np.bool_, np.integer, np.floating, decimal.Decimal)),
    ):
        if issubclass(kind, base):
            return name
    return kind.__name__


def as_days(values: Any) -> Any:
    """Dates and times as days since 1970 (UTC), NaN for none; exact to the microsecond."""
    array = np.asarray(values)
    if array.dtype.kind == "O":
        cells = [None if is_missing(v) else _naive(v) for v in array.tolist()]
        array = np.array(cells, dtype="datetime64[us]")
    micro = array.astype("datetime64[us]")
    days = micro.astype(np.int64) / DAY
    days[np.isnat(micro)] = np.nan
    return days


def _naive(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value


def as_vector(name: str, values: Any, rows: int | None) -> Any:
    """One finite or infinite number a row; lengths are never stretched or cut."""
    try:
        vector = np.asarray(_array(name, values), dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, one a row ({error})") from None
    if vector.ndim == 2 and vector.shape[1] == 1:
        vector = vector[:, 0]
    if vector.ndim != 1:
        raise ValueError(f"{name} has shape {vector.shape}; give one value a row")
    if rows is not None and vector.size != rows:
        raise ValueError(f"{name} has {vector.size} rows but X has {rows}; they must describe the same rows")
    if np.isnan(vector).any():
        raise ValueError(f"{name} has {int(np.isnan(vector).sum())} NaN; drop these rows or impute them")
    return vector


def _array(name: str, values: Any) -> Any:
    """A column as numpy holds it; what cannot be held, as integers of 128 bits, is refused by name."""
    try:
        return np.asarray(values)
    except Exception as error:  # every library of tables has its own
        raise ValueError(f"{name} cannot be read as an array ({error}); cast it to float64") from error


def content_hash(artefact: dict[str, Any]) -> str:
    """SHA-256 of the artefact's canonical JSON without its own field 'hash'."""
    content = {name: value for name, value in artefact.items() if name != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
        self.depth = self.levels(0)
        if self.sets or self.missing_zero.any() or self.depth > COMPLETE:
            self.depth, self.grove = -1, _Grove([self])
        else:
            self._complete(self.depth)

    def _complete(self, depth: int) -> None:
        """Shallow trees as perfect ones, children of i at 2i + 1 and 2i + 2: no pointers to chase."""
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

    def levels(self, node: int) -> int:
        """Steps from a node to its deepest leaf."""
        deepest, below = 0, [(node, 0)]
        while below:
            here, level = below.pop()
            deepest = max(deepest, level)
            if self.feature[here] >= 0:
                below += [(int(self.left[here]), level + 1), (int(self.right[here]), level + 1)]
        return deepest

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
        if self.depth >= 0:
            return self._score_complete(columns, rows)
        result = np.empty(rows, dtype=self.output.dtype)
        for first in range(0, rows, BLOCK):
            part = slice(first, min(first + BLOCK, rows))
            cut = [None if column is None else column[part] for column in columns]
            result[part] = self.grove.score(cut, part.stop - first)[0]
        return result

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


class _Grove:
    """Trees in one set of arrays; a leaf is its own child, so every tree takes as many steps.

    A step of all trees is a dozen calls of numpy: for few rows of many trees, and for trees too deep to complete.
    """

    def __init__(self, trees: list[Tree]) -> None:
        sizes = np.array([tree.feature.size for tree in trees])
        self.root = np.concatenate([[0], sizes.cumsum()[:-1]])[:, None]
        self.depth = max(tree.levels(0) for tree in trees)
        start = np.repeat(self.root[:, 0], sizes)

        def joined(name: str) -> Any:
            return np.concatenate([getattr(tree, name) for tree in trees])

        feature, own = joined("feature"), np.arange(sizes.sum())
        leaf = feature < 0
        self.used, place = np.unique(feature[~leaf], return_inverse=True)
        self.feature = np.zeros_like(feature)
        self.feature[~leaf] = place
        self.single = trees[0].single  # all are of one kind
        self.threshold = joined("threshold")
        self.child = np.stack([np.where(leaf, own, joined(side) + start) for side in ("right", "left")])
        self.missing_left = joined("missing_left")
        self.missing_zero = joined("missing_zero") if any(tree.missing_zero.any() for tree in trees) else None
        self.value = joined("output")
        self.set_start, self.members = np.full(own.size, -1), np.zeros(0, dtype=bool)
        self.set_size = np.zeros(own.size, dtype=np.int64)
        for root, tree in zip(self.root[:, 0], trees, strict=True):
            for node, members in tree.sets.items():
                self.set_start[root + node], self.set_size[root + node] = self.members.size, members.size
                self.members = np.append(self.members, members)

    def score(self, columns: list[Any], rows: int) -> Any:
        """Addends of shape (trees, rows)."""
        values = np.empty((max(self.used.size, 1), rows), dtype=np.float32 if self.single else np.float64)
        for i, column in enumerate(self.used):
            values[i] = columns[column]
        missing = np.isnan(values)
        flat, absent, row = values.ravel(), missing.ravel() if missing.any() else None, np.arange(rows)
        node = np.repeat(self.root, rows, axis=1)
        for _ in range(self.depth):
            place = self.feature.take(node) * rows + row
            x = flat.take(place)
            left = x.astype(np.float64, copy=False) <= self.threshold.take(node)
            if absent is not None:
                gone = absent.take(place)
                if self.missing_zero is not None:
                    zero = gone & self.missing_zero.take(node)
                    left = np.where(zero, self.threshold.take(node) >= 0, left)
                    gone &= ~zero
                left = np.where(gone, self.missing_left.take(node), left)
            if self.members.size:
                left = self._by_sets(node, x, left)
            node = self.child[left.view(np.int8), node]
        return self.value.take(node)

    def _by_sets(self, node: Any, x: Any, left: Any) -> Any:
        start, size = self.set_start.take(node), self.set_size.take(node)
        code = np.where(np.isnan(x), -1, x).astype(np.int64)
        known = (code >= 0) & (code < size)
        inside = known & self.members.take(np.where(known, start + code, 0))
        return np.where(start < 0, left, np.where(code < 0, self.missing_left.take(node), inside))


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
        if (artefact["schema"] > 1 or "hash" in artefact) and artefact.get("hash") != content_hash(artefact):
            raise ValueError("the content is not what was saved (its hash differs); save the calibrator again")
        _refuse_unknown(artefact)
        self.artefact = artefact
        self.columns = artefact["columns"]
        self.names = [c["name"] for c in self.columns]
        self.score = artefact.get("score")  # what was fitted, "probability" or "logit"; schema 1 does not say
        self.model = artefact["model"]
        self.trees = [Tree(t) for t in self.model.get("trees", [])]
        self.maps = [_Map(m) for m in self.model.get("maps", [])]
        forest = self.model["way"] == "forest" and self.trees and not any(tree.single for tree in self.trees)
        self.grove = _Grove(self.trees) if forest else None
        self.codes = [
            None if c.get("values") is None else {as_text(v): i for i, v in enumerate(c["values"])}
            for c in self.columns
        ]
        ranks = self.model.get("ranks", {})
        self.ranks = [_ranks(r) for r in (ranks if isinstance(ranks, list) else [ranks] * len(self.trees))]
        # a forest reads every column that was not set aside, a tree or a bag those of its splits, anything else none
        seen = {int(f) for tree in self.trees for f in tree.feature if f >= 0}
        usable = {i for i, c in enumerate(self.columns) if not c.get("aside")}
        self.reads = usable if self.model["way"] == "forest" else seen
        groups = self.model.get("groups")
        self.groups = None if groups is None else {tuple(map(as_text, k)): i for i, k in enumerate(groups["keys"])}

    @classmethod
    def from_file(cls, path: str | Path) -> Scorer:
        """Read the JSON file written by ``hetcal.save``."""
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def encode(self, X: Any, rows: int) -> list[Any]:
        """Columns as float64 arrays: categories by the stored vocabulary, unseen and missing ones as NaN.

        None stands for a column that the calibrator does not read. Warns of what was never met at fit.
        """
        encoded, unseen = self._encoded(X, rows)
        if unseen:
            cells = ", ".join(f"{name!r} {count}" for name, count in unseen.items())
            warnings.warn(
                f"cells that were never met at fit, which take the neutral branch: {cells} of {rows} rows", stacklevel=3
            )
        return encoded

    def unseen(self, X: Any) -> dict[str, int]:
        """Cells of each column read that hold a category unseen at fit, or nothing where fit met no missing value."""
        return self._encoded(X, None)[1]

    def _encoded(self, X: Any, rows: int | None) -> tuple[list[Any], dict[str, int]]:
        encoded: list[Any] = []
        unseen = {}
        for i, (raw, codes) in enumerate(zip(self._raw(X, rows), self.codes, strict=True)):
            if i not in self.reads:
                encoded.append(None)
                continue
            column = self.columns[i]
            values, new = _coded(raw, codes) if codes is not None else _numbers(column, raw)
            if not column.get("missing", True):
                new = int(np.isnan(values).sum())
            if new:
                unseen[column["name"]] = new
            encoded.append(values)
        return encoded, unseen

    def _raw(self, X: Any, rows: int | None) -> list[Any]:
        """The columns of X in the order of the fit, each of ``rows`` cells."""
        if isinstance(X, dict) or hasattr(X, "column_names") or hasattr(X, "columns"):
            keys = X.keys() if isinstance(X, dict) else getattr(X, "column_names", None) or X.columns
            by_name = {str(k): k for k in keys}
            missing = [n for n in self.names if n not in by_name]
            if missing:
                raise ValueError(f"the columns {missing} are missing")
            columns = [X[by_name[n]] for n in self.names]
        elif hasattr(X, "ndim"):
            if X.ndim != 2 or X.shape[1] != len(self.names):
                raise ValueError(f"X has shape {X.shape}; give one row a line, {len(self.names)} columns: {self.names}")
            if rows is not None and len(X) != rows:
                raise ValueError(f"X has {len(X)} rows for {rows} logits; they must describe the same rows")
            return list(np.asarray(X).T)
        else:
            columns = list(X)
            if len(columns) != len(self.names):
                raise ValueError(f"{len(columns)} columns given, {len(self.names)} needed: {self.names}")
            if len(columns) > 1 and all(len(c) == len(columns) for c in columns):
                raise ValueError("X is a square list, which may hold rows or columns; give a dict of columns instead")
        for name, column in zip(self.names, columns, strict=True):
            if rows is None:
                rows = len(column)
            shape = getattr(column, "shape", None) or np.shape(column)
            if shape != (rows,):
                raise ValueError(f"column {name!r} has shape {shape}; {rows} cells are needed, one a logit")
        return columns

    def logits_of(self, scores: Any, logits: Any) -> Any:
        """The base logits, from what the calibrator was fitted on and nothing else."""
        if (scores is None) == (logits is None):
            raise ValueError("pass exactly one: scores= for probabilities or logits= for log-odds")
        given = "logit" if scores is None else "probability"
        if self.score is not None and given != self.score:
            raise ValueError(
                f"the calibrator was fitted on a {self.score}; pass {KEYWORD[self.score]}= and not the other"
            )
        if scores is None:
            return as_vector("logits", logits, None)
        p = as_vector("scores", scores, None)
        if ((p < 0) | (p > 1)).any():
            raise ValueError("scores has values outside [0, 1]; they are no probabilities")
        p = np.clip(p, 1e-15, 1 - 1e-15)
        return np.log(p) - np.log1p(-p)

    def predict_proba(self, X: Any, *, scores: Any = None, logits: Any = None, groups: Any = None) -> Any:
        """Probability of the second class, shape (n,), from features and base probabilities or logits."""
        z = self.logits_of(scores, logits)
        return self.score_encoded(self.encode(X, z.size), z, self._group_leaf(X, groups, z.size))

    def _group_leaf(self, X: Any, groups: Any, rows: int) -> Any:
        if self.groups is None:
            return None
        columns = self.model["groups"]["columns"]
        if columns is None:
            if groups is None:
                raise ValueError("this calibrator needs groups=")
            values = np.asarray(groups, dtype=object)
            if values.ndim not in (1, 2) or len(values) != rows:
                raise ValueError(f"groups has shape {values.shape}; {rows} rows are needed, one a logit")
            parts = [values] if values.ndim == 1 else list(values.T)
        else:
            raw = dict(zip(self.names, self._raw(X, rows), strict=True))
            parts = [raw[str(c)] for c in columns]
        keys = zip(*([as_text(v) for v in _cells(p)] for p in parts), strict=True)
        return np.fromiter((self.groups.get(key, -1) for key in keys), dtype=np.intp, count=rows)

    def score_encoded(self, columns: list[Any], logits: Any, leaf: Any = None) -> Any:
        """Probability of the second class from encoded columns (see ``encode``)."""
        z = np.clip(as_vector("logits", logits, None), -self.artefact["clip"], self.artefact["clip"])
        model, way = self.model, self.model["way"]
        if way == "identity":
            total = z
        elif way == "global":
            total = model["intercept"] + model["slope"] * z
        elif way == "regions":
            if leaf is None:
                leaf = self.trees[0].score(self._ordered(columns, 0), z.size)
            total = model["intercept"] + model["slope"] * z
            known = leaf >= 0
            if known.all():
                total = self.maps[0].logits(z, leaf)
            else:
                total[known] = self.maps[0].logits(z[known], leaf[known])
        elif way == "bag":
            total = np.zeros_like(z)
            for number, (tree, leaf_map) in enumerate(zip(self.trees, self.maps, strict=True)):
                total += leaf_map.logits(z, tree.score(self._ordered(columns, number), z.size))
            total = model["intercept"] + model["slope"] * total / len(self.trees)
        else:
            total = self._forest(columns, z)
        return _sigmoid(total + self.artefact["shift"])

    def _forest(self, columns: list[Any], z: Any) -> Any:
        model = self.model
        total = model["coefficients"][0] + model["coefficients"][-1] * (model["intercept"] + model["slope"] * z)
        seen = [*columns, z]
        start = 0
        few = self.grove.score(seen, z.size) if self.grove is not None and 0 < z.size <= FEW_ROWS else None
        for weight, part in zip(model["coefficients"][1:-1], model["parts"], strict=True):
            mine = slice(start, start + part["trees"])
            start += part["trees"]
            addends = np.zeros_like(z)
            if few is not None and mine.stop > mine.start:
                addends += np.add.accumulate(few[mine])[-1]  # one by one, as below
            else:
                for tree in self.trees[mine]:
                    addends += tree.score(seen, z.size)
            mean = addends / part["models"]
            total = total + weight * (part["centre"] + part["scale"] * (mean - part["centre"]))
        return total

    def _ordered(self, columns: list[Any], number: int) -> list[Any]:
        """The columns as tree ``number`` takes them: category codes replaced by its ranks."""
        if not self.ranks[number]:
            return columns
        ordered = list(columns)
        for i, rank in self.ranks[number].items():
            if columns[i] is None:
                continue
            codes = np.where(np.isnan(columns[i]), rank.size - 1, columns[i]).astype(np.intp)
            ordered[i] = rank[codes]
        return ordered


def _refuse_unknown(artefact: dict[str, Any]) -> None:
    """A field that says what this version does not know was not written by it."""
    known = [("score", artefact.get("score"), (None, *KEYWORD)), ("model.way", artefact["model"]["way"], WAYS)]
    known += [(f"kind of column {c['name']!r}", c.get("kind", "number"), KINDS) for c in artefact["columns"]]
    for field, value, allowed in known:
        if value not in allowed:
            raise ValueError(f"{field} is {value!r} and not one of {allowed}; save the calibrator again")


def _ranks(spec: dict[str, Any]) -> dict[int, Any]:
    return {int(k): np.append(np.asarray(v, dtype=np.float64), np.nan) for k, v in spec.items()}


def _cells(raw: Any) -> list[Any]:
    """The cells of a column as Python values, whatever holds it."""
    return raw.to_pylist() if hasattr(raw, "to_pylist") else list(raw)


def _numbers(column: dict[str, Any], raw: Any) -> tuple[Any, int]:
    """A column of numbers or of times, and how many of its cells are new, which the caller counts."""
    name, kind = column["name"], column.get("kind", "number")
    raw = _cells(raw) if hasattr(raw, "to_pylist") else raw
    array = _array(f"column {name!r}", raw)
    plain = array.dtype.kind in "fiub"
    if not plain or kind == "time":
        wrong = (kinds_of(array) - {kind}) if kind == "time" or array.dtype.kind in "OMm" else set()
        wrong -= {"text"} if kind == "number" else set()  # text is read as a number where it is one
        if array.dtype.kind == "f" and np.isnan(array).all():
            wrong = set()
        if wrong:
            raise ValueError(f"column {name!r} holds {', '.join(sorted(wrong))}; it held {kind}s at fit")
    if kind == "time":
        return (np.full(array.shape, np.nan) if array.dtype.kind == "f" else as_days(array)), 0
    if array.dtype.kind == "O":
        array = np.array([None if is_missing(v) else v for v in array.tolist()], dtype=object)
    try:
        values = array.astype(np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} holds what is no number ({error}); it held numbers at fit") from None
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise ValueError(f"column {name!r} has {infinite.size} infinity values (first in row {infinite[0]}); use NaN")
    return np.clip(values, -LARGEST, LARGEST), 0


def _coded(raw: Any, codes: dict[Any, int]) -> tuple[Any, int]:
    """Codes of a column of categories, NaN for missing and unseen ones, and how many are unseen."""
    if hasattr(raw, "factorize"):
        number, values = raw.factorize()
        number = np.asarray(number)
    else:
        seen: dict[Any, int] = {}
        number = np.array([-1 if is_missing(v) else seen.setdefault(v, len(seen)) for v in _cells(raw)], dtype=np.intp)
        values = list(seen)
    rank = np.array([*(codes.get(as_text(v), np.nan) for v in values), np.nan], dtype=np.float64)
    coded = rank[number]
    return coded, int(np.count_nonzero(np.isnan(coded) & (number >= 0)))
