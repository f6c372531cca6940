"""Is every point of a scan at its lowest minimum, whatever the chunks?

Random points of README's scan and of scans of any two of the nine eta (both orderings, eta up to +-.03: past the
resonance) are fitted by ``Fit.best`` and by 20 minimisations from random starts (`Fit.minimise`, which knows nothing of
the search). A point fails where a random start ends more than .01 lower. Ordinary fits are held to the same, with one
to five free parameters: of the four, theta23, delta_cp, the lightest mass and an eta. Then random points are scanned
with chunks of 1, 7, 20 and 400 and with one and two workers: all rows must be equal bit for bit.

    uv run packages/nu-physics/benchmarks/scan_trust.py --points 500 [--only readme_point] [--seed 1]
"""

import argparse
import time

import numpy as np
from nu_physics import OscillationParameters, ScalarNSI, ScanJob, juno, run_scan
from nu_physics.oscillation.probability import SURVIVAL_PARAMETERS
from nu_physics.statistics.analysis import global_fit_priors
from nu_physics.statistics.fit import OSCILLATION, Fit, with_values

ETAS = [name for name in SURVIVAL_PARAMETERS if name.startswith("eta_")]
RANDOM_STARTS, ALLOWED = 20, 0.01


def readme_point(draw):
    """One of the 400 points of README's scan on 20 x 20."""
    values = {
        "eta_ee": draw.choice(np.linspace(-0.03, 0.03, 20)),
        "m_lightest_eV": draw.choice(np.linspace(0, 0.05, 20)),
    }
    return OscillationParameters(), {name: float(value) for name, value in values.items()}, "prior", OSCILLATION


def eta_point(draw):
    """Two of the nine eta, any ordering, lightest mass, phase and regime."""
    truth = OscillationParameters(
        m_lightest_eV=float(draw.uniform(0, 0.05)), delta_cp=float(draw.uniform(0, 2 * np.pi))
    )
    truth = truth.with_ordering(str(draw.choice(["normal", "inverted"])))
    names = draw.choice(ETAS, 2, replace=False)
    values = {str(name): float(draw.uniform(-0.03, 0.03)) for name in names}
    return truth, values, str(draw.choice(["prior", "free"])), OSCILLATION


def ordinary_point(draw):
    """As two eta, with one to five free parameters."""
    truth, values, regime, _ = eta_point(draw)
    pool = [*OSCILLATION, "sin2_theta23", "delta_cp", "m_lightest_eV", str(draw.choice(ETAS))]
    return truth, values, regime, tuple(str(name) for name in draw.choice(pool, draw.integers(1, 6), replace=False))


RANGES = {
    "sin2_theta12": (0.02, 0.98),
    "sin2_theta13": (0.005, 0.06),
    "sin2_theta23": (0.02, 0.98),
    "delta_cp": (0.0, 2 * np.pi),
    "m_lightest_eV": (0.0, 0.05),
}


def random_start(draw, point, snsi, free):
    """Anywhere: both signs, both octants, any wrap."""
    if "dm31_eV2" in free:
        point = point.with_ordering(str(draw.choice(["normal", "inverted"])))
    values = {name: float(draw.uniform(*RANGES.get(name, (-0.03, 0.03)))) for name in free}
    if "dm21_eV2" in free:
        values["dm21_eV2"] = float(10 ** draw.uniform(-5, -3.6))
    if "dm31_eV2" in free:
        values["dm31_eV2"] = point.dm31_eV2 * float(draw.uniform(0.96, 1.04))
    return with_values(point, snsi, values)


def lowest(kind, count, seed):
    """Count the points at which a random start ends lower."""
    experiment, wrong, beaten, seconds = juno(), 0, 0, 0.0
    for k in range(count):
        draw = np.random.default_rng([seed, k])
        truth, values, regime, free = kind(draw)
        priors = global_fit_priors(truth) if regime == "prior" else {}
        fit = Fit(experiment, experiment.expected(truth), truth, priors=priors)
        start, snsi = with_values(truth, ScalarNSI(scale=float(np.sqrt(abs(truth.dm31_eV2)))), values)
        began = time.process_time()
        ours = fit.best(start, snsi, free=free, tolerance=1e-5).chi2
        seconds += time.process_time() - began
        points = [random_start(draw, start, snsi, free) for _ in range(RANDOM_STARTS)]
        theirs = min(fit.minimise(*point, free=free, tolerance=1e-5).chi2 for point in points)
        if theirs < ours - ALLOWED:
            wrong += 1
            print(
                f"  seed ({seed}, {k}): {ours:.3f}, a random start {theirs:.3f}: {values}, {truth.ordering}, {regime}, "
                f"{free}",
                flush=True,
            )
        beaten += ours < theirs - ALLOWED
        if (k + 1) % 50 == 0 or k + 1 == count:
            print(
                f"{kind.__name__}, seed {seed}: {wrong} of {k + 1} points above the best of {RANDOM_STARTS} random "
                f"starts by > {ALLOWED}; {beaten} below it by as much; {1e3 * seconds / (k + 1):.0f} CPU ms a point",
                flush=True,
            )


def chunks(points, seed):
    """Count the points that change with chunk or workers."""
    draw = np.random.default_rng(seed)
    grid = {
        "eta_ee": sorted(draw.uniform(-0.03, 0.03, 20)),
        "m_lightest_eV": sorted(draw.uniform(0, 0.05, points // 20)),
    }
    tables = [run_scan(ScanJob(grid=grid, regime="prior", chunk=size)) for size in (1, 7, 20, 400)]
    job = ScanJob(grid=grid, regime="prior", chunk=20)
    tables += [run_scan(job, executor="processes", workers=workers) for workers in (1, 2)]
    changed = np.zeros(len(tables[0].rows), dtype=bool)
    for table in tables[1:]:
        changed |= (table.rows != tables[0].rows).any(axis=1)
    print(f"chunks 1, 7, 20, 400, workers 1, 2: {changed.sum()} of {changed.size} points change")


KINDS = {kind.__name__: kind for kind in (readme_point, eta_point, ordinary_point)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*KINDS, "chunks"], action="append")
    arguments = parser.parse_args()
    only = arguments.only or [*KINDS, "chunks"]
    for name, kind in KINDS.items():
        if name in only:
            lowest(kind, arguments.points, arguments.seed)
    if "chunks" in only:
        chunks(arguments.points, arguments.seed)


if __name__ == "__main__":
    main()
