import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from multislot_rerank import Candidates, InvalidInput
from multislot_rerank.environment import ENVIRONMENT_ID, MultiSlotEnv, MultiSlotVectorEnv
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.simulator import SlateSimulator


def test_gymnasium_finds_nothing_to_complain_about():
    check_env(gym.make(ENVIRONMENT_ID, candidates=6, slots=3).unwrapped, skip_render_check=True)


def test_the_simulator_is_the_influence_world():
    world = InfluenceWorld(influence=1.5, candidates=9, slots=5)
    simulator = SlateSimulator(world, 4)
    rng = np.random.default_rng(0)
    simulator.reset(rng)
    slates = np.argsort(rng.random((4, 9)), axis=1)[:, :5]
    expected = []
    for row in range(4):
        attributes = {"creator": simulator.creator[row].tolist()}
        request = Candidates(simulator.scores[row], simulator.unit[row], attributes)
        expected.append(world.click_probability(request, simulator.appeal[row], slates[row]))
    for slot in range(5):
        ahead = simulator.click_probability()[np.arange(4), slates[:, slot]]
        result = simulator.place(slates[:, slot], rng)
        assert np.allclose(result.probability, np.array(expected)[:, slot], atol=1e-12)
        assert np.allclose(result.probability, ahead, atol=1e-15)
        assert result.legal.all()


def test_an_item_that_is_placed_already_earns_nothing_and_influences_nothing():
    simulator = SlateSimulator(InfluenceWorld(candidates=4, slots=3), 1)
    rng = np.random.default_rng(0)
    simulator.reset(rng)
    simulator.place(np.array([2]), rng)
    before = simulator.observation().copy()
    result = simulator.place(np.array([2]), rng)
    assert (result.clicks[0], result.probability[0], bool(result.legal[0])) == (0.0, 0.0, False)
    assert np.array_equal(simulator.observation()[:, :, :4], before[:, :, :4])
    assert simulator.mask[0].tolist() == [True, True, False, True]


def test_vector_environment_counts_slots_and_starts_anew():
    environment = MultiSlotVectorEnv(3, candidates=5, slots=2)
    first, _ = environment.reset(seed=1)
    assert first["candidates"].shape == (3, 5, 5)
    _, rewards, ended, _, info = environment.step(np.array([0, 1, 2]))
    assert not ended.any()
    assert set(rewards) <= {0.0, 1.0}
    assert ((info["click_probability"] > 0) & (info["click_probability"] < 1)).all()
    seen, _, ended, _, _ = environment.step(np.array([1, 2, 3]))
    assert ended.all()
    assert seen["action_mask"].sum(axis=1).tolist() == [3, 3, 3]
    fresh, rewards, ended, _, _ = environment.step(np.array([0, 0, 0]))
    assert fresh["action_mask"].all()
    assert not ended.any()
    assert not rewards.any()
    assert environment.observation_space.contains(fresh)


@pytest.mark.parametrize(
    "make", [lambda: MultiSlotEnv(candidates=6, slots=3), lambda: MultiSlotVectorEnv(4, 1.0, 6, 3)]
)
def test_seeds_decide_everything(make):
    def run(seed):
        environment = make()
        observation, _ = environment.reset(seed=seed)
        trace = [observation["candidates"]]
        for slot in range(3):
            action = np.full(getattr(environment, "num_envs", 1), slot)
            action = action if isinstance(environment, MultiSlotVectorEnv) else int(action[0])
            observation, reward, *_ = environment.step(action)
            trace += [observation["candidates"], np.atleast_1d(reward)]
        return np.concatenate([part.ravel() for part in trace])

    assert np.array_equal(run(5), run(5))
    assert not np.array_equal(run(5), run(6))


def test_clicks_follow_their_probability():
    environment = MultiSlotVectorEnv(2000, candidates=8, slots=4)
    environment.reset(seed=0)
    for slot in range(4):
        _, clicks, _, _, info = environment.step(np.full(2000, slot))
        probability = info["click_probability"]
        error = np.sqrt((probability * (1 - probability)).sum()) / 2000
        assert clicks.mean() == pytest.approx(probability.mean(), abs=4 * error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slots": 9, "candidates": 8}, "slots=9 must be between 1"),
        ({"influence": -1.0}, "influence=-1.0 must be finite"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        gym.make(ENVIRONMENT_ID, **arguments)
