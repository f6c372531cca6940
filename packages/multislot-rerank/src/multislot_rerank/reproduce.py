"""The package's claims, as data: each function measures and returns rows.

The full text of arXiv:2401.06293 was not read; rows that name it speak of its abstract (sequential greedy, linear time,
multi-slot replay). Bars are ours.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from papershelf_core import timing
from papershelf_core.claims import Claim

from multislot_rerank.candidates import Candidates
from multislot_rerank.cascade_world import CascadeWorld
from multislot_rerank.diversification import diversify
from multislot_rerank.objectives import AttributeRepeat, Freshness, MaxSimilarity, Relevance
from multislot_rerank.reranker import SequentialGreedyReranker
from multislot_rerank.slate_replay import replay
from multislot_rerank.warm import warmup
from multislot_rerank.weighting import rips

__all__ = ["claims"]

PAPER = "2401.06293"


def claims(full: bool) -> list[Claim]:
    """Measure every claim; ``full`` takes more logs and the real Open Bandit sample."""
    warmup()
    rows = [*replay_quality(logs=1500 if full else 300), *reranking_latency(), *diversify_speed()]
    return rows + (open_bandit() if full else [])


def replay_quality(logs: int) -> list[Claim]:
    """Error and coverage of replay in a world of cascading clicks; 20 000 uniform records of 3 of 6 items a log."""
    world = CascadeWorld.random(items=6, slots=3, damping=0.7, seed=0)
    truth = world.value(world.best_by_appeal)
    errors: dict[str, list[float]] = {"prefix": [], "full": [], "rips": []}
    covered = 0
    for seed in range(logs):
        log = world.log(20_000, seed)
        target = world.target(log)
        prefix = replay(log, target, "cascade")
        errors["prefix"].append(prefix.value[0] - truth)
        errors["full"].append(replay(log, target, "full").value[0] - truth)
        errors["rips"].append(rips(log, target).value[0] - truth)
        interval = prefix.interval()
        covered += interval.low <= truth <= interval.high
    rmse = {name: float(np.sqrt(np.mean(np.square(found)))) for name, found in errors.items()}
    share = covered / logs
    note = f"{logs} logs"
    return [
        Claim(
            PAPER,
            "prefix replay RMSE <= .90x RIPS in a cascade world",
            "RIPS (2007.12986)",
            rmse["prefix"],
            rmse["rips"],
            "clicks",
            "lower",
            rmse["prefix"] <= 0.90 * rmse["rips"],
            note,
        ),
        Claim(
            PAPER,
            "prefix replay RMSE <= .65x replay of whole slates",
            "full replay",
            rmse["prefix"],
            rmse["full"],
            "clicks",
            "lower",
            rmse["prefix"] <= 0.65 * rmse["full"],
            note,
        ),
        Claim(
            PAPER,
            "95 % interval of prefix replay covers 93-97 %",
            "nominal",
            share,
            0.95,
            "",
            "equal",
            0.93 <= share <= 0.97,
            note,
        ),
    ]


def reranking_latency() -> list[Claim]:
    """Median time of one re-ranking with relevance, freshness, similarity and creator repeats."""
    objectives = (Relevance((0.7, 0.3)), Freshness(0.2, 3600.0), MaxSimilarity(0.3), AttributeRepeat("creator", 0.1))
    rows = []
    for items, slots, bar_ms in ((100, 10, 0.1), (500, 20, 0.4)):
        rng = np.random.default_rng(items)
        request = Candidates(
            scores=rng.random((items, 2)),
            embeddings=rng.normal(size=(items, 64)).astype(np.float32),
            attributes={"creator": rng.integers(items // 5, size=items).tolist()},
            age_s=rng.exponential(7200.0, size=items),
        )
        reranker = SequentialGreedyReranker(objectives, k=slots)
        median_ms = 1e3 * _median_seconds(partial(reranker.rerank, request))
        rows.append(
            Claim(
                PAPER,
                f"re-ranks {slots} of {items} in {bar_ms} ms",
                "bar",
                median_ms,
                bar_ms,
                "ms",
                "lower",
                median_ms <= bar_ms,
                "p50 wall, one thread, 4 objectives, 64 dimensions",
            )
        )
    return rows


def diversify_speed() -> list[Claim]:
    """``diversify`` against pyversity's, interleaved, on the same random items."""
    import pyversity

    rows = []
    for strategy, items, slots, bar in (
        ("mmr", 500, 20, 4.0),
        ("mmr", 1000, 50, 2.0),
        ("dpp", 500, 20, 6.0),
        ("dpp", 1000, 50, 2.5),
    ):
        rng = np.random.default_rng(0)
        embeddings, scores = rng.normal(size=(items, 64)).astype(np.float32), rng.random(items)
        functions: dict[str, Callable[[], object]] = {
            "ours": partial(diversify, embeddings, scores, slots, strategy),
            "pyversity": partial(pyversity.diversify, embeddings, scores, slots, strategy),
        }
        result = timing.compare(functions, repeat=15)
        ratio = result.ratio("pyversity")
        rows.append(
            Claim(
                "-",
                f"{strategy} of {slots} from {items} at least {bar:g}x as fast",
                f"pyversity {pyversity.__version__}",
                1e3 * result.median["ours"],
                1e3 * result.median["pyversity"],
                "ms",
                "lower",
                ratio.estimate >= bar,
                f"CPU time, {ratio.estimate:.2g}x [{ratio.low:.2g}, {ratio.high:.2g}]",
            )
        )
    return rows


def open_bandit() -> list[Claim]:
    """Thompson-sampling log of Open Bandit against the uniform policy that really ran beside it."""
    from multislot_rerank.open_bandit import open_bandit_log, uniform_target
    from multislot_rerank.weighting import sips

    rows = []
    for campaign in ("all", "men", "women"):
        log = open_bandit_log("bts", campaign)
        truth = float(open_bandit_log("random", campaign).rewards.mean())
        estimate = sips(log, uniform_target(log))
        interval = estimate.interval(level=0.99)
        rows.append(
            Claim(
                PAPER,
                f"Open Bandit '{campaign}': 99 % interval of IPS holds the uniform policy's click rate",
                "rate measured on the uniform log",
                float(estimate.value[0]),
                truth,
                "",
                "equal",
                interval.low <= truth <= interval.high,
                f"effective sample {estimate.effective[0]:.0f} of {estimate.records}",
            )
        )
    return rows


def _median_seconds(call: Callable[[], object], repeat: int = 300) -> float:
    samples = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        samples.append(time.perf_counter() - began)
    return float(np.median(samples))
