"""Every kind of untidy data, drawn afresh: statuses, proofs and bounds against exact arithmetic and HiGHS.

    uv run packages/fastlp-rank/benchmarks/fuzz.py --draws 50000 --seed 1

Every certificate is evaluated in rational arithmetic from the floats as given. HiGHS solves the n·m LP of every draw;
where it says otherwise (its tolerances are 1e-7, absolute), a rational simplex on the compact LP decides, `exact_lp`:
those draws are counted by kind, and so are those of them where ours is wrong. HiGHS runs in a process of its own, which
some of these draws end (highspy 1.15.1 frees memory twice on sentinels): that counts as another answer.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import highspy
import numpy as np
from exact_lp import exact_optimum
from fastlp_rank import Status, Workspace, solve_arrays, verify_arrays
from fastlp_rank.certificate import Certificate, size_about
from fastlp_rank.highs import _model
from fastlp_rank.instances import UNTIDY, Instance, awkward, untidy

_ROUNDING = Fraction(16, 2**52)


@dataclass(frozen=True)
class Exact:
    """A certificate in rational arithmetic: whether it proves its claim (to 1e-9, as always), and G(λ).

    ``lower`` and ``upper`` are the bounds, moved to where the lottery is if it misses them within the tolerance.
    """

    proven: bool
    bound: Fraction
    objective: Fraction = Fraction(0)
    allowed: Fraction = Fraction(0)
    lower: tuple[Fraction | float, ...] = ()
    upper: tuple[Fraction | float, ...] = ()


def evaluate(certificate: Certificate, instance: Instance, feasibility_tol: float) -> Exact:
    """Evaluate a certificate with the numbers as given."""
    u, v = [Fraction(x) for x in instance.scores], [Fraction(x) for x in instance.slot_weights]
    A = [[Fraction(x) for x in row] for row in instance.rows]
    total, m = sum(v), len(v)
    weights = [Fraction(x) for x in certificate.weights]
    mass = sum(weights)
    ok = abs(mass - 1) < Fraction(1, 10**9) and min(weights) >= 0
    exposure = [Fraction(0)] * len(u)
    for weight, ranking in zip(weights, certificate.rankings.tolist(), strict=True):
        ok = ok and len(set(ranking)) == m
        for slot, item in zip(v, ranking, strict=True):
            exposure[item] += weight / mass * slot
    infeasible = certificate.status is Status.INFEASIBLE
    floats = certificate.ray if infeasible else certificate.prices
    multipliers = [Fraction(x) + Fraction(y) for x, y in zip(floats, certificate.rest, strict=True)]
    key = [Fraction(0)] * len(u) if infeasible else u
    stated, moved, hidden = Fraction(0), Fraction(0), Fraction(0)
    within = True
    lower, upper = [], []
    for row, raw, price, low, high in zip(
        A, instance.rows, multipliers, instance.lower.tolist(), instance.upper.tolist(), strict=True
    ):
        activity = sum(a * e for a, e in zip(row, exposure, strict=True))
        over = max(activity - Fraction(high) if high < np.inf else -1, 0)
        under = max(Fraction(low) - activity if low > -np.inf else -1, 0)
        for excess, bound in ((over, high), (under, low)):
            if excess > 0:
                size = Fraction(size_about(raw, bound / float(total), m))
                allowed = Fraction(feasibility_tol) * size * total + 2 * _ROUNDING * abs(Fraction(bound))
                within = within and excess <= allowed * Fraction(1000001, 1000000)
        lower.append(Fraction(low) - under if low > -np.inf else low)
        upper.append(Fraction(high) + over if high < np.inf else high)
        if price:
            if abs(high if price > 0 else low) == np.inf:
                return Exact(False, Fraction(0))
            bound = Fraction(high if price > 0 else low)
            key = [x - price * a for x, a in zip(key, row, strict=True)]
            stated += price * bound
            spare = (bound - activity) * (1 if price > 0 else -1)
            hidden += abs(price) * spare if 0 < spare <= 2 * _ROUNDING * abs(bound) else 0
            moved += price * (bound + over if price > 0 else bound - under)
    top = sum(w * x for w, x in zip(v, sorted(key, reverse=True), strict=False))
    if infeasible:
        return Exact(ok and top + stated < 0, top + stated)
    objective = sum(x * e for x, e in zip(u, exposure, strict=True))
    cut = float(np.sort(instance.scores)[-m])
    loss = Fraction(cut) - objective / total
    allowed = (
        Fraction(1, 10**9) * max(Fraction(size_about(instance.scores, cut, m)), loss) * total
        + 2 * _ROUNDING * max(abs(Fraction(cut)), abs(loss)) * total
    )
    steep = sum(
        abs(price) * Fraction(size_about(raw, (high if price > 0 else low) / float(total), m))
        for raw, price, low, high in zip(
            instance.rows, multipliers, instance.lower.tolist(), instance.upper.tolist(), strict=True
        )
        if price
    )
    size = max(Fraction(size_about(instance.scores, cut, m)), loss)
    allowed = max(allowed, min(steep * total / 2**52, Fraction(1, 10**7) * size * total))
    gap = top + (moved if within else stated) - objective - hidden
    if certificate.status is Status.OPTIMAL:
        ok = ok and within and gap <= allowed * Fraction(1000001, 1000000)
    bound = top + (moved if within else stated)
    return Exact(ok, bound, objective, allowed + hidden, tuple(lower), tuple(upper))


def right(status: Status, exact: Exact, instance: Instance) -> bool:
    """Whether the rational simplex says what ours says, about the bounds that our lottery keeps."""
    if status is Status.INFEASIBLE:
        return exact_optimum(*vars(instance).values()) is None
    optimum = exact_optimum(instance.scores, instance.rows, exact.lower, exact.upper, instance.slot_weights)
    return optimum is not None and optimum - exact.objective <= exact.allowed * Fraction(1000001, 1000000)


def highs(instance: Instance) -> tuple[str, float]:
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(_model({name: np.asarray(value) for name, value in vars(instance).items()}))
    solver.run()
    return solver.modelStatusToString(solver.getModelStatus()), solver.getInfo().objective_function_value


class Peer:
    """HiGHS in a process of its own."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1)

    def __call__(self, instance: Instance) -> tuple[str, float]:
        try:
            return self.pool.submit(highs, instance).result()
        except BrokenProcessPool:
            self.pool = ProcessPoolExecutor(1)
            return "crashed", float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=50_000, help="instances, over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["tidy", *UNTIDY], help="only this one")
    parser.add_argument("--no-highs", action="store_true", help="exact arithmetic alone")
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else ["tidy", *UNTIDY]
    edges = np.linspace(0, options.draws, len(kinds) + 1).astype(int)
    print(f"{'kind':20} {'draws':>6} {'OPT':>6} {'INF':>6} {'NUM':>4} {'LIM':>4} {'unproven':>8} {'refused':>8} "
          f"{'false bd':>8} {'HiGHS otherwise':>16} {'ours wrong':>10} {'slow ms':>8}")  # fmt: skip
    wrong = 0
    peer = Peer()
    for kind, (first, end) in zip(kinds, pairwise(edges.tolist()), strict=True):
        tally: Counter[str] = Counter()
        slowest = 0.0
        for draw in range(end - first):
            seed = options.seed * 1_000_003 + draw
            instance = awkward(seed) if kind == "tidy" else untidy(kind, seed)
            K, n = instance.rows.shape
            workspace = Workspace(n, instance.slot_weights.size, K)
            tol = 1e-6 if kind == "float32 shares" else 1e-9
            start = time.process_time()
            status = solve_arrays(*vars(instance).values(), workspace, feasibility_tol=tol)
            slowest = max(slowest, time.process_time() - start)
            certificate = workspace.certificate(status)
            tally[status.name] += 1
            exact = evaluate(certificate, instance, tol)
            check = verify_arrays(certificate, *vars(instance).values(), feasibility_tol=tol)
            problems = []
            if not exact.proven:
                problems.append("unproven")
            if not check.holds:
                problems.append("refused")
            if status is not Status.INFEASIBLE:
                cut = float(np.sort(instance.scores)[-instance.slot_weights.size])
                unit = size_about(instance.scores, cut, instance.slot_weights.size)
                blur = 1e-9 * unit + 1e-14 * float(np.abs(instance.scores[certificate.rankings]).max())
                if Fraction(workspace.bound) < exact.bound - Fraction(blur * instance.slot_weights.sum()):
                    problems.append("false bound")
            if not options.no_highs:
                said, value = peer(instance)
                name = {"Optimal": "OPTIMAL", "Infeasible": "INFEASIBLE"}.get(said, said)
                far = abs(value - workspace.objective) > 1e-6 * max(1.0, abs(value))
                if name != status.name or (status is Status.OPTIMAL and far):
                    tally["highs"] += 1
                    if not right(status, exact, instance):
                        problems.append("wrong")
            if problems or status.name in ("NUMERICAL", "LIMIT"):
                print("   ", kind, seed, status.name, problems, file=sys.stderr)
            tally.update(problems)
        wrong += sum(tally[problem] for problem in ("unproven", "refused", "false bound", "wrong", "LIMIT"))
        print(f"{kind:20} {end - first:6} {tally['OPTIMAL']:6} {tally['INFEASIBLE']:6} {tally['NUMERICAL']:4} "
              f"{tally['LIMIT']:4} {tally['unproven']:8} {tally['refused']:8} {tally['false bound']:8} "
              f"{tally['highs']:16} {tally['wrong']:10} {slowest * 1e3:8.0f}", flush=True)  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
