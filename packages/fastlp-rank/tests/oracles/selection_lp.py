"""The LP over which items are shown, n variables, solved by SciPy's HiGHS; for equal slot weights."""

import numpy as np
from scipy.optimize import linprog


def selection_optimum(scores, rows, lower, upper, slot_weights):
    """Return (status, optimum): "OPTIMAL" and a number, or "INFEASIBLE" and None."""
    n, m, weight = len(scores), len(slot_weights), slot_weights[0]
    has_upper, has_lower = np.isfinite(upper), np.isfinite(lower)
    result = linprog(
        -weight * scores,
        A_ub=weight * np.vstack([rows[has_upper], -rows[has_lower]]).reshape(-1, n),
        b_ub=np.concatenate([upper[has_upper], -lower[has_lower]]),
        A_eq=np.ones((1, n)),
        b_eq=[m],
        bounds=(0, 1),
    )
    return ("OPTIMAL", -result.fun) if result.status == 0 else ({2: "INFEASIBLE"}[result.status], None)
