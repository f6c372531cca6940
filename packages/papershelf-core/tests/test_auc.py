import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import pairwise_auc
from papershelf_core import metrics
from sklearn.metrics import roc_auc_score


def problem(seed, rows=60, levels=7):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, 0, 1, rng.integers(2, size=rows)]
    return y, rng.integers(levels, size=len(y)) / 3.0, rng.exponential(size=len(y))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [2, 7, 10_000])
def test_weighted_auc_with_ties_equals_scikit_learn_and_the_pairwise_oracle(seed, levels):
    y, scores, weights = problem(seed, levels=levels)
    weights[5] = 0.0
    ours = metrics.roc_auc(y, scores, weights)
    assert ours == pytest.approx(roc_auc_score(y, scores, sample_weight=weights), abs=1e-12)
    assert ours == pytest.approx(pairwise_auc.auc(y, scores, weights), abs=1e-12)


def test_auc_of_a_million_rows_equals_scikit_learn():
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=1_000_000)
    scores = np.round(rng.normal(size=len(y)) + 0.3 * y, 2)
    assert metrics.roc_auc(y, scores) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_auc_of_negated_scores_is_the_complement(seed):
    y, scores, weights = problem(seed)
    assert metrics.roc_auc(y, scores, weights) + metrics.roc_auc(y, -scores, weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_delong_equals_the_pairwise_oracle(seed):
    y, first, second = problem(seed)
    covariance = pairwise_auc.delong_covariance(y, first, second)
    assert metrics.auc_delong(y, first).variance == pytest.approx(covariance[0, 0], rel=1e-12)
    test = metrics.delong_test(y, first, second)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert test.standard_error == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert test.difference == pytest.approx(roc_auc_score(y, first) - roc_auc_score(y, second), abs=1e-12)
    assert test.z == pytest.approx(test.difference / np.sqrt(variance), rel=1e-12)


def test_delong_holds_its_level_under_the_null():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(1000):
        y = np.r_[np.zeros(60, int), np.ones(60, int)]
        signal = y + rng.normal(size=120)
        rejected += metrics.delong_test(y, signal + rng.normal(size=120), signal + rng.normal(size=120)).p_value < 0.05
    # binomial(1000, .05): three standard deviations are .021
    assert 0.029 <= rejected / 1000 <= 0.071


def test_delong_of_one_score_against_itself_is_no_difference():
    y, scores, _ = problem(3)
    test = metrics.delong_test(y, scores, 2 * scores + 1)
    assert (test.difference, test.z, test.p_value) == (0.0, 0.0, 1.0)


def test_grouped_auc_is_the_weighted_mean_over_groups():
    rng = np.random.default_rng(5)
    y, scores, weights = rng.integers(2, size=500), rng.normal(size=500), rng.exponential(size=500)
    groups = rng.integers(60, size=500)
    total = covered = 0.0
    used = 0
    for group in range(60):
        rows = groups == group
        if 0 < y[rows].sum() < rows.sum():
            total += weights[rows].sum() * roc_auc_score(y[rows], scores[rows], sample_weight=weights[rows])
            covered += weights[rows].sum()
            used += 1
    result = metrics.gauc(y, scores, groups.astype(str), weights)
    assert result.value == pytest.approx(total / covered, abs=1e-12)
    assert (result.groups, result.skipped) == (used, 60 - used)
    assert result.weight_share == pytest.approx(covered / weights.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1, 2], [1, 2, 3]), r"y\[2\]=2 is not a label"),
        (([0, 1], [1, np.nan]), r"scores\[1\]=nan is not finite"),
        (([1, 1], [1, 2]), "class 1 alone"),
        (([0, 1], [1, 2, 3]), "scores has 3 rows where 2"),
        (([0, 1], [1, 2], [1, -1]), r"sample_weight\[1\]=-1 is negative"),
        (([0, 1], [1, 2], [1, 0]), "gives one class no weight"),
        (([], []), "y is empty"),
        (([[0, 1]], [1, 2]), r"y has shape \(1, 2\)"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.roc_auc(*arguments)


def test_variance_needs_two_rows_of_each_class():
    with pytest.raises(ValueError, match="1 row of class 1"):
        metrics.auc_delong([0, 0, 1], [1, 2, 3])


def test_grouped_auc_without_a_mixed_group_is_refused():
    with pytest.raises(ValueError, match="no group holds rows of both classes"):
        metrics.gauc([0, 1], [1, 2], ["a", "b"])
