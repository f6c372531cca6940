# /// script
# requires-python = ">=3.11"
# dependencies = ["lightgbm==4.7.0", "pandas>=2.2", "pyarrow>=16", "scikit-learn>=1.6"]
# ///
"""The ten lines people write instead: LightGBM from the Platt logit (init), with it as a feature (stack), on X alone.

``peer_lightgbm.py CELL OUT``: 8 leaves (min child 50, l2 5) and 31 leaves (min child 20, l2 0), learning rate .05,
rounds by 5-fold cross-validation (at most 400, early stop 30), refitted on all calibration rows.
"""

import sys
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

cell, out = Path(sys.argv[1]), Path(sys.argv[2])
cal, test = pd.read_parquet(cell / "cal.parquet"), pd.read_parquet(cell / "test.parquet")
features = [c for c in cal.columns if not c.startswith("__")]
y = cal["__y"].to_numpy(float)
for part in (cal, test):
    for column in features:
        if isinstance(part[column].dtype, pd.CategoricalDtype):
            part[column] = part[column].cat.codes.astype(float)

SIZES = {
    8: {"num_leaves": 8, "min_child_samples": 50, "lambda_l2": 5.0},
    31: {"num_leaves": 31, "min_child_samples": 20},
}
result = {}
for leaves, size in SIZES.items():
    for start_from in ("init", "stack", "xonly"):
        parameters = {
            "objective": "binary",
            "learning_rate": 0.05,
            "num_threads": 1,
            "verbosity": -1,
            "seed": 0,
            "deterministic": True,
            **size,
        }
        start = time.process_time()
        platt = LogisticRegression(C=np.inf).fit(cal[["__z"]].to_numpy(), y)
        z_cal = platt.decision_function(cal[["__z"]].to_numpy())
        columns = features + ([] if start_from == "xonly" else ["__z"])
        init = z_cal if start_from == "init" else None
        data = lgb.Dataset(cal[columns], y, init_score=init, free_raw_data=False)
        history = lgb.cv(
            parameters,
            data,
            400,
            nfold=5,
            stratified=True,
            seed=0,
            metrics="binary_logloss",
            callbacks=[lgb.early_stopping(30, verbose=False)],
        )
        rounds = (
            len(history["valid booster"]) if "valid booster" in history else len(history["valid binary_logloss-mean"])
        )
        data = lgb.Dataset(cal[columns], y, init_score=init)
        booster = lgb.train(parameters, data, rounds)
        fit_s = time.process_time() - start
        predict_s = []
        for _ in range(3):
            start = time.process_time()
            score = booster.predict(test[columns], raw_score=True)
            if start_from == "init":
                score = score + platt.decision_function(test[["__z"]].to_numpy())
            p = 1.0 / (1.0 + np.exp(-score))
            predict_s.append(time.process_time() - start)
        result[f"p_{start_from}{leaves}"] = p
        result[f"t_{start_from}{leaves}"] = np.array([fit_s, np.median(predict_s)])
np.savez(out, **result)
