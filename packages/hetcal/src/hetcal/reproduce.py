"""The claims of hetcal as data: each function measures and returns rows.

Quick mode needs nothing but generated data and a table inside scikit-learn; ``full`` adds the public data sets.
The paper's text beyond its abstract and introduction was not read: "our formulation of" it is what is measured.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from papershelf_core.claims import Claim
from papershelf_core.timed import faster

from hetcal.calibrators import fit_leaf_map, platt
from hetcal.estimator import HeterogeneousCalibrator
from hetcal.links import Floats, logistic_loss, logit, sigmoid
from hetcal.shrinkage import empirical_bayes, no_shrinkage
from hetcal.theory import DiscreteProblem, auc_decomposition, auc_lift, check_optimality, optimal_auc, roc_auc

__all__ = ["claims"]

PAPER = "2202.04837"
FULL_SETS = ("bank", "credit", "adult", "flights")


def claims(full: bool = False) -> list[Claim]:
    """Measure every claim; ``full`` adds the real data sets (PAPERSHELF_DATA or a download)."""
    rows = [optimality(), closed_form(), decomposition(), heterogeneous_lift(), no_harm()]
    rows += [shrinkage_pays(), leafwise_speed(), even_digits()]
    if full:
        rows += [real_lift(name) for name in FULL_SETS]
    return rows


def optimality() -> Claim:
    """The posterior orders optimally: brute force over all orders of 200 random discrete problems."""
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(200):
        cells = int(rng.integers(2, 6))
        ours, best = check_optimality(DiscreteProblem(rng.dirichlet(np.ones(cells)), rng.random(cells)))
        gaps.append(best - ours)
    return Claim(
        PAPER,
        "Ordering by P(y | region, score) is AUC-optimal in 200 of 200 discrete problems",
        "brute force over all orders",
        float(np.sum(np.array(gaps) < 1e-12)),
        200,
        "problems",
        "equal",
        bool(max(gaps) < 1e-12),
        "2 to 5 cells each",
    )


def closed_form() -> Claim:
    """AUC of a calibrated score without labels."""
    rng = np.random.default_rng(1)
    p = rng.beta(0.8, 2.0, 1_000_000)
    y = (rng.random(p.size) < p).astype(np.float64)
    ours, observed = optimal_auc(p), roc_auc(y, p)
    return Claim(
        PAPER,
        "Closed form 1/2 + E|eta - eta'| / (4 pi (1 - pi)) within .002 of the observed AUC",
        "AUC of 1e6 drawn labels",
        ours,
        observed,
        "AUC",
        "equal",
        abs(ours - observed) < 0.002,
    )


def decomposition() -> Claim:
    """The split over leaf pairs adds up, ties and weights included."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    y, leaf, w = rng.integers(0, 2, 5000), rng.integers(0, 8, 5000), rng.random(5000)
    scores = rng.integers(0, 50, 5000) / 50 + 0.1 * y
    ours = auc_decomposition(y, scores, leaf, w).auc
    peer = float(roc_auc_score(y, scores, sample_weight=w))
    return Claim(
        PAPER,
        "AUC decomposition by leaf pairs equals roc_auc_score to 1e-12",
        "scikit-learn",
        ours,
        peer,
        "AUC",
        "equal",
        abs(ours - peer) < 1e-12,
        "5,000 rows, 8 leaves, ties and weights",
    )


def _regions(n: int, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    region = (X[:, 0] > 0).astype(int) + 2 * (X[:, 1] > 0.5)
    z = 1.5 * rng.normal(size=n)
    eta = sigmoid(np.array([-1.0, 1.0, 0.5, -0.5])[region] + np.array([0.5, 1.0, 1.5, 0.7])[region] * z)
    return X, z, (rng.random(n) < eta).astype(np.float64), eta


def heterogeneous_lift() -> Claim:
    """How much of the attainable lift a shrunk tree recovers on generated regions."""
    X, z, y, _ = _regions(10_000, 0)
    Xt, zt, yt, eta = _regions(100_000, 1)
    model = HeterogeneousCalibrator("tree").fit(X, y, logits=z)
    lift = auc_lift(yt, zt, model.decision_function(Xt, logits=zt)).lift
    possible = optimal_auc(eta) - roc_auc(yt, zt)
    return Claim(
        PAPER,
        "Calibrating per region raises AUC: a shrunk tree recovers at least 85 % of the attainable lift",
        "theory (the true posterior)",
        lift,
        possible,
        "AUC lift",
        "higher",
        lift >= 0.85 * possible,
        "4 generated regions, 10,000 calibration rows; our formulation of the paper's simplest instantiation",
    )


def no_harm() -> Claim:
    """Nothing to gain: the choice must be the global map."""
    rng = np.random.default_rng(3)
    X, z = rng.normal(size=(6000, 6)), rng.normal(size=6000)
    y = (rng.random(6000) < sigmoid(1.4 * z - 0.5)).astype(np.float64)
    model = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z)
    a, b = platt(z, y)
    grid = np.linspace(-3, 3, 101)
    difference = np.abs(model.decision_function(np.zeros((101, 6)), logits=grid) - (a + b * grid)).max()
    return Claim(
        "-",
        "Where regions hold nothing, the choice is global Platt and nothing is harmed",
        "global Platt",
        float(difference),
        0.0,
        "logit difference",
        "equal",
        bool(difference < 1e-12),
        model.selection_.reason,
    )


