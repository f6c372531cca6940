"""Studies on MNIST: flatness and label noise under SAM and mSAM, large batches under LAWN.

Every study is a list of cells (one training run each), cached as lines of a JSON file: an interrupted study
goes on where it stopped. Settings are tuned on validation rows, whose labels are as noisy as the training rows';
test labels
are clean. Fresh seeds of the final tables never took part in tuning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papershelf_core import datasets
from torch import nn

from msam_lawn.lanczos import top_eigenvalues
from msam_lawn.torch import LAWN, SAM, HessianProduct, homogeneous_tail

__all__ = [
    "Cell",
    "Outcome",
    "Study",
    "flatness",
    "label_noise",
    "label_noise_tuned",
    "large_batch",
    "run_cells",
    "train",
]

Progress = Callable[[str], None]
VALIDATION_ROWS = 5000


@dataclass(frozen=True)
class Cell:
    """One training run.

    Attributes
    ----------
    method : str
        "base", "sam", "lawn".
    optimizer : {"sgd", "adam", "adamw"}
        The optimizer underneath; SGD has momentum .9.
    learning_rate, weight_decay, rho : float
    micro_batches : int
    free_epochs : int
        Epochs before LAWN's switch.
    rows, batch, epochs, width : int
        Training rows, batch size, epochs, units of both hidden layers.
    label_noise : float
        Part of the training and validation labels that are replaced by random ones.
    init : {"torch", "he", "small"}
        Initial weights: torch's default; normal, of variance 2 / inputs; normal, of standard deviation .02 everywhere
        (as in BERT and GPT-2). Biases are zero in the last two.
    eigenvalue : bool
        Whether to measure the Hessian's largest eigenvalue.
    seed : int
        Draws rows, noise, initial weights and order.
    """

    method: str = "base"
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    weight_decay: float = 0.0
    rho: float = 0.0
    micro_batches: int = 1
    free_epochs: int = 0
    rows: int = 1000
    batch: int = 100
    epochs: int = 30
    width: int = 64
    label_noise: float = 0.0
    init: str = "torch"
    eigenvalue: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a run ended with; accuracies in per cent, the eigenvalue of the training loss's Hessian, or None."""

    test_accuracy: float
    validation_accuracy: float
    train_loss: float
    mean_abs_logit: float
    largest_eigenvalue: float | None


@dataclass(frozen=True)
class Study:
    """Outcomes of a study, one list over seeds for each method, and the setting of each."""

    outcomes: dict[str, list[Outcome]]
    settings: dict[str, Cell]

    def mean(self, method: str, what: str = "test_accuracy") -> tuple[float, float]:
        """Mean of one figure over seeds and its standard error."""
        values = self.values(method, what)
        return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))

    def median(self, method: str, what: str = "largest_eigenvalue") -> float:
        """Median of one figure over seeds."""
        return float(np.median(self.values(method, what)))

    def difference(self, first: str, second: str, what: str = "test_accuracy") -> tuple[float, float]:
        """Mean of the paired differences over seeds and its standard error."""
        values = self.values(first, what) - self.values(second, what)
        return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))

    def values(self, method: str, what: str) -> Any:
        """One figure, one entry a seed."""
        return np.array([getattr(outcome, what) for outcome in self.outcomes[method]])


TUNING_SEEDS = (100, 101)
FRESH_SEEDS = tuple(range(1000, 1008))
_SHARPNESS = {
    "SGD": Cell(),
    "SAM": Cell(method="sam", rho=0.05),
    "mSAM, 4 micro-batches": Cell(method="sam", rho=0.05, micro_batches=4),
    "mSAM, 20 micro-batches": Cell(method="sam", rho=0.05, micro_batches=20),
}


def flatness(cache: Path | None = None, progress: Progress | None = None) -> Study:
    """MNIST-1000, 784-64-64-10, 30 epochs, batch 100, rho .05, five seeds: the largest eigenvalue and the accuracy."""
    return _over_seeds(_SHARPNESS, FRESH_SEEDS[:5], cache, progress)


def label_noise(cache: Path | None = None, progress: Progress | None = None) -> Study:
    """The same with 30 % of the training labels replaced, at one fixed rho for all."""
    noisy = {name: replace(cell, label_noise=0.3) for name, cell in _SHARPNESS.items()}
    return _over_seeds(noisy, FRESH_SEEDS[:5], cache, progress)


