# /// script
# requires-python = ">=3.11"
# dependencies = ["mcgrad==0.1.5"]
# ///
"""MCGrad with its defaults on one cell: ``peer_mcgrad.py CELL OUT`` writes test probabilities and CPU times."""

import logging
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from mcgrad import methods

logging.disable(logging.CRITICAL)
cell, out = Path(sys.argv[1]), Path(sys.argv[2])
cal, test = pd.read_parquet(cell / "cal.parquet"), pd.read_parquet(cell / "test.parquet")
for part in (cal, test):
    part["__p"] = 1.0 / (1.0 + np.exp(-np.clip(part["__z"], -36.0, 36.0)))
features = [c for c in cal.columns if not c.startswith("__")]
categorical = [c for c in features if isinstance(cal[c].dtype, pd.CategoricalDtype)]
numerical = [c for c in features if c not in categorical]
for part in (cal, test):  # it encodes text columns itself
    part[categorical] = part[categorical].astype(object)
columns = {
    "prediction_column_name": "__p",
    "categorical_feature_column_names": categorical,
    "numerical_feature_column_names": numerical,
}

model = methods.MCGrad(random_state=0)
start = time.process_time()
model.fit(cal, label_column_name="__y", **columns)
fit_s = time.process_time() - start
predictions = []
predict_s = []
for _ in range(15):
    start = time.process_time()
    predictions = model.predict(test, **columns)
    predict_s.append(time.process_time() - start)
np.savez(out, p_mcgrad=np.asarray(predictions), t_mcgrad=np.array([fit_s, np.median(predict_s)]))
