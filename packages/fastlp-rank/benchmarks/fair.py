# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = ["cylp>=0.92", "highspy>=1.10", "fastlp-rank", "papershelf-core"]
#
# [tool.uv.sources]
# fastlp-rank = { path = "..", editable = true }
# papershelf-core = { path = "../../papershelf-core", editable = true }
# ///
"""Ours against general solvers on the form of the problem that suits them best, in turns in one process.

    uv run --no-project --script packages/fastlp-rank/benchmarks/fair.py [--family selection] [--sizes 1000x50x20]

CPU seconds of one thread. Every round goes through all instances with each solver in turn, so that what else the
machine does hits all alike. Ours is timed from raw arrays to the proven lottery and the median of its rounds counts; a
peer is timed on solving alone and the best of its rounds counts, which favours the peer. Ratios are taken by instance.
The full form is solved too where it has no more than 5000 variables.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path

import compact_lp
import full_lp
import numpy as np
import peer_clp
import peer_highs
from fastlp_rank import Status, Workspace, solve_arrays, warmup
from fastlp_rank.instances import Instance, exposure, selection
from papershelf_core.files import write_text
from papershelf_core.timing import Machine

SIZES = {
    "selection": ("100x10x3", "200x20x5", "500x50x10", "1000x50x20", "1000x50x30", "2000x100x50", "5000x100x20",
                  "5000x100x50"),
    "exposure": ("100x10x3", "200x20x5", "500x50x10"),
}  # fmt: skip
PEERS: dict[str, Callable] = {
    "CLP dual": lambda lp: peer_clp.prepare(lp, "dual"),
    "HiGHS no presolve": lambda lp: peer_highs.prepare(lp, {"presolve": "off"}),
    "HiGHS default": lambda lp: peer_highs.prepare(lp, {}),
}
LARGEST_FULL = 5000


def cpu(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def forms(instance: Instance) -> dict[str, full_lp.LP]:
    """The compact form, and the full one where it is small."""
    plain = vars(instance)
    found = {"compact": compact_lp.build(plain)}
    if instance.scores.size * instance.slot_weights.size <= LARGEST_FULL:
        found["full"] = full_lp.build(plain)
    return found


def measure(family: str, size: str, seeds: int, rounds: int) -> dict:
    n, m, K = (int(part) for part in size.split("x"))
    instances = [(selection if family == "selection" else exposure)(n, m, K, seed) for seed in range(seeds)]
    requests = [tuple(vars(instance).values()) for instance in instances]
    lps = [forms(instance) for instance in instances]
    workspace = Workspace(n, m, K)
    optimum = np.full(seeds, np.nan)
    for i, request in enumerate(requests):
        if solve_arrays(*request, workspace) is Status.OPTIMAL:
            optimum[i] = workspace.objective
    ours = np.empty((rounds, seeds))
    peers = {f"{name}, {form}": np.full(seeds, np.inf) for form in lps[0] for name in PEERS}
    reached = {name: np.empty(seeds) for name in peers}
    for r in range(rounds):
        for i, request in enumerate(requests):
            ours[r, i] = cpu(lambda request=request: solve_arrays(*request, workspace))
        for form in lps[0]:
            for name, prepare in PEERS.items():
                label = f"{name}, {form}"
                for i in range(seeds):
                    solve, objective = prepare(lps[i][form])
                    peers[label][i] = min(peers[label][i], cpu(solve))
                    reached[label][i] = objective()
    core = np.median(ours, axis=0)
    rows = {}
    for name, seconds in peers.items():
        ratio = seconds / core
        rows[name] = {
            "ms": float(np.median(seconds)) * 1e3,
            "ratio": float(np.median(ratio)),
            "least_ratio": float(ratio.min()),
            "lost": int((ratio < 1.0).sum()),
            "objective_error": float(np.nanmax(np.abs(reached[name] - optimum) / np.maximum(1.0, np.abs(optimum)))),
        }
    return {"family": family, "size": size, "seeds": seeds, "feasible": int(np.isfinite(optimum).sum()),
            "ours_ms": float(np.median(core)) * 1e3, "ours_max_ms": float(core.max()) * 1e3, "peers": rows}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(SIZES), help="only this one")
    parser.add_argument("--sizes", nargs="+", help="instead of the default ones")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warmup()
    found = []
    print("| family, size | solver and form | ms | times ours: median | least | rows where ours loses |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for family in [options.family] if options.family else list(SIZES):
        for size in options.sizes or SIZES[family]:
            result = measure(family, size, options.seeds, options.rounds)
            found.append(result)
            print(f"| {family} {size} | **ours** | {result['ours_ms']:.4g} | 1 | | |")
            for name, row in result["peers"].items():
                print(f"| | {name} | {row['ms']:.4g} | {row['ratio']:.1f} | {row['least_ratio']:.1f} | "
                      f"{row['lost']} of {options.seeds} |", flush=True)  # fmt: skip
    finish(found, options.json)


def finish(found: list[dict], target: Path | None) -> None:
    """Name machine and versions below the table, and write what it shows where a file is named."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("cylp", "highspy"))
    machine = f"{Machine.here('fastlp-rank', 'numba', 'numpy')}; {versions}"
    print(f"\n{machine}")
    if target is not None:
        write_text(target, json.dumps({"machine": machine, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
