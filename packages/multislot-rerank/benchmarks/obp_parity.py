"""Our slate estimators against obp 0.5.7: the same numbers to 1e-10, and how much faster.

    OMP_NUM_THREADS=1 uv run packages/multislot-rerank/benchmarks/obp_parity.py [--json FILE]

Both read one saved log (5000 slates of 3 of 5 items, Plackett-Luce logging and target); obp runs in an environment of
its own. CPU seconds, medians (51 calls of ours, 9 of obp's). obp validates in every call; ours when the log is built,
which is timed apart.
"""

import argparse
import json
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
from multislot_rerank import SlateLog, TargetPolicy, cascade_dr, iips, rips, sips
from papershelf_core.timing import Machine

ITEMS, SLOTS, RECORDS, REPEAT = 5, 3, 5000, 51
PEER = Path(__file__).parent / "peers" / "obp_slate.py"


def problem() -> dict[str, np.ndarray]:
    """Every array of the comparison, by definition, from all ordered slates."""
    rng = np.random.default_rng(0)
    every = np.array(list(permutations(range(ITEMS), SLOTS)))
    arrays: dict[str, np.ndarray] = {}
    shown = None
    for policy in ("mu", "pi"):
        weights = rng.uniform(0.5, 2.0, ITEMS)
        left = np.full(len(every), weights.sum())
        steps = np.empty((len(every), SLOTS))
        actions = np.zeros((len(every), SLOTS, ITEMS))
        for slot in range(SLOTS):
            steps[:, slot] = weights[every[:, slot]] / left
            for item in range(ITEMS):
                free = (every[:, :slot] != item).all(axis=1)
                actions[:, slot, item] = np.where(free, weights[item] / left, 0.0)
            left = left - weights[every[:, slot]]
        marginal = np.zeros((ITEMS, SLOTS))
        for slot in range(SLOTS):
            np.add.at(marginal[:, slot], every[:, slot], steps.prod(axis=1))
        if shown is None:
            shown = rng.choice(len(every), size=RECORDS, p=steps.prod(axis=1))
        slates = every[shown]
        arrays[f"{policy}_steps"] = steps[shown]
        arrays[f"{policy}_prefix"] = np.cumprod(steps[shown], axis=1)
        arrays[f"{policy}_marginal"] = marginal[slates, np.arange(SLOTS)]
        arrays[f"{policy}_action"] = actions[shown]
    arrays |= {"slates": slates, "rewards": rng.random((RECORDS, SLOTS)), "q": rng.random((RECORDS, SLOTS, ITEMS))}
    return arrays


def ours(data: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    q_logged = np.take_along_axis(data["q"], data["slates"][:, :, None], axis=2)[:, :, 0]
    q_target = (data["pi_action"] * data["q"]).sum(axis=2)

    def build() -> tuple[SlateLog, TargetPolicy]:
        log = SlateLog.from_propensities(data["slates"], data["rewards"], data["mu_steps"], ITEMS, data["mu_marginal"])
        return log, TargetPolicy.stochastic(log, data["pi_steps"], data["pi_marginal"])

    log, target = build()
    estimators = {
        "SIPS": lambda: sips(log, target),
        "RIPS": lambda: rips(log, target),
        "IIPS": lambda: iips(log, target),
        "SN-SIPS": lambda: sips(log, target, self_normalized=True),
        "SN-RIPS": lambda: rips(log, target, self_normalized=True),
        "SN-IIPS": lambda: iips(log, target, self_normalized=True),
        "CDR": lambda: cascade_dr(log, target, q_logged, q_target),
    }
    build_seconds = _median_seconds(build)
    return {
        name: {"value": float(run().value[0]), "seconds": _median_seconds(run), "build_seconds": build_seconds}
        for name, run in estimators.items()
    }


def _median_seconds(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEAT):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return float(np.median(seconds))


def theirs(data: dict[str, np.ndarray], scratch: Path) -> dict[str, dict[str, float]]:
    """Unpack obp's source (its metadata refuses this Python) and run the peer in its own environment."""
    pip = ["uv", "run", "--no-project", "--quiet", "--with", "pip", "python", "-m", "pip"]
    options = ["--quiet", "--no-deps", "--ignore-requires-python", "--no-binary", "obp", "-d", str(scratch)]
    subprocess.run([*pip, "download", *options, "obp==0.5.7"], check=True)
    (archive,) = scratch.glob("obp-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    np.savez(scratch / "log.npz", **data)
    call = ["uv", "run", "--no-project", "--quiet", "--script", str(PEER), str(scratch / "obp-0.5.7")]
    done = subprocess.run([*call, str(scratch / "log.npz")], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = problem()
    with tempfile.TemporaryDirectory() as scratch:
        peer = theirs(data, Path(scratch))
    mine = ours(data)
    rows = {
        name: {
            "ours": mine[name]["value"],
            "obp": peer[name]["value"],
            "difference": abs(mine[name]["value"] - peer[name]["value"]),
            "ours_ms": 1e3 * mine[name]["seconds"],
            "build_ms": 1e3 * mine[name]["build_seconds"],
            "obp_ms": 1e3 * peer[name]["seconds"],
            "times_faster": peer[name]["seconds"] / mine[name]["seconds"],
        }
        for name in mine
    }
    print(f"building and validating the log, once: {rows['SIPS']['build_ms']:.3f} ms")
    print(f"{'estimator':<9} {'ours':>10} {'|ours-obp|':>11} {'ours ms':>9} {'obp ms':>9} {'faster':>8}")
    for name, row in rows.items():
        print(
            f"{name:<9} {row['ours']:>10.6f} {row['difference']:>11.1e} {row['ours_ms']:>9.3f} {row['obp_ms']:>9.1f} "
            f"{row['times_faster']:>7.0f}x"
        )
    print(Machine.here("multislot-rerank"))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": str(Machine.here()), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
