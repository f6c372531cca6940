# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = ["cylp>=0.92", "highspy>=1.10", "fastlp-rank", "papershelf-core", "scipy>=1.11"]
#
# [tool.uv.sources]
# fastlp-rank = { path = "..", editable = true }
# papershelf-core = { path = "../../papershelf-core", editable = true }
# ///
"""Bounds on prefixes: ours against CLP and HiGHS on three forms of the same problem, in turns in one process.

    uv run --no-project --script packages/fastlp-rank/benchmarks/prefixes.py [--sizes 200x20x4x9] [--seeds 20]

A size is items x slots x groups x bounds. The forms: all n·m assignments; those of the m best items of each group;
the flow with a variable for every group and slot and for every item of its count (which ours is a method for).
CPU seconds of one thread; ours from arrays to the ranking with its proof, median of its rounds, and the public call
on a built problem; a peer is timed on solving alone and the best of its rounds counts. Ratios are taken by instance.
"""

import argparse
from pathlib import Path

import numpy as np
import peer_clp
import peer_highs
from fair import cpu, finish
from fastlp_rank import PrefixCount, PrefixProblem, SlotWeights, rank_prefixes
from fastlp_rank.prefixes import flow
from full_lp import LP
from scipy import sparse

SIZES = ("100x10x3x3", "200x20x4x9", "500x50x5x17", "1000x100x8x40")
PEERS = {
    "CLP dual": lambda lp: peer_clp.prepare(lp, "dual"),
    "CLP primal": lambda lp: peer_clp.prepare(lp, "primal"),
    "HiGHS no presolve": lambda lp: peer_highs.prepare(lp, {"presolve": "off"}),
    "HiGHS default": lambda lp: peer_highs.prepare(lp, {}),
}
LARGEST_FULL = 12_000


def draw(n: int, m: int, groups: int, bounds: int, seed: int) -> PrefixProblem:
    """One group scores higher; bounds ask for shares of the population, rounded towards what is easier."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    wanted = []
    for k in range(bounds):
        g, first = int(rng.integers(0, groups)), int(rng.integers(2, m + 1))
        share = first * float((group == g).mean())
        side = {"at_least": int(share)} if rng.random() < 0.5 else {"at_most": int(np.ceil(share))}
        wanted.append(PrefixCount(g, first, **side, name=str(k)))
    return PrefixProblem(rng.normal(size=n) + (group == 0), SlotWeights.dcg(m), group, wanted, known=range(groups))


def _lp(cost: np.ndarray, rows: sparse.csc_matrix, low: np.ndarray, high: np.ndarray, most: np.ndarray) -> LP:
    rows.sort_indices()
    start, index = rows.indptr.astype(np.int32), rows.indices.astype(np.int32)
    return LP(cost, start, index, rows.data.astype(float), low, high, most)


def assignment(problem: PrefixProblem, kept: np.ndarray) -> LP:
    """Slots, items and stated prefix bounds over the assignments of the items kept."""
    m, n = problem.slots.m, kept.size
    item, slot = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    group = problem.group[kept][item]
    stated = np.argwhere((problem.lower > 0) | (problem.upper < m))
    prefix = [sparse.csr_matrix((group == g) & (slot <= j)) for g, j in stated]
    one = np.ones(n * m)
    cells = np.arange(n * m)
    slots, items = sparse.csr_matrix((one, (slot, cells))), sparse.csr_matrix((one, (item, cells)))
    bounds = stated.T if stated.size else (np.empty(0, int), np.empty(0, int))
    return _lp(
        problem.scores[kept][item] * problem.slots.values[slot],
        sparse.vstack([slots, items, *prefix]).astype(float).tocsc(),
        np.concatenate([np.ones(m), np.zeros(n), problem.lower[tuple(bounds)]]),
        np.concatenate([np.ones(m), np.ones(n), problem.upper[tuple(bounds)]]),
        np.full(n * m, np.inf),
    )


def as_flow(problem: PrefixProblem, item: np.ndarray, size: np.ndarray) -> LP:
    """Which group fills a slot, and which of the group's items every prefix holds."""
    G, m = problem.lower.shape
    v = problem.slots.values
    w = v - np.append(v[1:], 0.0)
    which = [(g, j, c) for g in range(G) for j in range(m) for c in range(min(size[g], j + 1))]
    pieces = np.array(which)
    fill = np.arange(G * m).reshape(G, m)
    piece = G * m + np.arange(len(pieces))
    row, column, value = [], [], []
    for j in range(m):  # slot j is filled once
        row += [j] * G
        column += fill[:, j].tolist()
        value += [1.0] * G
    chain = m + fill  # N_gj - N_g,j-1 - y_gj = 0
    row += chain.ravel().tolist()
    column += fill.ravel().tolist()
    value += [-1.0] * (G * m)
    for k, (g, j, _) in enumerate(which):
        row.append(int(chain[g, j]))
        column.append(int(piece[k]))
        value.append(1.0)
        if j + 1 < m:
            row.append(int(chain[g, j + 1]))
            column.append(int(piece[k]))
            value.append(-1.0)
    stated = np.argwhere((problem.lower > 0) | (problem.upper < m))
    for r, (g, j) in enumerate(stated):
        own = piece[(pieces[:, 0] == g) & (pieces[:, 1] == j)]
        row += [m + G * m + r] * own.size
        column += own.tolist()
        value += [1.0] * own.size
    shape = (m + G * m + len(stated), G * m + len(pieces))
    cost = np.zeros(shape[1])
    cost[piece] = w[pieces[:, 1]] * problem.scores[item[pieces[:, 0], pieces[:, 2]]]
    low, high = (table[tuple(stated.T)].astype(float) for table in (problem.lower, problem.upper))
    equal = np.concatenate([np.ones(m), np.zeros(G * m)])
    rows = sparse.csc_matrix((value, (row, column)), shape=shape)
    return _lp(cost, rows, np.concatenate([equal, low]), np.concatenate([equal, high]), np.ones(shape[1]))


