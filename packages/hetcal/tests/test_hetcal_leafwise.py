import numpy as np
import pytest
from hetcal.calibrators import CALIBRATORS, fit_leaf_map, platt
from hetcal.leafwise import fit_leaves
from hetcal.links import logistic_loss, sigmoid
from hetcal.shrinkage import empirical_bayes, nested_bayes, no_shrinkage
from oracles.calibration_by_hand import beta_calibration, empirical_bayes_by_em, penalised_logistic, platt_by_hand
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression


def random_effects(leaves, rows, tau, seed):
    rng = np.random.default_rng(seed)
    size = np.full(leaves, rows) if np.ndim(rows) == 0 else rng.integers(*rows, leaves)
    leaf = np.repeat(np.arange(leaves), size)
    theta = np.array([-0.3, 1.0]) + rng.normal(size=(leaves, 2)) * tau
    z = rng.normal(size=leaf.size) * 1.5
    y = (rng.random(leaf.size) < sigmoid(theta[leaf, 0] + theta[leaf, 1] * z)).astype(float)
    return z, y, leaf, theta


def test_every_leaf_equals_a_general_optimiser():
    rng = np.random.default_rng(0)
    z, y, leaf, _ = random_effects(6, 60, 0.5, 0)
    w = rng.random(z.size) + 0.2
    features = np.stack([np.ones_like(z), z])
    mean, precision, lower = np.array([0.1, 0.9]), np.array([2.0, 5.0]), np.array([-np.inf, 0.8])
    fit = fit_leaves(
        features,
        y,
        w,
        leaf,
        6,
        prior_mean=np.tile(mean, (6, 1)),
        prior_precision=np.tile(precision, (6, 1)),
        lower=lower,
    )
    assert (fit.theta[:, 1] == 0.8).any()  # the bound binds somewhere
    for k in range(6):
        rows = leaf == k
        expected = penalised_logistic(features[:, rows], y[rows], w[rows], mean, precision, lower)
        np.testing.assert_allclose(fit.theta[k], expected, atol=2e-6)  # L-BFGS-B's own accuracy


def test_platt_of_many_rows_is_logistic_regression():
    z, y, _, _ = random_effects(1, 100_000, 0.0, 1)
    y = np.where(np.random.default_rng(0).random(z.size) < 0.3, 1.0, y)  # far from the identity
    model = LogisticRegression(C=np.inf, tol=1e-12).fit(z[:, None], y)
    np.testing.assert_allclose(platt(z, y), [model.intercept_[0], model.coef_[0, 0]], atol=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_platt_equals_a_general_optimiser_of_its_posterior(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 400))
    z = rng.normal(size=n) * np.exp(rng.normal()) + rng.normal() * 2
    y = (rng.random(n) < sigmoid(rng.normal() + np.exp(rng.normal()) * z)).astype(float)
    weight = rng.gamma(1.0, size=n) if seed % 2 else None
    a, b = platt(z, y, weight)
    assert b > 0
    np.testing.assert_allclose((a, b), platt_by_hand(z, y, np.ones(n) if weight is None else weight), atol=1e-5)


def test_platt_of_few_or_separable_rows_stays_near_the_identity():
    z = np.linspace(-2, 2, 60)
    _, b = platt(z, (z > 0).astype(float))
    assert 1 < b < 8  # 282 by maximum likelihood
    assert platt(z[::20], np.array([1.0, 0.0, 1.0])) == (0.0, 1.0)
    against = platt(np.tile(z, 50), np.tile((z < 0).astype(float), 50))
    assert against[1] > 0


def test_platt_with_weights_equals_repeated_rows():
    z, y, _, _ = random_effects(1, 200, 0.0, 2)
    times = np.random.default_rng(0).integers(1, 4, z.size)
    np.testing.assert_allclose(
        platt(z, y, times.astype(float)), platt(np.repeat(z, times), np.repeat(y, times)), atol=1e-8
    )


def test_tau_limits():
    z, y, leaf, _ = random_effects(8, 150, 0.6, 3)
    features, centre = np.stack([np.ones_like(z), z]), np.array(platt(z, y))
    tight = empirical_bayes(features, y, None, leaf, 8, centre, tau=np.full(2, 1e-9)).theta
    np.testing.assert_allclose(tight, np.tile(centre, (8, 1)), atol=1e-6)
    loose = empirical_bayes(features, y, None, leaf, 8, centre, tau=np.full(2, 1e4)).theta
    for k in range(8):
        rows = leaf == k
        expected = penalised_logistic(features[:, rows], y[rows], np.ones(rows.sum()), centre, np.full(2, 1e-8))
        np.testing.assert_allclose(loose[k], expected, atol=1e-5)


