"""Run the benchmark and print its tables: ``uv run python packages/hetcal/benchmarks/run.py --cache DIR``.

Each cell and each method's result is kept in DIR, so that a run resumes. ``--times`` measures again, alternating
the methods on each cell, one process at a time on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import protocol
from papershelf_core import files, metrics

HERE = Path(__file__).parent
PEERS = {name: HERE / f"peer_{name}.py" for name in ("mcgrad", "lightgbm", "catboost")}
REFITS = ("init8", "init31", "stack8", "stack31", "xonly8", "xonly31", "cat_feature", "cat_stack")


def command(script: Path, python: str | None) -> list[str]:
    """A peer runs in its own environment, or in a ready one whose interpreter is given."""
    return [python, str(script)] if python else ["uv", "run", "--no-project", "--script", str(script)]


def execute(argv: list[str], lock: str | None) -> None:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    prefix = [lock] if lock else []
    subprocess.run([*prefix, *argv], check=True, env={**os.environ, **threads, "PYTHONWARNINGS": "ignore"})


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    return float(-np.mean(np.where(y == 1, np.log(p), np.log1p(-p))))


def chance_ece(p: np.ndarray, draws: int = 20) -> float:
    """What ECE shows on so many rows when p is exactly right."""
    rng = np.random.default_rng(0)
    return float(np.mean([metrics.ece((rng.random(p.size) < p).astype(int), p) for _ in range(draws)]))


def score(cell: Path, files: list[str]) -> list[dict[str, object]]:
    test = pd.read_parquet(cell / "test.parquet", columns=["__y", "__z"])
    y, z = test["__y"].to_numpy(), test["__z"].to_numpy()
    dataset, base, seed = cell.name.rsplit("-", 2)
    raw = metrics.roc_auc(y, z)
    p = 1 / (1 + np.exp(-np.clip(z, -15, 15)))
    rows = [
        {
            "dataset": dataset,
            "base": base,
            "seed": int(seed),
            "method": "raw",
            "auc": raw,
            "lift": 0.0,
            "log_loss": log_loss(y, p),
            "ece": metrics.ece(y, p),
            "noise": chance_ece(p),
            "fit_s": 0.0,
            "predict_s": 0.0,
        }
    ]
    for file in files:
        if not (cell / f"{file}.npz").exists():
            continue
        data = np.load(cell / f"{file}.npz")
        for key in data.files:
            if not key.startswith("p_"):
                continue
            name, p = key[2:], np.clip(data[key], 1e-15, 1 - 1e-15)
            auc = metrics.roc_auc(y, p)
            fit_s, predict_s = data[f"t_{name}"]
            rows.append(
                {
                    "dataset": dataset,
                    "base": base,
                    "seed": int(seed),
                    "method": name,
                    "auc": auc,
                    "lift": auc - raw,
                    "log_loss": log_loss(y, p),
                    "ece": metrics.ece(y, p),
                    "noise": chance_ece(p),
                    "fit_s": float(fit_s),
                    "predict_s": float(predict_s),
                    "chosen": str(data[f"c_{name}"]) if f"c_{name}" in data else "",
                }
            )
    return rows


def show(rows: pd.DataFrame) -> None:
    for (base, dataset), part in rows.groupby(["base", "dataset"], sort=False):
        wide = part.pivot(index="seed", columns="method", values="lift")
        table = part.groupby("method", sort=False)[["lift", "log_loss", "ece", "noise", "fit_s", "predict_s"]].mean()
        table.insert(1, "sd", part.groupby("method", sort=False)["lift"].std())
        raw = part.loc[part["method"] == "raw", "auc"].mean()
        print(f"\n## {dataset}, base {base}: {wide.shape[0]} seeds, raw AUC {raw:.4f}")
        print(
            table.round(
                {"lift": 4, "sd": 4, "log_loss": 4, "ece": 4, "noise": 4, "fit_s": 3, "predict_s": 4}
            ).to_string()
        )


def show_shares(rows: pd.DataFrame) -> None:
    """How much of the gap from Platt to the best refit on the calibration rows is closed, in log-loss and in AUC."""
    methods = [m for m in ("auto", "high", "mcgrad", *REFITS) if m in set(rows["method"])]
    for base, part in rows.groupby("base", sort=False):
        means = part.groupby(["method", "dataset"], sort=False)[["log_loss", "lift"]].mean().unstack()
        refits = means.loc[[m for m in REFITS if m in means.index]]
        print(f"\n## share of the gap to the best refit that is closed, base {base}: log-loss, (AUC)")
        for method in methods:
            cells = []
            for dataset in part["dataset"].unique():
                platt, own = means.loc["platt", ("log_loss", dataset)], means.loc[method]
                loss = (platt - own["log_loss", dataset]) / (platt - refits["log_loss", dataset].min())
                lift = own["lift", dataset] / refits["lift", dataset].max()
                cells.append(f"{dataset} {loss:4.0%} ({lift:4.0%})")
            print(f"{method:12s} " + " | ".join(cells))


def show_times(rows: pd.DataFrame) -> None:
    """Medians over seeds of CPU seconds to fit and milliseconds to predict, and their ratios to MCGrad's."""
    for base, part in rows.groupby("base", sort=False):
        medians = part.groupby(["method", "dataset"], sort=False)[["fit_s", "predict_s"]].median()
        print(f"\n## times, base {base}: fit s, predict ms (MCGrad's divided by these)")
        for method in [
            m for m in ("auto", "high", "bag", "tree", "mcgrad", "stack8", "cat_stack") if m in medians.index
        ]:
            cells = []
            for dataset in part["dataset"].unique():
                own, peer = medians.loc[(method, dataset)], medians.loc[("mcgrad", dataset)]
                ratio = peer / own
                cells.append(
                    f"{dataset} {own['fit_s']:.3f}, {1e3 * own['predict_s']:.2f} "
                    f"({ratio['fit_s']:.2f}, {ratio['predict_s']:.2f})"
                )
            print(f"{method:8s} " + " | ".join(cells))
        share = [
            medians.loc[("auto", d), "fit_s"] / medians.loc[("mcgrad", d), "fit_s"] for d in part["dataset"].unique()
        ]
        print(f"fit of the default / MCGrad's: mean of the sets {np.mean(share):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("out/hetcal-bench"))
    parser.add_argument("--datasets", nargs="+", default=[*protocol.DATASETS, "higgs"])
    parser.add_argument("--base", default="mlp", choices=["mlp", "gbdt"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--times", action="store_true", help="measure all methods again, alternating")
    parser.add_argument("--ways", nargs="+", default=["platt", "auto", "tree", "bag"], help="also: high")
    parser.add_argument("--redo-ours", action="store_true")
    parser.add_argument("--mcgrad-python", help="interpreter of an environment that has mcgrad")
    parser.add_argument("--catboost-python", help="interpreter of an environment that has catboost")
    parser.add_argument("--lock", help="program to run every measured command under")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    interpreters = {
        "mcgrad": arguments.mcgrad_python,
        "lightgbm": sys.executable,
        "catboost": arguments.catboost_python,
    }
    rows = []
    for dataset in arguments.datasets:
        for seed in arguments.seeds:
            cell = protocol.make_cell(arguments.cache, dataset, arguments.base, seed)
            for name, script in PEERS.items():
                if arguments.times or not (cell / f"{name}.npz").exists():
                    execute(
                        [*command(script, interpreters[name]), str(cell), str(cell / f"{name}.npz")], arguments.lock
                    )
            if arguments.times or arguments.redo_ours or not (cell / "ours.npz").exists():
                ours = [sys.executable, str(HERE / "ours.py"), str(cell), str(cell / "ours.npz")]
                execute([*ours, "--ways", *arguments.ways], arguments.lock)
            rows += score(cell, [*PEERS, "ours"])
    show(pd.DataFrame(rows))
    show_shares(pd.DataFrame(rows))
    show_times(pd.DataFrame(rows))
    if arguments.json:
        from importlib.metadata import version

        machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
        versions = {name: version(name) for name in ("hetcal", "lightgbm", "scikit-learn", "numpy")}
        files.write_text(arguments.json, json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
