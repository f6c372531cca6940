"""Perplexity, and the paired difference of two models on the same tokens.

    nll_t = -log p(token_t | earlier tokens of its window),   perplexity = exp(mean nll)

Two models are compared by d = mean(nll_a - nll_b). Tokens of a window depend on one another, so the standard error of
d is the larger of the one over tokens and the one over windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quantease.errors import ModelError

__all__ = ["PairedDifference", "paired_difference", "token_nll"]


@dataclass(frozen=True)
class PairedDifference:
    """Mean of nll_a - nll_b in nats a token (below 0: a is better) and its standard error."""

    mean: float
    standard_error: float

    @property
    def z(self) -> float:
        """Mean in standard errors."""
        return self.mean / self.standard_error


@torch.no_grad()
def token_nll(model: nn.Module, windows: Tensor) -> NDArray[np.float64]:
    """Negative log-likelihood of every token but the first of each window, in nats.

    Parameters
    ----------
    model : torch.nn.Module
        A Hugging Face causal language model.
    windows : Tensor of shape (n, length), int64

    Returns
    -------
    ndarray of shape (n, length - 1)

    Raises
    ------
    ModelError
        If a window holds fewer than two tokens or the model gives a value that is not finite.
    """
    if windows.ndim != 2 or windows.shape[1] < 2:
        raise ModelError(f"windows of shape {tuple(windows.shape)} must hold at least two tokens each")
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for window in windows:
        tokens = window[None].to(device)
        logits = model(tokens, use_cache=False).logits[0, :-1].float()
        rows.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none").double().cpu().numpy())
    nll = np.stack(rows)
    if not np.isfinite(nll).all():
        raise ModelError(f"the model gives no finite likelihood in window {int(np.argwhere(~np.isfinite(nll))[0, 0])}")
    return nll


def paired_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> PairedDifference:
    """Compare two models token by token.

    Parameters
    ----------
    a, b : ndarray of shape (windows, tokens)
        ``token_nll`` of two models on the same windows.

    Returns
    -------
    PairedDifference

    Raises
    ------
    ModelError
        If the shapes differ or there are fewer than two windows.

    Examples
    --------
    >>> paired_difference(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0], [3.0, 3.0]]))
    PairedDifference(mean=0.5, standard_error=0.288...)
    """
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2:
        raise ModelError(f"shapes {a.shape} and {b.shape} must be equal, (windows, tokens), with two windows or more")
    difference = a - b
    by_token = difference.std(ddof=1) / math.sqrt(difference.size)
    by_window = difference.mean(1).std(ddof=1) / math.sqrt(len(difference))
    return PairedDifference(float(difference.mean()), float(max(by_token, by_window)))
