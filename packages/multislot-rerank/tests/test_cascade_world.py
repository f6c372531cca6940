import numpy as np
import pytest
from multislot_rerank import replay, rips
from multislot_rerank.cascade_world import CascadeWorld


def test_exact_value_is_the_mean_of_many_clicks():
    world = CascadeWorld.random(items=5, slots=3, damping=0.8, seed=1)
    slate = world.best_by_appeal
    rng = np.random.default_rng(0)
    clicks = rng.random((200_000, 3)) < world.click_probability(np.tile(slate, (200_000, 1)))
    assert world.value(slate) == pytest.approx(clicks.sum(axis=1).mean(), abs=0.006)
    by_hand = world.appeal[slate[0]]
    by_hand += world.appeal[slate[1]] * (1 - 0.8 * world.likeness[slate[1], slate[0]])
    third = (1 - 0.8 * world.likeness[slate[2], slate[0]]) * (1 - 0.8 * world.likeness[slate[2], slate[1]])
    assert world.value(slate) == pytest.approx(by_hand + world.appeal[slate[2]] * third, rel=1e-12)


def test_prefix_replay_and_rips_agree_with_the_truth_and_item_replay_does_not():
    world = CascadeWorld.random(items=6, slots=3, damping=0.9, seed=0)
    log = world.log(200_000, seed=0)
    target = world.target(log)
    truth = world.value(world.best_by_appeal)
    for found in (replay(log, target, "cascade"), replay(log, target, "full"), rips(log, target)):
        assert found.value[0] == pytest.approx(truth, abs=3.5 * found.standard_error[0])
    blind = replay(log, target, "independent")
    assert abs(blind.value[0] - truth) > 10 * blind.standard_error[0]


@pytest.mark.slow
def test_coverage_over_1500_logs():
    world = CascadeWorld.random(items=6, slots=3, damping=0.7, seed=0)
    truth = world.value(world.best_by_appeal)
    covered = 0
    for seed in range(1500):
        log = world.log(20_000, seed)
        interval = replay(log, world.target(log), "cascade").interval()
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / 1500 <= 0.97
