"""A whole model through llm-compressor's own GPTQ pipeline, in its own environment.

    PEER/bin/python packages/quantease/benchmarks/peer_llmcompressor_model.py MODEL FOLDER BITS-GROUP best|default

MODEL is a Hugging Face folder, FOLDER that of whole_model.py: calibration tokens are read from it and the dequantised
weights are written to FOLDER/peers/<bits>-<group>-llmcompressor-<setting>.safetensors, for `whole_model.py --peers`.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

# best: the observer of lowest layer error in layers.py, and its static activation order (also its default order)
OBSERVERS = {"best": "imatrix_mse", "default": "memoryless_minmax"}


def main() -> None:
    torch.set_num_threads(1)
    source, folder, scheme, setting = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    bits, group = scheme.split("-")
    grouped = {"strategy": "channel"} if group == "channel" else {"strategy": "group", "group_size": int(group[1:])}
    weights = QuantizationArgs(
        num_bits=int(bits), type="int", symmetric=False, actorder="static", observer=OBSERVERS[setting], **grouped
    )
    windows = np.load(folder / "calibration.npy")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    began = time.process_time()
    oneshot(
        model=model,
        dataset=Dataset.from_dict({"input_ids": windows.tolist(), "attention_mask": np.ones_like(windows).tolist()}),
        recipe=GPTQModifier(
            config_groups={"all": QuantizationScheme(targets=["Linear"], weights=weights)}, ignore=["lm_head"]
        ),
        num_calibration_samples=len(windows),
        max_seq_length=windows.shape[1],
        shuffle_calibration_samples=False,
    )
    seconds = time.process_time() - began
    found = {
        f"{name}.weight": module.weight.data.float().contiguous()
        for name, module in model.model.layers.named_modules(prefix="model.layers")
        if isinstance(module, torch.nn.Linear)
    }
    levels = max(len(torch.unique(row)) for row in found["model.layers.0.self_attn.q_proj.weight"][:4, :64])
    if levels > 1 << int(bits):
        raise SystemExit(f"{levels} values where {bits} bits allow {1 << int(bits)}: weights are not quantised")
    target = folder / "peers" / f"{scheme}-llmcompressor-{setting}.safetensors"
    target.parent.mkdir(exist_ok=True)
    save_file(found, target.with_suffix(".part"), {"about": json.dumps({"cpu_seconds": seconds})})
    os.replace(target.with_suffix(".part"), target)
    print(f"{target.stem}: {seconds:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
