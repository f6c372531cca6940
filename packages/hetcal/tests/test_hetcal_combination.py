"""The rule that combines boosted candidates with the global map, against its formulas written out."""

import numpy as np
import pytest
from hetcal import HeterogeneousCalibrator, load, save
from hetcal.combination import mix, stack, stacked, trust
from hetcal.links import logistic_loss, sigmoid
from hetcal.selection import Judge
from hetcal.theory import roc_auc
from hetcal_cases import heterogeneous
from scipy.optimize import minimize

pytest.importorskip("lightgbm")


def columns_of(seed, n=400, count=3, use=1.0):
    """A Platt logit and candidates that know more than it does by ``use``, with noise of their own."""
    rng = np.random.default_rng(seed)
    platt, hidden = rng.normal(size=n), rng.normal(size=n)
    y = (rng.random(n) < sigmoid(platt + use * hidden)).astype(float)
    candidates = [platt + use * hidden + s * rng.normal(size=n) for s in 0.3 * (1 + np.arange(count))]
    return platt, candidates, y, rng


@pytest.mark.parametrize("seed", range(8))
def test_the_stack_minimises_its_objective(seed):
    platt, candidates, y, rng = columns_of(seed, use=seed % 3)
    weight = rng.gamma(2.0, size=y.size) if seed % 2 else None
    w = np.ones_like(y) if weight is None else weight
    columns = [*candidates[: 1 + seed % 3], platt]
    mean = np.full(len(columns), 0.5)
    p = sigmoid(platt)
    v = w * p * (1 - p)
    told = np.array([np.average((c - np.average(c, weights=v)) ** 2, weights=v) for c in columns])
    precision = 200.0 * told * v.sum() / w.sum()

    def objective(t):
        eta = t[0] + np.stack(columns, 1) @ t[1:]
        return w @ logistic_loss(y, eta) + 0.5 * precision @ (t[1:] - mean) ** 2

    found = stack(columns, y, weight, mean, 200.0)
    bounds = [(None, None), *[(0.0, None)] * len(columns)]
    best = minimize(
        objective, np.r_[0.0, mean], bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}
    )
    assert (found[1:] >= 0).all()
    assert objective(found) <= best.fun * (1 + 1e-9)
    np.testing.assert_allclose(found, best.x, atol=2e-3)


@pytest.mark.parametrize("seed", range(6))
def test_weights_and_trust_by_their_formulas(seed):
    platt, candidates, y, _ = columns_of(seed, use=[0.0, 0.1, 0.5][seed % 3])
    clusters = np.repeat(np.arange(100), 4) if seed % 2 else None
    worth = np.full(400, 0.25) if seed % 2 else None
    judge = Judge(y, worth, clusters)
    share, losses = mix(candidates, platt, judge)
    each = [logistic_loss(y, stacked(c, platt, judge, 50.0)[1]) for c in candidates]
    np.testing.assert_allclose(losses, [loss.mean() for loss in each])
    best = int(np.argmin(losses))

    def error(difference):
        if clusters is None:
            return difference.std() / 400**0.5
        sums = [(difference - difference.mean())[clusters == k].sum() for k in range(100)]
        return np.sqrt(np.sum(np.square(sums))) / 400

    d = [0.0 if k == best else (each[k] - each[best]).mean() / error(each[k] - each[best]) for k in range(3)]
    np.testing.assert_allclose(share, np.exp(-np.square(d) / 6) / np.exp(-np.square(d) / 6).sum(), rtol=1e-9)
    moved = stacked(candidates[best], platt, judge, 200.0)[1]
    s, gain, e = trust(platt, moved, judge)
    difference = logistic_loss(y, platt) - logistic_loss(y, moved)
    rows = 100 if seed % 2 else 400
    assert gain == pytest.approx(difference.mean() - 1 / rows)
    assert e == pytest.approx(error(difference))
    p = sigmoid(platt)
    cost = np.mean(p * (1 - p) * (moved - platt) ** 2) / 2
    doubt = e * np.sqrt(1 + 10 / (rows * min(y.mean(), 1 - y.mean())))
    small = min(1, (0.005 * np.mean(p * (1 - p)) / cost) ** 0.5) * np.clip(2 * gain / doubt - 1, 0, 1)
    expected = max(1 - (doubt / gain) ** 2, small) if gain > 0 else 0
    assert s == pytest.approx(expected)
    assert 0 <= s <= 1


