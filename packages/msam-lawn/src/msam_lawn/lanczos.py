"""Extreme eigenvalues of a symmetric matrix that is known by its products alone.

    A Q_j = Q_j T_j + beta_{j+1} q_{j+1} e_j',    eigenvalues of T_j -> extremes of A's,

with full re-orthogonalisation, twice (Parlett, The Symmetric Eigenvalue Problem, chapter 13). How far a Ritz value
theta_i is from its eigenvalue, from the j best Ritz pairs taken together (quadratic residual bound for a block; Li
and Li, Linear Algebra Appl. 2005):

    |lambda_i - theta_i| <= 2 E_j^2 / (eta_ij + sqrt(eta_ij^2 + 4 E_j^2)),    E_j^2 = sum_{l <= j} r_l^2,

with the residuals r_l = |beta_{m+1} s_{m,l}| and the gap eta_ij from theta_i to what lies outside the block, which is
taken to end at theta_{j+1} + r_{j+1}. It is r^2 / gap for separated values, r where there is no gap, and a cluster
costs nothing when the block holds all of it. An eigenvalue of which the start vector holds little comes up late: the
bound has to stand for k products in a row, and the largest of them is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msam_lawn.errors import SettingsError

__all__ = ["Eigenvalues", "Product", "top_eigenvalues"]

Floats = NDArray[np.float64]
Product = Callable[[Floats], Floats]
NEGLIGIBLE = 1e-3  # values below this part of the first need not be known to their own size


@dataclass(frozen=True)
class Eigenvalues:
    """What Lanczos found.

    Attributes
    ----------
    values : ndarray of shape (k,)
        Best first: largest first, or largest in absolute value.
    residuals : ndarray of shape (k,)
        ||A v - lambda v|| of each: some eigenvalue is that near, whatever Lanczos has not met.
    errors : ndarray of shape (k,)
        Bound on the error of each value, unless Lanczos has not met an eigenvalue: an exact repetition, or one closer
        to its neighbour than the residual.
    products : int
        Matrix-vector products used.
    converged : bool
        Whether every error is within the tolerance.
    """

    values: Floats
    residuals: Floats
    errors: Floats
    products: int
    converged: bool


def top_eigenvalues(
    product: Product,
    size: int,
    k: int = 1,
    *,
    which: Literal["largest", "magnitude"] = "largest",
    tolerance: float = 1e-4,
    max_products: int = 100,
    seed: int = 0,
) -> Eigenvalues:
    """The k largest eigenvalues (algebraic, or in absolute value) of a symmetric matrix.

    Parameters
    ----------
    product : callable
        ``v -> A v`` for float64 vectors of shape (size,).
    size, k : int
        Order of the matrix, and how many eigenvalues.
    which : {"largest", "magnitude"}
        A Hessian away from a minimum has negative eigenvalues: the two differ then.
    tolerance : float
        Stop when every value's error is at most ``tolerance`` times its size (or a thousandth of the first's), and was
        for k products in a row.
    max_products : int
        Stop after so many products.
    seed : int
        Of the start vector.

    Returns
    -------
    Eigenvalues

    Raises
    ------
    SettingsError
        If ``k`` is not between 1 and ``size``, or a product is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> found = top_eigenvalues(lambda v: np.arange(1.0, 101.0) * v, 100, k=2, max_products=60)
    >>> [round(float(value), 2) for value in found.values], found.converged
    ([100.0, 99.0], True)
    """
    if not 1 <= k <= size:
        raise SettingsError(f"k={k} must be between 1 and the order {size} of the matrix")
    if max_products < k:
        raise SettingsError(f"max_products={max_products} is below k={k}")
    start = np.random.default_rng(seed).standard_normal(size)
    steps = min(size, max_products)
    basis = np.empty((steps + 1, size))
    basis[0] = start / np.linalg.norm(start)
    diagonal, off_diagonal = np.zeros(steps), np.zeros(steps)
    result = None
    standing: list[Floats] = []  # bounds of the last products, all within the tolerance
    for j in range(steps):
        image = np.asarray(product(basis[j]), dtype=np.float64)
        if not np.isfinite(image).all():
            raise SettingsError(f"product {j + 1} is not finite; the loss has no finite second derivative here")
        diagonal[j] = basis[j] @ image
        for _ in range(2):
            image = image - basis[: j + 1].T @ (basis[: j + 1] @ image)
        off_diagonal[j] = np.linalg.norm(image)
        exhausted = off_diagonal[j] <= 1e-12 * max(1.0, float(np.abs(diagonal[: j + 1]).max()))
        if j + 1 >= k:
            result = _ritz(diagonal[: j + 1], off_diagonal[: j + 1], k, which, tolerance)
            standing = [*standing, result.errors] if result.converged else []
            if exhausted:
                return result
            if len(standing) >= k:
                return replace(result, errors=np.max(standing[-k:], axis=0))
        if exhausted:  # an invariant subspace smaller than k: go on from a fresh direction
            image = np.random.default_rng(seed + j + 1).standard_normal(size)
            for _ in range(2):
                image = image - basis[: j + 1].T @ (basis[: j + 1] @ image)
            off_diagonal[j] = 0.0
        basis[j + 1] = image / np.linalg.norm(image) if j + 1 < size else 0.0
    assert result is not None
    return replace(result, converged=steps == size)


def _ritz(diagonal: Floats, off_diagonal: Floats, k: int, which: str, tolerance: float) -> Eigenvalues:
    inner = off_diagonal[:-1]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    keys = np.abs(values) if which == "magnitude" else values
    order = np.argsort(-keys)
    residuals = np.abs(off_diagonal[-1] * vectors[-1])[order]
    errors = _errors(keys[order], residuals)[:k]
    top = values[order[:k]]
    sizes = np.maximum(np.abs(top), NEGLIGIBLE * np.abs(top[0]))
    return Eigenvalues(top, residuals[:k], errors, values.size, bool((errors <= tolerance * sizes).all()))


def _errors(keys: Floats, residuals: Floats) -> Floats:
    """The bound for every Ritz value, over the best block; keys and residuals in falling order of the keys."""
    blocks = np.sqrt(np.cumsum(residuals**2))
    outside = np.append(keys[1:] + residuals[1:], np.inf)  # nothing is known of the rest: no gap to it
    gaps = np.maximum(keys[:, None] - outside, 0.0)
    bounds = 2 * blocks**2 / np.maximum(gaps + np.sqrt(gaps**2 + 4 * blocks**2), np.finfo(float).tiny)
    inside = np.triu(np.ones_like(bounds, dtype=bool))  # block j holds value i
    least: Floats = np.where(inside, bounds, np.inf).min(axis=1)
    return least
