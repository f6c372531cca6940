"""Pictures of re-ranking and replay (extra ``plots``); each function takes results and returns a matplotlib figure."""

from typing import Any

import numpy as np
from papershelf_core.files import replacing

from multislot_rerank.admission import target_file
from multislot_rerank.arrays import Floats
from multislot_rerank.errors import InvalidInput
from multislot_rerank.ladder import Ladder
from multislot_rerank.pareto import ParetoFront
from multislot_rerank.policies import PolicyTable

__all__ = ["front_figure", "ladder_figure", "policies_figure", "save"]

_BLUE, _ORANGE, _GREY = "#0072B2", "#E69F00", "#9CA3AF"


def _axis() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("drawing needs the extra: pip install 'multislot-rerank[plots]'") from error
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.2, linewidth=0.6)
    return figure, axis


def front_figure(front: ParetoFront, objectives: tuple[int, int] = (0, 1)) -> Any:
    """Two objectives of every trade-off with 95 % intervals, the front joined, its knee named.

    Parameters
    ----------
    front : ParetoFront
        With at least two objectives.
    objectives : (int, int)
        Columns for the two axes.
    """
    if front.values.shape[1] < 2:
        raise InvalidInput("a front has two axes: the log needs at least two objectives")
    figure, axis = _axis()
    x, y = (front.values[:, column] for column in objectives)
    wide = 1.96 * np.sqrt(np.array([np.diag(e.covariance) for e in front.estimates]))
    axis.errorbar(x, y, wide[:, objectives[1]], wide[:, objectives[0]], fmt="none", ecolor=_GREY, lw=0.7, alpha=0.6)
    axis.scatter(x[~front.optimal], y[~front.optimal], s=16, color=_GREY, label="dominated")
    order = np.argsort(x[front.optimal])
    axis.plot(x[front.optimal][order], y[front.optimal][order], "o-", color=_BLUE, ms=5, label="front")
    knee = front.names.index(front.knee())
    axis.scatter([x[knee]], [y[knee]], s=90, facecolors="none", edgecolors=_ORANGE, lw=2, label=f"knee: {front.knee()}")
    names = front.estimates[0].objectives
    axis.set(xlabel=names[objectives[0]], ylabel=names[objectives[1]])
    axis.legend(frameon=False)
    return figure


def ladder_figure(ladder: Ladder, objective: int = 0) -> Any:
    """Every estimator's value of one objective with its 95 % interval, from the weakest assumption down."""
    figure, axis = _axis()
    estimates = [rung.estimate for rung in ladder.rungs]
    values = np.array([e.value[objective] for e in estimates])
    wide: Floats = 1.96 * np.sqrt(np.array([e.covariance[objective, objective] for e in estimates]))
    rows = np.arange(len(estimates))[::-1]
    axis.errorbar(values, rows, xerr=wide, fmt="o", color=_BLUE, capsize=3)
    axis.set_yticks(rows, [e.estimator for e in estimates])
    axis.set(xlabel=f"value: {estimates[0].objectives[objective]}")
    return figure


def policies_figure(table: PolicyTable) -> Any:
    """What policies earn, with 95 % intervals of the difference to the first."""
    figure, axis = _axis()
    rows = np.arange(len(table.rows))[::-1]
    gains = np.array([row.gain for row in table.rows])
    axis.barh(rows, gains, xerr=[1.96 * row.gain_error for row in table.rows], color=_BLUE, ecolor=_ORANGE)
    axis.set_yticks(rows, [row.name for row in table.rows])
    axis.set(xlabel=f"clicks a slate over {table.rows[0].name}")
    return figure


def save(figure: Any, path: str) -> None:
    """Write a figure, whole or not at all; the suffix decides the format."""
    with replacing(target_file(path)) as scratch:
        figure.savefig(scratch)
