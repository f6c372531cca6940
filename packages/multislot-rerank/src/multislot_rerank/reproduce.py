"""The package's claims, as data: each function measures and returns rows.

The full text of arXiv:2401.06293 was not read; rows that name it speak of its abstract (sequential greedy, linear time,
multi-slot replay). Bars are ours.
"""

import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
from papershelf_core import timed, timing
from papershelf_core.claims import Claim
from papershelf_core.metrics import roc_auc

from multislot_rerank.cascade_world import CascadeWorld
from multislot_rerank.context import ContextFeatures
from multislot_rerank.diversification import diversify
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.latency import reranking_seconds
from multislot_rerank.model_reranker import ModelReranker, training_rows
from multislot_rerank.slate_replay import replay
from multislot_rerank.warm import warmup
from multislot_rerank.weighting import rips

__all__ = ["claims"]

PAPER = "2401.06293"


def claims(full: bool) -> list[Claim]:
    """Measure every claim; ``full`` takes more logs and the real Open Bandit sample."""
    warmup()
    rows = [
        *replay_quality(logs=1500 if full else 300),
        *mutual_influence(requests=12_000),
        *greedy_latency(),
        *model_latency(),
        *diversify_speed(),
    ]
    return rows + ([*learnt_policy(), *open_bandit()] if full else [])


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


def mutual_influence(requests: int) -> list[Claim]:
    """AUC of the context model in worlds without, with and with strong influence among items.

    The abstract reports an offline AUC lift of 6 to 10 % on data that is not public; ours is on generated worlds.
    """
    import lightgbm

    parameters = {"objective": "binary", "num_leaves": 15, "min_data_in_leaf": 100, "verbosity": -1, "num_threads": 1}
    rows = []
    for name, influence in (("no", 0.0), ("default", 1.0), ("strong", 2.0)):
        world = InfluenceWorld(influence=influence)
        train, test = world.log(requests, seed=0), world.log(requests // 2, seed=1)
        layout = ContextFeatures.of(train.requests[0], ("creator", "topic"), world.slots)
        fit_rows, fit_labels = training_rows(layout, train.requests, train.slates), train.clicks.ravel()
        test_rows, labels = training_rows(layout, test.requests, test.slates), test.clicks.ravel()
        own = [i for i, column in enumerate(layout.names) if column.startswith("score_") and "prefix" not in column]
        own.append(layout.names.index("slot"))
        auc = {"score": roc_auc(labels, test_rows[:, 0]), "truth": roc_auc(labels, test.probability.ravel())}
        for model, columns in (("pointwise", own), ("context", list(range(fit_rows.shape[1])))):
            booster = lightgbm.train(parameters, lightgbm.Dataset(fit_rows[:, columns], fit_labels), 100)
            auc[model] = roc_auc(labels, np.asarray(booster.predict(test_rows[:, columns])))
        note = f"{requests} requests; AUC of the true click probability {auc['truth']:.4f}"
        if influence == 0:
            change = auc["context"] / auc["pointwise"] - 1
            statement = "no influence: context changes the AUC by no more than .2 %"
            rows.append(
                _auc_claim(statement, "pointwise model", auc["context"], auc["pointwise"], abs(change) <= 2e-3, note)
            )
            continue
        bar = 0.04 if name == "default" else 0.06
        lift = auc["context"] / auc["score"] - 1
        statement = f"{name} influence: AUC lift over the second-pass score of at least {100 * bar:.0f} %"
        rows.append(_auc_claim(statement, "second-pass score", auc["context"], auc["score"], lift >= bar, note))
        closed = (auc["context"] - auc["pointwise"]) / (auc["truth"] - auc["pointwise"])
        statement = f"{name} influence: context closes 85 % of the gap from pointwise to the truth"
        note = f"closes {100 * closed:.0f} %; {note}"
        rows.append(_auc_claim(statement, "pointwise model", auc["context"], auc["pointwise"], closed >= 0.85, note))
    return rows


def _auc_claim(statement: str, peer: str, ours: float, theirs: float, holds: bool, note: str) -> Claim:
    return Claim(PAPER, statement, peer, ours, theirs, "AUC", "higher", holds, note)


def model_latency() -> list[Claim]:
    """Greedy re-ranking with 100 compiled trees against calling ``Booster.predict`` for every slot."""
    import lightgbm

    world = InfluenceWorld(candidates=100, slots=10)
    train = world.log(1_000, seed=0)
    model = ModelReranker.fit(
        train.requests, train.slates, {"click": train.clicks}, attributes=("creator", "topic"), monotone=True
    )
    rows = training_rows(model.features, train.requests, train.slates)
    data = lightgbm.Dataset(rows, train.clicks.ravel())
    booster = lightgbm.train({"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1}, data, 100)
    request = train.requests[0]
    remaining = rows[:100]

    def looped() -> None:
        for slot in range(10):
            booster.predict(remaining[slot:], num_threads=1)

    result = timing.compare({"ours": partial(model.rerank, request), "Booster.predict": looped}, repeat=15)
    ours, theirs = result.seconds["ours"], result.seconds["Booster.predict"]
    what, peer = "re-ranks 10 of 100 with a monotone 100-tree model", f"lightgbm {lightgbm.__version__}, predict alone"
    return [
        timed.within(PAPER, f"{what} in 4 ms", ours, 4.0, unit="ms", note="CPU time"),
        timed.faster(PAPER, f"{what} 3x as fast as a predict a slot", peer, ours, theirs, times=3.0, note="CPU time"),
    ]


def greedy_latency() -> list[Claim]:
    """Median time of one re-ranking with relevance, freshness, similarity and creator repeats."""
    rows = []
    for items, slots, bar_ms in ((100, 10, 0.1), (500, 20, 0.4)):
        seconds = reranking_seconds(items, slots, requests=500)
        note = "p50 wall, one thread, 4 objectives, 64 dimensions"
        rows.append(
            timed.within(PAPER, f"re-ranks {slots} of {items} in {bar_ms} ms", seconds, bar_ms, unit="ms", note=note)
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
        seconds = timing.compare(functions, repeat=15).seconds
        what = f"{strategy} of {slots} from {items} at least {bar:g}x as fast"
        peer = f"pyversity {pyversity.__version__}"
        rows.append(timed.faster("-", what, peer, seconds["ours"], seconds["pyversity"], times=bar, note="CPU time"))
    return rows


def learnt_policy() -> list[Claim]:
    """PPO with a masked per-item scorer after a minute (extra ``rl``; no row without it)."""
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("torch") is None:
        return []
    from multislot_rerank.policies import by_relevance, compare_policies
    from multislot_rerank.reinforcement import train_ppo

    world = InfluenceWorld()
    policy = train_ppo(world, seconds=60.0)
    sort, ppo = compare_policies(world, {"by relevance": by_relevance, "PPO": policy}, requests=4000, seed=1).rows
    return [
        Claim(
            "-",
            "PPO beats sorting by relevance after a minute of training, and never picks a forbidden candidate",
            "by relevance",
            ppo.value,
            sort.value,
            "clicks/slate",
            "higher",
            ppo.gain > 3 * ppo.gain_error and ppo.illegal == 0,
            f"gain {ppo.gain:.4f} +- {ppo.gain_error:.4f}; {policy.slates_seen} slates, {ppo.illegal} illegal picks",
        )
    ]


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
