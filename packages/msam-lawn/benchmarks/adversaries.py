"""The battery of adversarial models over many seeds: exact, refused by name, or silent, counted for each engine.

uv run --no-sync python packages/msam-lawn/benchmarks/adversaries.py --draws 10
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from msam_adversaries import ADVERSARIES, Draw
from msam_lawn.torch.engines.choice import ENGINES
from test_msam_adversaries import outcome

TOLERANCE = 1e-10


def main() -> int:
    """Print a row an engine; the exit code is 1 where a gradient was silently wrong or a working loop was refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10, help="seeds of every adversary")
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    bad = 0
    for engine in ENGINES:
        counts, worst = Counter[str](), 0.0
        for name in ADVERSARIES:
            for seed in range(arguments.first, arguments.first + arguments.draws):
                error, refusal = outcome(name, engine, seed)
                due = ADVERSARIES[name](Draw(seed)).refused is not None
                needless = refusal is not None and not due and engine in ("auto", "loop")
                kind = (
                    "silent"
                    if not error <= TOLERANCE
                    else "needless"
                    if needless
                    else "refused"
                    if refusal
                    else "exact"
                )
                if kind == "exact" and due:
                    kind = "silent"
                counts[kind] += 1
                worst = max(worst, error)
                if kind in ("silent", "needless"):
                    bad += 1
                    print(f"{kind}: {name}, {engine}, seed {seed}, error {error:.2g}, {refusal}")
        print(f"{engine}: {dict(counts)}, largest relative error {worst:.2g}", flush=True)
    print(f"{len(ADVERSARIES)} adversaries, {arguments.draws} draws each")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
