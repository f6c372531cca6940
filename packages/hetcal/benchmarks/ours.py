"""hetcal on one cell: ``ours.py CELL OUT [--ways platt auto ...]`` writes test probabilities and CPU times.

The table is given as text and numbers, not encoded: encoding is part of both times, as it is for MCGrad.
"""

import sys
import time
from pathlib import Path

import lightgbm  # noqa: F401  (imports are not part of anyone's time)
import numpy as np
import pandas as pd
import sklearn.isotonic
import sklearn.tree  # noqa: F401
from hetcal import HeterogeneousCalibrator

cell, out = Path(sys.argv[1]), Path(sys.argv[2])
cal, test = pd.read_parquet(cell / "cal.parquet"), pd.read_parquet(cell / "test.parquet")
features = [c for c in cal.columns if not c.startswith("__")]
for part in (cal, test):
    for column in features:
        if isinstance(part[column].dtype, pd.CategoricalDtype):
            part[column] = part[column].astype(object)
y, z, z_test = cal["__y"].to_numpy(), cal["__z"].to_numpy(), test["__z"].to_numpy()
ways = {
    "platt": {"partitioner": "global"},
    "auto": {},
    "high": {"partitioner": "forest", "selection": None, "quality": "high"},
    "tree": {"partitioner": "tree", "selection": None},
    "bag": {"partitioner": "bag", "selection": None},
}
chosen = sys.argv[sys.argv.index("--ways") + 1 :] if "--ways" in sys.argv else [name for name in ways if name != "high"]
result = {}
for name in chosen:
    model = HeterogeneousCalibrator(threads=1, **ways[name])
    repeats = 3 if name in ("tree", "bag") else 1
    fit_s, predict_s = [], []
    for _ in range(repeats):
        start = time.process_time()
        model.fit(cal[features], y, logits=z)
        fit_s.append(time.process_time() - start)
    for _ in range(3 if name in ("auto", "high") else 15):
        start = time.process_time()
        p = model.predict_proba(test, logits=z_test)[:, 1]  # the whole table, as the others get it
        predict_s.append(time.process_time() - start)
    result[f"p_{name}"] = p
    result[f"t_{name}"] = np.array([np.median(fit_s), np.median(predict_s)])
    result[f"c_{name}"] = np.array(model.selection_.chosen)
np.savez(out, **result)
