"""The claims of msam-lawn as data: each function measures and returns a row.

Of the papers the abstracts were read; what is measured is our formulation of them. ``full`` adds the MNIST studies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from papershelf_core.claims import Claim
from papershelf_core.timed import faster
from torch import nn

from msam_lawn.lanczos import top_eigenvalues
from msam_lawn.torch import LAWN, SAM, HessianProduct, homogeneous_tail

if TYPE_CHECKING:
    from msam_lawn.studies import Study

__all__ = ["claims", "image_mlp", "step_costs"]

MSAM, LAWN_PAPER = "2302.09693", "2108.05839"
LARGE_BATCH_SETTINGS = (
    ("40 % label noise, weights N(0, .02^2)", 0.4, "small"),
    ("20 % label noise, torch's default weights", 0.2, "torch"),
    ("clean labels, He's weights", 0.0, "he"),
)


def claims(full: bool = False, cache: Path | None = None) -> list[Claim]:
    """Measure every claim; ``full`` adds training on MNIST (PAPERSHELF_DATA or a download)."""
    torch.set_num_threads(1)
    rows = [engines_agree(), cost_of_many_micro_batches(), radius_zero(), eigenvalues(), held_norms(), tail_degree()]
    if full:
        rows += [flatter(cache), *noisy_labels(cache), *large_batches(cache)]
    return rows


def image_mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor, Callable[[Any, Any], torch.Tensor]]:
    """3072-256-256-10 on 128 random rows: the net of the speed claims."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return model, torch.randn(128, 3072), torch.randint(0, 10, (128,)), _losses


def step_costs(task: tuple[Any, Any, Any, Any], counts: Sequence[int], repeat: int = 5) -> list[dict[str, Any]]:
    """CPU time of a SAM step with so many micro-batches, in plain steps (medians of interleaved rounds)."""
    model, inputs, targets, loss = task
    plain = SAM(torch.optim.SGD(model.parameters(), lr=1e-6), rho=0.0)
    wrapped = [SAM(torch.optim.SGD(model.parameters(), lr=1e-6), micro_batches=count) for count in counts]
    seconds: list[list[float]] = [[] for _ in range(len(wrapped) + 1)]
    for round_ in range(repeat + 1):
        for times, optimizer in zip(seconds, [plain, *wrapped], strict=True):
            start = time.process_time()
            optimizer.zero_grad()
            optimizer.backward(model, inputs, targets, loss)
            optimizer.step()
            if round_:  # the first round chooses engines and warms up
                times.append(time.process_time() - start)
    base, *medians = (float(np.median(times)) for times in seconds)
    return [
        {"micro_batches": count, "engine": optimizer.choices[0].engine, "plain_steps": median / base}
        for count, optimizer, median in zip(counts, wrapped, medians, strict=True)
    ]


def _losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def _gradient(model: nn.Module, engine: Any, x: torch.Tensor, y: torch.Tensor, count: int) -> torch.Tensor:
    model.zero_grad()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, micro_batches=count, engine=engine)
    optimizer.backward(model, x, y, _losses)
    return torch.cat([w.grad.reshape(-1) for w in model.parameters() if w.grad is not None])


def engines_agree() -> Claim:
    """Low-rank and vmap against the loop, float64, uneven micro-batches."""
    worst = 0.0
    for seed in range(5):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv1d(3, 6, 3), nn.GroupNorm(2, 6), nn.Tanh(), nn.Flatten(), nn.Linear(36, 4)
        ).double()
        x, y = torch.randn(10, 3, 8, dtype=torch.float64), torch.randint(0, 4, (10,))
        for count in (1, 4, 10):
            expected = _gradient(model, "loop", x, y, count)
            for engine in ("low-rank", "vmap"):
                gap = (_gradient(model, engine, x, y, count) - expected).norm() / expected.norm()
                worst = max(worst, float(gap))
    statement = "Three engines, one gradient: relative difference at most 1e-10"
    return Claim(MSAM, statement, "the loop", worst, None, "", "lower", worst <= 1e-10, "our formulation of mSAM")


def cost_of_many_micro_batches() -> Claim:
    """The low-rank engine against the loop at 16 micro-batches."""
    model, x, y, loss = image_mlp()
    seconds: dict[str, list[float]] = {"auto": [], "loop": []}
    optimizers = {
        engine: SAM(torch.optim.SGD(model.parameters(), lr=1e-6), micro_batches=16, engine=engine)  # type: ignore[arg-type]
        for engine in seconds
    }
    for _ in range(6):
        for engine, optimizer in optimizers.items():
            start = time.process_time()
            optimizer.zero_grad()
            optimizer.backward(model, x, y, loss)
            optimizer.step()
            seconds[engine].append(time.process_time() - start)
    ours, theirs = (seconds[engine][1:] for engine in ("auto", "loop"))
    what, note = "16 micro-batches of an MLP at most a quarter of the loop's time", "CPU; 3072-256-256-10, 128 rows"
    return faster("-", what, "our loop over micro-batches", ours, theirs, times=4.0, note=note)


def radius_zero() -> Claim:
    """Rho 0 is the base optimizer, bit for bit."""
    vectors = []
    for wrapped in (True, False):
        model, x, y, loss = image_mlp()
        base = torch.optim.Adam(model.parameters())
        optimizer = SAM(base, rho=0.0) if wrapped else base
        for _ in range(3):
            optimizer.zero_grad()
            if isinstance(optimizer, SAM):
                optimizer.backward(model, x, y, loss)
            else:
                loss(model(x), y).mean().backward()
            optimizer.step()
        vectors.append(torch.cat([w.detach().reshape(-1) for w in model.parameters()]))
    different = int((vectors[0] != vectors[1]).sum())
    return Claim("-", "rho = 0 is Adam, bit for bit", "torch Adam", different, 0, "weights", "equal", different == 0)


