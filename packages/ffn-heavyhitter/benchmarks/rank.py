"""Split low rank against uniform activation-aware SVD at the same bytes, one code path.

The numbers of heavy neurons and the ridge were chosen by output errors on held-out tokens of the calibration text.
"""

from ffn_heavyhitter import LowRank
from ffn_heavyhitter.feedforward import compressed_ffns
from study import Study

SPLIT = {"score": "hybrid_fisher"}
WAYS = {
    "heavy neurons chosen by layer, ridge": LowRank(0.75, "auto", **SPLIT),
    "1144 of 1536 neurons dense, ridge": LowRank(0.75, 1144, **SPLIT),
    "1088 of 1536 neurons dense, ridge": LowRank(0.75, 1088, **SPLIT),
    "half the neurons dense": LowRank(0.75, 0.5, "none", score="mean"),
    "uniform activation-aware SVD": LowRank(0.75, 0),
}


def measured(study: Study, way: LowRank) -> dict:
    model = study.compressed(way)
    ffns = compressed_ffns(model).values()
    size = sum(p.numel() * p.element_size() for module in ffns for p in module.parameters()) // len(ffns)
    return {**study.perplexity(model), "bytes": size, "heavy": [module.spec["heavy"] for module in ffns]}


def rows(study: Study) -> list[tuple[str, ...]]:
    cells = {
        name: study.cell("rank-" + name.replace(",", "").replace(" ", "-"), lambda way=way: measured(study, way))
        for name, way in WAYS.items()
    }
    table = [("75 % of the FFN's weights", "bytes an FFN", "perplexity", "x dense +- s.e.", "x uniform SVD")]
    uniform = cells["uniform activation-aware SVD"]["perplexity"]
    for name, cell in cells.items():
        ratio = f"{cell['ratio']:.4f} +- {cell['standard_error']:.4f}"
        share = f"{cell['perplexity'] / uniform:.3f}"
        table.append((name, str(cell["bytes"]), f"{cell['perplexity']:.3f}", ratio, share))
    return table
