"""Random constraint sets: the re-ranker keeps all of them exactly where OR-tools' CP-SAT finds that it can be done.

    OMP_NUM_THREADS=1 uv run packages/multislot-rerank/benchmarks/feasibility.py [--draws 2000] [--seed 0]

Pools of 2 to 60 candidates, 2 to 20 slots, up to five caps and gaps on three attributes of 1 to 8 values (some
missing), up to four pins, a fresh quota. CP-SAT runs in an environment of its own. Prints disagreements, how many
slates the plain greedy would have broken although they can be kept, and times.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from multislot_rerank import (
    Candidates,
    FreshQuota,
    MaxPerWindow,
    MinGap,
    Pin,
    Relevance,
    SequentialGreedyReranker,
    warmup,
)
from multislot_rerank.scan import scan_slate
from multislot_rerank.violations import broken_slots

PEER = Path(__file__).parent / "peers" / "cp_sat_slates.py"


def draw(seed: tuple[int, int]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 21))
    count = k + int(rng.integers(0, rng.choice([2, 10, 41])))
    values = [int(rng.integers(1, 9)) for _ in range(3)]
    attributes = [[None if rng.random() < 0.03 else int(rng.integers(v)) for _ in range(count)] for v in values]
    caps = []
    for _ in range(int(rng.integers(1, 6))):
        attribute = int(rng.integers(3))
        if rng.random() < 0.5:
            caps.append((attribute, int(rng.integers(2, min(k, values[attribute] + 1) + 1)), 1))
        else:
            window = int(rng.integers(2, k + 1))
            caps.append((attribute, window, int(rng.integers(max(1, window // values[attribute]), window + 1))))
    pins = int(rng.integers(0, min(5, k)))
    return {
        "k": k,
        "attributes": attributes,
        "caps": caps,
        "pins": [
            (int(i), int(s)) for i, s in zip(rng.permutation(count)[:pins], rng.permutation(k)[:pins], strict=True)
        ],
        "fresh": (rng.random(count) < rng.random()).tolist(),
        "quota": int(rng.integers(1, k + 1)) if rng.random() < 0.5 else 0,
        "scores": rng.normal(size=count).tolist(),
    }


def reranked(problem: dict[str, Any]) -> tuple[SequentialGreedyReranker, Candidates]:
    caps = [
        MinGap(str(a), window) if most == 1 else MaxPerWindow(str(a), window, most)
        for a, window, most in problem["caps"]
    ]
    quota = [FreshQuota(problem["quota"], 10.0)] if problem["quota"] else []
    reranker = SequentialGreedyReranker(
        [Relevance()], problem["k"], [*(Pin(*p) for p in problem["pins"]), *caps, *quota]
    )
    attributes = {str(a): column for a, column in enumerate(problem["attributes"])}
    return reranker, Candidates(problem["scores"], None, attributes, [1.0 if f else 99.0 for f in problem["fresh"]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    problems = [draw((arguments.seed, number)) for number in range(arguments.draws)]
    warmup()
    reranked(problems[0])[0].rerank(reranked(problems[0])[1])
    kept, unproven, dead_ends, seconds = [], 0, 0, []
    for problem in problems:
        reranker, candidates = reranked(problem)
        began = time.perf_counter()
        slate = reranker.rerank(candidates)
        seconds.append(time.perf_counter() - began)
        kept.append(not slate.relaxed)
        unproven += not slate.proven
        arrays = reranker.scan_problem(candidates)
        plain, _ = scan_slate(arrays, 1)
        stuck = broken_slots(plain, arrays.codes, arrays.caps, arrays.fresh, arrays.fresh_quota).any()
        dead_ends += bool(stuck and kept[-1])
    with tempfile.TemporaryDirectory() as folder:
        sets, answers = Path(folder) / "sets.json", Path(folder) / "answers.json"
        sets.write_text(json.dumps(problems), encoding="utf-8")
        subprocess.run(["uv", "run", "--no-project", "--script", str(PEER), str(sets), str(answers)], check=True)
        theirs = json.loads(answers.read_text(encoding="utf-8"))
    wrong = [number for number, (ours, cp) in enumerate(zip(kept, theirs, strict=True)) if ours != cp]
    for number in wrong:
        print(f"seed {(arguments.seed, number)}: kept {kept[number]}, CP-SAT feasible {theirs[number]}")
    print(
        f"{len(problems)} sets, {sum(theirs)} feasible by CP-SAT: {len(wrong)} disagree, {unproven} unproven; "
        f"plain greedy breaks {dead_ends} of the feasible ones; median {1e3 * np.median(seconds):.2f} ms, "
        f"slowest {max(seconds):.3f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
