# /// script
# requires-python = ">=3.11"
# dependencies = ["ortools>=9.10"]
# ///
"""OR-tools' CP-SAT on constraint sets: whether any slate keeps each, null where it does not say within its limit.

Usage: cp_sat_slates.py SETS.json ANSWERS.json
"""

import json
import sys
from collections import Counter
from pathlib import Path

from ortools.sat.python import cp_model

LIMIT = 5.0  # CP-SAT's own unit, about a second


def feasible(problem: dict) -> bool | None:
    """One Boolean a slot and kind of candidate (those that nothing tells apart); caps as sums over every window."""
    k, rules = problem["k"], [*problem["caps"], *problem["minima"]]
    pins = {slot: item for item, slot in problem["pins"]}
    looks = [tuple(r for r, (some, _, _) in enumerate(rules) if item in some) for item in range(problem["count"])]
    left = Counter(looks) - Counter(looks[item] for item in pins.values())
    kinds = sorted(set(looks))
    model = cp_model.CpModel()
    stands = [{kind: model.new_bool_var(f"{kind} in {slot}") for kind in kinds} for slot in range(k)]
    for slot in range(k):
        model.add_exactly_one(stands[slot].values())
        if slot in pins:
            model.add(stands[slot][looks[pins[slot]]] == 1)
    for kind in kinds:
        model.add(sum(stands[slot][kind] for slot in range(k) if slot not in pins) <= left[kind])
    for r, (_, size, number) in enumerate(rules):
        counted = [sum(stands[slot][kind] for kind in kinds if r in kind) for slot in range(k)]
        if r >= len(problem["caps"]):
            model.add(sum(counted[: min(size, k)]) >= number)
            continue
        for start in range(max(1, k - size + 1)):
            model.add(sum(counted[start : start + size]) <= number)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = LIMIT
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.INFEASIBLE, cp_model.UNKNOWN)
    return None if status == cp_model.UNKNOWN else status != cp_model.INFEASIBLE


problems = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
Path(sys.argv[2]).write_text(json.dumps([feasible(problem) for problem in problems]), encoding="utf-8")