def test_variances_of_random_effects_are_found():
    z, y, leaf, theta = random_effects(200, 500, np.array([0.5, 0.25]), 4)
    fit = empirical_bayes(np.stack([np.ones_like(z), z]), y, None, leaf, 200, theta.mean(axis=0))
    truth = theta.var(axis=0)
    np.testing.assert_allclose(fit.tau[0] ** 2, truth, rtol=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_variances_and_leaves_are_the_fixed_point_of_plain_em(seed):
    z, y, leaf, _ = random_effects(12, (40, 300), np.array([0.6, 0.3]), seed)
    centre = np.array(platt(z, y))
    theta, tau2 = empirical_bayes_by_em(z, y, leaf, 12, centre)
    fit = empirical_bayes(np.stack([np.ones_like(z), z]), y, None, leaf, 12, centre)
    np.testing.assert_allclose(fit.theta, theta, atol=5e-6)  # at most a third of what log tau^2 still lacks
    np.testing.assert_allclose(fit.tau[0] ** 2, tau2, rtol=5e-5)


def test_leaves_on_their_bound_leave_tau_its_fixed_point():
    """With the variance of a bounded slope set to zero, tau^2 has none on seed 7 and the iteration runs in a circle."""
    for seed in range(20):
        z, y, leaf, _ = random_effects(12, (40, 80), np.array([0.9, 0.6]), seed)
        x, centre = np.stack([np.ones_like(z), z]), np.array(platt(z, y))
        fit = empirical_bayes(x, y, None, leaf, 12, centre, lower=np.array([-np.inf, 0.02]))
        p = sigmoid((fit.theta[leaf].T * x).sum(axis=0))
        hessians = [(x * p * (1 - p))[:, leaf == k] @ x[:, leaf == k].T for k in range(12)]
        variance = [np.diag(np.linalg.inv(h + np.diag(fit.tau[0] ** -2))) for h in hessians]
        np.testing.assert_allclose(np.mean((fit.theta - centre) ** 2 + variance, axis=0), fit.tau[0] ** 2, rtol=2e-5)


def test_level_and_slope_are_independent_where_the_map_is_centred():
    rng = np.random.default_rng(12)
    z, leaf = 1.5 * rng.normal(size=2000) - 3.0, np.repeat(np.arange(4), 500)
    y = (rng.random(2000) < sigmoid(z)).astype(float)  # positives are rare: most rows tell little
    a, b = platt(z, y)
    p = sigmoid(a + b * z)
    model = fit_leaf_map("platt", z, y, None, leaf, 4)
    assert np.sum(p * (1 - p) * (z - model.centre)) == pytest.approx(0, abs=1e-8)
    assert model.centre > np.mean(z) + 0.3


def test_no_effects_collapse_to_the_global_map():
    z, y, leaf, _ = random_effects(50, 100, 0.0, 5)
    fit = empirical_bayes(np.stack([np.ones_like(z), z]), y, None, leaf, 50, np.array(platt(z, y)))
    assert fit.tau.max() < 0.12


def losses_of_groups(seed):
    z, y, leaf, theta = random_effects(500, (5, 500), np.array([0.35, 0.15]), seed)
    centre, features = np.array(platt(z, y)), np.stack([np.ones_like(z), z])
    rng = np.random.default_rng(seed + 1000)
    fresh = rng.normal(size=(500, 40)) * 1.5
    truth = sigmoid(theta[:, :1] + theta[:, 1:] * fresh)
    fits = {
        "eb": empirical_bayes(features, y, None, leaf, 500, centre).theta,
        "own": no_shrinkage(features, y, None, leaf, 500, centre).theta,
        "global": np.tile(centre, (500, 1)),
    }
    return {k: float(np.mean(logistic_loss(truth, t[:, :1] + t[:, 1:] * fresh))) for k, t in fits.items()}


def test_shrinkage_pays_on_20_of_20_seeds():
    for seed in range(20):
        loss = losses_of_groups(seed)
        assert loss["eb"] < min(loss["own"], loss["global"]), (seed, loss)


def test_nested_prior_lies_between():
    """Two regions with different levels; a small group inside one leans on its region, not on the whole."""
    rng = np.random.default_rng(6)
    region = np.repeat([0, 1], 20)
    leaf = np.repeat(np.arange(40), 60)
    leaf = leaf[~((leaf == 39) & (np.arange(leaf.size) % 60 >= 3))]  # the last group has 3 rows
    level = np.array([-1.5, 1.5])[region] + rng.normal(size=40) * 0.1
    z = rng.normal(size=leaf.size)
    y = (rng.random(leaf.size) < sigmoid(level[leaf] + z)).astype(float)
    features, centre = np.stack([np.ones_like(z), z]), np.array(platt(z, y))
    flat = empirical_bayes(features, y, None, leaf, 40, centre).theta
    nested = nested_bayes(features, y, None, leaf, np.stack([region, np.arange(40)]), centre).theta
    assert abs(nested[39, 0] - 1.5) < abs(flat[39, 0] - 1.5)
    assert abs(nested[39, 0] - 1.5) < 0.35


def test_separable_and_empty_leaves_stay_finite():
    z = np.array([-2.0, -1.0, 1.0, 2.0, 0.5, 0.6])
    y = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    leaf = np.array([0, 0, 0, 0, 1, 1])
    for shrinkage in ("eb", "none", 3.0):
        model = fit_leaf_map("platt", z, y, None, leaf, 3, shrinkage=shrinkage, overall=(0.2, 1.1))
        assert np.isfinite(model.theta).all()
        assert (model.theta[:, 1] > 0).all()
        np.testing.assert_allclose(model.theta[2], [0.2 + 1.1 * model.centre, 1.1], atol=1e-6)


@pytest.mark.parametrize("family", [f for f in CALIBRATORS if f != "histogram"])  # a histogram follows the data
def test_every_family_keeps_the_order_inside_a_leaf(family):
    z, y, leaf, _ = random_effects(5, 80, 0.8, 7)
    y[leaf == 2] = 1 - y[leaf == 2]  # a leaf in which the score is upside down
    model = fit_leaf_map(family, z, y, None, leaf, 5)
    grid = np.linspace(-4, 4, 400)
    for k in range(5):
        out = model.logits(grid, np.full(400, k))
        assert (np.diff(out) > 0).all()


def test_isotonic_is_scikit_learns_before_strictness():
    z, y, _, _ = random_effects(1, 400, 0.0, 8)
    model = fit_leaf_map("isotonic", z, y, None, np.zeros(z.size, int), 1, shrinkage="none", strict=False)
    expected = IsotonicRegression(out_of_bounds="clip").fit(z, y).predict(z)
    inside = (expected > 1e-12) & (expected < 1 - 1e-12)
    got = sigmoid(model.logits(z, np.zeros(z.size, int)))
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-12)


