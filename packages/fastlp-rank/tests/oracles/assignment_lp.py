"""The assignment LP with all n·m variables, solved by SciPy's HiGHS."""

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix


def optimum(scores, rows, lower, upper, slot_weights):
    """Return (status, optimum): "OPTIMAL" and a number, or "INFEASIBLE" and None."""
    n, m = len(scores), len(slot_weights)
    A = np.array([np.outer(row, slot_weights).ravel() for row in rows]).reshape(len(rows), n * m)
    has_upper, has_lower = np.isfinite(upper), np.isfinite(lower)
    result = linprog(
        -np.outer(scores, slot_weights).ravel(),
        A_ub=csr_matrix(np.vstack([A[has_upper], -A[has_lower], np.kron(np.eye(n), np.ones(m))])),
        b_ub=np.concatenate([upper[has_upper], -lower[has_lower], np.ones(n)]),
        A_eq=csr_matrix(np.kron(np.ones(n), np.eye(m))),
        b_eq=np.ones(m),
    )
    return ("OPTIMAL", -result.fun) if result.status == 0 else ({2: "INFEASIBLE"}[result.status], None)


def least_total_violation(rows, lower, upper, slot_weights):
    """Smallest Σ_k by which a doubly substochastic X misses the bounds."""
    n, m, K = rows.shape[1], len(slot_weights), len(rows)
    A = np.array([np.outer(row, slot_weights).ravel() for row in rows])
    has_upper, has_lower = np.isfinite(upper), np.isfinite(lower)
    miss = np.eye(K)
    result = linprog(
        np.concatenate([np.zeros(n * m), np.ones(K)]),
        A_ub=np.vstack(
            [
                np.hstack([A[has_upper], -miss[has_upper]]),
                np.hstack([-A[has_lower], -miss[has_lower]]),
                np.hstack([np.kron(np.eye(n), np.ones(m)), np.zeros((n, K))]),
            ]
        ),
        b_ub=np.concatenate([upper[has_upper], -lower[has_lower], np.ones(n)]),
        A_eq=np.hstack([np.kron(np.ones(n), np.eye(m)), np.zeros((m, K))]),
        b_eq=np.ones(m),
    )
    return result.fun
