"""The replay theorem, over every log there can be, in rational arithmetic; and where it must fail.

The means are those of oracles.value_by_hand, which run on fractions; test_value ties the compiled ones to them.
"""

from fractions import Fraction

import numpy as np
import pytest
from multislot_rerank.slate_replay import Interaction, matches
from oracles.enumerated_logs import expectation, plackett_luce, reward
from oracles.value_by_hand import slot_means

HALF = Fraction(1, 2)
TARGETS = {0: (1, 0), 1: (2, 1)}


def estimator(interaction, weight=None):
    """Our replay on one log, in fractions; the mean of slot k over its matches, or None where a slot has none."""

    def estimate(records):
        slates = np.array([slate for _, slate in records])
        targets = np.array([TARGETS[context] for context, _ in records])
        kept = matches(slates, targets, interaction).astype(int).astype(object) * Fraction(1)
        if weight is not None:
            kept = kept * np.array([[weight(context, slate)] for context, slate in records], dtype=object)
        if (kept.sum(axis=0) == 0).any():
            return None
        rewards = np.array([reward(context, slate, interaction) for context, slate in records], dtype=object)
        return list(slot_means(kept, rewards[:, :, None])[:, 0])

    return estimate


def truth(contexts, interaction):
    values = [
        [probability * r for r in reward(context, TARGETS[context], interaction)]
        for context, (probability, _, _) in enumerate(contexts)
    ]
    return [sum(slot) for slot in zip(*values, strict=True)]


def uniform(contexts):
    def propensity(context, slate):
        probability = Fraction(1)
        for position in range(len(slate)):
            probability /= contexts[context][1] - position
        return probability

    return propensity


@pytest.mark.parametrize("interaction", list(Interaction))
def test_replay_of_a_uniform_log_is_exactly_unbiased(interaction):
    contexts = [(HALF, 3, 2), (HALF, 3, 2)]
    found = expectation(contexts, uniform(contexts), 3, estimator(interaction))
    assert found == truth(contexts, interaction)


@pytest.mark.parametrize("interaction", ["full", "cascade"])
def test_candidate_counts_that_vary_bias_plain_replay(interaction):
    contexts = [(HALF, 3, 2), (HALF, 4, 2)]
    found = expectation(contexts, uniform(contexts), 2, estimator(Interaction(interaction)))
    bias = float(found[0] - truth(contexts, interaction)[0])
    assert abs(bias) > 0.01


@pytest.mark.parametrize("interaction", ["full", "cascade"])
def test_a_log_that_is_not_uniform_biases_plain_replay(interaction):
    contexts = [(HALF, 3, 2), (HALF, 3, 2)]
    found = expectation(
        contexts, lambda context, slate: plackett_luce([3, 2, 1], slate), 2, estimator(Interaction(interaction))
    )
    assert abs(float(found[0] - truth(contexts, interaction)[0])) > 0.01


@pytest.mark.parametrize("interaction", ["full", "set"])
def test_thinning_restores_exactness(interaction):
    """Both contexts' matches are kept with one probability: context 1 has 4 candidates, context 0 is thinned to it."""
    contexts = [(HALF, 3, 2), (HALF, 4, 2)]
    accept = Fraction(1, 12) / Fraction(1, 6)
    propensity = uniform(contexts)
    # the coin is part of the log: every record of context 0 comes thinned (weight 0) or not
    coined = [(HALF * accept, 3, 2), (HALF, 4, 2), (HALF * (1 - accept), 3, 2)]

    def estimate(records):
        return thinned(
            [(0 if context == 2 else context, slate, context != 2) for context, slate in records],
            Interaction(interaction),
        )

    found = expectation(coined, lambda context, slate: propensity(0 if context == 2 else context, slate), 2, estimate)
    assert found == truth(contexts, interaction)


def thinned(records, interaction):
    slates = np.array([slate for _, slate, _ in records])
    targets = np.array([TARGETS[context] for context, _, _ in records])
    coins = np.array([[coin] for _, _, coin in records]).astype(object)
    kept = matches(slates, targets, interaction).astype(int).astype(object) * coins * Fraction(1)
    if (kept.sum(axis=0) == 0).any():
        return None
    rewards = np.array([reward(context, slate, interaction) for context, slate, _ in records], dtype=object)
    return list(slot_means(kept, rewards[:, :, None])[:, 0])
