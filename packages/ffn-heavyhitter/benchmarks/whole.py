"""The whole-model form: bytes, perplexity on two kinds of text, greedy text, and an encoder's similarities.

Every row sees the same tokens; differences are paired by windows of 512. With onnxruntime at hand its dynamic int8
stands beside the encoder's rows.

uv run --with onnxruntime --with onnx python packages/ffn-heavyhitter/benchmarks/whole.py [--windows 32]
"""

import argparse
import copy
import importlib
import inspect
import sys
import tempfile
from pathlib import Path

import torch
from encoders import contenders, embed, similarities
from ffn_heavyhitter import MixedBits, collect, compress_model
from ffn_heavyhitter.evaluation import bytes_on_disk, perplexity_ratio, window_nll
from ffn_heavyhitter.models import load_causal_model, load_tokenizer
from ffn_heavyhitter.text import detokenise, token_windows
from papershelf_core import datasets
from papershelf_core.machine import Machine
from scipy.stats import spearmanr
from sts import pairs

LENGTH = 512
CALIBRATION_WINDOWS = 16
MIXED = {
    "25 % heavy neurons at 8 bits, light at 4": MixedBits(heavy=0.25, heavy_bits=8, light_bits=4),
    "25 % random neurons at 8 bits, others at 4": MixedBits(heavy=0.25, heavy_bits=8, light_bits=4, score="random"),
}
NEW_TOKENS = 40
PARTS = ("perplexity", "greedy", "mixed", "encoder")
SOURCES = (
    "argparse",
    "asyncio.base_events",
    "calendar",
    "configparser",
    "difflib",
    "fractions",
    "statistics",
    "zipfile",
)
PROMPTS = (
    "The capital of France is",
    "Water boils at",
    "Once upon a time there was a",
    "The three primary colours are",
    "def fibonacci(n):",
    "The largest planet of the solar system",
    "To bake bread you need",
    "In 1969, two astronauts",
    "The opposite of hot is",
    "A prime number is a number that",
    "Dear Sir or Madam,",
    "The mitochondrion is",
    "import numpy as np\n",
    "The best way to learn a language is",
    "Photosynthesis is the process by which",
    "My favourite season is autumn because",
    "The Roman Empire fell",
    "for i in range(10):",
    "The speed of light is",
    "Shakespeare wrote",
)


def texts(tokenizer, windows: int) -> dict[str, torch.Tensor]:
    wiki = detokenise(datasets.load("wikitext2", split="test").text)
    share = -(-windows // len(SOURCES))
    source = [Path(inspect.getfile(importlib.import_module(name))).read_text(encoding="utf-8") for name in SOURCES]
    cut = [token_windows(tokenizer, text, tokens=share * LENGTH, length=LENGTH) for text in source]
    return {
        "WikiText-2 test": token_windows(tokenizer, wiki, tokens=windows * LENGTH, length=LENGTH),
        f"Python {sys.version_info[0]}.{sys.version_info[1]} source": torch.cat(cut)[:windows],
    }


def perplexities(dense, ours: dict, windows: dict[str, torch.Tensor]) -> None:
    for name, ids in windows.items():
        reference = window_nll(dense, ids)
        print(f"{name}, {ids.numel()} tokens: dense {reference.mean().exp():.3f}", flush=True)
        for label, model in ours.items():
            print(f"{name}, {label}: {perplexity_ratio(window_nll(model, ids), reference)}", flush=True)


def greedy_texts(dense, ours, tokenizer) -> None:
    """The dense model's greedy text, token by token, up to the first difference, and how near a tie that was."""
    same, margins = 0, []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        wanted, found = (model.generate(ids, **options)[0, ids.shape[1] :] for model in (dense, ours))
        size = min(len(wanted), len(found))
        differs = (wanted[:size] != found[:size]).nonzero()
        if not len(differs):
            same += 1
            continue
        at = int(differs[0])
        with torch.no_grad():
            logits = dense(input_ids=torch.cat([ids[0], wanted[:at]])[None]).logits[0, -1].log_softmax(-1)
        margins.append(float(logits[wanted[at]] - logits[found[at]]))
        print(
            f"{prompt!r}: token {at + 1} is {tokenizer.decode(wanted[at])!r} in the dense model, "
            f"{tokenizer.decode(found[at])!r} here; the dense model holds them {margins[-1]:.3f} nats apart"
        )
    largest = max(margins, default=0.0)
    print(f"greedy text of {NEW_TOKENS} tokens: {same} of {len(PROMPTS)} the same; largest gap {largest:.3f} nats")


def mixed(dense, tokenizer, windows: dict[str, torch.Tensor]) -> None:
    """Fewer bits for the FFNs of a whole model, by heavy neurons and by random ones; calibrated on WikiText-2 valid."""
    text = detokenise(datasets.load("wikitext2", split="valid").text)
    ids = token_windows(tokenizer, text, tokens=CALIBRATION_WINDOWS * LENGTH, length=LENGTH)
    statistics = collect(dense, [{"input_ids": window[None]} for window in ids], moments=True)
    models = {label: _reloaded(dense, 16, label, ffn=way, statistics=statistics) for label, way in MIXED.items()}
    perplexities(dense, models, windows)


def encoder(name: str) -> None:
    rows = list(pairs("dev"))
    human = [row[0] for row in rows]
    reference = None
    for label, run in contenders(name).items():
        left, right = (embed(run, name, [row[side] for row in rows]) for side in (1, 2))
        found = spearmanr((left * right).sum(1), human).statistic
        if reference is None:
            reference, base = torch.cat([left, right]), found
            print(f"{name}, {label}: Spearman {found:.4f} on {len(rows)} pairs")
            continue
        ours = torch.cat([left, right])
        cosine = (ours * reference).sum(1)
        error = (similarities(ours) - similarities(reference)).square().mean().sqrt()
        print(
            f"{name}, {label}: Spearman {found - base:+.4f}, cosine to fp32 mean {cosine.mean():.5f} min "
            f"{cosine.min():.5f}, rms error of similarities {error:.5f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--windows", type=int, default=32, help="of each text")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if set(arguments.parts) != {"encoder"}:
        dense, tokenizer = load_causal_model(arguments.model), load_tokenizer(arguments.model)
        windows = texts(tokenizer, arguments.windows)
    if set(arguments.parts) & {"perplexity", "greedy"}:
        whole = {f"{bits}-bit activations": _reloaded(dense, bits, f"{bits}-bit activations") for bits in (16, 8)}
        if "perplexity" in arguments.parts:
            perplexities(dense, whole, windows)
        if "greedy" in arguments.parts:
            greedy_texts(dense, whole["16-bit activations"], tokenizer)
    if "mixed" in arguments.parts:
        mixed(dense, tokenizer, windows)
    if "encoder" in arguments.parts:
        encoder(arguments.encoder)
    print(Machine.here("ffn-heavyhitter", "torch", "transformers", "onnxruntime"))


def _reloaded(dense, bits: int, label: str, **options):
    """Through the disk, as a user has it."""
    with tempfile.TemporaryDirectory() as folder:
        compress_model(copy.deepcopy(dense), activation_bits=bits, **options).save_pretrained(folder)
        print(f"{label}: {bytes_on_disk(folder)} bytes on disk", flush=True)
        return load_causal_model(folder)


if __name__ == "__main__":
    main()