def shrinkage_pays() -> Claim:
    """500 groups of 5 to 500 rows: empirical Bayes against separate and global fits."""
    wins = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        leaf = np.repeat(np.arange(500), rng.integers(5, 500, 500))
        theta = np.array([-0.3, 1.0]) + rng.normal(size=(500, 2)) * np.array([0.35, 0.15])
        z = 1.5 * rng.normal(size=leaf.size)
        y = (rng.random(leaf.size) < sigmoid(theta[leaf, 0] + theta[leaf, 1] * z)).astype(np.float64)
        x, centre = np.stack([np.ones_like(z), z]), np.array(platt(z, y))
        fresh = 1.5 * rng.normal(size=(500, 40))
        truth = sigmoid(theta[:, :1] + theta[:, 1:] * fresh)
        fits = [
            empirical_bayes(x, y, None, leaf, 500, centre).theta,
            no_shrinkage(x, y, None, leaf, 500, centre).theta,
            np.tile(centre, (500, 1)),
        ]
        loss = [float(np.mean(logistic_loss(truth, t[:, :1] + t[:, 1:] * fresh))) for t in fits]
        wins += loss[0] < min(loss[1:])
    return Claim(
        "-",
        "Empirical Bayes beats per-group and global fits in log-loss on 20 of 20 seeds",
        "per-group Platt, global Platt",
        wins,
        20,
        "seeds",
        "equal",
        wins == 20,
        "500 groups of 5 to 500 rows",
    )


def leafwise_speed() -> Claim:
    """Per-leaf Platt of a million rows in 32 leaves against scikit-learn's one global sigmoid."""
    from sklearn.calibration import _SigmoidCalibration

    rng = np.random.default_rng(0)
    rows, leaves = 1_000_000, 32
    z, leaf = 2 * rng.normal(size=rows), rng.integers(0, leaves, rows)
    a, b = 0.5 * rng.normal(size=leaves), 1 + 0.2 * rng.normal(size=leaves)
    y = (rng.random(rows) < sigmoid(a[leaf] + b[leaf] * z)).astype(np.float64)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        start = time.process_time()
        fit_leaf_map("platt", z, y, None, leaf, leaves, shrinkage="none", overall=(0.0, 1.0))
        middle = time.process_time()
        _SigmoidCalibration().fit(z, y)
        times[0].append(middle - start)
        times[1].append(time.process_time() - middle)
    what = "32 Platt fits on 1e6 rows take no longer than one global sigmoid"
    return faster("-", what, "scikit-learn _SigmoidCalibration", *times, unit="s", note="CPU")


def even_digits() -> Claim:
    """A real table inside scikit-learn: digits, is it an even number; a linear model that knows 16 pixels only."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    data = load_digits()
    y = (data.target % 2 == 0).astype(np.float64)
    rest, test = train_test_split(np.arange(y.size), test_size=0.4, random_state=0, stratify=y)
    train, cal = train_test_split(rest, test_size=0.6, random_state=0, stratify=y[rest])
    base = LogisticRegression(max_iter=2000).fit(data.data[train][:, ::4], y[train])
    z = base.decision_function(data.data[:, ::4])
    model = HeterogeneousCalibrator("bag").fit(data.data[cal], y[cal], logits=z[cal])
    lift = auc_lift(y[test], z[test], model.decision_function(data.data[test], logits=z[test]))
    return Claim(
        PAPER,
        "Post-hoc lift on a real table (even digits; the base model sees a quarter of the pixels): interval above 0",
        "the base model",
        lift.calibrated,
        lift.base,
        "AUC",
        "higher",
        lift.low > 0,
        f"lift {lift.lift:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}]; refitting the base would gain more",
    )


def real_lift(name: str) -> Claim:
    """An overfitted MLP on 60 % of a public set, calibrated on 20 %, tested on 20 %; one seed."""
    from papershelf_core import datasets

    data = datasets.load(name, split="all")  # type: ignore[call-overload]
    X, y = data.X, np.asarray(data.y, dtype=np.float64)
    if y.size > 80_000:
        rows = np.sort(np.random.default_rng(0).choice(y.size, 80_000, replace=False))
        X, y = X.iloc[rows].reset_index(drop=True), y[rows]
    cal, test, z = _overfitted(X, y)
    model = HeterogeneousCalibrator(threads=1).fit(X.iloc[cal], y[cal], logits=z[cal])
    after = model.decision_function(X.iloc[test], logits=z[test])
    lift = auc_lift(y[test], z[test], after)
    a, b = platt(np.clip(z[cal], -15, 15), y[cal])
    platt_loss = float(logistic_loss(y[test], a + b * np.clip(z[test], -15, 15)).mean())
    loss = float(logistic_loss(y[test], after).mean())
    return Claim(
        PAPER,
        f"{name}: calibration raises the AUC of an overfitted MLP and lowers the log-loss of global Platt",
        "the MLP",
        lift.calibrated,
        lift.base,
        "AUC",
        "higher",
        lift.low > 0 and loss < platt_loss,
        f"lift {lift.lift:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}], log-loss {loss:.4f} for {platt_loss:.4f}; "
        f"chosen: {model.selection_.chosen}; features alone {model.selection_.features_only or 0:+.4f} out of fold",
    )


def _overfitted(X: Any, y: Floats) -> tuple[Any, Any, Floats]:
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, rest = train_test_split(np.arange(y.size), test_size=0.4, random_state=0, stratify=y)
    cal, test = train_test_split(rest, test_size=0.5, random_state=0, stratify=y[rest])
    encode = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_include="category")),
    )
    model = make_pipeline(encode, MLPClassifier((128, 64), alpha=0.0, max_iter=20, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it stops at 20 epochs on purpose
        model.fit(X.iloc[train], y[train])
    return cal, test, logit(model.predict_proba(X)[:, 1])
