"""The GPTQ step of a peer on the full-precision moments of every layer of a model, in the peer's environment.

    PEER/bin/python packages/quantease/benchmarks/peer_moments.py PEER MODEL FOLDER BITS-GROUP best|default

PEER is llmcompressor or gptqmodel. MODEL is a Hugging Face folder; FOLDER is that of whole_model.py, whose moments
(the same 32,768 tokens as every other row) are read; dequantised weights go to
FOLDER/peers/<bits>-<group>-<peer>-moments-<setting>.safetensors, for `whole_model.py --peers`.
Best: what has the lowest layer error in layers.py; both peers get descending activation order in both settings where
it is their default.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TOKENS = 32_768
SHARED = {"q_proj": ["q_proj", "k_proj", "v_proj"], "gate_proj": ["gate_proj", "up_proj"]}


def main() -> None:
    torch.set_num_threads(1)
    peer, source, folder, scheme, setting = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5]
    bits, group = scheme.split("-")
    size = None if group == "channel" else int(group[1:])
    solve = {"llmcompressor": llmcompressor, "gptqmodel": gptqmodel}[peer]
    found, seconds = {}, 0.0
    with safe_open(source / "model.safetensors", "pt") as weights:
        for file in sorted((folder / "moments").glob("*.safetensors")):
            for leader, total in load_file(file).items():
                stem, last = leader.rsplit(".", 1)
                for name in SHARED.get(last, [last]):
                    key = f"{stem}.{name}.weight"
                    weight, sigma = weights.get_tensor(key).float(), (total / TOKENS).float()
                    began = time.process_time()
                    found[key] = solve(weight, sigma, int(bits), size, setting).float().contiguous()
                    seconds += time.process_time() - began
    target = folder / "peers" / f"{scheme}-{peer}-moments-{setting}.safetensors"
    target.parent.mkdir(exist_ok=True)
    save_file(found, target.with_suffix(".part"), {"about": json.dumps({"cpu_seconds": seconds})})
    os.replace(target.with_suffix(".part"), target)
    print(f"{target.stem}: {len(found)} layers, {seconds:.0f} CPU s", flush=True)


def llmcompressor(weight: torch.Tensor, sigma: torch.Tensor, bits: int, size: int | None, setting: str) -> torch.Tensor:
    """Its quantize_weight with static activation order; best: the imatrix_mse observer."""
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
    from llmcompressor.observers import Observer

    observer = {"best": "imatrix_mse", "default": "memoryless_minmax"}[setting]
    grouped = {"strategy": "channel"} if size is None else {"strategy": "group", "group_size": size}
    arguments = QuantizationArgs(
        num_bits=bits, type="int", symmetric=False, actorder="static", observer=observer, **grouped
    )
    watching = Observer.load_from_registry(observer, base_name="weight", args=arguments)
    if setting == "best":
        watching._imatrix_sum = sigma.diagonal().clone() * TOKENS
        watching._imatrix_count = torch.tensor(TOKENS)
    watching(weight)
    grid = watching.get_qparams()
    result = quantize_weight(
        weight.clone()[None], sigma.clone()[None], grid["scale"][None], grid["zero_point"][None], None, arguments
    )
    return result[0][0]


def gptqmodel(weight: torch.Tensor, sigma: torch.Tensor, bits: int, size: int | None, setting: str) -> torch.Tensor:
    """Its GPTQ class; best: descending activation order (static groups, which engines load) and range search."""
    from gptqmodel import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    options = {"best": {"desc_act": True, "mse": 2.4, "static_groups": size is not None}, "default": {}}[setting]
    if size is None or setting == "best":
        options["act_group_aware"] = False
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    task = GPTQ(layer, QuantizeConfig(bits=bits, group_size=size or -1, sym=False, **options))
    task.quantizer.configure(perchannel=True)
    task.H, task.nsamples = 2 * sigma.clone(), TOKENS
    return task.quantize()[0]


if __name__ == "__main__":
    main()
