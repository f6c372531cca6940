# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["highspy>=1.10", "numpy>=1.26"]
# ///
"""HiGHS with its defaults, and with the settings that suit this LP."""

import importlib.metadata

import highspy
import numpy as np
from full_lp import LP, main


def prepare(lp: LP, options: dict):
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = lp.cost.size, lp.row_lower.size
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = lp.cost
    model.col_lower_, model.col_upper_ = np.zeros(lp.cost.size), lp.column_upper
    model.row_lower_, model.row_upper_ = lp.row_lower, lp.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = lp.start, lp.index, lp.value
    solver = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1, **options}.items():
        solver.setOptionValue(name, value)
    solver.passModel(model)
    return solver.run, lambda: solver.getInfo().objective_function_value


if __name__ == "__main__":
    main(
        {
            "HiGHS default": lambda lp: prepare(lp, {}),
            "HiGHS no presolve": lambda lp: prepare(lp, {"presolve": "off"}),
            "HiGHS primal simplex": lambda lp: prepare(lp, {"presolve": "off", "simplex_strategy": 4}),
        },
        f"highspy {importlib.metadata.version('highspy')}",
    )
