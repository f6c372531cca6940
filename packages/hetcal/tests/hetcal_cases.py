"""Generated problems that several test files share."""

import numpy as np


def heterogeneous(n, seed, noise=0.0):
    """A model that ranks well inside four regions of (x1, x2) and is wrong about their levels and slopes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    region = (X[:, 0] > 0).astype(int) + 2 * (X[:, 1] > 0.5)
    z = rng.normal(size=n) * 1.5 + noise * rng.normal(size=n)
    shift, slope = np.array([-1.0, 1.0, 0.5, -0.5]), np.array([0.5, 1.0, 1.5, 0.7])
    eta = 1 / (1 + np.exp(-(shift[region] + slope[region] * z)))
    y = (rng.random(n) < eta).astype(int)
    return X, y, z, region, eta