def label_noise_tuned(cache: Path | None = None, progress: Progress | None = None) -> Study:
    """The same with rho tuned for each method on validation rows."""
    candidates = {
        name: [
            replace(cell, label_noise=0.3, rho=rho)
            for rho in ((0.02, 0.05, 0.1, 0.2, 0.4) if cell.method == "sam" else (0.0,))
        ]
        for name, cell in _SHARPNESS.items()
    }
    return _over_seeds(_tuned(candidates, cache, progress), FRESH_SEEDS[:5], cache, progress)


RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SLOW_RATES = (1e-4, 3e-4)


def large_batch(
    *,
    label_noise: float = 0.4,
    init: str = "small",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Study:
    """MNIST-2000, batch 1000, 784-128-128-10, 150 epochs: Adam, AdamW and LAWN on Adam, each tuned on validation rows.

    Equal budgets: four learning rates, times three decays for AdamW, times three lengths of the free phase for LAWN.
    Adam without decay has the four rates, and once more with two slower ones, at which it stops before it has fitted
    the noise. All warm up over the first tenth of the steps and decay by a cosine; LAWN warms up once more at its
    switch.
    """
    setting = Cell(
        optimizer="adam",
        rows=2000,
        batch=1000,
        epochs=150,
        width=128,
        label_noise=label_noise,
        init=init,
        eigenvalue=False,
    )
    candidates = {
        "Adam": [replace(setting, learning_rate=rate) for rate in RATES],
        "Adam, slow rates too": [replace(setting, learning_rate=rate) for rate in SLOW_RATES + RATES],
        "AdamW": [
            replace(setting, optimizer="adamw", learning_rate=rate, weight_decay=decay)
            for rate in RATES
            for decay in (5.0, 10.0, 20.0)
        ],
        "LAWN on Adam": [
            replace(setting, method="lawn", learning_rate=rate, free_epochs=free)
            for rate in RATES
            for free in (1, 3, 10)
        ],
    }
    return _over_seeds(_tuned(candidates, cache, progress), FRESH_SEEDS, cache, progress)


def _tuned(candidates: dict[str, list[Cell]], cache: Path | None, progress: Progress | None) -> dict[str, Cell]:
    """For each method the cell of the best mean validation accuracy over the tuning seeds."""
    best = {}
    for name, cells in candidates.items():
        scores = [
            np.mean(
                [
                    outcome.validation_accuracy
                    for outcome in run_cells([replace(cell, seed=s) for s in TUNING_SEEDS], cache, progress)
                ]
            )
            for cell in cells
        ]
        best[name] = cells[int(np.argmax(scores))]
    return best


def _over_seeds(cells: dict[str, Cell], seeds: tuple[int, ...], cache: Path | None, progress: Progress | None) -> Study:
    outcomes = {
        name: run_cells([replace(cell, seed=seed) for seed in seeds], cache, progress) for name, cell in cells.items()
    }
    return Study(outcomes, cells)


def run_cells(cells: Iterable[Cell], cache: Path | None = None, progress: Progress | None = None) -> list[Outcome]:
    """Outcomes of cells, from the cache where they are in it.

    Parameters
    ----------
    cells : iterable of Cell
    cache : Path, optional
        File of JSON lines, one a run; extended as runs end.
    progress : callable, optional
        Gets one line a run.
    """
    known = _read(cache)
    outcomes = []
    for cell in cells:
        key = json.dumps(asdict(cell), sort_keys=True)
        if key not in known:
            known[key] = train(cell)
            if cache is not None:
                with cache.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"cell": asdict(cell), "outcome": asdict(known[key])}) + "\n")
            if progress is not None:
                progress(f"{cell} -> {known[key]}")
        outcomes.append(known[key])
    return outcomes


def _read(cache: Path | None) -> dict[str, Outcome]:
    if cache is None or not cache.exists():
        return {}
    known = {}
    for line in cache.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line cut short by an interruption: its run is made again
        known[json.dumps(row["cell"], sort_keys=True)] = Outcome(**row["outcome"])
    return known


