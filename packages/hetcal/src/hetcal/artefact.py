"""Save a fitted calibrator as canonical JSON: the same fit gives the same bytes.

Keys are sorted, floats are written by their shortest exact text, nothing is executable. The file says which version
wrote it, whether scores or logits were fitted, and the SHA-256 of its content. ``load`` gives a ``Scorer``, which needs
numpy alone; LightGBM forests are written out as plain trees.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from papershelf_core.files import write_text
from sklearn.utils.validation import check_is_fitted

from hetcal.bag import Bag
from hetcal.calibrators import LeafMap, LogisticMap
from hetcal.errors import ArtefactError
from hetcal.estimator import HeterogeneousCalibrator
from hetcal.forest import Forest
from hetcal.meta import HeterogeneousCalibratedClassifier
from hetcal.partition import GroupPartitioner, TreePartitioner
from hetcal.regions import Regions
from hetcal.scorer import FORMAT, LARGEST, SCHEMA, Scorer, content_hash
from hetcal.trees import FlatTree

__all__ = ["load", "save", "to_dict"]


def save(calibrator: HeterogeneousCalibrator | HeterogeneousCalibratedClassifier, path: str | Path) -> Path:
    """Write a fitted calibrator to a JSON file.

    Parameters
    ----------
    calibrator : HeterogeneousCalibrator or HeterogeneousCalibratedClassifier
        Of a classifier, the calibrator is written and the model is not: score with ``classifier.base_logits(X)``.
    path : path
        Whole or not there; missing folders above it are made.

    Returns
    -------
    Path

    Raises
    ------
    ArtefactError
        Where the partition is a Python function, which a file cannot hold.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file in it")
    text = json.dumps(to_dict(calibrator), sort_keys=True, separators=(",", ":"), allow_nan=False)
    write_text(target, text + "\n")
    return target


def load(path: str | Path) -> Scorer:
    """Read a file written by ``save``.

    Parameters
    ----------
    path : path

    Returns
    -------
    Scorer

    Raises
    ------
    ArtefactError
        For a damaged file or a schema newer than this library.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, z = rng.normal(size=(1000, 2)), rng.normal(size=1000)
    >>> y = rng.random(1000) < 1 / (1 + np.exp(-z))
    >>> model = HeterogeneousCalibrator("global").fit(X, y, logits=z)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scorer = load(save(model, Path(folder) / "model.json"))
    >>> bool(np.allclose(scorer.predict_proba(X, logits=z), model.predict_proba(X, logits=z)[:, 1], atol=1e-12))
    True
    """
    try:
        scorer = Scorer.from_file(path)
        missing = [name for name in ("chosen", "classes", "reason") if name not in scorer.artefact]
        if missing or not scorer.artefact["clip"] > 0:
            raise LookupError(f"{', '.join(missing)} missing" if missing else "clip is not positive")
        leaf = None if scorer.groups is None else np.zeros(1, dtype=np.intp)
        trial = scorer.score_encoded([np.full(1, np.nan)] * len(scorer.columns), np.zeros(1), leaf)
        if not np.isfinite(trial).all():
            raise ValueError("a row of missing values gets no finite probability")
    except json.JSONDecodeError as error:
        raise ArtefactError(f"{path} is no JSON ({error}); save the calibrator again") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        damage = f"{type(error).__name__}: {error}"
        raise ArtefactError(f"{path} is damaged ({damage}); save the calibrator again") from error
    except ValueError as error:
        raise ArtefactError(f"{path}: {error}") from error
    return scorer


