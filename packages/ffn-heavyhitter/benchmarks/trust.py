"""Is anything silently wrong? The matrix of tests/oracles/ffn_trust.py, whole, and drawn outlier weights.

uv run --no-sync python packages/ffn-heavyhitter/benchmarks/trust.py [--cells N] [--draws N] [--seed S]
"""

import argparse
import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ffn_heavyhitter import FFNWarning
from oracles.ffn_tiny_architectures import REFUSED, SUPPORTED
from oracles.ffn_trust import DTYPES, WAYS, cells, faults, outlier_draws, without_the_plug_in
from transformers.utils import logging


def matrix(count: int | None, seed: int) -> int:
    chosen = cells()
    if count is not None:  # each architecture once before any comes again
        random.Random(seed).shuffle(chosen)
        times: Counter = Counter()
        turns = {cell: times.update([cell[0]]) or times[cell[0]] for cell in chosen}
        chosen = sorted(chosen, key=turns.__getitem__)[:count]
    sizes = f"{len(SUPPORTED)} architectures x {len(WAYS)} treatments x {len(DTYPES)} dtypes"
    print(f"{sizes}; {len(REFUSED)} more are refused")
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        places = {}
        for i, (name, way) in enumerate(chosen):
            places[str(Path(home) / str(i))] = (name, way)
            (Path(home) / str(i)).mkdir()
            try:
                found = faults(name, way, Path(home) / str(i))
            except Exception as error:  # a crash is no silent fault, but it is one
                found = [f"{type(error).__name__}: {error}"]
                places.pop(str(Path(home) / str(i)))
            wrong += bool(found)
            for fault in found:
                print(f"{name}, {way}: {fault}", flush=True)
        strangers = without_the_plug_in([Path(place) for place in places])
        for place, found in strangers.items():
            wrong += bool(found)
            for fault in found:
                print(f"{', '.join(places[place])}, without the import: {fault}")
    print(f"matrix: {len(chosen)} cells of all dtypes with the import, {len(strangers)} without; at fault: {wrong}")
    return wrong


def outliers(draws: int, seed: int) -> int:
    found = Counter()
    for label, run in outlier_draws(draws, seed):
        try:
            verdict = run()
        except Exception as error:
            verdict = f"{type(error).__name__}: {error}"
        said = ("right", "refused", "warned")
        if verdict not in said:
            print(f"{label}: {verdict}", flush=True)
        found[verdict if verdict in said else "wrong"] += 1
    print(f"outliers: {dict(found)}")
    return found["wrong"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, help="a seeded sample of so many cells; all by default")
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FFNWarning)
    logging.set_verbosity(60)
    logging.disable_progress_bar()
    wrong = matrix(arguments.cells, arguments.seed) + outliers(arguments.draws, arguments.seed)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
