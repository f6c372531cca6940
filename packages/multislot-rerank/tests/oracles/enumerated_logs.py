"""Expectation of an estimator over every log there can be, in rational arithmetic: slow and exact."""

from fractions import Fraction
from itertools import permutations, product


def slates_of(candidates, slots):
    return list(permutations(range(candidates), slots))


def plackett_luce(weights, slate):
    """Probability of an ordered slate when items are drawn in proportion to their weights."""
    left = sum(weights)
    probability = Fraction(1)
    for item in slate:
        probability *= Fraction(weights[item], left)
        left -= weights[item]
    return probability


def reward(context, slate, interaction):
    """A reward for each slot, as a fraction, that depends on what the interaction allows and on all of that."""
    rewards = []
    for slot, item in enumerate(slate):
        seen = {
            "full": slate,
            "cascade": slate[: slot + 1],
            "independent": (item,),
            "set": tuple(sorted(slate)),
        }[interaction]
        code = sum((position + 2) * (element + 1) ** 2 for position, element in enumerate(seen))
        rewards.append(Fraction((7 * code + 5 * slot + 11 * context) % 13, 13))
    return rewards


def expectation(contexts, propensity, size, estimate):
    """E[estimate | it is defined] over logs of ``size`` records.

    contexts: list of (probability, candidates, slots); propensity(context, slate) -> Fraction;
    estimate(list of (context, slate)) -> list of Fractions, or None where a slot has no match.
    """
    records = [
        (context, slate, probability * propensity(context, slate))
        for context, (probability, candidates, slots) in enumerate(contexts)
        for slate in slates_of(candidates, slots)
    ]
    total, mass = None, Fraction(0)
    for log in product(records, repeat=size):
        probability = Fraction(1)
        for record in log:
            probability *= record[2]
        found = estimate([(context, slate) for context, slate, _ in log])
        if found is None:
            continue
        mass += probability
        total = [a + probability * b for a, b in zip(total or [Fraction(0)] * len(found), found, strict=True)]
    return [value / mass for value in total]
