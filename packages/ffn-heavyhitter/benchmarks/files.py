"""What becomes of a real model on its way through the disk, and what analysing and compressing it cost.

Calibration on 8192 tokens; CPU seconds on one thread; the written model is read back by fresh processes, once plainly
from 50 MB shards and once with half of its layers offloaded to disk.

uv run python packages/ffn-heavyhitter/benchmarks/files.py --model smollm2 --cache out/ffn-files
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from ffn_heavyhitter import Int8, MixedBits, Plan, Statistics, analyse, collect, compress
from ffn_heavyhitter.evaluation import bytes_on_disk
from ffn_heavyhitter.models import load_causal_model
from papershelf_core.machine import Machine
from safetensors.torch import load_file, save_file
from study import Study

CALIBRATION_WINDOWS = 16
SHARD = "50MB"
WAYS = {"int8": Int8(), "mixed_bits": MixedBits()}
FRESH = """
import sys, torch
import ffn_heavyhitter
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
torch.set_num_threads(1)
folder, ids, out = sys.argv[1:4]
layers = AutoConfig.from_pretrained(folder).num_hidden_layers
places = {f"model.layers.{i}": "cpu" if i % 2 else "disk" for i in range(layers)}
places |= {name: "cpu" for name in ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")}
offloaded = {"device_map": places, "offload_folder": out + "-offload"}
options = offloaded if sys.argv[4] == "offloaded" else {}
model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
with torch.no_grad():
    save_file({"logits": model(input_ids=load_file(ids)["ids"]).logits}, out)
"""


def timed(label: str, run):
    start = time.process_time()
    found = run()
    print(f"{label}: {time.process_time() - start:.1f} CPU s on one thread", flush=True)
    return found


def calibrated(study: Study) -> tuple[torch.nn.Module, Statistics]:
    model = study.dense
    batches = [{"input_ids": window[None]} for window in study.calibration[:CALIBRATION_WINDOWS]]
    half = len(batches) // 2

    def report() -> None:
        halves = (collect(model, part, hits=True) for part in (batches[:half], batches[half:]))
        print(analyse(*halves).verdict)

    timed("analyse 8192 tokens", report)
    return model, timed("second moments of 8192 tokens", lambda: collect(model, batches, moments=True))


def round_trip(cache: Path, name: str, model: torch.nn.Module, planned: int, ids: torch.Tensor) -> None:
    folder = cache / name
    model.save_pretrained(folder, max_shard_size=SHARD)
    shards, size = len(list(folder.glob("*.safetensors"))), bytes_on_disk(folder)
    print(
        f"{name}: {size} bytes in {shards} shards of {SHARD}; planned {planned}, {planned / size - 1:+.3%}", flush=True
    )
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    save_file({"ids": ids}, cache / "ids.safetensors")
    for place in ("plain", "offloaded"):
        out = cache / f"logits-{place}.safetensors"
        subprocess.run([sys.executable, "-c", FRESH, folder, cache / "ids.safetensors", out, place], check=True)
        same = torch.equal(load_file(out)["logits"], expected)
        print(f"{name}, read by a fresh process, {place}: {'the same bits' if same else 'OTHER BITS'}", flush=True)
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(arguments.model, arguments.cache, None)
    model, statistics = calibrated(study)
    for name, way in WAYS.items():
        planned = Plan.of(model, way).model_bytes
        timed(f"compress, {name}", lambda model=model, way=way: compress(model, way, statistics))
        round_trip(arguments.cache, name, model, planned, study.test[:1, :128])
        model = load_causal_model(study.folder)
    print(Machine.here("ffn-heavyhitter", "torch", "transformers"))


if __name__ == "__main__":
    main()
