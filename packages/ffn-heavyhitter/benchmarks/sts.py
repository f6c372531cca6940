"""MiniLM on STS-B dev: Spearman of cosine similarities with a quarter of the FFN neurons."""

import copy
import csv
import json
import os
from pathlib import Path

import torch
from ffn_heavyhitter import Narrow, collect, compress
from ffn_heavyhitter.models import load_encoder, load_tokenizer
from scipy.stats import spearmanr

CALIBRATION_PAIRS = 512
WAYS = {
    "ours: heavy hitters + ridge": Narrow(384, score="mean"),
    "heavy hitters + mean compensation": Narrow(384, "mean", score="mean"),
    "heavy hitters alone": Narrow(384, "none", score="mean"),
    "magnitude": Narrow(384, "none", score="magnitude"),
    "random": Narrow(384, "none", score="random"),
}


def pairs(split: str) -> list[tuple[float, str, str]]:
    folder = Path(os.environ.get("PAPERSHELF_DATA", "")) / "text" / "stsb"
    file = next(iter(sorted(folder.glob(f"*{split}*"))), None)
    if file is None:
        raise SystemExit(f"STS-B {split} is needed as a tab-separated file in $PAPERSHELF_DATA/text/stsb")
    rows = csv.reader(file.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [(float(row[4]), row[5], row[6]) for row in rows if len(row) > 6]


def batches(tokenizer, sentences: list[str]) -> list[dict]:
    chunks = [sentences[i : i + 32] for i in range(0, len(sentences), 32)]
    return [
        dict(tokenizer(chunk, padding=True, truncation=True, max_length=128, return_tensors="pt")) for chunk in chunks
    ]


def embeddings(model, inputs: list[dict]) -> torch.Tensor:
    found = []
    with torch.no_grad():
        for batch in inputs:
            mask = batch["attention_mask"][..., None].float()
            found.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(found), dim=1)


def correlation(model, tokenizer, rows) -> float:
    left, right = (embeddings(model, batches(tokenizer, [row[i] for row in rows])) for i in (1, 2))
    return float(spearmanr((left * right).sum(1).numpy(), [row[0] for row in rows]).statistic)


def rows(encoder: str, cache: Path) -> list[tuple[str, ...]]:
    path = cache / "sts.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if not set(WAYS) <= set(found):
        model, tokenizer = load_encoder(encoder), load_tokenizer(encoder)
        sentences = [text for row in pairs("train")[:CALIBRATION_PAIRS] for text in row[1:]]
        statistics = collect(model, batches(tokenizer, sentences), moments=True)
        dev = pairs("dev")
        found = {"dense": correlation(model, tokenizer, dev), "pairs": len(dev), "tokens": statistics.tokens}
        for name, way in WAYS.items():
            found[name] = correlation(compress(copy.deepcopy(model), way, statistics), tokenizer, dev)
            print("sts", name, found[name], flush=True)
        path.write_text(json.dumps(found))
    table = [(f"25 % of the FFN width, {found['pairs']} pairs", "Spearman", "minus dense")]
    for name in ("dense", *WAYS):
        table.append((name, f"{found[name]:.4f}", f"{found[name] - found['dense']:+.4f}"))
    return table
