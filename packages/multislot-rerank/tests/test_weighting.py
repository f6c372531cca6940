from itertools import permutations

import numpy as np
import pytest
from multislot_rerank import (
    InvalidInput,
    SlateLog,
    TargetPolicy,
    cascade_dr,
    estimate_all,
    iips,
    plan_logging,
    pseudo_inverse,
    replay,
    rips,
    sips,
)
from multislot_rerank.weighting import pseudo_inverse_weights


def plackett_luce_log(seed, n=3000, candidates=5, slots=3):
    """A log of a Plackett-Luce policy and a Plackett-Luce target, every probability by its definition."""
    rng = np.random.default_rng(seed)
    every = np.array(list(permutations(range(candidates), slots)))

    def table(weights):
        """Conditional of each step and marginal of each (item, slot), for every ordered slate."""
        steps = np.empty((len(every), slots))
        left = np.full(len(every), weights.sum())
        for slot in range(slots):
            steps[:, slot] = weights[every[:, slot]] / left
            left = left - weights[every[:, slot]]
        marginal = np.zeros((candidates, slots))
        for slot in range(slots):
            np.add.at(marginal[:, slot], every[:, slot], steps.prod(axis=1))
        return steps, marginal

    logging, target = table(rng.uniform(0.5, 2, candidates)), table(rng.uniform(0.5, 2, candidates))
    shown = rng.choice(len(every), size=n, p=logging[0].prod(axis=1))
    slates = every[shown]
    at_slot = np.arange(slots)
    rewards = rng.random((n, slots, 2))
    log = SlateLog.from_propensities(
        slates, rewards, logging[0][shown], candidates, logging[1][slates, at_slot], ["click", "dwell"]
    )
    policy = TargetPolicy.stochastic(log, target[0][shown], target[1][slates, at_slot])
    return log, policy


