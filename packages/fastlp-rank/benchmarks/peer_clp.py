# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = ["cylp>=0.92", "numpy>=1.26"]
# ///
"""CLP through cylp: the fastest general simplex at these sizes. Primal and dual simplex."""

import importlib.metadata

import numpy as np
from cylp.cy import CyClpSimplex
from cylp.cy.CyCoinPackedMatrix import CyCoinPackedMatrix
from full_lp import LP, main


def prepare(lp: LP, method: str):
    column = np.repeat(np.arange(lp.cost.size, dtype=np.int32), np.diff(lp.start))
    matrix = CyCoinPackedMatrix(True, lp.index, column, lp.value)
    solver = CyClpSimplex()
    solver.logLevel = 0
    solver.loadProblem(
        matrix,
        np.zeros(lp.cost.size),
        np.nan_to_num(lp.column_upper, posinf=1e30),
        -lp.cost,
        np.nan_to_num(lp.row_lower, neginf=-1e30),
        np.nan_to_num(lp.row_upper, posinf=1e30),
    )
    return getattr(solver, method), lambda: -solver.objectiveValue


if __name__ == "__main__":
    main(
        {"CLP primal": lambda lp: prepare(lp, "primal"), "CLP dual": lambda lp: prepare(lp, "dual")},
        f"cylp {importlib.metadata.version('cylp')}",
    )
