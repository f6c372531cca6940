# /// script
# requires-python = ">=3.11"
# dependencies = ["catboost==1.2.10", "pandas>=2.2", "pyarrow>=16", "scikit-learn>=1.7"]
# ///
"""CatBoost on one cell: ``peer_catboost.py CELL OUT`` writes test probabilities and CPU times.

``cat_feature`` has the base logit as one more feature; ``cat_stack`` is fitted on the features alone and joined with
the logit by a logistic regression on out-of-fold logits. Both keep CatBoost's defaults but for the number of rounds,
which is the mean of what early stopping (40 rounds) finds in three folds, and are refitted on all calibration rows.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from catboost import CatBoostClassifier, Pool
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

cell, out = Path(sys.argv[1]), Path(sys.argv[2])
cal, test = pd.read_parquet(cell / "cal.parquet"), pd.read_parquet(cell / "test.parquet")
features = [c for c in cal.columns if not c.startswith("__")]
categorical = [c for c in features if isinstance(cal[c].dtype, pd.CategoricalDtype)]
for part in (cal, test):
    part[categorical] = part[categorical].astype(str)
y = cal["__y"].to_numpy(int)
z, z_test = cal[["__z"]].to_numpy().clip(-15, 15), test[["__z"]].to_numpy().clip(-15, 15)


def boost(columns):
    """Out-of-fold logits, and the model of all rows."""
    pool, logits, rounds = Pool(cal[columns], y, cat_features=categorical), np.empty(len(y)), []
    common = {"thread_count": 1, "verbose": False, "random_seed": 0, "allow_writing_files": False}
    for train, valid in StratifiedKFold(3, shuffle=True, random_state=0).split(y, y):
        model = CatBoostClassifier(iterations=1000, early_stopping_rounds=40, **common)
        model.fit(pool.slice(train), eval_set=pool.slice(valid))
        logits[valid] = model.predict(cal.iloc[valid][columns], prediction_type="RawFormulaVal")
        rounds.append(model.tree_count_)
    # the learning rate that CatBoost would take by itself depends on the rounds: keep the folds'
    rate = model.learning_rate_
    whole = CatBoostClassifier(iterations=max(1, round(np.mean(rounds))), learning_rate=rate, **common).fit(pool)
    return logits, whole


result = {}
for name, columns in (("cat_feature", [*features, "__z"]), ("cat_stack", features)):
    start = time.process_time()
    logits, model = boost(columns)
    if name == "cat_stack":
        joint = LogisticRegression(C=np.inf).fit(np.column_stack([logits, z]), y)
    fit_s = time.process_time() - start
    start = time.process_time()
    score = model.predict(test[columns], prediction_type="RawFormulaVal")
    if name == "cat_stack":
        score = joint.decision_function(np.column_stack([score, z_test]))
    result[f"p_{name}"] = 1.0 / (1.0 + np.exp(-score))
    result[f"t_{name}"] = np.array([fit_s, time.process_time() - start])
np.savez(out, **result)
