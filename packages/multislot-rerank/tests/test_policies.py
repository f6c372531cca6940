"""Policies in the simulator, trade-off search, Ray, and reinforcement learning."""

import functools
import itertools

import numpy as np
import pytest
from multislot_rerank.cascade_world import CascadeWorld
from multislot_rerank.errors import InvalidInput
from multislot_rerank.influence_world import InfluenceWorld
from multislot_rerank.latency import reranking_latency
from multislot_rerank.log import SlateLog, TargetPolicy
from multislot_rerank.objectives import Relevance
from multislot_rerank.pareto import pareto_front
from multislot_rerank.policies import by_relevance, compare_policies, greedy_truth, linear, whole_slate
from multislot_rerank.reranker import SequentialGreedyReranker
from multislot_rerank.sharded import replay_shards
from multislot_rerank.slate_replay import replay
from multislot_rerank.tradeoff_search import search


def test_the_same_policy_twice_gains_nothing():
    world = InfluenceWorld()
    sort = whole_slate(SequentialGreedyReranker([Relevance((1.0, 0.0))], world.slots))
    table = compare_policies(
        world, {"sorted": by_relevance, "reranker": sort, "linear": linear({"score_0": 2.0})}, requests=50
    )
    assert [row.gain for row in table.rows] == [0.0, 0.0, 0.0]
    assert [row.illegal for row in table.rows] == [0, 0, 0]


def test_policies_are_ordered_as_their_knowledge():
    world = InfluenceWorld(influence=2.0)
    known = {"score_0": 1.1, "score_1": 0.5, "max_cosine": -2.4, "creator_repeats": -1.6}
    policies = {"relevance": by_relevance, "known law": linear(known), "truth": greedy_truth}
    table = compare_policies(world, policies, requests=2000)
    gains = [row.gain for row in table.rows]
    assert gains[1] > 10 * table.rows[1].gain_error
    assert gains[2] > gains[1] - 3 * table.rows[2].gain_error
    assert "known law" in str(table)


