"""Time P_ee and all nine channels against jaxnu, NuOscProbExact, nu-waves and nuSQuIDS.

    uv run python packages/nu-physics/benchmarks/probability.py --json out/probability.json

Every contender runs in its own environment (uv, inline dependencies), pinned to one core; rounds interleave; CPU time.
A contender that does not install or start is reported with its error.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from nu_physics import OscillationParameters, ScalarNSI, effective_parameters, survival
from nu_physics.constants import HBAR_C_eV_m, POTENTIAL_eV
from nu_physics.oscillation import effective_mass_squared
from papershelf_core.machine import Machine

HERE = Path(__file__).parent
CONTENDERS = ("ours", "jaxnu", "nuoscprobexact", "nu_waves", "nusquids")
BARS = {("ee", "jaxnu"): 3, ("ee", "nuoscprobexact"): 4, ("ee-vacuum", "nu_waves"): 3, ("ee", "nusquids"): 1000}


def workload(core: int) -> dict:
    nature = {"sin2_theta12": 0.307, "sin2_theta13": 0.0218, "sin2_theta23": 0.545, "dm21_eV2": 7.53e-5}
    nature |= {"dm31_eV2": 2.5283e-3, "delta_cp": 0.0, "m_lightest_eV": 0.01}
    parameters, snsi = OscillationParameters(**nature), ScalarNSI(ee=0.01)
    x = effective_mass_squared(parameters, snsi).conj()
    # a full standard equivalent for those without scalar NSI: P_ee needs four numbers, theta23 and delta do not enter
    seen = effective_parameters(parameters, snsi)
    density = 2.45
    return {
        "core": core,
        "parameters": nature,
        "eta_ee": 0.01,
        "effective": {
            "sin2_theta12": seen.sin2_theta12,
            "sin2_theta13": seen.sin2_theta13,
            "sin2_theta23": 0.545,
            "dm21_eV2": seen.dm21_eV2,
            "dm31_eV2": seen.dm31_eV2,
            "delta_cp": 0.0,
        },
        "energy_MeV": np.linspace(1.8, 12.0, 20000).tolist(),
        "nusquids_stride": 200,
        "baseline_km": 52.5,
        "nine_baselines_km": np.linspace(52.1, 52.9, 9).tolist(),
        "density_g_cm3": density,
        "potential_eV": -POTENTIAL_eV * 0.5 * density,
        "km_per_inverse_eV": 1e3 / HBAR_C_eV_m,
        "x_real": x.real.tolist(),
        "x_imag": x.imag.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    work = workload(core)
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(variables, "1")
    environment.pop("VIRTUAL_ENV", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "workload.json")
        path.write_text(json.dumps(work))
        running, failed = {}, {}
        for name in CONTENDERS:
            script = HERE / f"contender_{name}.py"
            command = [sys.executable, script] if name == "ours" else ["uv", "run", "--no-project", "--script", script]
            process = subprocess.Popen(
                [*map(str, command), str(path), folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            line = process.stdout.readline()
            try:
                running[name] = (process, json.loads(line)["ready"])
            except (json.JSONDecodeError, KeyError):
                process.kill()
                failed[name] = (line + process.stderr.read()).strip().splitlines()[-1:]
        seconds = {(name, case): [] for name, (_, cases) in running.items() for case in cases}
        for _ in range(args.rounds):
            for name, (process, cases) in running.items():
                for case, points in cases.items():
                    process.stdin.write(case + "\n")
                    process.stdin.flush()
                    seconds[name, case].append(float(process.stdout.readline()) / points)
        for process, _ in running.values():
            process.stdin.close()
            process.wait()
        energy = np.array(work["energy_MeV"])
        nature, snsi = OscillationParameters(**work["parameters"]), ScalarNSI(ee=0.01)
        truth = {
            "ee": survival(energy, 52.5, nature, snsi, density_g_cm3=2.45),
            "ee-vacuum": survival(energy, 52.5, nature, snsi),
        }
        rows = []
        for (name, case), values in seconds.items():
            row = {"case": case, "contender": name, "ns_per_point": 1e9 * statistics.median(values)}
            base = seconds.get(("ours", case))
            row["ours_faster"] = statistics.median(values) / statistics.median(base) if base else None
            row["bar"] = BARS.get((case, name))
            if case in truth:
                theirs = np.load(Path(folder, f"contender_{name}.py-{case}.npy"))
                stride = work["nusquids_stride"] if name == "nusquids" else 1
                row["largest_difference"] = float(np.abs(theirs - truth[case][::stride]).max())
            rows.append(row)
    rows.sort(key=lambda r: (r["case"], r["ns_per_point"]))
    print(f"{'case':<15} {'contender':<15} {'ns/point':>10} {'ours faster':>12} {'bar':>6}  largest difference of P_ee")
    for row in rows:
        faster = "" if row["ours_faster"] is None else f"{row['ours_faster']:.2f}x"
        bar = "" if row["bar"] is None else f"{row['bar']}x"
        print(
            f"{row['case']:<15} {row['contender']:<15} {row['ns_per_point']:>10.1f} {faster:>12} {bar:>6}  "
            + (f"{row['largest_difference']:.1e}" if "largest_difference" in row else "")
        )
    for name, error in failed.items():
        print(f"{name}: did not run: {error}")
    machine = str(Machine.here("nu-physics", "numba", "numpy"))
    print(machine)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"rows": rows, "failed": failed, "machine": machine}, indent=2))


if __name__ == "__main__":
    main()
