"""The picture of step costs (extra ``plots``)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from papershelf_core.files import replacing

__all__ = ["cost_picture"]


def cost_picture(rows: list[dict[str, Any]], out: Path) -> None:
    """Draw the cost of a step, in plain steps, over the number of micro-batches; ``out`` names the format."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("drawing needs the extra: pip install 'msam-lawn[plots]'")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["micro_batches"] for row in rows], [row["plain_steps"] for row in rows], marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("micro-batches")
    axes.set_ylabel("cost in plain steps")
    axes.set_ylim(bottom=0)
    with replacing(out) as scratch:
        figure.savefig(scratch)
