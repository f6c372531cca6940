"""The assignment LP with all n·m variables as arrays, and the loop that times a peer on it; peer scripts import it.

max c·x,  row_lower <= A x <= row_upper,  0 <= x <= column_upper; columns are (item, slot); rows are slots, items,
constraints.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class LP:
    cost: np.ndarray
    start: np.ndarray  # compressed columns
    index: np.ndarray
    value: np.ndarray
    row_lower: np.ndarray
    row_upper: np.ndarray
    column_upper: np.ndarray


def build(instance: dict) -> LP:
    u, v = np.array(instance["scores"]), np.array(instance["slot_weights"])
    n, m = u.size, v.size
    A = np.array(instance["rows"]).reshape(-1, n)
    item, slot = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    dense = np.concatenate([np.ones((2, n * m)), A[:, item] * v[slot]]).T
    constraint = np.broadcast_to(m + n + np.arange(len(A))[:, None], (len(A), n * m))
    index = np.concatenate([[slot, m + item], constraint]).T
    present = dense != 0.0
    return LP(
        u[item] * v[slot],
        np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32),
        index[present].astype(np.int32),
        dense[present],
        np.concatenate([np.ones(m), np.zeros(n), np.array(instance["lower"], dtype=float)]),
        np.concatenate([np.ones(m), np.ones(n), np.array(instance["upper"], dtype=float)]),
        np.full(n * m, np.inf),
    )


def main(settings: dict[str, Callable[[LP], tuple[Callable[[], None], Callable[[], float]]]], version: str) -> None:
    """Time every setting of a peer on every instance.

    A setting prepares a fresh model and returns two functions: one that solves it (timed alone) and one that reads the
    objective. Building is timed too. The best of the repeats counts, which favours the peer.
    """
    source, target = sys.argv[1:]
    document = json.loads(Path(source).read_text())
    result: dict = {"version": version, "settings": {}}
    for name, prepare in settings.items():
        seconds, builds, objectives = [], [], []
        for instance in document["instances"]:
            lp = build(instance)
            best, best_build = float("inf"), float("inf")
            for _ in range(document["repeats"]):
                start = time.process_time()
                solve, objective = prepare(lp)
                best_build = min(best_build, time.process_time() - start)
                start = time.process_time()
                solve()
                best = min(best, time.process_time() - start)
            seconds.append(best)
            builds.append(best_build)
            objectives.append(objective())
        result["settings"][name] = {"seconds": seconds, "build_seconds": builds, "objectives": objectives}
    Path(target).write_text(json.dumps(result))
