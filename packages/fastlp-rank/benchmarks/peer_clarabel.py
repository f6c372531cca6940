# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["clarabel>=0.9", "numpy>=1.26", "scipy>=1.14"]
# ///
"""Clarabel, an interior point method: approximate, and no vertex to read a small lottery from."""

import clarabel
import numpy as np
import scipy.sparse
from full_lp import LP, main


def prepare(lp: LP):
    rows, n = lp.row_lower.size, lp.cost.size
    matrix = scipy.sparse.csc_matrix((lp.value, lp.index, lp.start), (rows, n)).tocsr()
    equal = lp.row_lower == lp.row_upper
    upper, lower = ~equal & np.isfinite(lp.row_upper), ~equal & np.isfinite(lp.row_lower)
    stacked = scipy.sparse.vstack([matrix[equal], matrix[upper], -matrix[lower], -scipy.sparse.eye(n)]).tocsc()
    right = np.concatenate([lp.row_upper[equal], lp.row_upper[upper], -lp.row_lower[lower], np.zeros(n)])
    cones = [clarabel.ZeroConeT(int(equal.sum())), clarabel.NonnegativeConeT(int(right.size - equal.sum()))]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    solver = clarabel.DefaultSolver(scipy.sparse.csc_matrix((n, n)), -lp.cost, stacked, right, cones, settings)
    found = []
    return lambda: found.append(solver.solve()), lambda: -found[-1].obj_val


main({"Clarabel": prepare}, f"clarabel {clarabel.__version__}")
