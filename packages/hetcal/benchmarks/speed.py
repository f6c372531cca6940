"""Speed without data: per-leaf Platt, the exported scorer, imports."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from hetcal import HeterogeneousCalibrator, load, save
from hetcal.calibrators import fit_leaf_map
from hetcal.links import sigmoid
from papershelf_core import timing
from sklearn.calibration import _SigmoidCalibration

ROWS, LEAVES = 1_000_000, 32
rng = np.random.default_rng(0)
z, leaf = 2 * rng.normal(size=ROWS), rng.integers(0, LEAVES, ROWS)
a, b = 0.5 * rng.normal(size=LEAVES), 1 + 0.2 * rng.normal(size=LEAVES)
y = (rng.random(ROWS) < sigmoid(a[leaf] + b[leaf] * z)).astype(float)
result = timing.compare(
    {
        "per leaf": lambda: fit_leaf_map("platt", z, y, None, leaf, LEAVES, shrinkage="none", overall=(0.0, 1.0)),
        "per leaf, shrunk": lambda: fit_leaf_map("platt", z, y, None, leaf, LEAVES, overall=(0.0, 1.0)),
        "sklearn sigmoid": lambda: _SigmoidCalibration().fit(z, y),
    },
    repeat=5,
    clock="process",
    baseline="sklearn sigmoid",
)
print({name: round(seconds, 3) for name, seconds in result.median.items()}, result.machine)

X = rng.normal(size=(ROWS, 6))
few = slice(0, 20_000)
shifted = y[few] * (X[few, 0] > 0) + (1 - y[few]) * (X[few, 0] <= 0)
model = HeterogeneousCalibrator("tree", selection=None).fit(X[few], shifted, logits=z[few])
with tempfile.TemporaryDirectory() as folder:
    scorer = load(save(model, Path(folder) / "model.json"))
columns = scorer.encode(X, ROWS)
seconds = timing.compare({"scorer": lambda: scorer.score_encoded(columns, z)}, repeat=7, clock="process").median[
    "scorer"
]
print(f"exported scorer: {ROWS / seconds / 1e6:.1f}e6 rows/s, {model.model_.leaf_map.n_leaves} leaves")

forest = HeterogeneousCalibrator("forest", selection=None).fit(X[few], shifted, logits=z[few])
with tempfile.TemporaryDirectory() as folder:
    scorer = load(save(forest, Path(folder) / "model.json"))
columns, first = scorer.encode(X[:200_000], 200_000), X[:1]
times = timing.compare(
    {
        "many rows": lambda: scorer.score_encoded(columns, z[:200_000]),
        "one row": lambda: scorer.predict_proba(first, logits=z[:1]),
        "one row, estimator": lambda: forest.predict_proba(first, logits=z[:1]),
    },
    repeat=7,
    clock="process",
).median
print(
    f"forest of {len(scorer.trees)} trees: {200 / times['many rows']:.0f}e3 rows/s; "
    f"one row {times['one row'] * 1e3:.2f} ms, of the estimator {times['one row, estimator'] * 1e3:.2f} ms"
)

for module in ("sklearn.calibration", "hetcal.estimator", "hetcal"):
    program = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout) for _ in range(5)
    ]
    print(f"import {module}: {np.median(times):.3f} CPU s")
