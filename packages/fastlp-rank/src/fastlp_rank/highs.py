"""HiGHS on the full assignment LP, in a process of its own: the peer of `reproduce` (extra ``reproduce``).

``python -m fastlp_rank.highs IN.json OUT.json`` solves every instance of IN and writes status, objective and the CPU
seconds of solving alone (the model is built outside the clock), smallest of the given number of repeats.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastlp_rank.instances import Instance

__all__ = ["solve_all"]


def solve_all(instances: Sequence[Instance], repeats: int = 1) -> list[dict[str, Any]]:
    """Solve instances with HiGHS in a subprocess; each result has status, objective and seconds.

    Raises
    ------
    ModuleNotFoundError
        Without highspy.
    """
    import importlib.util

    if importlib.util.find_spec("highspy") is None:
        raise ModuleNotFoundError('highspy is missing; pip install "fastlp-rank[reproduce]"')
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.json"), Path(folder, "out.json")
        document = {"repeats": repeats, "instances": [_plain(instance) for instance in instances]}
        source.write_text(json.dumps(document))
        subprocess.run([sys.executable, "-m", "fastlp_rank.highs", str(source), str(target)], check=True)
        results: list[dict[str, Any]] = json.loads(target.read_text())
    return results


def _plain(instance: Instance) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in vars(instance).items()}


def _model(instance: dict[str, Any]) -> Any:
    """Column (i, j) has a 1 in the row of slot j, a 1 in the row of item i and v_j a_ki in each constraint."""
    import highspy

    u, v = np.array(instance["scores"]), np.array(instance["slot_weights"])
    n, m = u.size, v.size
    A = np.array(instance["rows"]).reshape(-1, n)
    K = A.shape[0]
    item, slot = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    dense = np.concatenate([np.ones((2, n * m)), A[:, item] * v[slot]])
    index = np.concatenate([[slot, m + item], np.broadcast_to(m + n + np.arange(K)[:, None], (K, n * m))])
    present = dense.T != 0.0
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = n * m, m + n + K
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = u[item] * v[slot]
    model.col_lower_, model.col_upper_ = np.zeros(n * m), np.full(n * m, highspy.kHighsInf)
    model.row_lower_ = np.concatenate([np.ones(m), np.zeros(n), np.array(instance["lower"], dtype=float)])
    model.row_upper_ = np.concatenate([np.ones(m), np.ones(n), np.array(instance["upper"], dtype=float)])
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    model.a_matrix_.index_ = index.T[present]
    model.a_matrix_.value_ = dense.T[present]
    return model


def _solve(instance: dict[str, Any], repeats: int) -> dict[str, Any]:
    import highspy

    make: Any = highspy.Highs
    model = _model(instance)
    best = math.inf
    for _ in range(repeats):
        solver: Any = make()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("threads", 1)
        solver.passModel(model)
        start = time.process_time()
        solver.run()
        best = min(best, time.process_time() - start)
    status = solver.modelStatusToString(solver.getModelStatus())
    return {"status": status, "objective": solver.getInfo().objective_function_value, "seconds": best}


def _main(source: str, target: str) -> None:
    document = json.loads(Path(source).read_text())
    results = [_solve(instance, document["repeats"]) for instance in document["instances"]]
    Path(target).write_text(json.dumps(results))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
