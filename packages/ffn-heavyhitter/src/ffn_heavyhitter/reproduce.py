"""The claims of ffn-heavyhitter as data: each function measures and returns rows.

Quick mode needs nothing but generated data and tiny random models; ``full`` measures a real model on WikiText-2. Of the
paper we read title and abstract: it reports a model 43.1 % smaller and 1.25 to 1.56 times as fast, hardly worse.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from papershelf_core.claims import Claim
from papershelf_core.timed import faster
from torch import Tensor

from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.allocate import Option, allocate
from ffn_heavyhitter.compression import Treatment, compress, merge
from ffn_heavyhitter.evaluation import bytes_on_disk, perplexity_ratio, time_models, window_nll
from ffn_heavyhitter.exact import Split
from ffn_heavyhitter.int8 import Int8
from ffn_heavyhitter.low_rank import LowRank, activation_aware_factors
from ffn_heavyhitter.mixed_bits import MixedBits
from ffn_heavyhitter.models import load_causal_model, load_tokenizer
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from ffn_heavyhitter.scores import score
from ffn_heavyhitter.statistics import collect
from ffn_heavyhitter.text import detokenise, token_windows

__all__ = ["claims"]

PAPER = "2401.04044"


def claims(full: bool = False, model: str = "smollm2") -> list[Claim]:
    """Measure every claim; ``full`` adds a real model on real text."""
    rows = [exact_split(), exact_merge(), batching(), eckart_young(), allocation(), round_trip(), heavy_set_matters()]
    if full:
        rows += real_model(model)
    return rows


def exact_split() -> Claim:
    """Heavy and light part add up to the FFN."""
    worst = 0.0
    for family in FAMILIES:
        model, ids = tiny(family, dtype=torch.float64), tokens()
        before = output(model, ids)
        compress(model, Split(heavy=16), collect(model, [{"input_ids": ids}]))
        worst = max(worst, float((output(model, ids) - before).abs().max() / before.abs().max()))
    return Claim(
        PAPER,
        "An FFN splits exactly at its heavy hitters: largest relative change of a model's output <= 1e-12 in float64",
        "the dense model",
        worst,
        None,
        "",
        "lower",
        worst <= 1e-12,
        f"random {', '.join(FAMILIES)}",
    )


def exact_merge() -> Claim:
    """Merging brings every bit back."""
    same = 0
    for family in FAMILIES:
        model, ids = tiny(family), tokens()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        merge(compress(model, Split(heavy=16), collect(model, [{"input_ids": ids}])))
        same += all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    return Claim(
        PAPER,
        "Split and merge return every weight bit for bit, in five of five architectures",
        "the dense model",
        same,
        len(FAMILIES),
        "architectures",
        "equal",
        same == len(FAMILIES),
    )


def batching() -> Claim:
    """Scores do not depend on how tokens are batched and padded."""
    model, worst = tiny("llama"), 0.0
    rows = [tokens(1, length, seed=length) for length in range(3, 19)]
    ids, mask = torch.zeros(16, 18, dtype=torch.long), torch.zeros(16, 18, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : row.shape[1]], mask[i, : row.shape[1]] = row[0], 1
    alone = collect(model, [{"input_ids": row} for row in rows])
    together = collect(model, [{"input_ids": ids, "attention_mask": mask}])
    for name, layer in alone.layers.items():
        weights = next(ffn for ffn in find_ffns(model) if ffn.name == name).weights()
        one, other = score("hybrid", layer, weights), score("hybrid", together.layers[name], weights)
        worst = max(worst, float(((one - other).abs() / one).max()))
    return Claim(
        "-",
        "Scores of one batch of 16 padded rows equal those of 16 single rows to 1e-6",
        "batches of one",
        worst,
        None,
        "",
        "lower",
        worst <= 1e-6,
    )


def eckart_young() -> Claim:
    """The activation-aware low rank is optimal, inputs of deficient rank included."""
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for rank_of_inputs in (5, 20, 60):
        matrix = torch.randn(48, 60, generator=generator, dtype=torch.float64)
        x = torch.randn(200, rank_of_inputs, generator=generator, dtype=torch.float64)
        x = x @ torch.randn(rank_of_inputs, 60, generator=generator, dtype=torch.float64)
        left, right = activation_aware_factors(matrix, x.T @ x, 8)
        best = torch.linalg.svdvals(x @ matrix.T)[8:].square().sum()
        error = ((left @ right - matrix) @ x.T).square().sum()
        worst = max(worst, float((error - best).abs() / (matrix @ x.T).square().sum()))
    return Claim(
        "-",
        "Low rank without any inverse reaches Eckart-Young in the metric of the inputs to 1e-10",
        "singular values",
        worst,
        None,
        "",
        "lower",
        worst <= 1e-10,
        "inputs of rank 5, 20 and 60 in 60 dimensions",
    )


def allocation() -> Claim:
    """The allocator against exact dynamic programming."""
    generator, worst = torch.Generator().manual_seed(0), 1.0
    for _ in range(20):
        sizes = torch.randint(10, 100, (5, 5), generator=generator).tolist()
        errors = torch.rand(5, 5, generator=generator, dtype=torch.float64).tolist()
        options = {
            str(i): [Option(str(j), sizes[i][j], errors[i][j] * 100 / sizes[i][j]) for j in range(5)] for i in range(5)
        }
        floor = sum(min(row) for row in sizes)
        budget = floor + (sum(max(row) for row in sizes) - floor) // 2
        ours = allocate(options, budget)
        worst = max(worst, ours.error / _best_by_dynamic_programming(options, budget))
    return Claim(
        "-",
        "Bytes are allocated within .5 % of the optimum",
        "dynamic programming over 5 layers of 5 options, 20 problems",
        worst,
        1.0,
        "x optimum",
        "lower",
        worst <= 1.005,
    )


def _best_by_dynamic_programming(options: dict[str, list[Option]], budget: int) -> float:
    totals: dict[int, float] = {0: 0.0}
    for found in options.values():
        step: dict[int, float] = {}
        for spent, error in totals.items():
            for option in found:
                size = spent + option.bytes
                if size <= budget and error + option.error < step.get(size, float("inf")):
                    step[size] = error + option.error
        totals = step
    return min(totals.values())


def round_trip() -> Claim:
    """A compressed model comes back from disk bit for bit."""
    ways: list[Treatment] = [Split(heavy=16), Int8(heavy=16), MixedBits(heavy=16), LowRank(0.75, 32)]
    same = 0
    for way in ways:
        model, ids = tiny("llama"), tokens()
        compress(model, way, collect(model, [{"input_ids": ids}], moments=True, inputs=True))
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            same += torch.equal(output(type(model).from_pretrained(folder), ids), output(model, ids))
    return Claim(
        "-",
        "save_pretrained and from_pretrained return bit-identical logits for every treatment",
        "before saving",
        same,
        len(ways),
        "treatments",
        "equal",
        same == len(ways),
    )


def heavy_set_matters() -> Claim:
    """Which neurons get more bits matters."""
    errors = []
    for name in ("rms", "random"):
        model, ids = tiny("llama"), tokens()
        before = output(model, ids)
        way = MixedBits(heavy=16, heavy_bits=6, light_bits=3, group_size=32, feedback=False, score=name)
        compress(model, way, collect(model, [{"input_ids": ids}]))
        errors.append(float((output(model, ids) - before).norm() / before.norm()))
    return Claim(
        PAPER,
        "More bits for heavy hitters beat more bits for random neurons (relative change of the logits)",
        "random heavy set",
        errors[0],
        errors[1],
        "",
        "lower",
        errors[0] < errors[1],
        "random model with neurons of unequal weight",
    )


def real_model(name: str) -> list[Claim]:
    """Size, perplexity and speed of a real model on WikiText-2: 8192 calibration and 8192 evaluation tokens."""
    from papershelf_core import datasets

    dense, tokenizer = load_causal_model(name), load_tokenizer(name)
    calibration, test = (
        token_windows(tokenizer, detokenise(datasets.load("wikitext2", split=split).text), tokens=8192)
        for split in ("valid", "test")
    )
    statistics = collect(dense, [{"input_ids": window[None]} for window in calibration], moments=True, inputs=True)
    reference = window_nll(dense, test)

    def ratio(way: Any) -> float:
        return perplexity_ratio(window_nll(compress(copy.deepcopy(dense), way, statistics), test), reference).ratio

    ours = compress(copy.deepcopy(dense), Int8(), statistics)
    quality = perplexity_ratio(window_nll(ours, test), reference)
    heavy, uniform = ratio(MixedBits()), ratio(MixedBits(heavy=0, light_bits=4, feedback=False))
    split, plain = ratio(LowRank(0.75, 0.745)), ratio(LowRank(0.75, 0))
    note = "8192 tokens, windows of 512"
    return [
        _smaller(dense, ours),
        Claim(PAPER, "... with a perplexity <= 1.006x dense", "dense", quality.ratio, 1.0, "x", "lower",
              quality.ratio <= 1.006, f"{note}, s.e. {quality.standard_error:.4f}"),
        *_faster(dense, ours, test),
        Claim(PAPER, "3.375 bits, 64 heavy neurons at 6, errors passed on, match uniform 4.25 bits (nearest)",
              "uniform", heavy, uniform, "x dense", "lower", heavy <= uniform, note),
        Claim(PAPER, "Low rank for the lightest neurons alone: perplexity <= .3x uniform low rank's at equal bytes",
              "uniform activation-aware SVD", split, plain, "x dense", "lower", split <= 0.3 * plain, note),
    ]  # fmt: skip


def _smaller(dense: Any, ours: Any) -> Claim:
    with tempfile.TemporaryDirectory() as folder:
        for label, model in (("dense", dense), ("ours", ours)):
            model.save_pretrained(Path(folder) / label)
        sizes = [bytes_on_disk(Path(folder) / label) for label in ("ours", "dense")]
    saved = 100 * (1 - sizes[0] / sizes[1])
    return Claim(PAPER, "The whole model is 43.1 % smaller on disk than fp32", "abstract", saved, 43.1, "%", "higher",
                 saved >= 43.1, "FFNs in int8, all else fp32")  # fmt: skip


def _faster(dense: Any, ours: Any, test: Tensor) -> list[Claim]:
    models, rows = {"ours": ours, "dense": dense}, []
    cases: tuple[tuple[str, int, float, dict[str, Any]], ...] = (
        ("prefill of 128 tokens", 128, 1.30, {}),
        ("prefill of 512 tokens", 512, 1.25, {}),
        ("prefill of 128 tokens with all logits", 128, 1.25, {"all_logits": True}),
        ("decode", 128, 1.20, {"decode": True}),
    )
    for label, length, bar, options in cases:
        seconds = time_models(models, test[:1, :length].contiguous(), repeat=9, **options).seconds
        what, note = f"Whole-model {label} >= {bar:.2f}x as fast", f"{torch.get_num_threads()} thread(s)"
        rows.append(faster(PAPER, what, "dense fp32", seconds["ours"], seconds["dense"], times=bar, note=note))
    return rows
