import numpy as np
import pytest
from hetcal import DataError, auc_decomposition, auc_lift, check_optimality, optimal_auc
from hetcal.theory import DiscreteProblem, roc_auc
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.calibration_by_hand import auc_by_pairs
from sklearn.metrics import roc_auc_score


def test_eta_is_optimal_in_200_random_discrete_problems():
    rng = np.random.default_rng(0)
    for _ in range(200):
        cells = int(rng.integers(2, 6))
        problem = DiscreteProblem(rng.dirichlet(np.ones(cells)), rng.random(cells))
        ours, best = check_optimality(problem)
        assert ours == pytest.approx(best, abs=1e-14)


def test_closed_form_on_a_million_draws():
    rng = np.random.default_rng(1)
    p = rng.beta(0.8, 2.0, 1_000_000)
    y = rng.random(p.size) < p
    assert abs(optimal_auc(p) - roc_auc_score(y, p)) < 0.002


def test_closed_form_is_the_auc_of_soft_labels():
    rng = np.random.default_rng(2)
    p, w = rng.random(60), rng.random(60)
    problem = DiscreteProblem(w / w.sum(), p)
    assert optimal_auc(p, w) == pytest.approx(problem.auc(p), abs=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 80), st.integers(1, 5), st.booleans())
def test_decomposition_adds_up_to_scikit_learn(seed, n, leaves, weighted):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    scores, leaf = rng.integers(0, 8, n) / 8, rng.integers(0, leaves, n)  # many ties
    w = rng.random(n) + 0.1 if weighted else None
    parts = auc_decomposition(y, scores, leaf, w)
    expected = roc_auc_score(y, scores, sample_weight=w)
    assert parts.auc == pytest.approx(expected, abs=1e-12)
    assert parts.between + parts.within == pytest.approx(expected, abs=1e-12)
    assert np.nansum(parts.weight * np.nan_to_num(parts.pair_auc)) == pytest.approx(expected, abs=1e-12)
    assert roc_auc(y.astype(float), scores, w) == pytest.approx(auc_by_pairs(y, scores, w), abs=1e-12)


def test_increasing_maps_in_each_leaf_leave_within_auc_alone():
    rng = np.random.default_rng(3)
    y, z, leaf = rng.integers(0, 2, 500), rng.normal(size=500), rng.integers(0, 4, 500)
    a, b = rng.normal(size=4), rng.random(4) + 0.1
    before, after = (auc_decomposition(y, s, leaf) for s in (z, a[leaf] + b[leaf] * z))
    np.testing.assert_array_equal(np.diag(before.pair_auc), np.diag(after.pair_auc))
    assert before.between != after.between


def test_lift_by_both_methods():
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 800)
    base, better = y + rng.normal(size=800) * 2, y + rng.normal(size=800) * 1.2
    delong = auc_lift(y, base, better)
    bootstrap = auc_lift(y, base, better, method="bootstrap", replicates=400)
    assert delong.lift == pytest.approx(roc_auc_score(y, better) - roc_auc_score(y, base), abs=1e-12)
    assert bootstrap.lift == pytest.approx(delong.lift, abs=1e-12)
    assert bootstrap.standard_error == pytest.approx(delong.standard_error, rel=0.15)
    assert delong.low > 0
    with pytest.raises(ValueError, match="delong"):
        auc_lift(y, base, better, method="wald")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.4], [1, 2], [0, 1]), "both of them"),
        (([0, 1], [1, np.nan], [0, 1]), "1 NaN"),
        (([0, 1], [1, 2], [0.0, 1.0]), "integers"),
        (([0, 1], [1, 2, 3], [0, 1]), "one length"),
    ],
)
def test_decomposition_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        auc_decomposition(*arguments)


def test_optimal_auc_refuses():
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        optimal_auc([0.2, 1.2])
    with pytest.raises(DataError, match="both classes"):
        optimal_auc([0.0, 0.0])
    with pytest.raises(DataError, match="at most 8"):
        check_optimality(DiscreteProblem(np.ones(9) / 9, np.linspace(0.1, 0.9, 9)))


@pytest.mark.parametrize("weights", [[0.5, -0.5], [0.0, 0.0], [1.0], [1.0, np.nan]])
def test_optimal_auc_refuses_weights_that_are_none(weights):
    with pytest.raises(DataError, match="sample_weight must hold one finite number"):
        optimal_auc([0.2, 0.3], weights)
