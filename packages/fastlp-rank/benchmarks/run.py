"""Ours and every peer on the same generated instances, each peer in a process and environment of its own.

    uv run packages/fastlp-rank/benchmarks/run.py [--sizes 100x10x3 200x20x5] [--seeds 20] [--json FILE]

CPU seconds on one thread, medians over instances; a peer is timed on solving alone, the model is built outside the
clock (its build time is a column of its own), best of the repeats. A peer that does not install is reported as such.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from fastlp_rank import Workspace, solve_arrays, warmup
from fastlp_rank.bench import batch_rate, time_size
from fastlp_rank.instances import exposure
from papershelf_core.timing import Machine

PEERS = ("peer_clp.py", "peer_highs.py", "peer_glop.py", "peer_clarabel.py")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def run_peer(script: str, document: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.json"), Path(folder, "out.json")
        source.write_text(json.dumps(document))
        command = ["uv", "run", "--no-project", "--script", str(Path(__file__).with_name(script)), source, target]
        done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True)
        if done.returncode != 0:
            return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        return json.loads(target.read_text())


def measure(n: int, m: int, K: int, seeds: int, repeats: int) -> dict:
    instances = [exposure(n, m, K, seed) for seed in range(seeds)]
    plain = [{name: value.tolist() for name, value in vars(instance).items()} for instance in instances]
    workspace = Workspace(n, m, K)
    optimum = []
    for instance in instances:
        solve_arrays(*vars(instance).values(), workspace)
        optimum.append(workspace.objective)
    ours = time_size(n, m, K, seeds)
    core = float(np.median(ours.core))
    rows = {
        "fastlp-rank solve_arrays": {"us": core * 1e6, "p95_us": float(np.quantile(ours.core, 0.95)) * 1e6},
        "fastlp-rank solve": {"us": float(np.median(ours.public)) * 1e6},
        "fastlp-rank RankingProblem + solve": {"us": float(np.median(ours.whole)) * 1e6},
        "fastlp-rank solve_batch": {"us": 1e6 / batch_rate(n, m, K, max(seeds, 50))},
    }
    for script in PEERS:
        answer = run_peer(script, {"repeats": repeats, "instances": plain})
        if "error" in answer:
            rows[script] = {"error": answer["error"]}
            continue
        for name, found in answer["settings"].items():
            difference = np.abs(np.array(found["objectives"]) - optimum) / np.maximum(1.0, np.abs(optimum))
            rows[f"{name} ({answer['version']})"] = {
                "us": float(np.median(found["seconds"])) * 1e6,
                "build_us": float(np.median(found["build_seconds"])) * 1e6,
                "objective_error": float(difference.max()),
            }
    for row in rows.values():
        if "us" in row:
            row["ratio_to_core"] = row["us"] / (core * 1e6)
    return {"size": f"{n}x{m}x{K}", "seeds": seeds, "pricings": float(np.median(ours.pricings)), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["100x10x3", "200x20x5"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warmup()
    sizes = []
    for size in options.sizes:
        n, m, K = (int(part) for part in size.split("x"))
        found = measure(n, m, K, options.seeds, options.repeats)
        sizes.append(found)
        print(f"\n{size}: {found['seeds']} instances, {found['pricings']:.0f} sorts of the candidates\n")
        print("| solver | CPU µs | ratio | build µs | largest difference of objective |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, row in found["rows"].items():
            if "error" in row:
                print(f"| {name} | did not run: {row['error']} | | | |")
                continue
            build = f"{row['build_us']:,.0f}" if "build_us" in row else ""
            error = f"{row['objective_error']:.0e}" if "objective_error" in row else ""
            print(f"| {name} | {row['us']:,.1f} | {row['ratio_to_core']:,.1f} | {build} | {error} |")
    machine = str(Machine.here("fastlp-rank", "numba", "numpy"))
    print(f"\n{machine}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
