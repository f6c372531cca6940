"""What this package claims, measured now. Needs the extra ``reproduce`` (HiGHS; pandas for the real requests)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from papershelf_core.claims import Claim
from papershelf_core.timed import faster, within

from fastlp_rank import highs
from fastlp_rank.bench import Timing, as_problem, batch_seconds, time_size
from fastlp_rank.certificate import verify_arrays
from fastlp_rank.instances import Instance, awkward, bandit_shaped, diversity_rows, exposure
from fastlp_rank.solver import Workspace, solve, solve_arrays, solve_batch, warmup
from fastlp_rank.status import Status

__all__ = ["claims", "pictures"]

_PAPER = "2211.12409"
_HIGHS_STATUS = {Status.OPTIMAL: "Optimal", Status.INFEASIBLE: "Infeasible"}


def claims(full: bool) -> list[Claim]:
    """Measure every claim; ``full`` takes the real Open Bandit requests and more timing instances."""
    warmup()
    return [*_exactness(), *_speed(full), _batch(), *_requests(full)]


def _solved(instance: Instance) -> tuple[Status, Workspace]:
    K, n = instance.rows.shape
    workspace = Workspace(n, instance.slot_weights.size, K)
    status = solve_arrays(
        instance.scores, instance.rows, instance.lower, instance.upper, instance.slot_weights, workspace
    )
    return status, workspace


def _exactness() -> list[Claim]:
    """Compare status and objective with HiGHS, and verify every certificate, on 1000 awkward instances."""
    instances = [awkward(seed) for seed in range(1000)]
    peers = highs.solve_all(instances)
    agree, infeasible, rays = 0, 0, 0
    error, gap, violation = 0.0, 0.0, 0.0
    for instance, peer in zip(instances, peers, strict=True):
        status, workspace = _solved(instance)
        agree += _HIGHS_STATUS.get(status) == peer["status"]
        check = verify_arrays(workspace.certificate(status), *vars(instance).values())
        if status is Status.OPTIMAL:
            error = max(error, abs(workspace.objective - peer["objective"]) / max(1.0, abs(peer["objective"])))
            gap, violation = max(gap, abs(check.gap)), max(violation, check.violation)
        else:
            infeasible += 1
            rays += check.holds
    note = f"1000 instances with ties, duplicates and equalities, {infeasible} of them infeasible"
    return [
        Claim(_PAPER, "Status agrees with HiGHS on all", "HiGHS", agree, 1000, "", "equal", agree == 1000, note),
        Claim(_PAPER, "Objective equals HiGHS to 1e-9", "HiGHS", error, 1e-9, "", "lower", error <= 1e-9, note),
        Claim(
            _PAPER, "Certificate gap <= 1e-9, recomputed from raw input", "bar", gap, 1e-9, "", "lower", gap <= 1e-9
        ),
        Claim(
            _PAPER, "Violation <= 1e-9, recomputed from raw input", "bar", violation, 1e-9, "", "lower",
            violation <= 1e-9,
        ),
        Claim(
            _PAPER, "Every infeasibility is proven by a Farkas ray and least-violation lottery", "bar", rays,
            infeasible, "", "equal", rays == infeasible,
        ),
    ]  # fmt: skip


@lru_cache(maxsize=4)
def _timing(n: int, m: int, K: int, seeds: int) -> tuple[Timing, NDArray[np.float64]]:
    """CPU seconds of ours, and of HiGHS in its own process (best of three runs an instance)."""
    peer = highs.solve_all([exposure(n, m, K, seed) for seed in range(seeds)], repeats=3)
    return time_size(n, m, K, seeds), np.array([result["seconds"] for result in peer])


def _speed(full: bool) -> list[Claim]:
    rows = []
    for (n, m, K), bar in (((100, 10, 3), 100), ((200, 20, 5), 250)):
        timing, highs_seconds = _timing(n, m, K, 40 if full else 10)
        size = f"exposure {n}x{m}x{K}"
        rows.append(
            faster(
                _PAPER, f"{size}: core <= 1/{bar} of HiGHS's solve-only time", "HiGHS default, own process",
                timing.core, highs_seconds, times=bar, unit="µs",
                note="CPU; the paper's abstract: 20x over efficient off-the-shelf solvers, on its own instances",
            )
        )  # fmt: skip
        rows.append(
            faster(
                _PAPER, f"{size}: solve() <= 2.5x the core", "solve_arrays", timing.public, timing.core,
                times=1 / 2.5, unit="µs",
                note=f"CPU; with building the RankingProblem {np.median(timing.whole) * 1e6:.0f} µs",
            )
        )  # fmt: skip
    return rows


def _batch() -> Claim:
    """Solve distinct 100x10x3 requests in one call on one thread."""
    return within(
        "-",
        "Batch: 40 µs a request of 100x10x3 on one core",
        batch_seconds(100, 10, 3, 500),
        40.0,
        unit="µs",
        note="CPU",
    )


def _bandit(full: bool) -> tuple[NDArray[np.float64], NDArray[np.int64], str]:
    if full:
        from fastlp_rank.requests import open_bandit

        return *open_bandit(2000), "Open Bandit sample, campaign all"
    return *bandit_shaped(500), "generated in the shape of the Open Bandit sample"


def _requests(full: bool) -> list[Claim]:
    """Answer recommendation requests under diversity bounds per category, and verify every answer."""
    scores, categories, source = _bandit(full)
    rows = []
    for m in (3, 10):
        v = 1.0 / np.log2(np.arange(2.0, m + 2.0))
        A, lower, upper = diversity_rows(categories, v)
        batch = solve_batch(scores, A, lower, upper, v)
        held = sum(
            batch.status[b] == Status.OPTIMAL
            and verify_arrays(batch.certificate(b), scores[b], A, lower, upper, v).holds
            for b in range(len(scores))
        )
        greedy = (np.sort(scores, axis=1)[:, ::-1][:, :m] * v).sum(axis=1)
        note = (
            f"{source}; {len(A)} category rows; diversity costs {1 - (batch.objective / greedy).mean():.1%} of utility"
        )
        rows.append(
            Claim(
                "-", f"Requests with {m} slots: every answer optimal and verified", "bar", held, len(scores), "",
                "equal", held == len(scores), note,
            )
        )  # fmt: skip
    return rows


def pictures(full: bool = False) -> dict[str, str]:
    """Title to SVG text: latency against HiGHS, and one solution's X with its lottery (extra ``plot``)."""
    from fastlp_rank import plots

    figures = {}
    for n, m, K in ((100, 10, 3), (200, 20, 5)):
        timing, highs_seconds = _timing(n, m, K, 40 if full else 10)
        samples: dict[str, Sequence[float]] = {
            "solve_arrays": timing.core.tolist(),
            "solve": timing.public.tolist(),
            "HiGHS, solve only": highs_seconds.tolist(),
        }
        title = f"Latency, exposure {n} x {m} x {K}"
        figures[title] = plots.latency(samples, title, ours=("solve_arrays", "solve"))
    title = "A request of 30 items, 8 slots and 4 exposure bounds: X and its lottery"
    figures[title] = plots.lottery(solve(as_problem(exposure(30, 8, 4, 0))), title)
    return figures
