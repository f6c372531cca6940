"""The search for 0/1 solutions against trying every assignment, and on proofs by counting."""

from itertools import product

import numpy as np
import pytest
from multislot_rerank.inequalities import NO, UNKNOWN, YES, add, search, system


def drawn(seed):
    """Inequalities as (literals, weights, least) over up to eight variables, and literals assumed in order."""
    rng = np.random.default_rng(seed)
    variables = int(rng.integers(1, 9))
    rows = []
    for _ in range(int(rng.integers(1, 3 * variables + 2))):
        chosen = rng.permutation(variables)[: int(rng.integers(1, variables + 1))]
        weights = rng.integers(1, int(rng.choice([2, 5])), chosen.size)
        rows.append((2 * chosen + rng.integers(2, size=chosen.size), weights, int(rng.integers(1, weights.sum() + 2))))
    assumed = rng.permutation(variables)[: int(rng.integers(0, 3))]
    return variables, rows, 2 * assumed + rng.integers(2, size=assumed.size)


def written(variables, rows, learnt=50):
    s = system(variables, len(rows) + learnt, sum(len(row[0]) for row in rows) + learnt * variables)
    for literals, weights, least in rows:
        add(s, literals, weights, len(literals), least)
    return s


def holds(row, values):
    literals, weights, least = row
    return sum(w for literal, w in zip(literals, weights, strict=True) if values[literal >> 1] != literal & 1) >= least


@pytest.mark.parametrize("learnt", [2, 50])
def test_answers_are_those_of_trying_every_assignment(learnt):
    for seed in range(600):
        variables, rows, assumed = drawn(seed)
        s = written(variables, rows, learnt)
        solutions = [v for v in product((0, 1), repeat=variables) if all(holds(row, v) for row in rows)]
        for wanted in (np.zeros(0, np.int64), assumed, np.zeros(0, np.int64)):  # what was learnt serves the next
            right = any(all(v[literal >> 1] != literal & 1 for literal in wanted) for v in solutions)
            assert search(s, len(rows), wanted, np.array([10**6])) == (YES if right else NO), seed
            if right:
                found = tuple(int(truth > 0) for truth in s.truth[::2])
                assert found in solutions
                assert all(found[literal >> 1] != literal & 1 for literal in wanted)


@pytest.mark.parametrize("holes", [5, 12, 25])
def test_pigeons_are_counted_and_not_tried(holes):
    """One pigeon more than holes: without sums of inequalities the proof grows exponentially (Haken, 1985)."""
    pigeons = holes + 1
    rows = [(2 * (p * holes + np.arange(holes)), np.ones(holes, int), 1) for p in range(pigeons)]
    rows += [(2 * (np.arange(pigeons) * holes + h) + 1, np.ones(pigeons, int), pigeons - 1) for h in range(holes)]
    work = np.array([10**7])
    assert search(written(pigeons * holes, rows, 400), len(rows), np.zeros(0, np.int64), work) == NO
    assert 10**7 - work[0] < 10 * pigeons**4


def test_the_end_of_the_work_is_told():
    rows = [(np.array([0, 2]), np.array([1, 1]), 1), (np.array([1, 3]), np.array([1, 1]), 1)]
    assert search(written(2, rows), 2, np.zeros(0, np.int64), np.array([0])) == UNKNOWN
