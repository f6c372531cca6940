from functools import partial, reduce

import numpy as np
import pytest
from multislot_rerank import InvalidInput, SlateLog, TargetPolicy, replay
from multislot_rerank.sharded import ReplayTotals, replay_shards
from oracles.cascade_shards import WORLD, shard


def joined(seeds):
    logs = [WORLD.log(3000, seed) for seed in seeds]
    whole = SlateLog.uniform(
        np.concatenate([log.slates for log in logs]), np.concatenate([log.rewards for log in logs]), 5, ["click"]
    )
    return whole, WORLD.target(whole)


@pytest.mark.parametrize("interaction", ["full", "cascade", "independent", "set"])
def test_shards_give_the_estimate_of_the_whole_log(interaction):
    whole = replay(*joined(range(4)), interaction)
    parts = replay_shards([partial(shard, seed) for seed in range(4)], interaction)
    assert np.allclose(parts.value, whole.value, rtol=1e-12)
    assert np.allclose(parts.per_slot, whole.per_slot, rtol=1e-12)
    assert np.allclose(parts.covariance, whole.covariance, rtol=1e-9)
    assert parts.matched.tolist() == whole.matched.tolist()
    assert np.allclose(parts.effective, whole.effective, rtol=1e-12)
    assert parts.records == whole.records


def test_one_worker_and_two_give_the_same_bits():
    shards = [partial(shard, seed, 500) for seed in range(5)]
    one, two = replay_shards(shards), replay_shards(shards, workers=2)
    assert np.array_equal(one.value, two.value)
    assert np.array_equal(one.covariance, two.covariance)


def test_shards_of_different_candidate_counts_add_up_to_the_weighted_estimate():
    rng = np.random.default_rng(0)
    parts = []
    for candidates in (4, 6):
        slates = np.argsort(rng.random((3000, candidates)), axis=1)[:, :2]
        rewards = rng.random((3000, 2, 2))
        log = SlateLog.uniform(slates, rewards, candidates)
        parts.append((log, TargetPolicy.deterministic(log, np.tile([1, 0], (3000, 1)))))
    whole = SlateLog.uniform(
        np.concatenate([log.slates for log, _ in parts]),
        np.concatenate([log.rewards for log, _ in parts]),
        np.concatenate([log.candidates for log, _ in parts]),
    )
    target = TargetPolicy.deterministic(whole, np.tile([1, 0], (6000, 1)))
    expected = replay(whole, target, "cascade", on_varying="weight")
    found = reduce(ReplayTotals.__add__, (ReplayTotals.of(*part) for part in parts)).estimate()
    assert np.allclose(found.value, expected.value, rtol=1e-12)
    assert np.allclose(found.covariance, expected.covariance, rtol=1e-9)


def test_no_match_in_any_shard_is_nan_with_a_reason():
    def lonely():
        log = SlateLog.uniform([[0, 1]] * 5, [[1, 1]] * 5, 4)
        return log, TargetPolicy.deterministic(log, [[0, 3]] * 5)

    result = replay_shards([lonely, lonely])
    assert np.isnan(result.value).all()
    assert result.per_slot[0, 0] == 1.0
    assert "slot 1" in result.warnings[0]


def test_bad_input_is_named():
    with pytest.raises(InvalidInput, match="shards is empty"):
        replay_shards([])
    with pytest.raises(InvalidInput, match="workers=0"):
        replay_shards([partial(shard, 0)], workers=0)
    with pytest.raises(InvalidInput, match="shards differ"):
        ReplayTotals.of(*shard(0), "full") + ReplayTotals.of(*shard(1), "cascade")