def test_beta_equals_betacal():
    rng = np.random.default_rng(5)
    z = rng.normal(size=4000)
    y = (rng.random(4000) < 1 / (1 + np.exp(0.3 - z))).astype(float)
    p = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
    model = fit_leaf_map("beta", 1.7 * z, y, None, np.zeros(z.size, int), 1, shrinkage="none")
    got = sigmoid(model.logits(np.log(p / (1 - p)), np.zeros(p.size, int)))
    # betacal 1.1.0 (benchmarks/peer_betacal.py) stops where scikit-learn does by default, 1.3e-4 from the optimum
    np.testing.assert_allclose(got, [0.10012569, 0.24015039, 0.43481841, 0.63928346, 0.81246691], rtol=0, atol=2e-4)
    q = sigmoid(1.7 * z)
    exact = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.column_stack([np.log(q), -np.log1p(-q)]), y)
    expected = exact.predict_proba(np.column_stack([np.log(p), -np.log1p(-p)]))[:, 1]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_beta_is_beta_calibration():
    z, y, _, _ = random_effects(1, 4000, 0.0, 9)
    model = fit_leaf_map("beta", z, y, None, np.zeros(z.size, int), 1, shrinkage="none")
    got = sigmoid(model.logits(z, np.zeros(z.size, int)))
    np.testing.assert_allclose(got, beta_calibration(sigmoid(z), y), atol=1e-4)


def test_histogram_without_shrinkage_gives_the_shares_of_its_bins():
    z, y, _, _ = random_effects(1, 1000, 0.0, 10)
    model = fit_leaf_map("histogram", z, y, None, np.zeros(z.size, int), 1, shrinkage="none")
    edges = np.quantile(z, np.arange(1, 10) / 10)
    bins = np.searchsorted(edges, z, side="right")
    shares = np.bincount(bins, y) / np.bincount(bins)
    np.testing.assert_allclose(sigmoid(model.logits(z, np.zeros(z.size, int))), shares[bins], atol=1e-12)


def test_count_shrinkage_is_a_weighted_mean():
    z, y, leaf, _ = random_effects(3, 50, 1.0, 11)
    own = fit_leaf_map("histogram", z, y, None, leaf, 3, shrinkage="none")
    mixed = fit_leaf_map("histogram", z, y, None, leaf, 3, shrinkage=25.0)
    a, b = platt(z, y)
    expected = (50 * sigmoid(own.logits(z, leaf)) + 25 * sigmoid(a + b * z)) / 75
    np.testing.assert_allclose(sigmoid(mixed.logits(z, leaf)), expected, atol=1e-9)
