# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["dayabay-model==1.7.1", "dayabay-data-official==1.0.1"]
# ///
"""The collaboration's own model: seconds to import, build, and first chi2. Slow (minutes): run by hand.

uv run --no-project --script packages/nu-physics/benchmarks/dayabay_official.py
"""

import time

begin = time.perf_counter()
from dayabay_data_official import get_path_data  # noqa: E402
from dayabay_model import model_dayabay  # noqa: E402

print(f"import {time.perf_counter() - begin:.1f} s", flush=True)
begin = time.perf_counter()
model = model_dayabay(path_data=get_path_data("npz"))
print(f"build {time.perf_counter() - begin:.1f} s", flush=True)
begin = time.perf_counter()
value = float(model.storage["outputs.statistic.full.covmat.chi2cnp"].data[0])
print(f"first chi2 {time.perf_counter() - begin:.1f} s, value {value:.6f}", flush=True)
