"""Independent chunks of work on one core, many processes or Ray; what a chunk returns does not depend on which."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

from nu_physics.errors import MissingExtra, check_choice, check_whole

__all__ = ["EXECUTORS", "check_workers", "run_chunks"]

EXECUTORS = ("serial", "processes", "ray")
Chunk = Callable[[str, int], Any]


def check_workers(executor: str, workers: int) -> None:
    """Raise ``InvalidInput`` for an unknown executor or no workers."""
    check_choice("executor", executor, EXECUTORS)
    check_whole("workers", workers, 1)


def run_chunks(chunk: Chunk, job: str, numbers: list[int], executor: str, workers: int) -> Iterator[tuple[int, Any]]:
    """Yield ``(number, chunk(job, number))`` as they finish.

    Parameters
    ----------
    chunk : function of module level, which travels to workers by name
    job : str
        The job as text.
    numbers : list of int
    executor : {"serial", "processes", "ray"}
    workers : int
    """
    if executor == "serial" or not numbers:
        for number in numbers:
            yield number, chunk(job, number)
        return
    if executor == "processes":
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_single_thread) as pool:
            waiting = {pool.submit(chunk, job, number): number for number in numbers}
            for future in concurrent.futures.as_completed(waiting):
                yield waiting[future], future.result()
        return
    yield from _on_ray(chunk, job, numbers, workers)


def _on_ray(chunk: Chunk, job: str, numbers: list[int], workers: int) -> Iterator[tuple[int, Any]]:
    """Use the cluster that is connected, or a local one that is shut down at the end."""
    # under `uv run`, Ray would otherwise build a new environment for its workers; they are to be this interpreter
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "a scan on Ray") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1)(chunk)
        pending = {remote.remote(job, number): number for number in numbers}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            for reference in done:
                yield pending.pop(reference), ray.get(reference)
    finally:
        if ours:
            ray.shutdown()


def _single_thread() -> None:
    """One thread per worker: the linear algebra here is too small to share."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
