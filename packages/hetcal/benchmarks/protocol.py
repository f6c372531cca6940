"""The protocol that every method of the benchmark shares: data, splits, base models and the cells on disk.

A *cell* is one (data set, base model, seed): a folder with ``cal.parquet`` and ``test.parquet`` that hold the
features, the label ``__y`` and the base model's logit ``__z``. Rows are split 60/20/20 at random within the
classes into train, calibration and test; the base model sees only the train part, every post-hoc method only
the calibration part. Cells are written once and shared, so each method gets identical logits.

Base models: ``mlp``, a scikit-learn MLP of (128, 64) units without regularisation after 20 epochs, which is
overfitted on purpose; ``gbdt``, a LightGBM stopped early on an inner tenth of train, which is not.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from papershelf_core import datasets

DATASETS = ("bank", "credit", "adult", "flights")
UNSEEN = ("higgs", "randhie")  # played no part in the design of the defaults
FLIGHT_COLUMNS = ["month", "day", "sched_dep_time", "sched_arr_time", "flight", "carrier", "origin", "dest", "distance"]


def load(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Features (text columns as pandas categories) and the 0/1 label of one data set."""
    if name == "randhie":  # RAND health insurance experiment: did the person see a doctor that year?
        from statsmodels.datasets import randhie

        table = randhie.load_pandas().data.astype(float)
        return table, (table.pop("mdvis") > 0).to_numpy(int)
    if name == "flights":  # arrival more than 15 minutes late, from the schedule alone
        table = pd.read_parquet(datasets.path("flights", "nycflights13.parquet")).dropna(subset=["arr_delay"])
        table = table.sample(80_000, random_state=0).reset_index(drop=True)
        y = (table["arr_delay"] > 15).to_numpy(int)
        table = table[FLIGHT_COLUMNS].copy()
    else:
        data = datasets.load(name, split="all")
        table, y = data.X, np.asarray(data.y)
    for column in table:
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            table[column] = pd.Categorical(table[column].astype(object).fillna("?"))
        else:
            table[column] = table[column].astype(float)
    return table, y


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    rows = np.arange(y.size)
    train, rest = train_test_split(rows, test_size=0.4, random_state=seed, stratify=y)
    cal, test = train_test_split(rest, test_size=0.5, random_state=seed, stratify=y[rest])
    return np.sort(train), np.sort(cal), np.sort(test)


def mlp(table: pd.DataFrame, seed: int):
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encode = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_include="category")),
    )
    net = MLPClassifier((128, 64), alpha=0.0, max_iter=20, random_state=seed)
    return make_pipeline(encode, net)


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return np.log(p) - np.log1p(-p)


def base_logits(base: str, table: pd.DataFrame, y: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Logits of the base model on every row, fitted on ``train`` alone."""
    if base == "mlp":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = mlp(table, seed).fit(table.iloc[train], y[train])
            return logit(model.predict_proba(table)[:, 1])
    import lightgbm as lgb

    rng = np.random.default_rng(seed)
    inner = rng.permutation(train)
    stop, fit = inner[: len(inner) // 10], inner[len(inner) // 10 :]
    data = lgb.Dataset(table.iloc[fit], y[fit])
    valid = lgb.Dataset(table.iloc[stop], y[stop], reference=data)
    parameters = {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_child_samples": 50,
        "feature_fraction": 0.7,
        "lambda_l2": 1.0,
        "num_threads": 1,
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
    }
    booster = lgb.train(parameters, data, 1000, valid_sets=[valid], callbacks=[lgb.early_stopping(30, verbose=False)])
    return np.asarray(booster.predict(table, raw_score=True))


def cell_folder(cache: Path, dataset: str, base: str, seed: int) -> Path:
    return cache / f"{dataset}-{base}-{seed}"


def make_cell(cache: Path, dataset: str, base: str, seed: int) -> Path:
    """Write the cell if it is not there yet; returns its folder."""
    folder = cell_folder(cache, dataset, base, seed)
    if (folder / "test.parquet").exists():
        return folder
    table, y = load(dataset)
    train, cal, test = split(y, seed)
    z = base_logits(base, table, y, train, seed)
    folder.mkdir(parents=True, exist_ok=True)
    whole = table.assign(__y=y, __z=z)
    for part, rows in (("cal", cal), ("test", test)):
        temporary = folder / f"{part}.tmp"
        whole.iloc[rows].reset_index(drop=True).to_parquet(temporary)
        temporary.rename(folder / f"{part}.parquet")
    return folder
