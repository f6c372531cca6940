"""Random requests through the lazy kernel, the scan and a greedy from the definitions: the same slates or errors.

    OMP_NUM_THREADS=1 uv run packages/multislot-rerank/benchmarks/trust.py [--draws 20000] [--seed 0]

Values reach +-1e308, vectors 1e-298 to 1e298, with ties, copies, missing attribute values and all kinds of constraints.
The lazy kernel and the scan must give the same bits; the re-ranker the slate, the relaxed constraints and
the refusals that
the definitions give (``tests/oracles/slate_by_definition.py``). Prints what differs and the slowest re-ranking.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from multislot_rerank import InvalidInput, warmup
from oracles.random_requests import disagreement, draw


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warmup()
    draw(0).reranker(beam=2).rerank(draw(0).candidates())
    slowest, differing, refused, relaxed, searched = 0.0, 0, 0, 0, 0
    for number in range(arguments.draws):
        seed = (arguments.seed, number)
        request = draw(seed)
        began = time.perf_counter()
        try:
            slate = request.reranker().rerank(request.candidates())
            relaxed += bool(slate.relaxed)
            searched += bool(request.constraints)
        except InvalidInput:
            refused += 1
        if number > 200:  # the first requests load kernels
            slowest = max(slowest, time.perf_counter() - began)
        found = disagreement(request)
        if found:
            differing += 1
            print(f"seed {seed}: {found}")
    print(
        f"{arguments.draws} requests: {differing} differ; {refused} refused for overflow, {searched} with constraints, "
        f"{relaxed} of them relaxed; slowest re-ranking {slowest:.3f} s"
    )
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
