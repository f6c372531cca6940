"""Extreme eigenvalues of a symmetric matrix that is known by its products alone.

    A Q_j = Q_j T_j + beta_{j+1} q_{j+1} e_j',    eigenvalues of T_j -> extremes of A's,

with full re-orthogonalisation, twice (Parlett, The Symmetric Eigenvalue Problem, chapter 13). The residual of a Ritz
pair is |beta_{j+1} s_j|; its eigenvalue's error is at most that and, for separated ones, of the order of its square
over
the gap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msam_lawn.errors import SettingsError

__all__ = ["Eigenvalues", "Product", "top_eigenvalues"]

Floats = NDArray[np.float64]
Product = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Eigenvalues:
    """What Lanczos found.

    Attributes
    ----------
    values : ndarray of shape (k,)
        Best first: largest first, or largest in absolute value.
    residuals : ndarray of shape (k,)
        ||A v - lambda v|| of each.
    products : int
        Matrix-vector products used.
    converged : bool
        Whether every value's error estimate is below the tolerance.
    """

    values: Floats
    residuals: Floats
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
        Stop when every estimated error is below ``tolerance * |largest|``.
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
            if result.converged or exhausted:
                return result
        if exhausted:  # an invariant subspace smaller than k: go on from a fresh direction
            image = np.random.default_rng(seed + j + 1).standard_normal(size)
            for _ in range(2):
                image = image - basis[: j + 1].T @ (basis[: j + 1] @ image)
            off_diagonal[j] = 0.0
        basis[j + 1] = image / np.linalg.norm(image) if j + 1 < size else 0.0
    assert result is not None
    return result


def _ritz(diagonal: Floats, off_diagonal: Floats, k: int, which: str, tolerance: float) -> Eigenvalues:
    inner = off_diagonal[:-1]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    order = np.argsort(-np.abs(values) if which == "magnitude" else -values)
    residuals = np.abs(off_diagonal[-1] * vectors[-1])
    # residual bound, sharpened by the gap to the nearest other Ritz value
    gaps = np.abs(values[:, None] - values[None, :]) + np.diag(np.full(values.size, np.inf))
    errors = np.minimum(residuals, residuals**2 / np.maximum(gaps.min(1), 1e-300))
    top = order[:k]
    scale = max(float(np.abs(values[order[0]])), 1e-300)
    enough = values.size >= min(2 * k, values.size + k) and bool((errors[top] <= tolerance * scale).all())
    return Eigenvalues(values[top], residuals[top], values.size, enough)
