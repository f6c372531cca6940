"""The trace of a symmetric matrix that is known by its products alone, with its standard error.

    tr A = E[z' A z] for z of independent signs;    s.e. = sd(z_j' A z_j) / sqrt(probes)

(Hutchinson 1990). The standard error, not the change of the running mean, decides when to stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msam_lawn.errors import SettingsError
from msam_lawn.lanczos import Product

__all__ = ["Trace", "trace"]


@dataclass(frozen=True)
class Trace:
    """An estimate, its standard error and the products it took."""

    estimate: float
    standard_error: float
    products: int


def trace(product: Product, size: int, *, relative_error: float = 0.02, max_probes: int = 400, seed: int = 0) -> Trace:
    """Trace of a symmetric matrix to a relative standard error.

    Parameters
    ----------
    product : callable
        ``v -> A v`` for float64 vectors of shape (size,).
    size : int
        Order of the matrix.
    relative_error : float
        Stop when the standard error is below this part of the estimate (at least 10 probes).
    max_probes : int
        Stop after so many products.
    seed : int
        Of the probes.

    Returns
    -------
    Trace

    Examples
    --------
    >>> found = trace(lambda v: 2.0 * v, 50)
    >>> found.estimate, found.standard_error
    (100.0, 0.0)
    """
    if max_probes < 2:
        raise SettingsError(f"max_probes={max_probes} must be at least 2")
    rng = np.random.default_rng(seed)
    samples: list[float] = []
    while len(samples) < max_probes:
        signs = rng.choice((-1.0, 1.0), size)
        samples.append(float(signs @ product(signs)))
        if len(samples) >= 10 and _error(samples) <= relative_error * abs(float(np.mean(samples))):
            break
    return Trace(float(np.mean(samples)), _error(samples), len(samples))


def _error(samples: list[float]) -> float:
    return float(np.std(samples, ddof=1) / np.sqrt(len(samples)))
