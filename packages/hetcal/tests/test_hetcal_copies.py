"""Which rows are copies: exact ones, nearly exact ones, and rows that only look like copies."""

import numpy as np
import pytest
from hetcal import HeterogeneousCalibrator
from hetcal.copies import copies
from hetcal.links import sigmoid


def problem(rng, n, d=5):
    X, z = rng.normal(size=(n, d)), rng.normal(size=n) * 1.2 - 0.5
    return X, z, (rng.random(n) < sigmoid(z)).astype(float)


def altered(kind, rng, X, z, y):
    """Copies as they arrive: what the trip did to them."""
    X, z, y = X.copy(), z.copy(), y.copy()
    if kind.startswith("jitter"):
        size = float(kind.split()[1])
        X += size * rng.normal(size=X.shape)
        z += size * rng.normal(size=z.size)
    elif kind == "half through float32":
        some = rng.random(z.size) < 0.5
        X[some], z[some] = X[some].astype(np.float32), z[some].astype(np.float32)
    elif kind == "a time stamp beside":
        X = np.column_stack([X, np.sort(rng.random(z.size))])
    elif kind == "a random column beside":
        X = np.column_stack([X, rng.normal(size=z.size)])
    elif kind == "a counter beside":
        X = np.column_stack([X, np.arange(z.size)])
    elif kind == "one column measured again":
        X[:, 0] = rng.normal(size=z.size)
    elif kind == "cells lost":
        X[rng.random(X.shape) < 0.05] = np.nan
    elif kind == "labels corrected":
        some = rng.random(z.size) < 0.05
        y[some] = 1 - y[some]
    return X, z, y


KINDS = [
    *(f"jitter {size}" for size in ("0", "1e-12", "1e-9", "1e-6", "1e-4", "1e-3")),
    "half through float32",
    "a time stamp beside",
    "a random column beside",
    "a counter beside",
    "one column measured again",
    "cells lost",
    "labels corrected",
]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_found_whatever_happened_to_them(kind):
    for seed, (rows, times) in enumerate([(1000, 10), (700, 3), (3000, 2)]):
        rng = np.random.default_rng(seed)
        X, z, y = problem(rng, rows)
        of = rng.permutation(np.repeat(np.arange(rows), times))
        cells = copies(*altered(kind, rng, X[of], z[of], y[of]))
        assert cells is not None
        pairs = np.bincount(cells) @ (np.bincount(cells) - 1)
        both = np.unique(np.stack([cells, of]), axis=1, return_counts=True)[1]
        assert both @ (both - 1) > 0.8 * rows * times * (times - 1)  # pairs of copies that were found
        assert both @ (both - 1) > 0.97 * pairs  # and hardly anything else


def test_nearly_equal_copies_do_no_harm():
    rng = np.random.default_rng(0)
    X, z, y = problem(rng, 1000)
    of = rng.permutation(np.repeat(np.arange(1000), 10))
    X, z, y = altered("jitter 1e-6", rng, X[of], z[of], y[of])
    model = HeterogeneousCalibrator(threads=1).fit(X, y, logits=z)
    assert model.n_effective_ == pytest.approx(1000, rel=0.01)
    assert model.selection_.chosen in ("global", "identity")


@pytest.mark.parametrize("seed", range(40))
def test_independent_rows_are_no_copies(seed):
    """Discrete, correlated, missing, blind and nearly deterministic: rows that come near by nature."""
    rng = np.random.default_rng(seed)
    rows, width = int(rng.choice([200, 1000, 4000])), int(rng.integers(1, 12))
    X = rng.normal(size=(rows, width))
    X = X @ rng.normal(size=(width, width)) if seed % 2 else X
    for k in range(width):
        if rng.random() < 0.4:
            X[:, k] = np.floor(X[:, k] * rng.choice([1, 3, 30]))
        X[rng.random(rows) < rng.choice([0.0, 0.2]), k] = np.nan
    eta = np.nan_to_num(X) @ rng.normal(size=width)
    eta = (eta - eta.mean()) / max(eta.std(), 1e-9) * rng.choice([1, 3, 20])
    y = (rng.random(rows) < sigmoid(eta)).astype(float)
    for z in (eta, rng.normal(size=rows), np.zeros(rows)):
        assert copies(X, z, y) is None
