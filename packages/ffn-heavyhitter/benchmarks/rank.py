"""Split low rank against uniform activation-aware SVD at the same bytes, one code path."""

from ffn_heavyhitter import LowRank, find_ffns
from study import Study

WAYS = {
    "half the neurons dense, the rest at low rank": LowRank(share=0.75, heavy=0.5),
    "uniform activation-aware SVD": LowRank(share=0.75, heavy=0),
}


def rows(study: Study) -> list[tuple[str, ...]]:
    table = [("75 % of the FFN's weights", "bytes an FFN", "perplexity", "x dense +- s.e.")]
    weights = find_ffns(study.dense)[0].weights()
    for name, way in WAYS.items():
        cell = study.cell(
            "rank-" + name.replace(",", "").replace(" ", "-"), lambda way=way: study.perplexity(study.compressed(way))
        )
        ratio = f"{cell['ratio']:.4f} +- {cell['standard_error']:.4f}"
        table.append((name, str(way.bytes(weights)), f"{cell['perplexity']:.3f}", ratio))
    return table
