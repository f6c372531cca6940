"""Rankings with bounds on prefixes: brute force over group sequences, a linear program, and the proof itself."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from fastlp_rank import (
    InvalidProblemError,
    PrefixCount,
    PrefixProblem,
    SlotWeights,
    Status,
    proportional_prefixes,
    rank_prefixes,
)
from fastlp_rank.certificate import size_about
from fastlp_rank.prefixes import flow, ranking
from fastlp_rank.prefixes.proof import contradiction
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog


def drawn(rng, groups=4, slots=5, scores=None):
    """A small request with bounds that contradict each other in about a fifth of the draws."""
    G, m = int(rng.integers(1, groups + 1)), int(rng.integers(1, slots + 1))
    n = int(rng.integers(m, m + 8))
    labels = [f"g{x}" for x in rng.integers(0, G, n)]
    u = scores(rng, n) if scores else rng.normal(size=n)
    bounds = []
    for label in sorted(set(labels)):
        for first in range(1, m + 1):
            if rng.random() < 0.35:
                low = int(rng.integers(0, max(1, first // 2) + 1))
                sides = rng.random()
                high = int(rng.integers(low, first + 1))
                bounds.append(PrefixCount(label, first, low if sides < 0.66 else None, high if sides > 0.33 else None))
    slots = SlotWeights.dcg(m) if rng.random() < 0.7 else SlotWeights.uniform(m)
    blocked = rng.random(n) < 0.2 if rng.random() < 0.3 else None
    if blocked is not None and n - blocked.sum() < m:
        blocked = None
    return PrefixProblem(u, slots, labels, bounds, blocked)


def brute_force(problem):
    """Best value, in fractions, over all sequences of groups (each shown best first); None: no one keeps the bounds."""
    G, m = problem.lower.shape
    u = [Fraction(x) for x in problem.scores.tolist()]
    v = [Fraction(x) for x in problem.slots.values.tolist()]
    items = [sorted((i for i in range(len(u)) if problem.group[i] == g), key=lambda i: -u[i]) for g in range(G)]
    best = None
    for sequence in itertools.product(range(G), repeat=m):
        used, value = [0] * G, Fraction(0)
        for j, g in enumerate(sequence):
            if used[g] == len(items[g]):
                break
            value += v[j] * u[items[g][used[g]]]
            used[g] += 1
            if any(not problem.lower[h, j] <= used[h] <= problem.upper[h, j] for h in range(G)):
                break
        else:
            best = value if best is None else max(best, value)
    return best


def value_of(problem, shown):
    return sum(
        (Fraction(v) * Fraction(problem.scores[i]) for v, i in zip(problem.slots.values.tolist(), shown, strict=True)),
        Fraction(0),
    )


def check(problem, found, tolerance=0.0):
    best = brute_force(problem)
    assert (found.status is Status.INFEASIBLE) == (best is None)
    if best is None:
        assert found.conflict
        assert found.verify(problem).holds
        return
    assert not contradiction(problem)
    shown = found.ranking.tolist()
    assert len(set(shown)) == len(shown)
    assert (problem.group[found.ranking] >= 0).all()
    counts = np.array(
        [[(problem.group[shown[: j + 1]] == g).sum() for j in range(len(shown))] for g in range(len(problem.labels))]
    )
    assert (counts == found.counts).all()
    assert ((problem.lower <= counts) & (counts <= problem.upper)).all()
    lost = best - value_of(problem, shown)
    assert 0 <= lost <= Fraction(tolerance)
    proof = found.verify(problem)
    assert proof.holds
    assert proof.gap >= 0.0 or proof.gap == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("seed", range(150))
def test_equals_brute_force(seed):
    problem = drawn(np.random.default_rng(seed))
    check(problem, rank_prefixes(problem), 1e-14)


KINDS = {
    "offsets": lambda rng, n: 1.7e9 + rng.normal(size=n) * 1e-3,
    "sentinels": lambda rng, n: np.where(rng.random(n) < 0.3, -1e300, rng.normal(size=n)),
    "mixed": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-150, 150, n),
    "ties": lambda rng, n: rng.integers(0, 2, n).astype(float),
    "tiny": lambda rng, n: rng.normal(size=n) * 5e-324 * 1e3,
    "near": lambda rng, n: 1.0 + rng.integers(0, 4, n) * 2.0**-52,
    "zeros": lambda rng, n: np.zeros(n),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_untidy_scores_are_ranked_exactly(kind, seed):
    problem = drawn(np.random.default_rng([seed, len(kind)]), scores=KINDS[kind])
    found = rank_prefixes(problem)
    shown = problem.scores[problem.group >= 0]
    mth = np.sort(shown)[::-1][problem.slots.m - 1]
    check(problem, found, 1e-9 * size_about(shown, mth, problem.slots.m) * problem.slots.total)
    if found.status is Status.OPTIMAL:
        assert np.isfinite([found.objective, found.gap, *found.prices.values()]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_fractions_and_floats_find_equal_values(seed):
    problem = drawn(np.random.default_rng(seed), groups=5, slots=9)
    found = rank_prefixes(problem)
    if found.status is Status.INFEASIBLE:
        return
    lower, upper = problem.lower.copy(), problem.upper.copy()
    flow.close(lower, upper, flow.best_of_groups(problem.scores, problem.group, *lower.shape)[1])
    m = lower.shape[1]
    shown = np.zeros(m, dtype=np.int64)
    ranking._in_fractions(problem, lower, upper, np.zeros(m, np.int64), np.zeros_like(lower), shown)
    assert abs(value_of(problem, shown) - value_of(problem, found.ranking)) < 1e-14


@pytest.mark.parametrize("seed", range(25))
def test_no_lottery_that_keeps_the_bounds_in_expectation_is_better(seed):
    rng = np.random.default_rng(seed + 1000)
    problem = drawn(rng, groups=4, slots=8)
    found = rank_prefixes(problem)
    n, m = problem.scores.size, problem.slots.m
    x = np.arange(n * m).reshape(n, m)
    rows, low, high = [], [], []
    for cells, least, most in [(x[:, j], 1, 1) for j in range(m)] + [
        (x[i], 0, int(problem.group[i] >= 0)) for i in range(n)
    ]:
        row = np.zeros(n * m)
        row[cells] = 1
        rows.append(row), low.append(least), high.append(most)
    for g in range(len(problem.labels)):
        for j in range(m):
            row = np.zeros(n * m)
            row[x[problem.group == g][:, : j + 1].ravel()] = 1
            rows.append(row), low.append(problem.lower[g, j]), high.append(problem.upper[g, j])
    A = np.array(rows)
    lp = linprog(
        -np.outer(problem.scores, problem.slots.values).ravel(),
        A_ub=np.vstack([A, -A]), b_ub=np.concatenate([high, -np.array(low)]), bounds=(0, 1),
    )  # fmt: skip
    assert (lp.status == 2) == (found.status is Status.INFEASIBLE)
    if lp.status == 0:
        assert found.objective == pytest.approx(-lp.fun, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_the_potentials_bound_every_ranking(seed):
    """The bound as the formula states it, summed from nothing but problem and potentials."""
    problem = drawn(np.random.default_rng(seed), groups=4, slots=9)
    found = rank_prefixes(problem)
    if found.status is Status.INFEASIBLE:
        return
    G, m = problem.lower.shape
    u, v = problem.scores, problem.slots.values
    items = [np.sort(u[problem.group == g])[::-1] for g in range(G)]
    top = u[problem.group >= 0].max()
    p = np.hstack([found.potentials, np.zeros((G, 1))])
    bound = p[:, :m].max(axis=0).sum() + top * v.sum()
    w = v - np.append(v[1:], 0.0)
    for g in range(G):
        total = np.concatenate([[0.0], np.cumsum(items[g] - top)])
        for j in range(m):
            allowed = range(problem.lower[g, j], min(problem.upper[g, j], items[g].size, j + 1) + 1)
            bound += max(w[j] * total[n] - (p[g, j] - p[g, j + 1]) * n for n in allowed)
    assert bound >= found.objective - 1e-9
    # without the bounds that the others imply the same potentials may prove less, never more than the optimum allows
    assert found.gap <= 1e-13


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (
            [PrefixCount("a", 2, at_least=2), PrefixCount("b", 2, at_least=1)],
            "slots 1 to 2 must hold 2 of 'a', 1 of 'b'",
        ),
        ([PrefixCount("a", 3, at_most=1), PrefixCount("b", 3, at_most=1)], "may hold at most 1 of 'a', 1 of 'b'"),
        ([PrefixCount("a", 3, at_least=3), PrefixCount("a", 2, at_most=1)], "group 'a' must have"),
        ([PrefixCount("b", 3, at_least=3)], "group 'b' must have"),
    ],
)
def test_contradictions_are_named(bounds, said):
    found = rank_prefixes(PrefixProblem([5.0, 4.0, 3.0, 2.0, 1.0], SlotWeights.dcg(3), list("aaabb"), bounds))
    assert found.status is Status.INFEASIBLE
    assert said in found.conflict
    assert found.ranking.size == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_false_claim_is_not_proven(seed):
    rng = np.random.default_rng(seed)
    problem = drawn(rng, groups=3, slots=6)
    found = rank_prefixes(problem)
    if found.status is Status.INFEASIBLE or problem.slots.m < 2:
        return
    swapped = found.ranking.copy()
    swapped[[0, -1]] = swapped[[-1, 0]]
    claim = dataclasses.replace(found, ranking=swapped).verify(problem)
    worse = value_of(problem, swapped) < value_of(problem, found.ranking) - Fraction(1e-6)
    assert not claim.holds or not worse
    assert not dataclasses.replace(found, ranking=np.zeros_like(swapped)).verify(problem).holds
    lies = dataclasses.replace(found, potentials=found.potentials + rng.normal(size=found.potentials.shape))
    assert lies.verify(problem).gap > found.verify(problem).gap - 1e-12


def test_a_price_is_what_a_bound_costs():
    scores, labels = [9.0, 8.0, 7.0, 2.0, 1.0], list("aaabb")
    slots = SlotWeights.explicit([3.0, 2.0, 1.0])
    tight = rank_prefixes(PrefixProblem(scores, slots, labels, [PrefixCount("b", 3, at_least=1, name="shown")]))
    assert tight.ranking.tolist() == [0, 1, 3]
    # from what relaxing gains, 50 - 45, to what one more would cost, 45 - 32
    assert -13.0 <= tight.prices["shown"] <= -5.0


@pytest.mark.parametrize("seed", range(30))
def test_relaxing_a_bound_gains_no_more_than_its_price(seed):
    problem = drawn(np.random.default_rng(seed + 500), groups=4, slots=8)
    found = rank_prefixes(problem)
    if found.status is Status.INFEASIBLE:
        return
    for k, bound in enumerate(problem.bounds):
        for side, step in (("at_most", 1), ("at_least", -1)):
            value = getattr(bound, side)
            if value is None or value + step < 0:
                continue
            relaxed = [*problem.bounds]
            relaxed[k] = dataclasses.replace(bound, **{side: value + step})
            groups = [problem.labels[g] if g >= 0 else "blocked" for g in problem.group]
            looser = PrefixProblem(problem.scores, problem.slots, groups, relaxed, problem.group < 0)
            assert rank_prefixes(looser).objective <= found.objective + abs(found.prices[bound.label]) + 1e-12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": [1.0, np.nan, 0.0]}, r"scores\[1\] = nan"),
        ({"scores": [1e308, 1e308, 0.0]}, "no float holds the sums"),
        ({"slots": [1.0, 0.5]}, "slots is a list"),
        ({"slots": SlotWeights.uniform(4)}, "4 slots for 3 candidates"),
        ({"blocked": [True, True, False]}, "2 slots for 1 candidates"),
        ({"groups": ["a", "b"]}, "groups has shape"),
        ({"groups": [["a", "b"], ["a"], ["b"]]}, "no single label"),
        ({"bounds": [PrefixCount("c", 1, at_most=1)]}, "group 'c' is unknown"),
        ({"bounds": [PrefixCount("a", 3, at_most=1)]}, "first = 3"),
        ({"bounds": [PrefixCount("a", 0, at_most=1)]}, "first = 0"),
        ({"bounds": [PrefixCount("a", 1, at_most=0.5)]}, "no whole number"),
        ({"bounds": [PrefixCount("a", 1, at_least=float("nan"))]}, "no whole number"),
        ({"bounds": [PrefixCount("a", 2, at_least=2, at_most=1)]}, "exceeds at_most"),
        ({"bounds": [PrefixCount("a", 2)]}, "neither at_least nor at_most"),
        ({"bounds": [PrefixCount("a", 2, at_most=-1)]}, "negative"),
        ({"bounds": [PrefixCount("a", 2, at_most=1), PrefixCount("a", 2, at_least=1)]}, "is taken"),
        ({"bounds": PrefixCount("a", 2, at_most=1)}, "bounds is a PrefixCount"),
        ({"bounds": ["a"]}, r"bounds\[0\] is a str"),
    ],
)
def test_nonsense_is_refused_by_name(change, said):
    fields = {"scores": [3.0, 2.0, 1.0], "slots": SlotWeights.dcg(2), "groups": ["a", "a", "b"], "bounds": []}
    with pytest.raises(InvalidProblemError, match=said):
        PrefixProblem(**(fields | change))


def test_what_is_no_problem_is_refused():
    with pytest.raises(InvalidProblemError, match="pass a PrefixProblem"):
        rank_prefixes([1.0, 2.0])


def test_a_group_that_may_be_absent_is_named_beforehand():
    bounds = [PrefixCount("c", 2, at_most=1)]
    found = rank_prefixes(PrefixProblem([3.0, 2.0, 1.0], SlotWeights.dcg(2), ["a", "a", "b"], bounds, known=["c"]))
    assert found.ranking.tolist() == [0, 1]
    needed = [PrefixCount("c", 2, at_least=1)]
    found = rank_prefixes(PrefixProblem([3.0, 2.0, 1.0], SlotWeights.dcg(2), ["a", "a", "b"], needed, known=["c"]))
    assert found.status is Status.INFEASIBLE


def test_items_without_a_label_are_bound_by_nothing():
    bounds = [PrefixCount("a", 2, at_most=1)]
    found = rank_prefixes(PrefixProblem([3.0, 2.0, 1.0], SlotWeights.dcg(2), ["a", None, "a"], bounds))
    assert found.ranking.tolist() == [0, 1]


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.3}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}])
def test_proportional_prefixes_hold_in_every_prefix(shares):
    rng = np.random.default_rng(0)
    labels = rng.choice(list(shares), 60)
    found = rank_prefixes(
        PrefixProblem(rng.normal(size=60), SlotWeights.dcg(20), labels, proportional_prefixes(shares, 20))
    )
    assert found.status is Status.OPTIMAL
    for name, share in shares.items():
        for first in range(1, 21):
            count = (labels[found.ranking[:first]] == name).sum()
            assert np.floor(share * first + 1e-9) <= count <= np.ceil(share * first - 1e-9)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half", True])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(InvalidProblemError, match="share of 'a'"):
        proportional_prefixes({"a": share}, 3)
