"""Three ways to compare counts with an expectation, each with correlated uncertainties of low rank.

Gaussian    chi2 = (D - T)^T (diag v + B B^T)^-1 (D - T)                 v = v_stat + v_shape, fixed
CNP         the same with v_stat = 3 / (1/D + 2/T), combined Neyman-Pearson (Ji et al., NIM A 961 (2020) 163677)
Poisson     2 sum_i [mu_i - D_i + D_i ln(D_i / mu_i)] + xi^2 + sum (beta_i - 1)^2 / delta_i^2,   mu = beta (T + B xi)

Column k of B is the one-sigma change of the counts from systematic k. B B^T has rank k ~ 25 in 340 bins, so the inverse
is Woodbury's: nothing of size 340 x 340 is ever formed. All three profile the systematics out at every call and return
the derivative of the profiled value, so that a fit sees the oscillation parameters only.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from nu_physics.errors import InvalidInput, check_choice

__all__ = ["STATISTICS", "CombinedNeymanPearson", "Gaussian", "Likelihood", "Poisson", "likelihood"]

Array = NDArray[np.float64]
STATISTICS = ("gaussian", "cnp", "poisson")


class Likelihood(Protocol):
    """What a fit needs of a statistic."""

    def chi2(self, expected: Array) -> float:
        """-2 ln L up to a constant, systematics profiled."""
        ...

    def linearise(self, expected: Array, jacobian: Array) -> tuple[float, Array, Array]:
        """(chi2, half its gradient, half its Gauss-Newton curvature) for expected + jacobian^T x."""
        ...

    def systematics(self, expected: Array) -> Array:
        """Profiled pulls in standard deviations, one per template."""
        ...


def _check_counts(name: str, counts: Array) -> Array:
    array = np.asarray(counts, dtype=np.float64)
    bad = ~np.isfinite(array) | (array < 0)
    if array.ndim != 1 or bad.any():
        where = int(np.flatnonzero(bad.ravel())[0]) if bad.any() else 0
        raise InvalidInput(f"{name}: bin {where} is negative or not finite, or the array is not one-dimensional")
    return array


class Gaussian:
    """chi2 with a fixed covariance diag(v) + B B^T.

    Parameters
    ----------
    data : array of shape (n,)
    variance : array of shape (n,)
        Statistical and bin-to-bin variance; positive.
    templates : array of shape (k, n)
        One-sigma changes.

    Examples
    --------
    >>> data = np.array([100.0, 120.0])
    >>> plain = Gaussian(data, data, np.empty((0, 2)))
    >>> with_scale = Gaussian(data, data, np.array([[10.0, 12.0]]))
    >>> round(plain.chi2(1.1 * data), 2), round(with_scale.chi2(1.1 * data), 2)
    (2.2, 0.69)
    """

    def __init__(self, data: Array, variance: Array, templates: Array) -> None:
        self.data = _check_counts("data", data)
        if not (np.isfinite(variance).all() and (variance > 0).all()):
            where = int(np.flatnonzero(~(variance > 0))[0])
            raise InvalidInput(f"variance[{where}] = {variance[where]!r}: a positive value is needed in every bin")
        self.templates = np.asarray(templates, dtype=np.float64).reshape(-1, self.data.size)
        self._set(np.asarray(variance, dtype=np.float64))

    def _set(self, variance: Array) -> None:
        self._inverse = 1.0 / variance
        weighted = self.templates * self._inverse
        inner = np.eye(len(self.templates)) + weighted @ self.templates.T
        self._cholesky = cho_factor(inner, lower=True)
        # rows C with V^-1 = D^-1 - C^T C
        self._low_rank = solve_triangular(self._cholesky[0], weighted, lower=True)

    def _solve(self, residual: Array) -> Array:
        """V^-1 residual."""
        return np.asarray(residual * self._inverse - self._low_rank.T @ (self._low_rank @ residual))

    def chi2(self, expected: Array) -> float:
        """Return the profiled chi2."""
        residual = self.data - expected
        return float(residual @ self._solve(residual))

    def linearise(self, expected: Array, jacobian: Array) -> tuple[float, Array, Array]:
        """Return chi2, half gradient and half curvature."""
        residual = self.data - expected
        solved = self._solve(residual)
        low = self._low_rank @ jacobian.T
        curvature = (jacobian * self._inverse) @ jacobian.T - low.T @ low
        return float(residual @ solved), -(jacobian @ solved), curvature

    def systematics(self, expected: Array) -> Array:
        """Return the profiled pulls."""
        return np.asarray(cho_solve(self._cholesky, self.templates @ (self._inverse * (self.data - expected))))


class CombinedNeymanPearson(Gaussian):
    """Gaussian with the variance 3 / (1/D + 2/T) at every expectation; unbiased down to a few counts a bin.

    An empty bin has variance T/2, the limit of D -> 0.
    """

    def __init__(self, data: Array, shape_variance: Array, templates: Array) -> None:
        self.shape_variance = np.asarray(shape_variance, dtype=np.float64)
        super().__init__(data, np.maximum(np.asarray(data, dtype=np.float64), 1.0) + shape_variance, templates)

    def _statistical(self, expected: Array) -> tuple[Array, Array]:
        """v_stat and d v_stat / d T; for D = 0 the limit T / 2."""
        mean = np.maximum(expected, 1e-6)
        safe = np.where(self.data > 0, self.data, 1.0)
        total = 1.0 / safe + 2.0 / mean
        value = np.where(self.data > 0, 3.0 / total, 0.5 * mean)
        slope = np.where(self.data > 0, 6.0 / (mean * total) ** 2, 0.5)
        return value, slope

    def chi2(self, expected: Array) -> float:
        """Return the profiled chi2."""
        self._set(self._statistical(expected)[0] + self.shape_variance)
        return super().chi2(expected)

    def linearise(self, expected: Array, jacobian: Array) -> tuple[float, Array, Array]:
        """Return chi2, half gradient (with the variance's own slope) and half curvature."""
        variance, slope = self._statistical(expected)
        self._set(variance + self.shape_variance)
        solved = self._solve(self.data - expected)
        value, gradient, curvature = super().linearise(expected, jacobian)
        return value, gradient - 0.5 * jacobian @ (slope * solved**2), curvature

    def systematics(self, expected: Array) -> Array:
        """Return the profiled pulls."""
        self._set(self._statistical(expected)[0] + self.shape_variance)
        return super().systematics(expected)


class Poisson:
    """Poisson likelihood with profiled templates and one factor beta_i per bin for the bin-to-bin uncertainty.

    The factor that minimises a bin is the positive root of beta^2 + beta (mu delta^2 - 1) - D delta^2 = 0.
    """

    def __init__(self, data: Array, shape_relative: Array, templates: Array) -> None:
        self.data = _check_counts("data", data)
        self.delta2 = np.asarray(shape_relative, dtype=np.float64) ** 2
        self.templates = np.asarray(templates, dtype=np.float64).reshape(-1, self.data.size)
        self._pulls = np.zeros(len(self.templates))

    def _bins(self, mean: Array) -> tuple[Array, Array, Array]:
        """Per bin: value, d value / d mean, Gauss-Newton curvature, with beta profiled."""
        mean = np.maximum(mean, 1e-9)
        b = mean * self.delta2 - 1.0
        beta = 0.5 * (-b + np.sqrt(b * b + 4.0 * self.data * self.delta2))
        beta = np.where(self.delta2 > 0, np.maximum(beta, 1e-12), 1.0)
        mu = beta * mean
        safe = np.where(self.data > 0, self.data, 1.0)
        value = 2.0 * (mu - self.data) + np.where(self.data > 0, 2.0 * self.data * np.log(safe / mu), 0.0)
        penalty = np.divide((beta - 1.0) ** 2, self.delta2, out=np.zeros_like(mean), where=self.delta2 > 0)
        slope = 2.0 * (beta - self.data / mean)
        return value + penalty, slope, 1.0 / (mean + self.delta2 * mean**2)

    def _profile(self, expected: Array) -> tuple[float, Array, Array]:
        """Newton over the pulls; returns the value, d value / d expected and the curvature diagonal."""
        pulls = self._pulls
        best = np.inf
        identity = np.eye(len(self.templates))
        for _ in range(50):
            value, slope, weight = self._bins(expected + pulls @ self.templates)
            total = float(value.sum() + pulls @ pulls)
            gradient = 0.5 * self.templates @ slope + pulls
            step = np.linalg.solve(identity + (self.templates * weight) @ self.templates.T, gradient)
            if best - total < 1e-12 * max(1.0, abs(total)) and np.abs(step).max(initial=0.0) < 1e-9:
                break
            best = total
            pulls = pulls - step
        self._pulls = pulls
        return total, slope, weight

    def chi2(self, expected: Array) -> float:
        """Return the profiled -2 ln L ratio to the saturated model."""
        return self._profile(expected)[0]

    def linearise(self, expected: Array, jacobian: Array) -> tuple[float, Array, Array]:
        """Return value, half gradient and half curvature of the profiled likelihood."""
        value, slope, weight = self._profile(expected)
        weighted = jacobian * weight
        cross = self.templates @ weighted.T
        inner = np.eye(len(self.templates)) + (self.templates * weight) @ self.templates.T
        curvature = weighted @ jacobian.T - cross.T @ np.linalg.solve(inner, cross)
        return value, 0.5 * jacobian @ slope, curvature

    def systematics(self, expected: Array) -> Array:
        """Return the profiled pulls."""
        self._profile(expected)
        return np.asarray(self._pulls)


def likelihood(statistic: str, data: Array, expected: Array, shape_variance: Array, templates: Array) -> Likelihood:
    """Build the named statistic; ``expected`` fixes the Gaussian's variance and the Poisson's relative shape size."""
    check_choice("statistic", statistic, STATISTICS)
    if statistic == "gaussian":
        return Gaussian(data, expected + shape_variance, templates)
    if statistic == "cnp":
        return CombinedNeymanPearson(data, shape_variance, templates)
    relative = np.sqrt(shape_variance) / np.maximum(expected, 1e-9)
    return Poisson(data, relative, templates)
