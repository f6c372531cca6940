# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["ortools>=9.11", "numpy>=1.26", "scipy>=1.14"]
# ///
"""GLOP through OR-tools' model builder, filled from a sparse matrix."""

import numpy as np
import ortools
import scipy.sparse
from full_lp import LP, main
from ortools.linear_solver.python import model_builder_helper


def prepare(lp: LP):
    matrix = scipy.sparse.csc_matrix((lp.value, lp.index, lp.start), (lp.row_lower.size, lp.cost.size)).tocsr()
    model = model_builder_helper.ModelBuilderHelper()
    model.fill_model_from_sparse_data(
        np.zeros(lp.cost.size), np.full(lp.cost.size, np.inf), -lp.cost, lp.row_lower, lp.row_upper, matrix
    )
    solver = model_builder_helper.ModelSolverHelper("glop")
    return lambda: solver.solve(model), lambda: -solver.objective_value()


main({"GLOP": prepare}, f"ortools {ortools.__version__}")
