"""The sums behind every estimate of ``value``, in two passes over the log, records innermost.

    sum_i w_ik,  sum_i w_ik^2,  #{i : w_ik != 0},  V_k,  sum_i psi_i psi_i'

Arrays are read slot by slot: with records contiguous in memory (as logs keep them) every loop runs in vector registers.
"""

import numpy as np
from numba import njit

from multislot_rerank.arrays import Floats, Ints

__all__ = ["slot_moments"]

_REORDER = {"reassoc", "contract", "nsz"}  # sums may be reordered; NaN and infinity keep their meaning


@njit(cache=True, nogil=True, fastmath=_REORDER, error_model="numpy")
def slot_moments(
    weights: Floats, rewards: Floats, offset: Floats, alpha: Floats, normalize: bool
) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """Return records that carry weight and effective sample size by slot, slot means, value, summed squared influence.

    Shapes (K,), (K,), (K, M), (M,) and (M, M). ``weights`` has shape (K, n), ``rewards`` (M, K, n), ``offset`` the
    same or none of it (0, 0, 0).
    """
    slots, n = weights.shape
    objectives = rewards.shape[0]
    total, effective, carrying = np.zeros(slots), np.zeros(slots), np.zeros(slots, dtype=np.int64)
    means, value = np.zeros((slots, objectives)), np.zeros(objectives)
    for k in range(slots):
        w = weights[k]
        s, q, c = 0.0, 0.0, 0.0
        for i in range(n):
            s += w[i]
            q += w[i] * w[i]
            c += 1.0 if w[i] != 0.0 else 0.0
        total[k], carrying[k] = s, int(c)
        effective[k] = s * s / q if q > 0.0 else 0.0
        for m in range(objectives):
            r = rewards[m, k]
            s = 0.0
            for i in range(n):
                s += w[i] * r[i]
            if offset.size:
                for i in range(n):
                    s += offset[m, k, i]
            means[k, m] = s / total[k] if normalize else s / n
            value[m] += alpha[k] * means[k, m]
    influence = np.zeros((objectives, n))
    for m in range(objectives):
        psi = influence[m]
        for k in range(slots):
            w, r, mean = weights[k], rewards[m, k], means[k, m]
            if normalize:
                share = alpha[k] * n / total[k]
                for i in range(n):
                    psi[i] += share * w[i] * (r[i] - mean)
            else:
                for i in range(n):
                    psi[i] += alpha[k] * (w[i] * r[i] - mean)
                if offset.size:
                    for i in range(n):
                        psi[i] += alpha[k] * offset[m, k, i]
    cross = np.zeros((objectives, objectives))
    for m in range(objectives):
        for q in range(m + 1):
            s = 0.0
            for i in range(n):
                s += influence[m, i] * influence[q, i]
            cross[m, q] = s
            cross[q, m] = s
    return carrying, effective, means, value, cross