def to_dict(calibrator: HeterogeneousCalibrator | HeterogeneousCalibratedClassifier) -> dict[str, Any]:
    """The artefact as plain Python values."""
    if isinstance(calibrator, HeterogeneousCalibratedClassifier):
        check_is_fitted(calibrator, "calibrator_")
        calibrator = calibrator.calibrator_
    check_is_fitted(calibrator, "selection_")
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "version": version("hetcal"),
        "score": calibrator.fitted_on_,
        "classes": [_plain(c) for c in calibrator.classes_],
        "columns": [
            {
                "name": c.name,
                "kind": c.kind,
                "missing": c.missing,
                "aside": c.aside,
                "values": None if c.values is None else list(c.values),
            }
            for c in calibrator.encoder_.columns
        ],
        "clip": float(calibrator.clip),
        "shift": float(calibrator.prior_shift_),
        "chosen": calibrator.selection_.chosen,
        "reason": calibrator.selection_.reason,
        "model": _model(calibrator),
    }
    return {**content, "hash": content_hash(content)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _model(calibrator: HeterogeneousCalibrator) -> dict[str, Any]:
    a, b = calibrator.overall_
    model, overall = calibrator.model_, {"intercept": a, "slope": b}
    if model is None:
        return {"way": calibrator.way_, **overall}
    if isinstance(model, Regions):
        return _regions(model, calibrator)
    if isinstance(model, Bag):
        return {
            "way": "bag",
            "intercept": model.intercept,
            "slope": model.slope,
            "ranks": [_ranks(ranks) for ranks in model.ranks],
            "trees": [_cart(tree) for tree in model.trees],
            "maps": [_map(leaf_map) for leaf_map in model.maps],
        }
    return {**_forest(model), **overall}


def _regions(model: Regions, calibrator: HeterogeneousCalibrator) -> dict[str, Any]:
    common = {
        "way": "regions",
        "intercept": model.intercept,
        "slope": model.slope,
        "maps": [_map(model.leaf_map)],
        "rules": model.partitioner.describe(),
    }
    if isinstance(model.partitioner, TreePartitioner):
        return {**common, "ranks": [_ranks(model.partitioner.ranks_)], "trees": [_cart(model.partitioner.tree_)]}
    if isinstance(model.partitioner, GroupPartitioner):
        columns = model.partitioner.columns
        named, names = calibrator.encoder_.named, [c.name for c in calibrator.encoder_.columns]
        chosen = None if columns is None else [str(c) if named else names[c] for c in columns]
        return {**common, "groups": {"columns": chosen, "keys": [list(key) for key in model.partitioner.keys_]}}
    raise ArtefactError(
        f"{type(model.partitioner).__name__} cannot be saved: a file holds no Python function. "
        "Save the leaf numbers beside your features and use GroupPartitioner on them"
    )


def _ranks(ranks: dict[int, Any]) -> dict[str, list[float]]:
    return {str(i): rank.tolist() for i, rank in ranks.items()}


def _map(leaf_map: LeafMap) -> dict[str, Any]:
    if isinstance(leaf_map, LogisticMap):
        return {
            "family": leaf_map.family,
            "leaves": leaf_map.n_leaves,
            "theta": leaf_map.theta.ravel().tolist(),
            "centre": leaf_map.centre,
            "slope": leaf_map.slope,
        }
    return {
        "family": leaf_map.family,
        "knots": [k.tolist() for k in leaf_map.knots],
        "values": [v.tolist() for v in leaf_map.values],
        "share": leaf_map.share.tolist(),
        "intercept": leaf_map.intercept,
        "slope": leaf_map.slope,
    }


def _cart(tree: FlatTree) -> dict[str, Any]:
    return {
        "feature": tree.feature.tolist(),
        "threshold": tree.threshold.tolist(),
        "left": tree.left.tolist(),
        "right": tree.right.tolist(),
        "missing_left": tree.missing_left.astype(int).tolist(),
        "leaf": tree.leaf.tolist(),
        "single": tree.single,
    }


def _forest(forest: Forest) -> dict[str, Any]:
    trees: list[dict[str, Any]] = []
    parts = []
    for part in forest.parts:
        before = len(trees)
        for booster in part.boosters:
            sets = part.sizes if part.candidate.category_sets else {}
            trees += [_boosted(tree["tree_structure"], sets) for tree in booster.dump_model()["tree_info"]]
        parts.append(
            {
                "name": part.candidate.name,
                "trees": len(trees) - before,
                "models": len(part.boosters),
                "scale": 1.0,
                "centre": 0.0,
            }
        )
    return {"way": "forest", "coefficients": forest.coefficients.tolist(), "parts": parts, "trees": trees}


def _boosted(structure: dict[str, Any], sizes: dict[int, int]) -> dict[str, Any]:
    """One LightGBM tree as arrays; a set of categories is a mask over the codes, of which the last stands for none."""
    nodes: list[dict[str, Any]] = []
    sets: dict[str, list[int]] = {}

    def visit(node: dict[str, Any]) -> int:
        number = len(nodes)
        if "split_feature" not in node:
            nodes.append({"feature": -1, "threshold": 0.0, "missing": 0, "zero": 0, "value": node["leaf_value"]})
            return number
        is_set = node["decision_type"] == "=="
        feature, kind = int(node["split_feature"]), node["missing_type"]
        if kind == "Zero":
            raise ArtefactError("a LightGBM forest that treats zero as missing cannot be exported")
        members = [int(v) for v in str(node["threshold"]).split("||")] if is_set else []
        default = sizes.get(feature) in members if is_set else kind == "NaN" and node["default_left"]
        nodes.append(
            {
                "feature": feature,
                "threshold": 0.0 if is_set else min(max(float(node["threshold"]), -LARGEST), LARGEST),
                "missing": int(default),
                "zero": int(not is_set and kind == "None"),
                "value": 0.0,
            }
        )
        if is_set:
            sets[str(number)] = np.isin(np.arange(sizes[feature]), members).astype(int).tolist()
        nodes[number]["left"] = visit(node["left_child"])
        nodes[number]["right"] = visit(node["right_child"])
        return number

    visit(structure)
    spec = {
        "feature": [n["feature"] for n in nodes],
        "threshold": [n["threshold"] for n in nodes],
        "left": [n.get("left", -1) for n in nodes],
        "right": [n.get("right", -1) for n in nodes],
        "missing_left": [n["missing"] for n in nodes],
        "missing_zero": [n["zero"] for n in nodes],
        "value": [float(n["value"]) for n in nodes],
        "single": False,
    }
    return {**spec, "sets": sets} if sets else spec
