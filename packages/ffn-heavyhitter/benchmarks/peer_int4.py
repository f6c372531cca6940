# /// script
# requires-python = ">=3.11"
# dependencies = ["torchao==0.18.0", "optimum-quanto==0.2.7", "torch>=2.6", "transformers==5.23.0", "safetensors"]
# ///
"""Quantise the FFN weights to 4 bits with torchao and quanto; write the mean loss of each evaluation window as JSON.

python peer_int4.py MODEL WINDOWS.safetensors OUT.json
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def is_ffn(name):
    return ".mlp." in name and name.rsplit(".", 1)[-1] in ("gate_proj", "up_proj", "down_proj")


def torchao_int4(model):
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(64))
    quantize_(model, config, filter_fn=lambda module, name: is_ffn(name))
    return model


def quanto_int4(model):
    from optimum.quanto import freeze, qint4, quantize

    quantize(model, weights=qint4, include=[name for name, _ in model.named_modules() if is_ffn(name)])
    freeze(model)
    return model


def window_nll(model, windows):
    losses = []
    with torch.no_grad():
        for window in windows:
            logits = model(input_ids=window[None]).logits[0, :-1].float()
            losses.append(float(torch.nn.functional.cross_entropy(logits, window[1:]).double()))
    return losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("windows", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    windows = load_file(arguments.windows)["evaluation"]
    dense = AutoModelForCausalLM.from_pretrained(arguments.model).eval()
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name, quantise in {"torchao_int4": torchao_int4, "quanto_int4": quanto_int4}.items():
        if name not in found:
            found[name] = window_nll(quantise(copy.deepcopy(dense)), windows)
            arguments.out.write_text(json.dumps(found))
            print(name, "done", flush=True)


if __name__ == "__main__":
    main()
