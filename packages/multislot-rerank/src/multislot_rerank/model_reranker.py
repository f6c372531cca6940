"""Model-based re-ranking: a learned P(reward | item, slot, items above), one head an objective, filled greedily.

    s_k = argmax_{i not in S} sum_m w_m g_m(z(i, k, S)),     z the context features, g_m boosted trees on logged slates.

With ``monotone=True`` the model may use only context that can but grow (slot, largest cosine, repeats) and must fall in
it. A prediction of some slots ago is then an upper bound, and only candidates that can still win are predicted again.

Our formulation of the paper's model-based, sequential re-ranker. Training rows are the slates as they were shown
(teacher forcing); serving walks compiled trees inside the greedy loop.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from papershelf_core.files import write_text

from multislot_rerank.admission import instance, members, number, target_file, whole
from multislot_rerank.arrays import Floats, Ints, distinct_rows, finite, integers
from multislot_rerank.candidates import Candidates
from multislot_rerank.constraint_rows import ConstraintRows, checked_constraints, constraint_rows
from multislot_rerank.constraints import Constraint
from multislot_rerank.context import SHARED, ContextFeatures, place, start
from multislot_rerank.errors import InvalidInput
from multislot_rerank.lazy_greedy import BLOCK, block_maximum, cosine_of, largest_block
from multislot_rerank.look_ahead import Kept, charges, choices, keep_where_possible
from multislot_rerank.reranker import Slate
from multislot_rerank.trees import TreeEnsemble, probability

__all__ = ["ModelReranker", "training_rows"]

SCHEMA = 2
# LightGBM's names of what the compiled trees and the lazy greedy rely on
_OURS = frozenset(
    {"objective", "objective_type", "app", "application", "loss", "boosting", "boosting_type", "boost"}
    | {"monotone_constraints", "mc", "monotone_constraint", "monotonic_cst", "linear_tree", "linear_trees"}
)
_DEFAULTS = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "verbosity": -1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
}


@dataclass(frozen=True)
class ModelReranker:
    """A fitted re-ranker; immutable, and safe to share between threads.

    Attributes
    ----------
    features : ContextFeatures
    heads : dict of str to TreeEnsemble
        One model an objective, of the probability that its reward is 1.
    weights : dict of str to float
        Trade-off among the objectives.
    """

    features: ContextFeatures
    heads: dict[str, TreeEnsemble]
    weights: dict[str, float]

    def __post_init__(self) -> None:
        instance("features", self.features, ContextFeatures)
        if not isinstance(self.heads, Mapping) or not self.heads:
            raise InvalidInput("heads is no mapping or empty; give a model an objective")
        for name, head in self.heads.items():
            instance(f"heads[{name!r}]", head, TreeEnsemble)
            if head.feature.size and head.feature.max() >= len(self.features.names):
                raise InvalidInput(f"head {name!r} tests a feature beyond the {len(self.features.names)} there are")
        object.__setattr__(self, "weights", _trade_off(self.features, self.heads, self.weights))

    @classmethod
    def fit(
        cls,
        requests: Sequence[Candidates],
        slates: ArrayLike,
        rewards: Mapping[str, ArrayLike],
        *,
        attributes: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        monotone: bool = False,
        trees: int = 100,
        parameters: Mapping[str, Any] | None = None,
    ) -> "ModelReranker":
        """Fit one LightGBM model an objective on logged slates (extra ``model``).

        Parameters
        ----------
        requests : sequence of Candidates, length n
            All with the same fields, which the model remembers: it serves no request that has others.
        slates : array-like of int, shape (n, K)
            Item shown in each slot, as a candidate number.
        rewards : mapping of objective to array-like of 0 and 1, shape (n, K)
        attributes : sequence of str
            Attributes whose repetition the model may use.
        weights : mapping of objective to float, optional
            Trade-off used when re-ranking; 1 each by default.
        monotone : bool
            Several times faster to serve, and right where what is above can only hurt; weights must be >= 0.
        trees : int
            Boosting rounds.
        parameters : mapping, optional
            LightGBM parameters over the defaults, but for the objective, boosting and monotone constraints.

        Raises
        ------
        InvalidInput
            If lengths or fields differ, a slate repeats an item or leaves its candidates, or rewards are not 0 or 1.
        """
        try:
            import lightgbm
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("fitting needs the extra: pip install 'multislot-rerank[model]'") from error
        shown = integers("slates", slates, 2)
        given = members("requests", requests, Candidates)
        if not given:
            raise InvalidInput("requests is empty; give at least one")
        if not isinstance(rewards, Mapping) or not rewards:
            raise InvalidInput(
                f"rewards={rewards!r:.60} is no mapping or empty; give {{objective: 0 or 1, shape (n, K)}}"
            )
        reserved = sorted(_OURS & set(parameters or {}))
        if reserved:
            raise InvalidInput(
                f"parameters sets {', '.join(reserved)}, which the re-ranker itself decides; leave it out"
            )
        features = ContextFeatures.of(given[0], attributes, shown.shape[1], monotone)
        settings = {**_DEFAULTS, "monotone_constraints": list(features.directions)} if monotone else _DEFAULTS
        rows = training_rows(features, given, shown)
        heads = {}
        for name, values in rewards.items():
            labels = finite(f"rewards[{name!r}]", values, 2)
            if labels.shape != shown.shape or not np.isin(labels, (0, 1)).all():
                raise InvalidInput(f"rewards[{name!r}] must be 0 or 1 in the shape {shown.shape} of the slates")
            data = lightgbm.Dataset(rows, labels.ravel(), feature_name=list(features.names))
            booster = lightgbm.train({**settings, **(parameters or {})}, data, num_boost_round=whole("trees", trees, 1))
            heads[name] = TreeEnsemble.from_lightgbm(booster)
        return cls(features, heads, _trade_off(features, heads, weights))

    def rerank(self, candidates: Candidates, constraints: Sequence[Constraint] = ()) -> Slate:
        """Fill the slots greedily by the weighted sum of predicted rewards; ties to the lower index.

        Parameters
        ----------
        candidates : Candidates
        constraints : sequence of Constraint
            By importance, kept as ``SequentialGreedyReranker`` keeps them; prices are in the unit of that sum.

        Raises
        ------
        InvalidInput
            If there are fewer candidates than slots, their fields are not those that the model was fitted with, or
            constraints contradict each other or name what the candidates do not have.
        """
        instance("candidates", candidates, Candidates)
        slots = self.features.slots
        if len(candidates) < slots:
            raise InvalidInput(f"{slots} slots are more than the {len(candidates)} candidates")
        heads = tuple(self.heads[name].arrays for name in self.weights)
        weights = np.array(list(self.weights.values()))
        given = checked_constraints(constraints, slots)
        arrays = self.features.arrays(candidates)
        if not given:
            greedy = _lazy_greedy if self.features.monotone else _full_greedy
            return Slate(*greedy(*arrays, weights, heads, slots))
        rows = constraint_rows(given, candidates, slots)
        if not math.isfinite(float(np.abs(weights).sum()) + sum(rows.prices)):
            raise InvalidInput("constraints: prices add up to more than a double holds; scale them down")

        def fill(kept: Kept | None) -> tuple[Ints, Floats]:
            return _greedy_under(rows, kept, arrays, weights, heads, self.features.columns)

        filled = keep_where_possible(rows, fill(None), fill)
        return Slate(filled.items, filled.utilities, filled.relaxed, filled.proven)

    def predict(self, candidates: Candidates, slate: ArrayLike) -> dict[str, Floats]:
        """Probability of each reward for the items of a given slate, in their slots; shape (K,) an objective.

        Raises
        ------
        InvalidInput
            As ``rerank``, or if the slate is longer than the model's, repeats an item or leaves the candidates.
        """
        instance("candidates", candidates, Candidates)
        rows = self.features.rows(candidates, integers("slate", slate, 1))
        return {name: np.array([probability(row, head.arrays) for row in rows]) for name, head in self.heads.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as JSON, whole or not at all."""
        document = {
            "schema": SCHEMA,
            "scores": self.features.scores,
            "attributes": list(self.features.attributes),
            "slots": self.features.slots,
            "monotone": self.features.monotone,
            "dimension": self.features.dimension,
            "aged": self.features.aged,
            "weights": self.weights,
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
        }
        write_text(target_file(path), json.dumps(document))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ModelReranker":
        """Read what ``save`` wrote.

        Raises
        ------
        InvalidInput
            If the file is of another schema or its trees do not hang together.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path} is no JSON ({error}); write it with ModelReranker.save") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InvalidInput(f"{path} is no model of schema {SCHEMA}; fit again and write it with ModelReranker.save")
        missing = {"scores", "attributes", "slots", "monotone", "dimension", "aged", "heads", "weights"} - set(document)
        if missing:
            raise InvalidInput(f"{path} lacks {', '.join(sorted(missing))}; write it with ModelReranker.save")
        for name in ("heads", "weights"):
            if not isinstance(document[name], dict):
                raise InvalidInput(f"{path}: {name} is no object; write it with ModelReranker.save")
        features = ContextFeatures(
            document["scores"],
            document["attributes"],
            document["slots"],
            document["monotone"],
            dimension=document["dimension"],
            aged=document["aged"],
        )
        heads = {name: TreeEnsemble.from_dict(fields) for name, fields in document["heads"].items()}
        return cls(features, heads, document["weights"])


def training_rows(features: ContextFeatures, requests: Sequence[Candidates], slates: Ints) -> Floats:
    """Context features of every logged item, shape (n K, F), by the kernel that serves."""
    if len(requests) != len(slates):
        raise InvalidInput(f"slates has {len(slates)} rows for {len(requests)} requests; give one a request")
    distinct_rows("slates", slates)
    for row, (request, slate) in enumerate(zip(requests, slates, strict=True)):
        if slate.min() < 0 or slate.max() >= len(request):
            raise InvalidInput(f"slates[{row}]={slate.tolist()} holds an item outside its {len(request)} candidates")
    return np.concatenate([features.rows(request, slate) for request, slate in zip(requests, slates, strict=True)])


def _trade_off(
    features: ContextFeatures, heads: Mapping[str, TreeEnsemble], weights: Mapping[str, float] | None
) -> dict[str, float]:
    if weights is not None and not isinstance(weights, Mapping):
        raise InvalidInput(f"weights={weights!r:.60} is no mapping; give {{objective: weight}}")
    chosen = dict.fromkeys(heads, 1.0) if weights is None else dict(weights)
    unknown = set(chosen) - set(heads)
    if unknown or not chosen:
        raise InvalidInput(f"weights names {', '.join(sorted(unknown)) or 'nothing'}; heads are {', '.join(heads)}")
    for name, weight in chosen.items():
        chosen[name] = number(f"weights[{name!r}]", weight)
        if features.monotone and weight < 0:
            raise InvalidInput(f"weights[{name!r}]={weight} must be finite, and >= 0 for a monotone model")
    if not math.isfinite(sum(map(abs, chosen.values()))):
        raise InvalidInput("weights add up to more than a double holds; scale them down")
    return chosen


@njit(cache=True, nogil=True)
def _utility(row, weights, heads):  # type: ignore[no-untyped-def]
    total = 0.0
    for m in range(weights.size):
        total += weights[m] * probability(row, heads[m])
    return total


@njit(cache=True, nogil=True)
def _utilities(features, weights, heads):  # type: ignore[no-untyped-def]
    utilities = np.empty(features.shape[0])
    for i in range(features.shape[0]):
        utilities[i] = _utility(features[i], weights, heads)
    return utilities


def _greedy_under(
    rows: ConstraintRows, kept: Kept | None, arrays: tuple[Any, ...], weights: Floats, heads: Any, columns: list[int]
) -> tuple[Ints, Floats]:
    """Greedy by full scans under constraints, on ``columns`` of the full layout of features."""
    static, embeddings, inverse_norm, codes = arrays
    slots = len(rows.pinned)
    features = np.empty((len(static), static.shape[1] + SHARED + 2 * codes.shape[1]))
    start(features, static, codes.shape[1], slots)
    items: tuple[int, ...] = ()
    utilities, score_sum = np.empty(slots), 0.0
    for slot in range(slots):
        utility = _utilities(np.ascontiguousarray(features[:, columns]), weights, heads)
        if rows.soft:
            utility -= charges(rows, items, slot)
        (item,) = choices(rows, items, slot, utility, 1, kept)
        items, utilities[slot] = (*items, item), utility[item]
        score_sum = place(features, static, embeddings, inverse_norm, codes, item, slot, score_sum, slots)
    return np.array(items, np.int64), utilities


@njit(cache=True, nogil=True)
def _lazy_greedy(static, embeddings, inverse_norm, codes, weights, heads, slots):  # type: ignore[no-untyped-def]
    """Greedy on falling predictions: the largest bound that is of today wins (see ``lazy_greedy``)."""
    count, first = static.shape[0], static.shape[1]
    row = np.empty(first + 2 + codes.shape[1])
    nearest, seen = np.zeros(count), np.zeros(count, np.int64)
    repeats = np.zeros((codes.shape[1], codes.max() + 1 if codes.size else 1))
    values, chosen, utilities = np.empty(count), np.empty(slots, np.int64), np.empty(slots)
    taken = np.zeros(count, np.bool_)
    row[first:] = 0.0
    for i in range(count):
        row[:first] = static[i]
        values[i] = _utility(row, weights, heads)
    blocks = (count + BLOCK - 1) // BLOCK
    best_value, best_index = np.empty(blocks), np.empty(blocks, np.int64)
    for block in range(blocks):
        block_maximum(values, taken, block, best_value, best_index)
    for slot in range(slots):
        while True:
            block = largest_block(best_value, best_index)
            i = best_index[block]
            if seen[i] == slot:
                break
            if embeddings.shape[1] > 0:
                for j in range(seen[i], slot):
                    nearest[i] = max(nearest[i], cosine_of(embeddings, inverse_norm, i, chosen[j]))
            seen[i] = slot
            row[:first] = static[i]
            row[first], row[first + 1] = slot, nearest[i]
            for p in range(codes.shape[1]):
                row[first + 2 + p] = repeats[p, codes[i, p]]
            values[i] = _utility(row, weights, heads)
            block_maximum(values, taken, block, best_value, best_index)
        chosen[slot], utilities[slot] = i, values[i]
        for p in range(codes.shape[1]):
            repeats[p, codes[i, p]] += 1.0
        taken[i] = True
        block_maximum(values, taken, block, best_value, best_index)
    return chosen, utilities


@njit(cache=True, nogil=True)
def _full_greedy(static, embeddings, inverse_norm, codes, weights, heads, slots):  # type: ignore[no-untyped-def]
    count = static.shape[0]
    features = np.empty((count, static.shape[1] + SHARED + 2 * codes.shape[1]))
    start(features, static, codes.shape[1], slots)
    taken = np.zeros(count, np.bool_)
    items, utilities = np.empty(slots, np.int64), np.empty(slots)
    score_sum = 0.0
    for slot in range(slots):
        best, best_value = -1, 0.0
        for i in range(count):
            if taken[i]:
                continue
            value = _utility(features[i], weights, heads)
            if best < 0 or value > best_value:
                best, best_value = i, value
        items[slot], utilities[slot] = best, best_value
        taken[best] = True
        score_sum = place(features, static, embeddings, inverse_norm, codes, best, slot, score_sum, slots)
    return items, utilities
