# /// script
# requires-python = ">=3.11"
# dependencies = ["ortools>=9.10"]
# ///
"""OR-tools' CP-SAT on constraint sets: whether any slate keeps each. Usage: cp_sat_slates.py SETS.json ANSWERS.json"""

import json
import sys
from pathlib import Path

from ortools.sat.python import cp_model


def feasible(problem: dict) -> bool:
    """One Boolean a candidate and slot; caps as linear sums over every window."""
    k, attributes, fresh = problem["k"], problem["attributes"], problem["fresh"]
    count = len(fresh)
    model = cp_model.CpModel()
    stands = [[model.new_bool_var(f"{i} in {slot}") for slot in range(k)] for i in range(count)]
    for slot in range(k):
        model.add_exactly_one(stands[i][slot] for i in range(count))
    for i in range(count):
        model.add_at_most_one(stands[i])
    for item, slot in problem["pins"]:
        model.add(stands[item][slot] == 1)
    if problem["quota"]:
        model.add(sum(stands[i][slot] for i in range(count) if fresh[i] for slot in range(k)) >= problem["quota"])
    for attribute, window, most in problem["caps"]:
        for value in {v for v in attributes[attribute] if v is not None}:
            holders = [i for i in range(count) if attributes[attribute][i] == value]
            for start in range(k):
                inside = range(start, min(start + window, k))
                model.add(sum(stands[i][slot] for i in holders for slot in inside) <= most)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.INFEASIBLE)
    return status != cp_model.INFEASIBLE


problems = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([feasible(problem) for problem in problems]), encoding="utf-8")
