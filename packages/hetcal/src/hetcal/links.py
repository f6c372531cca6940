"""Between probabilities and logits without overflow warnings: p = 1 / (1 + exp(-z)), z = log(p / (1 - p))."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "log1pexp", "logistic_loss", "logit", "sigmoid"]

Floats = NDArray[np.float64]
TINY = 1e-15  # logit(TINY) = -34.5, well inside what exp can represent


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-z)); where the exponential overflows, the quotient is rightly 0."""
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def logit(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), with p kept inside [1e-15, 1 - 1e-15]."""
    p = np.clip(probabilities, TINY, 1.0 - TINY)
    return np.asarray(np.log(p) - np.log1p(-p))


def log1pexp(logits: Floats) -> Floats:
    """log(1 + exp(z))."""
    return np.asarray(np.maximum(logits, 0.0) + np.log1p(np.exp(-np.abs(logits))))


def logistic_loss(y: Floats, logits: Floats) -> Floats:
    """Log-loss of each row from its logit: log(1 + exp(z)) - y z; right for soft labels too."""
    return log1pexp(logits) - y * logits
