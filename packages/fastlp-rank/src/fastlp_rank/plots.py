"""Pictures as SVG text (extra ``plot``): latency against peers, and X with the lottery behind it."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlp_rank.solver import RankingSolution

__all__ = ["latency", "lottery"]

_OURS, _PEER, _INK = "#0b6e4f", "#9aa5b1", "#1b1f24"


def _figure(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(1, columns, **options)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def latency(seconds: Mapping[str, Sequence[float]], title: str, ours: Sequence[str] = ()) -> str:
    """Distribution of solve times, one line a solver, on a logarithmic axis.

    Parameters
    ----------
    seconds : mapping of name to sequence of float
        One time an instance.
    title : str
    ours : sequence of str
        Names to draw in colour.
    """
    figure, axes = _figure(7.2, 3.4)
    for i, (name, samples) in enumerate(seconds.items()):
        x = np.sort(np.asarray(samples)) * 1e6
        mine = name in ours
        axes.step(
            np.concatenate([x[:1], x]),
            np.arange(x.size + 1) / x.size,
            where="post",
            color=_OURS if mine else _PEER,
            linestyle=("-", "--", "-.", ":")[i % 4],
            lw=2.2 if mine else 1.6,
            label=f"{name}, median {np.median(x):,.0f} µs",
        )
    axes.legend(frameon=False, fontsize=9, loc="center")
    axes.set_xscale("log")
    axes.set_xlabel("CPU time of one solve, µs")
    axes.set_ylabel("share of instances solved")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def lottery(solution: RankingSolution, title: str, names: Sequence[str] | None = None, top: int = 24) -> str:
    """Heat map of X beside the rankings that it is a mixture of.

    Parameters
    ----------
    solution : RankingSolution
    title : str
    names : sequence of str, optional
        Of the items; their numbers otherwise.
    top : int
        Most items to show: those with the largest probability of being shown.
    """
    X = solution.marginals()
    shown = np.argsort(-X.sum(axis=1), kind="stable")[: min(top, int((X.sum(axis=1) > 0).sum()))]
    shown = shown[np.argsort(X[shown].argmax(axis=1), kind="stable")]
    label = (lambda i: str(i)) if names is None else (lambda i: names[i])
    lottery = solution.lottery
    R, m = lottery.rankings.shape
    figure, (left, right) = _figure(
        9.6, 0.9 + 0.21 * max(shown.size, R), columns=2, gridspec_kw={"width_ratios": [m, m + 2]}
    )
    left.imshow(X[shown], cmap="Greens", vmin=0.0, vmax=1.0, aspect="auto")
    left.set_yticks(range(shown.size), [label(int(i)) for i in shown], fontsize=7)
    left.set_xticks(range(m), [str(j + 1) for j in range(m)], fontsize=8)
    left.set_xlabel("slot")
    left.set_title("probability that a slot shows an item", fontsize=9, loc="left")
    right.set_xlim(-1.6, m - 0.5)
    right.set_ylim(R - 0.5, -0.5)
    for r in range(R):
        weight = lottery.weights[r]
        right.text(-1.5, r, f"{weight:.3f}", va="center", fontsize=8, color=_INK)
        for j in range(m):
            right.text(
                j, r, label(int(lottery.rankings[r, j])), ha="center", va="center", fontsize=7, color=_INK,
                bbox={"boxstyle": "round,pad=0.25", "fc": _OURS, "ec": "none", "alpha": 0.12 + 0.5 * float(weight)},
            )  # fmt: skip
    right.axis("off")
    right.set_title(f"{R} weighted ranking{'s' if R > 1 else ''} it is drawn from", fontsize=9, loc="left")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return _svg(figure)
