"""Pictures of a run's report: error by layer, and f by sweep. Needs the extra ``quantease[plots]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_report"]


def draw_report(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Write one picture with two panels; the type follows the name of ``target`` (.svg, .png, .pdf)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    by_layer, by_sweep = figure.subplots(1, 2)
    kinds = sorted({"+".join(name.rsplit(".", 1)[1] for name in row["modules"]) for row in rows})
    for kind in kinds:
        mine = [row for row in rows if "+".join(name.rsplit(".", 1)[1] for name in row["modules"]) == kind]
        by_layer.semilogy([row["block"] for row in mine], [row["error"] for row in mine], marker=".", label=kind)
    by_layer.set(xlabel="block", ylabel="error f / f(0)", title="Error by layer")
    by_layer.legend(fontsize="small")
    for row in rows:
        if row["history"]:
            by_sweep.plot([value / row["history"][0] for value in row["history"]], color="tab:blue", alpha=0.3)
    by_sweep.set(xlabel="sweep (0 is the GPTQ start)", ylabel="f / f of the start", title="Coordinate descent")
    figure.savefig(target)
