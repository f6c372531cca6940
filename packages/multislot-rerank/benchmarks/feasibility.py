"""Random constraint sets: the re-ranker keeps all of them exactly where OR-tools' CP-SAT finds that it can be done.

    OMP_NUM_THREADS=1 uv run packages/multislot-rerank/benchmarks/feasibility.py [--draws 2000] [--seed 0]

Draws as in ``tests/oracles/constraint_sets.py``. CP-SAT runs in an environment of its own. Prints disagreements, what
is not proven, how many slates the plain greedy would have broken although they can be kept, and times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from multislot_rerank import warmup
from multislot_rerank.scan import scan_slate
from multislot_rerank.violations import broken_slots
from oracles.constraint_sets import draw, plain

PEER = Path(__file__).parent / "peers" / "cp_sat_slates.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warmup()
    problems, kept, unproven, dead_ends, seconds = [], [], [], 0, []
    for number in range(arguments.draws):
        reranker, candidates = draw((arguments.seed, number))
        problems.append(plain(reranker, candidates))
        began = time.thread_time()
        slate = reranker.rerank(candidates)
        seconds.append(time.thread_time() - began)
        kept.append(not slate.relaxed)
        if not slate.proven:
            unproven.append(number)
        problem = reranker.scan_problem(candidates)
        rows, (greedy, _) = problem.rows, scan_slate(problem, 1)
        stuck = broken_slots(greedy, rows.codes, rows.caps, rows.minima, len(rows.hard)).any()
        dead_ends += bool(stuck and kept[-1])
    with tempfile.TemporaryDirectory() as folder:
        sets, answers = Path(folder) / "sets.json", Path(folder) / "answers.json"
        sets.write_text(json.dumps(problems), encoding="utf-8")
        subprocess.run(["uv", "run", "--no-project", "--script", str(PEER), str(sets), str(answers)], check=True)
        theirs = json.loads(answers.read_text(encoding="utf-8"))
    wrong = [number for number, (ours, cp) in enumerate(zip(kept, theirs, strict=True)) if cp not in (ours, None)]
    for number in wrong:
        print(f"seed {(arguments.seed, number)}: kept {kept[number]}, CP-SAT feasible {theirs[number]}")
    print(
        f"{len(problems)} sets, {theirs.count(True)} feasible by CP-SAT, {theirs.count(None)} not decided by it "
        f"within its limit: {len(wrong)} disagree; unproven: "
        f"{unproven or 'none'}; plain greedy breaks {dead_ends} of the feasible ones; "
        f"median {1e3 * np.median(seconds):.2f} ms, slowest {max(seconds):.3f} s of CPU time"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
