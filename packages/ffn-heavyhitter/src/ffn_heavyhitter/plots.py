"""Pictures of a heavy-hitter report (needs the extra ``plots``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ffn_heavyhitter.report import HeavyHitterReport, lorenz_curve
from ffn_heavyhitter.statistics import Statistics

__all__ = ["plot_report"]


def plot_report(report: HeavyHitterReport, statistics: Statistics, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw Lorenz curves, hit rates and shares of massive activations.

    Parameters
    ----------
    report : HeavyHitterReport
    statistics : Statistics
        Those that the report is of.
    folder : path
        Made if it does not exist.

    Returns
    -------
    list of Path
        The SVG files.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib; says which extra brings it.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'ffn-heavyhitter[plots]'") from error
    matplotlib.use("svg")
    from matplotlib.figure import Figure

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[Any], None]] = {
        "lorenz.svg": lambda axes: _lorenz(axes, statistics),
        "hit_rate.svg": lambda axes: _by_layer(axes, report),
        "massive.svg": lambda axes: _massive(axes, report),
    }
    written = []
    for name, draw in pictures.items():
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        draw(figure.add_subplot())
        scratch = target / f".{name}"
        figure.savefig(scratch, format="svg")
        written.append(scratch.replace(target / name))
    return written


def _lorenz(axes: Any, statistics: Statistics) -> None:
    for position, layer in enumerate(statistics.layers.values()):
        curve = lorenz_curve(layer)
        shade = 0.85 * (1 - position / max(1, len(statistics.layers) - 1))
        axes.plot([i / layer.width for i in range(layer.width + 1)], curve.tolist(), color=str(shade), lw=0.8)
    axes.plot([0, 1], [0, 1], "--", color="tab:red", lw=0.8, label="all neurons alike")
    axes.set(xlabel="share of neurons, lightest first", ylabel="share of the summed mean norm")
    axes.set_title("Who owns the output norm (dark: deep layers)")
    axes.legend()


def _by_layer(axes: Any, report: HeavyHitterReport) -> None:
    positions = range(len(report.layers))
    for label, values in {
        "hit rate": [layer.hit_rate for layer in report.layers],
        "stability": [layer.stability for layer in report.layers],
        "norm owned by the top 10 %": [layer.share_of_norm["0.1"] for layer in report.layers],
        "always on": [layer.always_on for layer in report.layers],
    }.items():
        axes.plot(positions, values, marker=".", label=label)
    axes.axhline(0.1, ls=":", color="grey", label="chance")
    axes.set(xlabel="layer", ylabel="share", ylim=(0, 1), title="Are the same neurons heavy for every token?")
    axes.legend()


def _massive(axes: Any, report: HeavyHitterReport) -> None:
    axes.bar(range(len(report.layers)), [layer.massive for layer in report.layers])
    axes.set(xlabel="layer", ylabel="share of the squared norm", ylim=(0, 1))
    axes.set_title("What the first token of each sequence owns")
