"""Split quantisation against uniform bits, random and reversed heavy sets, and the 4-bit peers."""

import json
import shutil

import torch
from ffn_heavyhitter import MixedBits, Plan, find_ffns, plan_budget
from ffn_heavyhitter.compression import halve
from ffn_heavyhitter.evaluation import bytes_on_disk
from ffn_heavyhitter.models import load_causal_model
from study import FIT_WINDOWS, Study

NEAREST = {"feedback": False}
WAYS = {
    "64 heavy neurons 6 bits, light 3": MixedBits(),
    "random heavy set": MixedBits(score="random"),
    "uniform 4 bits": MixedBits(heavy=0, light_bits=4),
    "64 heavy neurons 6 bits, light 4": MixedBits(light_bits=4),
    "nearest: uniform 4 bits": MixedBits(heavy=0, light_bits=4, **NEAREST),
    "nearest: 64 heavy 6 bits, light 3": MixedBits(**NEAREST),
    "nearest: random heavy set": MixedBits(score="random", **NEAREST),
    "nearest: reversed heavy set": MixedBits(score="reversed:rms", **NEAREST),
}


BITS = 3.45
OPTIONS = [MixedBits(), *(MixedBits(heavy) for heavy in (0, 32, 128)), *(MixedBits(h, light_bits=4) for h in (0, 64))]
ALLOCATED = "heavy neurons 6 bits, light 3 or 4, by layer"


def measure(study: Study, way: MixedBits) -> dict:
    bits = way.bits_a_weight(find_ffns(study.dense)[0].weights())
    return {**study.perplexity(study.compressed(way)), "bits": bits}


def allocated(study: Study) -> dict:
    """3.45 bits a weight over all layers, spent by errors and measured divergences on held-out tokens."""
    weights = find_ffns(study.dense)[0].weights()
    everything = Plan.of(study.dense, OPTIONS[0])
    layers = len(everything.treatments)
    matrices = layers * sum(m.numel() for m in (weights.gate, weights.up, weights.down))
    spent = layers * OPTIONS[0].bits_a_weight(weights) * weights.up.numel() * 3 / 8
    budget = everything.model_bytes + int(BITS * matrices / 8 - spent)
    held_out = [{"input_ids": window[None]} for window in study.calibration[FIT_WINDOWS:]]
    plan = plan_budget(study.dense, study.fit, held_out[:4], OPTIONS, budget, measured_on=held_out[:2])
    bits = sum(way.bits_a_weight(weights) for way in plan.treatments.values()) / layers
    chosen = [(way.heavy, way.light_bits) for way in plan.treatments.values()]
    return {**study.perplexity(study.compressed(plan.treatments)), "bits": bits, "chosen": chosen}


def half_precision(study: Study) -> dict:
    """Everything but the FFNs in fp16, as a file; read back in fp32 for the perplexity."""
    dense, ours = study.cache / "half-dense", study.cache / "half-ours"
    load_causal_model(study.folder, dtype=torch.float16).save_pretrained(dense)
    model = halve(study.compressed(WAYS["64 heavy neurons 6 bits, light 4"]))
    model.save_pretrained(ours)
    found = study.perplexity(load_causal_model(ours, dtype=torch.float32))
    found |= {"bytes": bytes_on_disk(ours), "half_bytes": bytes_on_disk(dense)}
    for folder in (dense, ours):
        shutil.rmtree(folder)
    return found


def rows(study: Study) -> list[tuple[str, ...]]:
    table = [("FFN weights", "bits a weight", "perplexity", "x dense +- s.e.")]

    def add(label: str, bits: str, cell: dict) -> None:
        table.append((label, bits, f"{cell['perplexity']:.3f}", f"{cell['ratio']:.4f} +- {cell['standard_error']:.4f}"))

    for name, way in WAYS.items():
        cell = study.cell(f"bits-{_file(name)}", lambda way=way: measure(study, way))
        add(name, f"{cell['bits']:.3f}", cell)
    cell = study.cell(f"bits-{_file(ALLOCATED)}", lambda: allocated(study))
    add(ALLOCATED, f"{cell['bits']:.3f}", cell)
    half = study.cell("bits-half-precision", lambda: half_precision(study))
    saved = 1 - half["bytes"] / half["half_bytes"]
    add(f"6/4 bits, the rest fp16: {saved:.1%} below the fp16 file", "4.333", half)
    losses = study.cache / "int4.json"

    def peers() -> dict:
        study.peer("peer_int4.py", study.folder, str(study.windows_file.resolve()), str(losses.resolve()))
        return json.loads(losses.read_text())

    found = study.cell("bits-peers", peers)
    add("torchao 0.18 IntxWeightOnly int4, groups of 64", "4 + scales", study.paired(found["torchao_int4"]))
    add("optimum-quanto 0.2.7 qint4, groups of 128", "4 + scales", study.paired(found["quanto_int4"]))
    return table


def _file(name: str) -> str:
    return name.replace(" ", "-").replace(",", "").replace(":", "")
