"""Time the solver on this machine: CPU seconds a solve by size, on generated exposure instances."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from papershelf_core.timing import Machine

from fastlp_rank.instances import Instance, exposure
from fastlp_rank.problem import LinearExposure, RankingProblem, SlotWeights
from fastlp_rank.solver import RankingSolution, Workspace, solve, solve_arrays, solve_batch, warmup

__all__ = ["Timing", "as_problem", "batch_rate", "batch_seconds", "cpu_seconds", "measure", "time_size"]


@dataclass(frozen=True, eq=False)
class Timing:
    """CPU seconds a call, one entry an instance.

    Attributes
    ----------
    core : array of float64
        `solve_arrays` into a workspace.
    public : array of float64
        `solve` of a `RankingProblem`.
    whole : array of float64
        Building the `RankingProblem` and `solve`.
    pricings : array of int64
    """

    core: NDArray[np.float64]
    public: NDArray[np.float64]
    whole: NDArray[np.float64]
    pricings: NDArray[np.int64]


def as_problem(instance: Instance) -> RankingProblem:
    """State an instance through the public classes."""
    constraints = [
        LinearExposure(row, None if low == -np.inf else low, None if high == np.inf else high, name=f"row {k}")
        for k, (row, low, high) in enumerate(zip(instance.rows, instance.lower, instance.upper, strict=True))
    ]
    return RankingProblem(instance.scores, SlotWeights.explicit(instance.slot_weights), constraints)


def _build_and_solve(instance: Instance) -> RankingSolution:
    return solve(as_problem(instance))


def cpu_seconds(calls: Sequence[Callable[[], object]], rounds: int = 25) -> NDArray[np.float64]:
    """CPU seconds of every call: median over rounds that go through all of them in turn."""
    seconds: NDArray[np.float64] = np.median(cpu_rounds(calls, rounds), axis=0)
    return seconds


def cpu_rounds(calls: Sequence[Callable[[], object]], rounds: int = 25) -> NDArray[np.float64]:
    """CPU seconds of every call in every round, shape (rounds, calls).

    Taking turns matters at this scale: the same request again and again would find branch predictor and cache trained
    on it, which no service does. The clock itself costs about 0.3 µs, which is counted.
    """
    for call in calls:
        call()
    taken = np.empty((rounds, len(calls)))
    for r in range(rounds):
        for i, call in enumerate(calls):
            start = time.process_time_ns()
            call()
            taken[r, i] = time.process_time_ns() - start
    return taken * 1e-9


def time_size(n: int, m: int, K: int, seeds: int) -> Timing:
    """Time ``seeds`` generated instances of one size."""
    core: Any = solve_arrays
    workspace = Workspace(n, m, K)
    instances = [exposure(n, m, K, seed) for seed in range(seeds)]
    pricings = []
    for instance in instances:
        core(*vars(instance).values(), workspace)
        pricings.append(workspace.pricings)
    return Timing(
        cpu_seconds([partial(core, *vars(instance).values(), workspace) for instance in instances]),
        cpu_seconds([partial(solve, as_problem(instance)) for instance in instances]),
        cpu_seconds([partial(_build_and_solve, instance) for instance in instances]),
        np.array(pricings),
    )


def batch_rate(n: int, m: int, K: int, requests: int) -> float:
    """Requests a second and core, distinct ones, in one `solve_batch` on one thread."""
    return 1.0 / float(np.median(batch_seconds(n, m, K, requests)))


def batch_seconds(n: int, m: int, K: int, requests: int) -> NDArray[np.float64]:
    """CPU seconds a request, one entry a round, of distinct requests in one `solve_batch` on one thread."""
    instances = [exposure(n, m, K, seed) for seed in range(requests)]
    scores, rows, lower, upper = (
        np.stack([getattr(x, name) for x in instances]) for name in ("scores", "rows", "lower", "upper")
    )
    v = instances[0].slot_weights
    return cpu_rounds([partial(solve_batch, scores, rows, lower, upper, v)], rounds=9)[:, 0] / requests


def measure(sizes: Sequence[tuple[int, int, int]], seeds: int) -> dict[str, Any]:
    """Measure every size on ``seeds`` instances; medians in microseconds, and the batch rate."""
    warmup()
    rows = []
    for n, m, K in sizes:
        timing = time_size(n, m, K, seeds)
        rows.append(
            {
                "size": f"{n}x{m}x{K}",
                "core_us": float(np.median(timing.core)) * 1e6,
                "core_p95_us": float(np.quantile(timing.core, 0.95)) * 1e6,
                "core_max_us": float(timing.core.max()) * 1e6,
                "solve_us": float(np.median(timing.public)) * 1e6,
                "build_and_solve_us": float(np.median(timing.whole)) * 1e6,
                "batch_per_s": batch_rate(n, m, K, seeds),
                "pricings": float(np.median(timing.pricings)),
            }
        )
    return {"machine": str(Machine.here("fastlp-rank", "numba", "numpy")), "seeds": seeds, "sizes": rows}
