"""GPTQModel's GPTQ class on our layer problems, in its own environment; `layers.py errors --peers` reads the result.

GPTQMODEL_CPU_WORKERS=2 PEER/bin/python packages/quantease/benchmarks/peer_gptqmodel_layers.py PROBLEMS FOLDER
"""

import sys
import time
from pathlib import Path

import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from safetensors.torch import load_file, save_file

SETTINGS = {
    "default": {},
    "desc_act": {"desc_act": True},
    "desc_act, mse 2": {"desc_act": True, "mse": 2.0},
    "desc_act, mse 2.4": {"desc_act": True, "mse": 2.4},
}
TOKENS = 32_768


def main() -> None:
    torch.set_num_threads(1)
    stored, folder = load_file(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(key.removesuffix(".weight") for key in stored if key.endswith(".weight"))
    for bits in (3, 2):
        for label, options in SETTINGS.items():
            began = time.process_time()
            quantised = {
                name: quantise(stored[f"{name}.weight"], stored[f"{name}.sigma"], bits, options) for name in names
            }
            seconds = time.process_time() - began
            save_file(quantised, folder / f"GPTQModel, {label}-{bits}bit.safetensors")
            print(f"{bits} bit, {label}: {seconds:.1f} CPU s for {len(names)} layers", flush=True)


def quantise(weight: torch.Tensor, sigma: torch.Tensor, bits: int, options: dict) -> torch.Tensor:
    """Per channel, asymmetric; its Hessian is twice the mean of x x^T."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    task = GPTQ(layer, QuantizeConfig(bits=bits, group_size=-1, sym=False, act_group_aware=False, **options))
    task.quantizer.configure(perchannel=True)
    task.H, task.nsamples = 2 * sigma.clone(), TOKENS
    return task.quantize()[0].float().contiguous()


if __name__ == "__main__":
    main()
