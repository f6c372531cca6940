# /// script
# requires-python = ">=3.11"
# dependencies = ["betacal==1.1.0"]
# ///
"""betacal's own map on the generated rows of tests/test_hetcal_leafwise.py, printed for that test.

uv run --no-project --script packages/hetcal/benchmarks/peer_betacal.py
"""

import numpy as np
from betacal import BetaCalibration

rng = np.random.default_rng(5)
z = rng.normal(size=4000)
p = 1 / (1 + np.exp(-1.7 * z))
y = rng.random(4000) < 1 / (1 + np.exp(0.3 - z))
model = BetaCalibration("abm").fit(p[:, None], y)
print("BETACAL =", [round(float(v), 8) for v in model.predict(np.array([[0.05], [0.2], [0.5], [0.8], [0.95]]))])