def test_marginals_of_the_test_log_sum_to_one():
    log, policy = plackett_luce_log(0, n=50_000)
    # E_mu[pi_k / mu_k] = 1 and E_mu[pi / mu] = 1 if both are right
    assert (policy.marginals / log.marginals).mean(axis=0) == pytest.approx(np.ones(3), abs=0.02)
    assert (policy.prefixes / log.prefixes).mean(axis=0) == pytest.approx(np.ones(3), abs=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_plain_estimators_are_their_definition(seed):
    log, policy = plackett_luce_log(seed)
    slate = policy.prefixes[:, -1] / log.prefixes[:, -1]
    for found, weight in (
        (sips(log, policy), np.repeat(slate[:, None], 3, axis=1)),
        (rips(log, policy), policy.prefixes / log.prefixes),
        (iips(log, policy), policy.marginals / log.marginals),
    ):
        total = sum(weight[:, k, None] * log.rewards[:, k] for k in range(3))
        assert np.allclose(found.value, total.mean(axis=0), rtol=1e-12)
        assert np.allclose(found.covariance, np.cov(total.T) / len(log), rtol=1e-10)


@pytest.mark.parametrize("estimator", [sips, rips, iips])
def test_self_normalised_estimators_are_their_definition(estimator):
    log, policy = plackett_luce_log(1)
    plain, normalised = estimator(log, policy), estimator(log, policy, self_normalized=True)
    weights = {"SIPS": policy.prefixes[:, -1:] / log.prefixes[:, -1:] * np.ones(3)}
    weights |= {"RIPS": policy.prefixes / log.prefixes, "IIPS": policy.marginals / log.marginals}
    assert np.allclose(normalised.per_slot, plain.per_slot / weights[plain.estimator].mean(axis=0)[:, None], rtol=1e-12)


def test_the_policy_that_logged_is_worth_its_mean_reward():
    log, _ = plackett_luce_log(2)
    same = TargetPolicy(log.prefixes, log.marginals)
    for estimator in (sips, rips, iips):
        assert np.allclose(estimator(log, same).value, log.rewards.sum(axis=1).mean(axis=0), rtol=1e-12)


def test_cascade_dr_without_a_model_is_rips_and_with_the_truth_has_no_variance():
    log, policy = plackett_luce_log(3)
    nothing = np.zeros(log.rewards.shape)
    assert np.allclose(cascade_dr(log, policy, nothing, nothing).value, rips(log, policy).value, rtol=1e-12)
    # rewards of 1 in every slot: the reward-to-go is 3, 2, 1, and the sum telescopes to exactly 3
    ones = SlateLog.from_propensities(log.slates, np.ones((len(log), 3)), log.conditionals, 5, log.marginals)
    q = np.tile([3.0, 2.0, 1.0], (len(log), 1))
    result = cascade_dr(ones, policy, q, q)
    assert result.value[0] == pytest.approx(3.0, rel=1e-12)
    assert result.standard_error[0] < 1e-12


@pytest.mark.parametrize("slots", range(1, 7))
@pytest.mark.parametrize("candidates", range(2, 7))
def test_pseudo_inverse_weights_equal_the_pseudo_inverse(candidates, slots):
    if slots > candidates:
        return
    every = np.array(list(permutations(range(candidates), slots)))
    indicators = np.zeros((len(every), slots * candidates))
    for slot in range(slots):
        indicators[np.arange(len(every)), slot * candidates + every[:, slot]] = 1
    inverse = np.linalg.pinv(indicators.T @ indicators / len(every))
    log = SlateLog.uniform(every, np.zeros(every.shape), candidates)
    for target in every[:: max(1, len(every) // 7)]:
        row = np.flatnonzero((every == target).all(axis=1))[0]
        expected = indicators[row] @ inverse @ indicators.T
        policy = TargetPolicy.deterministic(log, np.tile(target, (len(every), 1)))
        assert np.abs(pseudo_inverse_weights(log, policy) - expected).max() < 1e-12 * max(1, np.abs(expected).max())


def test_pseudo_inverse_is_unbiased_for_additive_rewards_and_tighter_than_sips():
    rng = np.random.default_rng(0)
    effect = rng.random((3, 6))
    values, errors = [], []
    for _ in range(200):
        slates = np.argsort(rng.random((2000, 6)), axis=1)[:, :3]
        rewards = effect[np.arange(3), slates] + 0.1 * rng.normal(size=(2000, 3))
        log = SlateLog.uniform(slates, rewards, 6)
        target = TargetPolicy.deterministic(log, np.tile([4, 0, 2], (2000, 1)))
        values.append(pseudo_inverse(log, target).value[0])
        errors.append(sips(log, target).value[0])
    truth = effect[[0, 1, 2], [4, 0, 2]].sum()
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(200))
    assert np.std(values) < 0.4 * np.std(errors)


def test_replay_is_the_self_normalised_weight_of_a_deterministic_policy():
    rng = np.random.default_rng(4)
    slates = np.argsort(rng.random((5000, 5)), axis=1)[:, :3]
    log = SlateLog.uniform(slates, rng.random((5000, 3)), 5)
    target = TargetPolicy.deterministic(log, np.tile([4, 0, 2], (5000, 1)))
    assert np.allclose(replay(log, target, "cascade").value, rips(log, target, self_normalized=True).value, rtol=1e-12)
    assert np.allclose(replay(log, target, "full").value, sips(log, target, self_normalized=True).value, rtol=1e-12)


def test_ladder_recommends_the_weakest_assumption_with_enough_data():
    rng = np.random.default_rng(5)

    def ladder(records, candidates, slots):
        slates = np.argsort(rng.random((records, candidates)), axis=1)[:, :slots]
        log = SlateLog.uniform(slates, rng.random((records, slots)), candidates)
        return estimate_all(log, TargetPolicy.deterministic(log, np.tile(np.arange(slots), (records, 1))))

    assert ladder(20_000, 6, 3).recommended.estimator == "replay (full)"
    few = ladder(1_500, 20, 3)
    assert few.recommended.estimator in ("PI", "replay (independent)")
    assert any("below 30" in doubt for rung in few.rungs for doubt in rung.doubts)
    assert ladder(20, 20, 3).recommended is None


def test_ladder_of_a_stochastic_target_has_no_replay():
    log, policy = plackett_luce_log(6)
    names = [rung.estimate.estimator for rung in estimate_all(log, policy).rungs]
    assert names == ["SN-SIPS", "SIPS", "SN-RIPS", "RIPS", "SN-IIPS", "IIPS"]


def test_plan_brings_the_matches_it_promises():
    rng = np.random.default_rng(6)
    for plan in plan_logging(8, 3, standard_error=0.05, reward_deviation=0.4):
        matches = rng.binomial(plan.requests, plan.acceptance, size=20_000)
        # 95 % certainty, by a normal approximation that is good to a percent
        assert 0.94 <= (matches >= plan.matches).mean() <= 0.965


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log, policy: pseudo_inverse(log, policy), "needs a uniform log and a deterministic target"),
        (lambda log, policy: cascade_dr(log, policy, np.zeros((2, 3)), np.zeros((2, 3))), r"q_logged has shape \(2, 3"),
        (lambda log, policy: plan_logging(3, 5, standard_error=1, reward_deviation=1), "slots=5 must be between 1"),
        (lambda log, policy: plan_logging(5, 3, standard_error=0, reward_deviation=1), "standard_error=0 must be"),
        (lambda log, policy: TargetPolicy.stochastic(log, log.conditionals * 3, log.marginals), "outside \\[0, 1\\]"),
    ],
)
def test_bad_input_is_named(call, message):
    log, policy = plackett_luce_log(0, n=100)
    with pytest.raises(InvalidInput, match=message):
        call(log, policy)
