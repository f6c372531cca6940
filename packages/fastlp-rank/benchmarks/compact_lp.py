"""The same optimum with fewer variables: what a careful user of a general solver would write.

Selection (equal slot weights): max v u·x, Σ x = m, 0 <= x <= 1: n variables, K + 1 rows. Exposure by levels: item i
has a variable for every level l, Σ_i z_il = l, 0 <= z <= 1, and its exposure is Σ_l (v_l - v_{l+1}) z_il: n·m variables
like the full form, but m + K rows where that has m + n + K.
"""

import numpy as np
from full_lp import LP


def build(instance: dict) -> LP:
    u, v = np.array(instance["scores"]), np.array(instance["slot_weights"])
    n = u.size
    A = np.array(instance["rows"]).reshape(-1, n)
    drop = v - np.append(v[1:], 0.0)
    levels = np.flatnonzero(drop > 0.0)
    L, K = levels.size, len(A)
    step = np.repeat(drop[levels], n)  # columns level by level
    item = np.tile(np.arange(n), L)
    dense = np.concatenate([np.ones((1, n * L)), A[:, item] * step]).T
    index = np.concatenate([np.repeat(np.arange(L), n)[None], np.broadcast_to(L + np.arange(K)[:, None], (K, n * L))]).T
    present = dense != 0.0
    return LP(
        u[item] * step,
        np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32),
        index[present].astype(np.int32),
        dense[present],
        np.concatenate([levels + 1.0, np.array(instance["lower"], dtype=float)]),
        np.concatenate([levels + 1.0, np.array(instance["upper"], dtype=float)]),
        np.ones(n * L),
    )