def test_a_forbidden_pick_is_counted_and_earns_nothing():
    table = compare_policies(InfluenceWorld(), {"zero": lambda s: np.zeros(s.batch, np.int64)}, requests=10)
    assert table.rows[0].illegal == 10 * (InfluenceWorld().slots - 1)
    assert table.rows[0].value < 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_policies(InfluenceWorld(), {}), "policies is empty"),
        (lambda: compare_policies(InfluenceWorld(), {"a": by_relevance}, requests=1), "requests=1"),
        (lambda: linear({"score": 1.0}), "weights name score"),
        (lambda: reranking_latency(5, 6), "k=6"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


def test_latency_has_its_quantiles_in_order():
    found = reranking_latency(30, 3, requests=20)
    assert 0 < found.p50_ms <= found.p99_ms


# -- search


def two_objective_log(records=4000):
    """One of four items in one slot; clicks and (less) freshness pull apart."""
    rng = np.random.default_rng(3)
    shown = rng.integers(4, size=(records, 1))
    click = rng.random((records, 1)) < np.array([0.8, 0.6, 0.4, 0.1])[shown]
    fresh = rng.random((records, 1)) < np.array([0.1, 0.5, 0.6, 0.9])[shown]
    rewards = np.stack([click, fresh], axis=2).astype(float)
    return SlateLog.uniform(shown, rewards, candidates=4, objectives=["click", "fresh"])


def policy_of(log, theta):
    utility = np.array([0.8, 0.6, 0.4, 0.1]) + theta[0] * np.array([0.1, 0.5, 0.6, 0.9])
    return np.full((len(log), 1), int(np.argmax(utility)))


def test_the_search_finds_the_front_of_all_policies():
    log = two_objective_log()
    front = search(log, functools.partial(policy_of, log), {"theta": (0.0, 3.0)}, population=12, generations=6)
    reachable = {int(policy_of(log, [t])[0, 0]) for t in np.linspace(0, 3, 3001)}
    values = np.array(
        [replay(log, TargetPolicy.deterministic(log, np.full((len(log), 1), a))).value for a in sorted(reachable)]
    )
    expected = values[pareto_front(values, ["max", "max"])]
    found = front.values[front.optimal]
    assert np.array_equal(found[np.argsort(found[:, 0])], expected[np.argsort(expected[:, 0])])
    assert 0.0 <= float(front.names[0]) <= 3.0


def test_the_front_equals_pymoos():
    sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting")
    rng = np.random.default_rng(0)
    for size, objectives in itertools.product((1, 5, 60), (2, 3)):
        values = rng.integers(6, size=(size, objectives)).astype(float)  # with ties and duplicates
        theirs = sorting.NonDominatedSorting().do(-values, only_non_dominated_front=True)
        assert np.flatnonzero(pareto_front(values, ["max"] * objectives)).tolist() == sorted(theirs.tolist())


def test_search_refuses_nonsense():
    log = two_objective_log(50)
    policy = functools.partial(policy_of, log)
    with pytest.raises(InvalidInput, match="bounds is empty"):
        search(log, policy, {})
    with pytest.raises(InvalidInput, match=r"bounds\['theta'\]"):
        search(log, policy, {"theta": (1.0, 1.0)})
    with pytest.raises(InvalidInput, match="population=2"):
        search(log, policy, {"theta": (0.0, 1.0)}, population=2)
    never = SlateLog.uniform([[0]] * 20, [[[1.0]]] * 20, candidates=3)
    with pytest.raises(InvalidInput, match="none of the 1 policies"):
        search(never, lambda theta: np.full((20, 1), 2), {"theta": (0.0, 1.0)}, population=4, generations=1)


# -- Ray


def shard(number):
    world = CascadeWorld.random(items=5, slots=2, damping=0.6, seed=1)
    log = world.log(400, seed=number)
    return log, world.target(log)


# Ray 2.60 leaves sockets and child processes to the interpreter's end, and warns of its own deprecations
@pytest.mark.filterwarnings("ignore")
def test_replay_on_ray_has_the_same_bits():
    pytest.importorskip("ray")
    here = replay_shards([functools.partial(shard, n) for n in range(5)])
    there = replay_shards([functools.partial(shard_by_value(), n) for n in range(5)], workers=2, executor="ray")
    assert np.array_equal(here.value, there.value)
    assert np.array_equal(here.covariance, there.covariance)


def shard_by_value():
    """The shard as a closure: workers can't import a test module by name."""

    def drawn(number):
        from multislot_rerank.cascade_world import CascadeWorld

        world = CascadeWorld.random(items=5, slots=2, damping=0.6, seed=1)
        log = world.log(400, seed=number)
        return log, world.target(log)

    return drawn


def test_an_unknown_executor_is_named():
    with pytest.raises(InvalidInput, match="executor='dask'"):
        replay_shards([functools.partial(shard, 0)], executor="dask")


# -- reinforcement learning


@pytest.mark.filterwarnings("ignore")  # RLlib warns of its own deprecations
def test_ppo_learns_and_never_picks_a_forbidden_candidate(tmp_path):
    pytest.importorskip("ray.rllib")
    pytest.importorskip("torch")
    from multislot_rerank.reinforcement import LearntPolicy, train_ppo

    world = InfluenceWorld(influence=1.0, candidates=10, slots=4)
    seen = []
    policy = train_ppo(world, seconds=12.0, progress=lambda *row: seen.append(row))
    policy.save(tmp_path / "policy.safetensors")
    loaded = LearntPolicy.load(tmp_path / "policy.safetensors", candidates=10)
    at_random = linear({})
    table = compare_policies(world, {"first free": at_random, "PPO": policy, "loaded": loaded}, requests=1000)
    assert table.rows[1].illegal == 0
    assert table.rows[1].gain > 5 * table.rows[1].gain_error
    assert table.rows[2].value == table.rows[1].value
    assert policy.slates_seen > 0
    assert seen[0][0] == 1
    with pytest.raises(InvalidInput, match="does not fit"):
        LearntPolicy.load(tmp_path / "policy.safetensors", candidates=10, hidden=32)


@pytest.mark.filterwarnings("ignore")
def test_the_scorer_gives_forbidden_candidates_probability_zero():
    pytest.importorskip("ray.rllib")
    torch = pytest.importorskip("torch")
    from gymnasium import spaces
    from multislot_rerank.environment import observation_space
    from multislot_rerank.item_scorer import MaskedItemScorer
    from ray.rllib.core.columns import Columns

    torch.manual_seed(0)
    scorer = MaskedItemScorer(
        observation_space=observation_space(6), action_space=spaces.Discrete(6), model_config={"hidden": 8}
    )
    features = torch.randn(3, 6, 5)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.int8)
    batch = {Columns.OBS: {"candidates": features, "action_mask": mask}}
    probability = scorer.forward_train(batch)[Columns.ACTION_DIST_INPUTS].softmax(-1)
    assert torch.equal(probability == 0, mask == 0)
    order = torch.tensor([3, 1, 0, 5, 4, 2])  # the order of the candidates does not matter
    moved = {Columns.OBS: {"candidates": features[:, order], "action_mask": mask[:, order]}}
    again = scorer.forward_train(moved)[Columns.ACTION_DIST_INPUTS].softmax(-1)
    assert torch.allclose(again, probability[:, order], atol=1e-6)
    assert scorer.compute_values(batch).shape == (3,)


def test_training_refuses_nonsense():
    pytest.importorskip("gymnasium")
    from multislot_rerank.reinforcement import train_ppo

    with pytest.raises(InvalidInput, match="seconds=0"):
        train_ppo(InfluenceWorld(), seconds=0)
    with pytest.raises(InvalidInput, match="differs from the environment"):
        train_ppo(InfluenceWorld(topics=3))