def train(cell: Cell) -> Outcome:
    """Train one net and measure it."""
    torch.manual_seed(cell.seed)
    (x, y), (x_valid, y_valid), (x_test, y_test) = _rows(cell)
    model = _network(cell)
    optimizer, schedule = _optimizer(cell, model, x)
    order = torch.Generator().manual_seed(cell.seed)
    steps = 0
    for _ in range(cell.epochs):
        for chosen in torch.randperm(len(x), generator=order).split(cell.batch):
            if len(chosen) < cell.batch:
                continue
            for group in optimizer.param_groups:
                group["lr"] = cell.learning_rate * schedule(steps)
            optimizer.zero_grad()
            if isinstance(optimizer, SAM):
                optimizer.backward(model, x[chosen], y[chosen], _losses)
            else:
                _losses(model(x[chosen]), y[chosen]).mean().backward()
            optimizer.step()
            steps += 1
    with torch.no_grad():
        logits = model(x)
        loss = float(_losses(logits, y).mean())
    return Outcome(
        _accuracy(model, x_test, y_test),
        _accuracy(model, x_valid, y_valid),
        loss,
        float(logits.abs().mean()),
        _largest_eigenvalue(model, x, y) if cell.eigenvalue else None,
    )


def _largest_eigenvalue(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    product = HessianProduct(model, x, y, _losses)
    return float(top_eigenvalues(product, product.size, k=1, tolerance=1e-3, max_products=60).values[0])


def _optimizer(cell: Cell, model: nn.Module, x: torch.Tensor) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
    steps = cell.epochs * (cell.rows // cell.batch)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=cell.learning_rate, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=cell.learning_rate),
        "adamw": lambda p: torch.optim.AdamW(p, lr=cell.learning_rate, weight_decay=cell.weight_decay),
    }
    base = kinds[cell.optimizer](model.parameters())
    warmup = steps // 10
    if cell.method == "lawn":
        free = cell.free_epochs * (cell.rows // cell.batch)
        lawn = LAWN(base, homogeneous_tail(model, x[:4]).weights, free_steps=free, warmup_steps=warmup)
        return lawn, lambda t: _warm(t, warmup) if t < free else _cosine((t - free - warmup) / (steps - free - warmup))
    if cell.method == "sam":
        sam = SAM(base, rho=cell.rho, micro_batches=cell.micro_batches)
        return sam, lambda t: _cosine(t / steps)
    if cell.optimizer == "sgd":
        return base, lambda t: _cosine(t / steps)
    return base, lambda t: _warm(t, warmup) if t < warmup else _cosine((t - warmup) / (steps - warmup))


def _warm(step: int, warmup: int) -> float:
    return min((step + 1) / warmup, 1.0)


def _cosine(part: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * max(part, 0.0))))


def _network(cell: Cell) -> nn.Module:
    layers = [nn.Linear(784, cell.width), nn.Linear(cell.width, cell.width), nn.Linear(cell.width, 10)]
    for layer in layers:
        if cell.init == "he":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif cell.init == "small":
            nn.init.normal_(layer.weight, std=0.02)
        if cell.init != "torch":
            nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def _accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) == y).double().mean())


@lru_cache(maxsize=1)
def _mnist() -> tuple[Any, ...]:
    parts: list[torch.Tensor] = []
    for split in ("train", "test"):
        data = datasets.load("mnist", split=split)
        images = np.asarray(data.X, dtype=np.float32).reshape(len(data.y), -1) / 255
        parts += [torch.from_numpy((images - 0.1307) / 0.3081), torch.from_numpy(np.array(data.y))]
    return tuple(parts)


def _rows(cell: Cell) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y, x_test, y_test = _mnist()
    rng = np.random.default_rng(cell.seed)
    chosen = rng.permutation(len(x))[: cell.rows + VALIDATION_ROWS]
    labels = y[chosen].clone()
    noisy = torch.from_numpy(rng.random(len(chosen)) < cell.label_noise)
    labels[noisy] = torch.from_numpy(rng.integers(0, 10, int(noisy.sum())))
    pixels = x[chosen]
    return [
        (pixels[: cell.rows], labels[: cell.rows]),
        (pixels[cell.rows :], labels[cell.rows :]),
        (x_test, y_test),
    ]
