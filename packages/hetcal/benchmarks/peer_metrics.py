# /// script
# requires-python = ">=3.11"
# dependencies = ["mcgrad==0.1.5"]
# ///
"""mcgrad's own segment errors on the generated rows of tests/test_hetcal_metrics.py, printed for that test."""

import numpy as np
from mcgrad.metrics import _ecce_per_segment, _ecce_standard_deviation_per_segment

rng = np.random.default_rng(7)
p = rng.random(500)
y = (rng.random(500) < p).astype(int)
w = rng.random(500) + 0.5
leaf = rng.integers(0, 3, 500)
order = np.argsort(p)
masks = (np.arange(3)[:, None] == leaf)[:, order]
error = _ecce_per_segment(y[order], p[order], w[order], masks, np.float64)
scale = _ecce_standard_deviation_per_segment(p[order], y[order], w[order], masks, np.float64)
print(
    f"MCGRAD_ECCE = {error.tolist()}\nMCGRAD_SD = {scale.tolist()}\nMCGRAD_MCE_SIGMA = {float((error / scale).max())!r}"
)
