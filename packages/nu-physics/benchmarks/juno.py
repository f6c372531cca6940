"""Time JUNO's prediction, its derivatives, the ordering fit, a large scan, and the Daya Bay fit.

uv run python packages/nu-physics/benchmarks/juno.py              # a minute
uv run python packages/nu-physics/benchmarks/juno.py --scan 200   # adds a 200 x 200 scan on two processes
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from nu_physics import OscillationParameters, ScalarNSI, ScanJob, juno, load_dayabay, mass_ordering, run_scan  # noqa: E402
from nu_physics.statistics.fit import OSCILLATION  # noqa: E402
from papershelf_core import timing  # noqa: E402
from papershelf_core.machine import Machine  # noqa: E402


def seconds(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", type=int, default=0, metavar="N", help="N x N points, four parameters profiled")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    nature, snsi = OscillationParameters(m_lightest_eV=0.01), ScalarNSI(ee=0.003)
    experiment = juno()
    mass_ordering(experiment, nature)
    compared = timing.compare(
        {
            "prediction": lambda: experiment.expected(nature, snsi),
            "prediction and four derivatives": lambda: experiment.source_gradient(nature, snsi, OSCILLATION),
            "ordering: both hypotheses, all starts": lambda: mass_ordering(experiment, nature),
        },
        repeat=15,
        clock="process",
        baseline="prediction",
    )
    rows = {name: 1e3 * value for name, value in compared.median.items()}
    rows["Daya Bay: load, build and fit (wall)"] = 1e3 * seconds(lambda: load_dayabay().fit())
    for name, value in rows.items():
        print(f"{name:<42} {value:10.3f} ms")
    if args.scan:
        grid = {
            "eta_ee": np.linspace(-0.03, 0.03, args.scan).tolist(),
            "m_lightest_eV": np.linspace(0.0, 0.05, args.scan).tolist(),
        }
        job = ScanJob(grid=grid, regime="prior")
        rows["scan, two processes (s)"] = seconds(lambda: run_scan(job, executor="processes", workers=2))
        print(f"{args.scan} x {args.scan} scan, four parameters profiled: {rows['scan, two processes (s)']:.1f} s wall")
    machine = str(Machine.here("nu-physics", "numba", "numpy"))
    print(machine)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"milliseconds": rows, "machine": machine}, indent=2))


if __name__ == "__main__":
    main()
