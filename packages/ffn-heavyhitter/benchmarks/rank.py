"""Split low rank against uniform activation-aware SVD at the same bytes, one code path.

The numbers of heavy neurons and the ridge were chosen by output errors on held-out tokens of the calibration text.
"""

from ffn_heavyhitter import LowRank
from ffn_heavyhitter.feedforward import compressed_ffns
from structure import per_layer
from study import Study

UNIFORM = "uniform activation-aware SVD"
WAYS = {
    "heavy neurons chosen by layer, ridge": LowRank(0.75, score="hybrid_fisher"),
    "1144 of 1536 neurons dense, ridge": LowRank(0.75, 1144, score="hybrid_fisher"),
    "half the neurons dense": LowRank(0.75, 0.5, "none", score="mean"),
    UNIFORM: LowRank(0.75, 0),
}
SHARES = "a share for each layer, ridge"


def shares(study: Study) -> dict[str, LowRank]:
    """The plan of widths as shares of bytes, at the border that the search leads to: rank 3 to 6 for light neurons."""
    full = study.fit.layers[next(iter(study.fit.layers))].width
    widths = {name: way.width for name, way in per_layer(study).items() if way.width < full}
    return {name: LowRank(width / full, width - 8, score="hybrid_fisher") for name, width in widths.items()}


def measured(study: Study, way: LowRank | dict[str, LowRank]) -> dict:
    model = study.compressed(way)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    heavy = {name: module.spec["heavy"] for name, module in compressed_ffns(model).items()}
    return {**study.perplexity(model), "bytes": size, "heavy": heavy}


def rows(study: Study) -> list[tuple[str, ...]]:
    cells = {
        name: study.cell(
            "rank-" + name.replace(",", "").replace(" ", "-"),
            lambda n=name: measured(study, WAYS.get(n) or shares(study)),
        )
        for name in (SHARES, *WAYS)
    }
    table = [("75 % of the FFN's weights", "bytes of the model", "perplexity", "x dense +- s.e.", "x uniform SVD")]
    uniform = cells[UNIFORM]["perplexity"]
    for name, cell in cells.items():
        ratio = f"{cell['ratio']:.4f} +- {cell['standard_error']:.4f}"
        share = f"{cell['perplexity'] / uniform:.3f}"
        table.append((name, str(cell["bytes"]), f"{cell['perplexity']:.3f}", ratio, share))
    return table
