"""The formulas of ``multislot_rerank.value`` as they stand there, on whole arrays: of floats, or of fractions."""

import numpy as np


def slot_means(weights, rewards):
    """Self-normalised mean of each slot, sum_i w_ik r_ik / sum_i w_ik; shape (K, M). Exact on arrays of fractions."""
    return (weights[:, :, None] * rewards).sum(axis=0) / weights.sum(axis=0)[:, None]


def value_and_covariance(weights, rewards, alpha, normalize, offset=None):
    """Slot means (K, M), value (M,) and its covariance (M, M)."""
    records = len(weights)
    if normalize:
        means = slot_means(weights, rewards)
        influence = weights[:, :, None] * (rewards - means) / weights.mean(axis=0)[:, None]
        support = int((weights != 0).sum(axis=0).min())
    else:
        contribution = weights[:, :, None] * rewards + (0 if offset is None else offset)
        means, support = contribution.mean(axis=0), records
        influence = contribution - means
    psi = np.einsum("k,ikm->im", alpha, influence)
    return means, alpha @ means, support / (support - 1) * psi.T @ psi / records**2
