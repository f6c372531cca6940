"""Three quarters of the FFN width, against optipfair and torch-pruning on the same tokens."""

import statistics
from dataclasses import replace
from pathlib import Path

from ffn_heavyhitter import Narrow, find_ffns
from ffn_heavyhitter.models import load_causal_model
from ffn_heavyhitter.plan import plan_widths
from study import FIT_WINDOWS, Study

WIDTH, MEASURED_WINDOWS = 1152, 2
UNIFORM = Narrow(WIDTH, score="hybrid_fisher")
PEERS = {
    "optipfair_data": "optipfair 0.4.2, data-driven",
    "optipfair_default": "optipfair 0.4.2, default",
    "torch_pruning": "torch-pruning 1.6.1, magnitude",
}


def per_layer(study: Study) -> dict[str, Narrow]:
    """Widths by errors and measured divergences on held-out tokens; kept on disk, as they take minutes."""

    def planned() -> dict:
        measured = [{"input_ids": window[None]} for window in study.calibration[FIT_WINDOWS:][:MEASURED_WINDOWS]]
        options = {"share": 0.75, "template": UNIFORM, "multiple": 128, "measured_on": measured}
        plan = plan_widths(study.dense, study.fit, study.held_out, **options)
        return {"widths": {name: way.width for name, way in plan.treatments.items()}}

    widths = study.cell("structure-widths", planned)["widths"]
    return {name: replace(UNIFORM, width=width) for name, width in widths.items()}


def described(study: Study, model) -> dict:
    widths = [ffn.part(ffn.layout.home) for ffn in find_ffns(model)]
    widths = [getattr(module, "spec", {}).get("width") or module.up_proj.out_features for module in widths]
    return {**study.perplexity(model), "widths": widths}


def peer_folder(study: Study, name: str) -> Path:
    """The peer's pruned model; the script skips what it has written before."""
    folder = (study.cache / "pruned").resolve()
    study.peer("peer_pruning.py", study.folder, str(study.windows_file.resolve()), str(folder))
    return folder / name


def peer(study: Study, name: str) -> dict:
    return described(study, load_causal_model(peer_folder(study, name)))


def rows(study: Study) -> list[tuple[str, ...]]:
    cells = {label: study.cell(f"structure-{name}", lambda n=name: peer(study, n)) for name, label in PEERS.items()}
    ours = {
        "ours, uniform": lambda: described(study, study.compressed(UNIFORM)),
        "ours, uniform, no output bias": lambda: described(
            study, study.compressed(Narrow(WIDTH, score="hybrid_fisher", bias=False))
        ),
        "ours, uniform, mean compensation": lambda: described(
            study, study.compressed(Narrow(WIDTH, "mean", score="hybrid_fisher"))
        ),
        "ours, width of each layer": lambda: described(study, study.compressed(per_layer(study))),
    }
    for label, measure in ours.items():
        cells[label] = study.cell("structure-" + label.replace(",", "").replace(" ", "-"), measure)
    return table_of(study, cells)


def table_of(study: Study, cells: dict[str, dict]) -> list[tuple[str, ...]]:
    best = study.cell("structure-optipfair_data", lambda: peer(study, "optipfair_data"))["perplexity"]
    table = [("75 % of the FFN width", "mean width", "perplexity", "x dense +- s.e.", "x optipfair data-driven")]
    for label, cell in cells.items():
        ratio = f"{cell['ratio']:.4f} +- {cell['standard_error']:.4f}"
        mean = f"{statistics.mean(cell['widths']):.0f}"
        table.append((label, mean, f"{cell['perplexity']:.3f}", ratio, f"{cell['perplexity'] / best:.3f}"))
    return table
