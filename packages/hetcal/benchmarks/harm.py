"""Does calibration harm? Random small problems of the kinds that deployments have, judged on fresh rows.

    uv run python packages/hetcal/benchmarks/harm.py --draws 500

A draw has 50 to 1,000 independent rows, features of which the labels know something or nothing, and a base model that
is exact (the logits are the posterior's), distorted (level and slope off) or blind (it misses a feature). Kinds:

    plain       nothing else
    copies      every row 2 to 10 times
    users       20 rows a user with a random effect, groups= given
    ids         a text column with a value a row
    weights     uneven weights that sum to 1
    time        TimeSeriesSplit, level drifting slowly
    rare        1.5 % positives

Printed by kind: harm in AUC beyond .005, log-loss beyond Platt's + .002 (global Platt of this package, and by maximum
likelihood), worst cases, what an exact base loses, and the claimed lift beside that on fresh rows.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from hetcal import HeterogeneousCalibrator
from hetcal.links import logistic_loss, sigmoid
from hetcal.theory import auc_lift, roc_auc
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TimeSeriesSplit

KINDS = ("plain", "copies", "users", "ids", "weights", "time", "rare")
BASES = ("exact", "distorted", "blind")
SIZES = (50, 100, 150, 250, 500, 1000)
FRESH = 20_000


def rows(rng, n, kind, base, truth, first=0.0):
    """Features, base logits and labels of n independent rows (or users)."""
    users = kind == "users"
    X = rng.normal(size=(n, 4))
    X[:, 3] = rng.integers(0, 4, n)
    effect = rng.normal(size=n) * 0.8 if users else np.zeros(n)
    who = np.repeat(np.arange(n), 20) if users else np.arange(n)
    X, effect = X[who], effect[who]
    known = rng.normal(size=who.size) * 1.3
    hidden = truth["step"] * np.sign(X[:, 0]) + truth["bump"] * (X[:, 3] == 2) if base == "blind" else 0.0
    level = -5.0 if kind == "rare" else -0.4
    eta = level + known + hidden
    y = (rng.random(who.size) < sigmoid(eta + effect)).astype(float)
    z = level + known
    if base == "exact" and users:
        z = z / np.sqrt(1 + 0.346 * 0.64)  # the posterior without the user's effect, nearly
    if base == "distorted":
        z = truth["a"] + truth["b"] * z
    return pd.DataFrame(X, columns=list("abcd")), z, y, who


def draw(number: int) -> dict[str, object]:
    rng = np.random.default_rng(number)
    kind, base = KINDS[number % len(KINDS)], BASES[number // len(KINDS) % len(BASES)]
    n = int(rng.choice(SIZES))
    truth = {"step": rng.uniform(0, 1.2), "bump": rng.uniform(0, 1.5), "a": rng.normal() * 0.5}
    truth["b"] = float(np.exp(rng.normal() * 0.4))
    table, z, y, who = rows(rng, max(n // 20, 5) if kind == "users" else n, kind, base, truth)
    while y.min() == y.max():
        table, z, y, who = rows(rng, max(n // 20, 5) if kind == "users" else n, kind, base, truth)
    fresh, fresh_z, fresh_y, _ = rows(rng, FRESH // 20 if kind == "users" else FRESH, kind, base, truth)
    options, given = {}, {}
    if kind == "copies":
        times = int(rng.integers(2, 11))
        order = rng.permutation(np.repeat(np.arange(y.size), times))
        table, z, y = table.iloc[order].reset_index(drop=True), z[order], y[order]
    elif kind == "users":
        given["groups"] = who
    elif kind == "ids":
        table["id"] = [f"u{v}" for v in rng.permutation(y.size)]
        fresh["id"] = [f"v{v}" for v in range(len(fresh))]
    elif kind == "weights":
        weight = rng.gamma(1.0, size=y.size) + 0.05
        given["sample_weight"] = weight / weight.sum()
    elif kind == "time":
        options["cv"] = TimeSeriesSplit(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HeterogeneousCalibrator(threads=1, **options).fit(table, y, logits=z, **given)
        platt = HeterogeneousCalibrator("global").fit(table, y, logits=z, **given)
        after = model.decision_function(fresh, logits=fresh_z)
        reference = platt.decision_function(fresh, logits=fresh_z)
    ml = LogisticRegression(C=np.inf).fit(z[:, None], y, sample_weight=given.get("sample_weight"))
    likely = ml.decision_function(fresh_z[:, None])
    loss = {
        name: float(logistic_loss(fresh_y, f).mean())
        for name, f in {"ours": after, "platt": reference, "ml": likely, "raw": fresh_z}.items()
    }
    lift = auc_lift(fresh_y, fresh_z, after)
    return {
        "draw": number, "kind": kind, "base": base, "n": n, "chosen": model.selection_.chosen,
        "auc": roc_auc(fresh_y, after) - roc_auc(fresh_y, fresh_z), "excess_raw": loss["ours"] - loss["raw"],
        "excess_platt": loss["ours"] - loss["platt"], "excess_ml": loss["ours"] - loss["ml"],
        "claimed": model.selection_.lift, "error": lift.standard_error,
    }  # fmt: skip


def show(table: pd.DataFrame) -> None:
    print("kind       base       draws moved  AUC<raw-.005 worst AUC  >Platt+.002  worst   >ML+.002  worst")
    for (kind, base), part in table.groupby(["kind", "base"], sort=False):
        print(line(f"{kind:10s} {base:9s}", part))
    print(line(f"{'all':20s}", table))
    exact = table[table["base"] == "exact"]
    print("\nexact base, mean log-loss above raw:")
    for low, high in ((50, 50), (100, 150), (250, 250), (500, 1000), (250, 1000)):
        part = exact[exact["n"].between(low, high)]
        print(f"  n {low:4d}..{high:4d}: {part['excess_raw'].mean():+.5f} (worst {part['excess_raw'].max():+.4f}, "
              f"{len(part)} draws)")  # fmt: skip
    print("\nclaimed lift minus fresh lift, mean (s.e. over draws):")
    for name, part in [*table.groupby("kind", sort=False), ("all", table), ("moved", moved(table))]:
        difference = (part["claimed"] - part["auc"]).dropna()
        error = difference.std() / max(len(difference), 1) ** 0.5
        print(f"  {name:8s} {difference.mean():+.5f} ({error:.5f})")


def moved(part: pd.DataFrame) -> pd.DataFrame:
    return part[~part["chosen"].isin(["identity", "global"])]


def line(name: str, part: pd.DataFrame) -> str:
    return (
        f"{name} {len(part):5d} {len(moved(part)):5d} {(part['auc'] < -0.005).sum():12d} {part['auc'].min():+10.4f} "
        f"{(part['excess_platt'] > 0.002).sum():12d} {part['excess_platt'].max():+8.4f} "
        f"{(part['excess_ml'] > 0.002).sum():9d} {part['excess_ml'].max():+8.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw, which is its seed")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = [draw(number) for number in range(arguments.first, arguments.first + arguments.draws)]
    show(pd.DataFrame(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