def test_a_clear_winner_takes_all_and_equals_share():
    platt, candidates, y, rng = columns_of(0, 6000, use=2.0)
    alike = [candidates[0] + 1e-3 * rng.normal(size=y.size) for _ in range(3)]
    np.testing.assert_allclose(mix(alike, platt, Judge(y, None, None))[0], 1 / 3, atol=0.2)
    apart = mix([candidates[0], rng.normal(size=y.size)], platt, Judge(y, None, None))[0]
    assert apart[0] > 0.999


def test_repeating_every_row_as_a_cluster_changes_nothing():
    platt, candidates, y, _ = columns_of(1, 500)
    once = Judge(y, None, None)
    times = np.repeat(np.arange(500), 7)
    again = Judge(y[times], np.full(times.size, 1 / 7), times)
    first, second = mix(candidates, platt, once), mix([c[times] for c in candidates], platt[times], again)
    np.testing.assert_allclose(first[0], second[0], rtol=1e-6)
    moved = stacked(candidates[0], platt, once, 200.0)[1]
    np.testing.assert_allclose(trust(platt, moved, once), trust(platt[times], moved[times], again), rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 1.3])
def test_a_column_that_does_not_vary_has_one_answer(constant):
    _, candidates, y, _ = columns_of(2)
    t = stack([candidates[0], np.full_like(y, constant)], y, None, np.array([0.5, 0.5]), 200.0)
    assert np.isfinite(t).all()


@pytest.mark.parametrize("quality", ["standard", "high"])
@pytest.mark.parametrize("rows", [400, 5500])
def test_the_combination_is_what_its_coefficients_say_and_is_saved(rows, quality, tmp_path):
    X, y, z, *_ = heterogeneous(rows, 0)
    X[::17, 2] = np.nan
    model = HeterogeneousCalibrator(quality=quality, threads=1).fit(X, y, logits=z)
    forest, record = model.model_, model.selection_
    assert record.chosen == "forest"
    assert sum(share for _, share in record.weights) == pytest.approx(1.0)
    assert 0 < record.trust <= 1
    assert all(f"{name} {share:.2f}" in record.reason for name, share in record.weights)
    a, b = model.overall_
    by_hand = forest.coefficients[0] + forest.coefficients[-1] * (a + b * z)
    for part, weight in zip(forest.parts, forest.coefficients[1:-1], strict=True):
        by_hand = by_hand + weight * part.logits(X, z)
    np.testing.assert_allclose(model.decision_function(X, logits=z), by_hand, atol=1e-12)
    scorer = load(save(model, tmp_path / "m.json"))
    np.testing.assert_allclose(scorer.predict_proba(X, logits=z), sigmoid(by_hand), atol=1e-12)


def test_claims_hold_on_fresh_rows():
    """The claimed lift, and that nothing is lost where nothing is to be had."""
    differences, lost, moved = [], [], 0
    for seed in range(3):
        X, y, z, *_ = heterogeneous(500, seed)
        Xt, yt, zt, *_ = heterogeneous(20_000, 100 + seed)
        model = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z)
        lift = roc_auc(yt, model.decision_function(Xt, logits=zt)) - roc_auc(yt, zt)
        differences.append(model.selection_.lift - lift)
        rng = np.random.default_rng(seed)
        nothing, fresh = (rng.random(z.size) < sigmoid(z)).astype(int), (rng.random(zt.size) < sigmoid(zt)).astype(int)
        model = HeterogeneousCalibrator(threads=1).fit(X, nothing, logits=z)
        loss = logistic_loss(fresh, model.decision_function(Xt, logits=zt)).mean() - logistic_loss(fresh, zt).mean()
        lost.append(loss)
        moved += model.selection_.chosen == "forest"
    assert abs(np.mean(differences)) < 2 * np.std(differences) / 3**0.5 + 0.02
    assert max(lost) < 0.006
    assert np.mean(lost) < 0.003
    assert moved <= 1


@pytest.mark.parametrize("positives", [12, 25])
def test_few_of_a_class_leave_the_global_map(positives):
    """A dozen positives that boosting finds a rule for by chance say little, whatever their standard error."""
    rng = np.random.default_rng(positives)
    X, z = rng.normal(size=(1000, 4)), rng.normal(size=1000) - 4.0
    y = np.zeros(1000, dtype=int)
    y[np.argsort(-z - rng.logistic(size=1000))[:positives]] = 1
    model = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z)
    assert model.selection_.chosen in ("identity", "global")
