"""Against CalibratedClassifierCV: the same MLP, the same five folds, the same rows (train and calibration, 80 %).

``uv run python packages/hetcal/benchmarks/crossfit.py --datasets bank credit --cache DIR``. The fold models are fitted
once and shared by both, so that nothing but the calibration differs.
"""

import argparse
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import protocol
from hetcal import HeterogeneousCalibratedClassifier, HeterogeneousCalibrator
from papershelf_core import metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold

MODELS: dict[str, object] = {}


class SharedMlp(ClassifierMixin, BaseEstimator):
    """The MLP of the protocol; fits on the same rows are made once."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, X, y):
        key = hashlib.sha256(np.asarray(X.index).tobytes() + y.tobytes() + bytes([self.seed])).hexdigest()
        if key not in MODELS:
            MODELS[key] = protocol.mlp(X, self.seed).fit(X, y)
        self.model_, self.classes_ = MODELS[key], np.unique(y)
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def one(dataset: str, seed: int) -> dict[str, float]:
    table, y = protocol.load(dataset)
    train, cal, test = protocol.split(y, seed)
    rows = np.sort(np.concatenate([train, cal]))
    folds = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(rows, y[rows]))
    X = table.iloc[rows]
    theirs = CalibratedClassifierCV(SharedMlp(seed), method="sigmoid", cv=folds).fit(X, y[rows])
    ours = HeterogeneousCalibratedClassifier(SharedMlp(seed), HeterogeneousCalibrator(threads=1), cv=folds)
    ours.fit(X, y[rows])
    result: dict[str, float] = {}
    for name, model in (("sklearn", theirs), ("hetcal", ours)):
        p = np.clip(model.predict_proba(table.iloc[test])[:, 1], 1e-15, 1 - 1e-15)
        result[f"{name}_auc"] = metrics.roc_auc(y[test], p)
        result[f"{name}_log_loss"] = float(-np.mean(np.where(y[test] == 1, np.log(p), np.log1p(-p))))
        result[f"{name}_ece"] = metrics.ece(y[test], p)
    MODELS.clear()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["bank", "credit"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--cache", type=Path, default=Path("out/hetcal-bench"))
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for dataset in arguments.datasets:
        rows = []
        for seed in arguments.seeds:
            file = arguments.cache / f"crossfit-{dataset}-{seed}.json"
            if not file.exists():
                temporary = file.with_suffix(".tmp")
                temporary.write_text(json.dumps(one(dataset, seed)))
                temporary.replace(file)
            rows.append(json.loads(file.read_text()))
        mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        print(dataset, len(rows), "seeds", {key: round(value, 4) for key, value in mean.items()})
        change = [row["hetcal_log_loss"] / row["sklearn_log_loss"] - 1 for row in rows]
        gain = [row["hetcal_auc"] - row["sklearn_auc"] for row in rows]
        print(f"  log-loss {np.mean(change):+.1%} (worst {max(change):+.1%})")
        print(f"  AUC {np.mean(gain):+.4f} (worst {min(gain):+.4f})")


if __name__ == "__main__":
    main()