def eigenvalues() -> Claim:
    """Five eigenvalues by products against the dense matrix."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    x, y = torch.randn(200, 10, dtype=torch.float64), torch.randint(0, 4, (200,))
    product = HessianProduct(model, x, y, _losses)
    dense = np.stack([product(column) for column in np.eye(product.size)])
    exact = np.sort(np.linalg.eigvalsh((dense + dense.T) / 2))[::-1][:5]
    found = top_eigenvalues(product, product.size, 5, max_products=40)
    error = float(np.abs(found.values - exact).max() / exact[0])
    return Claim(
        "-",
        "Top five Hessian eigenvalues within 1e-4 of dense in at most 40 products",
        "numpy eigvalsh",
        error,
        None,
        "",
        "lower",
        error <= 1e-4 and found.products <= 40,
        f"{found.products} products",
    )


def held_norms() -> Claim:
    """Drift of a held norm over 10,000 steps in float32."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(20, 30))
    optimizer = LAWN(torch.optim.SGD([w], lr=0.01), [w], free_steps=0)
    start = float(w.detach().double().norm())
    noise = torch.randn(16, 20, 30)
    for step in range(10_000):
        w.grad = noise[step % 16].clone()
        optimizer.step()
    drift = abs(float(w.detach().double().norm()) / start - 1)
    statement = "Held weight norms drift by at most 1e-6 in 10,000 steps"
    return Claim(LAWN_PAPER, statement, "the norm at the switch", drift, None, "", "lower", drift <= 1e-6)


def tail_degree() -> Claim:
    """The traced tail is homogeneous of its degree (the trace raises where it is not)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    tail = homogeneous_tail(model, torch.randn(5, 8))
    statement = "The final homogeneous sub-network is what follows the last normalisation: two layers here"
    return Claim(LAWN_PAPER, statement, "f(c w) = c^2 f(w)", tail.degree, 2, "layers", "equal", tail.degree == 2)


def flatter(cache: Path | None) -> Claim:
    """Largest eigenvalue on MNIST-1000."""
    from msam_lawn.studies import flatness

    study = flatness(cache, _progress)
    values = [study.median(name) for name in study.outcomes]
    accuracies = "; ".join("{} {:.2f} +- {:.2f} %".format(name, *study.mean(name)) for name in study.outcomes)
    return Claim(
        MSAM,
        "MNIST-1000: largest eigenvalue SGD > SAM > mSAM(4) > mSAM(20), the last at most .85 of SAM's",
        "SAM",
        values[3],
        values[1],
        "",
        "lower",
        bool(np.all(np.diff(values) < 0)) and values[3] <= 0.85 * values[1],
        f"medians of 5 seeds {', '.join(f'{value:.3f}' for value in values)}; test accuracy {accuracies}",
    )


def noisy_labels(cache: Path | None) -> list[Claim]:
    """30 % label noise, at one rho for all and at a rho tuned for each."""
    from msam_lawn.studies import label_noise, label_noise_tuned

    rows = []
    for study, how in (
        (label_noise(cache, _progress), "rho .05 for all"),
        (label_noise_tuned(cache, _progress), "tuned"),
    ):
        gap, error = study.difference("mSAM, 20 micro-batches", "SAM")
        chosen = ", ".join(f"{name}: rho {cell.rho:g}" for name, cell in study.settings.items())
        rows.append(
            Claim(
                MSAM,
                f"MNIST-1000, 30 % label noise, {how}: mSAM(20) at least 3 points over SAM",
                "SAM",
                study.mean("mSAM, 20 micro-batches")[0],
                study.mean("SAM")[0],
                "% test accuracy",
                "higher",
                gap >= 3,
                f"paired difference {gap:+.2f} +- {error:.2f} over 5 seeds; {chosen}",
            )
        )
    return rows


def large_batches(cache: Path | None) -> list[Claim]:
    """LAWN on Adam against Adam and AdamW at half the data a batch, each tuned on validation rows."""
    from msam_lawn.studies import large_batch

    bars = {
        "Adam": "at least 5 points over tuned Adam",
        "Adam, slow rates too": "at least 5 points over Adam tuned down to rates that stop early",
        "AdamW": "more than 2 s.e. over tuned AdamW",
    }
    rows = []
    for name, noise, init in LARGE_BATCH_SETTINGS:
        study = large_batch(label_noise=noise, init=init, cache=cache, progress=_progress)
        ours = _chosen(study, "LAWN on Adam")
        for rival, bar in bars.items():
            gap, error = study.difference("LAWN on Adam", rival)
            rows.append(
                Claim(
                    LAWN_PAPER,
                    f"MNIST-2000, batch 1000, {name}: LAWN on Adam {bar}",
                    rival,
                    study.mean("LAWN on Adam")[0],
                    study.mean(rival)[0],
                    "% test accuracy",
                    "higher",
                    gap > 2 * error if rival == "AdamW" else gap >= 5,
                    f"paired difference {gap:+.2f} +- {error:.2f} over 8 fresh seeds; {ours}; {_chosen(study, rival)}",
                )
            )
    return rows


def _chosen(study: Study, name: str) -> str:
    cell = study.settings[name]
    loss, logit = (study.mean(name, what)[0] for what in ("train_loss", "mean_abs_logit"))
    return (
        f"{name}: rate {cell.learning_rate:g}, decay {cell.weight_decay:g}, {cell.free_epochs} free epochs, "
        f"train loss {loss:.2f}, mean |logit| {logit:.2f}"
    )


def _progress(line: str) -> None:
    import sys

    print(line, file=sys.stderr, flush=True)
