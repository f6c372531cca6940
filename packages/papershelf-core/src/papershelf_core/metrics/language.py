"""Perplexity of a language model with its standard error.

With l_t the negative log-likelihood of token t (nats) and L their mean,

    perplexity = exp(L),    s.e.(perplexity) = exp(L) s.e.(L)     (delta method)

Tokens of one window are not independent; with windows as groups g of n_g tokens the error of L is the clustered one,
s.e.(L)^2 = G/(G-1) sum_g ( sum_{t in g} (l_t - L) )^2 / T^2.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from papershelf_core.metrics._checks import finite_vector, same_length

__all__ = ["Perplexity", "perplexity"]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity, its standard error, and the number of tokens behind it."""

    value: float
    standard_error: float
    tokens: int


def perplexity(token_nll: ArrayLike, groups: ArrayLike | None = None) -> Perplexity:
    """Perplexity from the negative log-likelihood of each token.

    Parameters
    ----------
    token_nll : array-like of shape (T,)
        Negative log-likelihood of each predicted token, in nats.
    groups : array-like of shape (T,), optional
        Window or document of each token; the error allows for dependence inside each.

    Returns
    -------
    Perplexity

    Raises
    ------
    ValueError
        If a value is not finite, lengths differ, or there are fewer than two tokens (or groups).

    Examples
    --------
    >>> perplexity(np.log([2.0, 8.0]))
    Perplexity(value=4.0, standard_error=2.77..., tokens=2)
    """
    nll = finite_vector("token_nll", token_nll)
    mean = float(nll.mean())
    residual = nll - mean
    if groups is not None:
        names = np.asarray(groups)
        same_length("groups", names, len(nll))
        residual = np.bincount(np.unique(names, return_inverse=True)[1], residual).astype(np.float64)
    clusters = len(residual)
    if clusters < 2:
        unit = "token" if groups is None else "group"
        raise ValueError(f"token_nll has {clusters} {unit}; a standard error needs at least two")
    error = math.sqrt(clusters / (clusters - 1) * float(residual @ residual)) / len(nll)
    return Perplexity(math.exp(mean), math.exp(mean) * error, len(nll))