def core(problem: PrefixProblem) -> None:
    G, m = problem.lower.shape
    v = problem.slots.values
    choice, ranking, count = np.zeros(m, np.int64), np.zeros(m, np.int64), np.zeros((G, m), np.int64)
    lower, upper, potential = problem.lower.copy(), problem.upper.copy(), np.zeros(G * m + 1)
    w = v - np.append(v[1:], 0.0)
    args = choice, count, potential, ranking
    flow.rank(problem.scores, problem.group, w, lower, upper, 2.0**-50, 16 * potential.size, *args)


def measure(size: str, seeds: int, rounds: int) -> dict:
    n, m, groups, bounds = (int(part) for part in size.split("x"))
    problems, seed = [], 0
    while len(problems) < seeds:  # contradicting bounds are another matter
        problem = draw(n, m, groups, bounds, seed)
        if rank_prefixes(problem).status == 0:
            problems.append(problem)
        seed += 1
    lps: list[dict[str, LP]] = []
    for problem in problems:
        item, held = flow.best_of_groups(problem.scores, problem.group, groups, m)
        best = np.sort(np.concatenate([item[g, : held[g]] for g in range(groups)]))
        forms = {"m best a group": assignment(problem, best), "flow": as_flow(problem, item, held)}
        if n * m <= LARGEST_FULL:
            forms["all"] = assignment(problem, np.arange(n))
        lps.append(forms)
    ours, public = np.empty((rounds, seeds)), np.empty((rounds, seeds))
    peers = {f"{name}, {form}": np.full(seeds, np.inf) for form in lps[0] for name in PEERS}
    worst = dict.fromkeys(peers, 0.0)
    for r in range(rounds):
        for i, problem in enumerate(problems):
            core(problem)
            ours[r, i] = cpu(lambda p=problem: [core(p) for _ in range(20)]) / 20
            public[r, i] = cpu(lambda p=problem: [rank_prefixes(p) for _ in range(5)]) / 5
        for form in lps[0]:
            for name, prepare in PEERS.items():
                label = f"{name}, {form}"
                for i, problem in enumerate(problems):
                    solve, objective = prepare(lps[i][form])
                    peers[label][i] = min(peers[label][i], cpu(solve))
                    worst[label] = max(worst[label], abs(objective() - rank_prefixes(problem).objective))
    mine = np.median(ours, axis=0)
    rows = {
        name: {
            "ms": 1e3 * float(np.median(seconds)),
            "ratio": float(np.median(seconds / mine)),
            "least_ratio": float((seconds / mine).min()),
            "objective_error": worst[name],
        }
        for name, seconds in peers.items()
    }
    return {
        "size": size,
        "seeds": seeds,
        "tried": seed,
        "ours_us": 1e6 * float(np.median(mine)),
        "ours_max_us": 1e6 * float(mine.max()),
        "public_us": 1e6 * float(np.median(public)),
        "peers": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    print("| size | solver and form | ms | times ours: median | least | largest difference |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for size in options.sizes:
        result = measure(size, options.seeds, options.rounds)
        found.append(result)
        print(f"| {size} | **ours** | {result['ours_us'] / 1e3:.4g} | 1 | | |")
        print(f"| | ours, `rank_prefixes` | {result['public_us'] / 1e3:.4g} | | | |")
        for name, row in result["peers"].items():
            print(f"| | {name} | {row['ms']:.4g} | {row['ratio']:.0f} | {row['least_ratio']:.0f} | "
                  f"{row['objective_error']:.0e} |", flush=True)  # fmt: skip
    finish(found, options.json)


if __name__ == "__main__":
    main()
