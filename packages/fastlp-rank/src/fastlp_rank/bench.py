"""Time the solver on this machine: CPU microseconds a solve by size, median over instances."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from papershelf_core.timing import Machine

from fastlp_rank.instances import Instance, exposure
from fastlp_rank.problem import LinearExposure, RankingProblem, SlotWeights
from fastlp_rank.solver import Workspace, solve, solve_arrays, solve_batch, warmup

__all__ = ["as_problem", "cpu_seconds", "measure"]


def as_problem(instance: Instance) -> RankingProblem:
    """State an instance through the public classes."""
    constraints = [
        LinearExposure(row, None if low == -np.inf else low, None if high == np.inf else high, name=f"row {k}")
        for k, (row, low, high) in enumerate(zip(instance.rows, instance.lower, instance.upper, strict=True))
    ]
    return RankingProblem(instance.scores, SlotWeights.explicit(instance.slot_weights), constraints)


def cpu_seconds(call: Callable[[], object], blocks: int = 5, block_seconds: float = 2e-3) -> float:
    """CPU seconds of one call: median over blocks of as many calls as fill ``block_seconds``."""
    start = time.perf_counter()
    call()
    calls = max(1, int(block_seconds / max(time.perf_counter() - start, 1e-7)))
    taken = []
    for _ in range(blocks):
        start = time.process_time()
        for _ in range(calls):
            call()
        taken.append((time.process_time() - start) / calls)
    return float(np.median(taken))


def measure(sizes: Sequence[tuple[int, int, int]], seeds: int) -> dict[str, Any]:
    """Measure every size on ``seeds`` generated instances; batch throughput on one thread."""
    warmup()
    rows = []
    for n, m, K in sizes:
        instances = [exposure(n, m, K, seed) for seed in range(seeds)]
        workspace = Workspace(n, m, K)
        core, public, whole, pricings = [], [], [], []
        for instance in instances:
            arrays = tuple(vars(instance).values())
            problem = as_problem(instance)
            core.append(cpu_seconds(lambda arrays=arrays: solve_arrays(*arrays, workspace)))
            pricings.append(workspace.pricings)
            public.append(cpu_seconds(lambda problem=problem: solve(problem)))
            whole.append(cpu_seconds(lambda instance=instance: solve(as_problem(instance))))
        stacked = [np.stack([getattr(x, name) for x in instances]) for name in ("scores", "rows", "lower", "upper")]
        batch = cpu_seconds(lambda stacked=stacked, v=instances[0].slot_weights: solve_batch(*stacked, v))
        rows.append(
            {
                "size": f"{n}x{m}x{K}",
                "core_us": float(np.median(core)) * 1e6,
                "core_p95_us": float(np.quantile(core, 0.95)) * 1e6,
                "solve_us": float(np.median(public)) * 1e6,
                "build_and_solve_us": float(np.median(whole)) * 1e6,
                "batch_per_s": seeds / batch,
                "pricings": float(np.median(pricings)),
            }
        )
    return {"machine": str(Machine.here("fastlp-rank", "numba", "numpy")), "seeds": seeds, "sizes": rows}
