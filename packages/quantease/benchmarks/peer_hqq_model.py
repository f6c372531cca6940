"""A whole model through HQQ (no calibration), in its own environment.

    PEER/bin/python packages/quantease/benchmarks/peer_hqq_model.py MODEL FOLDER BITS-GROUP ...

Writes FOLDER/peers/<bits>-<group>-hqq.safetensors for `whole_model.py --peers`; groups run along the inputs (axis 1).
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from hqq.core.quantize import Quantizer
from safetensors import safe_open
from safetensors.torch import save_file


def main() -> None:
    torch.set_num_threads(1)
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with safe_open(source / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if ".layers." in name and name.endswith("_proj.weight")]  # noqa: SIM118
        weights = {name: file.get_tensor(name) for name in names}
    for scheme in sys.argv[3:]:
        bits, group = scheme.split("-")
        began = time.process_time()
        found = {
            name: quantised(weight, int(bits), weight.shape[1] if group == "channel" else int(group[1:]))
            for name, weight in weights.items()
        }
        seconds = time.process_time() - began
        target = folder / "peers" / f"{scheme}-hqq.safetensors"
        target.parent.mkdir(exist_ok=True)
        save_file(found, target.with_suffix(".part"), {"about": json.dumps({"cpu_seconds": seconds})})
        os.replace(target.with_suffix(".part"), target)
        print(f"{target.stem}: {seconds:.0f} CPU s", flush=True)


def quantised(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    codes, meta = Quantizer.quantize(
        weight.float(), nbits=bits, group_size=group, axis=1, device="cpu", compute_dtype=torch.float32, bitpack=False
    )
    return Quantizer.dequantize(codes, meta).float().reshape(weight.shape).contiguous()


if __name__ == "__main__":
    main()
