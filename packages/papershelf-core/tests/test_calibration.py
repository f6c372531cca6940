import numpy as np
import pytest
from papershelf_core import metrics


def slow_ece(y, p, bins):
    """Equal-mass bins by slicing the sorted rows; valid where n is a multiple of bins and p has no ties."""
    order = np.argsort(p)
    return np.mean([abs(y[rows].mean() - p[rows].mean()) for rows in np.split(order, bins)])


@pytest.mark.parametrize("seed", range(10))
def test_ece_equals_slices_of_sorted_rows(seed):
    rng = np.random.default_rng(seed)
    p = rng.random(600)
    y = (rng.random(600) < p**2).astype(int)
    assert metrics.ece(y, p, bins=15) == pytest.approx(slow_ece(y, p, 15), abs=1e-12)


def test_a_weight_of_two_is_a_row_given_twice():
    rng = np.random.default_rng(0)
    p, y, weights = rng.random(300), rng.integers(2, size=300), rng.integers(1, 4, size=300)
    assert metrics.ece(y, p, 10, weights) == pytest.approx(
        metrics.ece(np.repeat(y, weights), np.repeat(p, weights), 10), abs=1e-12
    )


def test_debiased_ece_of_a_calibrated_model_is_near_zero_where_the_plain_one_is_not():
    rng = np.random.default_rng(0)
    plain, squares = [], []
    for _ in range(200):
        p = rng.random(1000)
        y = rng.random(1000) < p
        plain.append(metrics.ece(y, p, 15))
        squares.append(metrics.ece_debiased(y, p, 15) ** 2)
    # the plain ECE of 1000 calibrated rows in 15 bins is about sqrt(2 / pi * E[p(1-p)] * 15 / 1000) = .04
    assert np.mean(plain) == pytest.approx(0.037, abs=0.006)
    # the plain L2 form would be E[p(1-p)] * 15 / 1000 = .0025; unbiased and clipped at 0, about half are 0
    assert np.mean(squares) < 0.2 * 0.0025
    assert 0.35 < np.mean(np.array(squares) == 0) < 0.75


def test_debiased_ece_recovers_a_known_miscalibration():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.7, 200_000)
    y = rng.random(len(p)) < p + 0.05
    assert metrics.ece_debiased(y, p) == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"probabilities": [0.2, 1.2]}, r"probabilities\[1\]=1.2 is outside \[0, 1\]"),
        ({"bins": 0}, "bins=0 must be at least 1"),
        ({"y": [0, 3]}, r"y\[1\]=3 is not a label"),
        ({"bins": 2.5}, "bins=2.5 must be at least 1, a whole number"),
        ({"bins": "2"}, "bins='2' must be at least 1, a whole number"),
        ({"y": ["no", "yes"]}, "y is not an array of numbers"),
        ({"probabilities": [[0.1], [0.2, 0.3]]}, "probabilities is not an array of numbers"),
    ],
)
def test_bad_input_is_named(keywords, message):
    arguments = {"y": [0, 1], "probabilities": [0.2, 0.4], "bins": 2} | keywords
    with pytest.raises(ValueError, match=message):
        metrics.ece(**arguments)


def test_debiased_ece_refuses_bins_of_one_row():
    with pytest.raises(ValueError, match="use fewer bins"):
        metrics.ece_debiased([0, 1, 0], [0.1, 0.5, 0.9], bins=3)
