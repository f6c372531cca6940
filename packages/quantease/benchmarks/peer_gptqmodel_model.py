"""A whole model through GPTQModel's own pipeline, in its own environment.

    GPTQMODEL_CPU_WORKERS=2 PEER/bin/python packages/quantease/benchmarks/peer_gptqmodel_model.py \
        MODEL FOLDER BITS-GROUP best|default

MODEL is a Hugging Face folder, FOLDER that of whole_model.py: calibration tokens are read from it and the dequantised
weights are written to FOLDER/peers/<bits>-<group>-gptqmodel-<setting>.safetensors, for `whole_model.py --peers`.
The weights are those that its GPTQ class returns, before they are packed.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from gptqmodel import GPTQModel, QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from safetensors.torch import save_file

# best: its mean-squared range search (the exponent of GPTQ's own) and descending activation order with static groups,
# which engines load; default: as QuantizeConfig has it, asymmetric like every other row
SETTINGS = {"best": {"mse": 2.4, "desc_act": True, "act_group_aware": False}, "default": {}}


def main() -> None:
    torch.set_num_threads(1)
    source, folder, scheme, setting = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    bits, group = scheme.split("-")
    options = dict(SETTINGS[setting])
    if group == "channel":
        options["act_group_aware"] = False  # refused without groups
    elif setting == "best":
        options["static_groups"] = True
    size = -1 if group == "channel" else int(group[1:])
    config = QuantizeConfig(bits=int(bits), group_size=size, sym=False, offload_to_disk=False, **options)
    found = keep_weights()
    windows = np.load(folder / "calibration.npy")
    model = GPTQModel.load(source, config, dtype=torch.float32, device="cpu")
    began = time.process_time()
    model.quantize([{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in windows], batch_size=1)
    seconds = time.process_time() - began
    target = folder / "peers" / f"{scheme}-gptqmodel-{setting}.safetensors"
    target.parent.mkdir(exist_ok=True)
    save_file(found, target.with_suffix(".part"), {"about": json.dumps({"cpu_seconds": seconds})})
    os.replace(target.with_suffix(".part"), target)
    print(f"{target.stem}: {len(found)} layers, {seconds:.0f} CPU s", flush=True)


def keep_weights() -> dict[str, torch.Tensor]:
    """Every weight that GPTQ.quantize returns from now on, by full module name."""
    found: dict[str, torch.Tensor] = {}
    original = GPTQ.quantize

    def quantize(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        found[f"{self._named_module.full_name}.weight"] = result[0].detach().float().cpu().contiguous().clone()
        return result

    GPTQ.quantize = quantize
    return found


if __name__ == "__main__":
    main()
