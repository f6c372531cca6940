"""llm-compressor's GPTQ on our layer problems, in its own environment; `layers.py errors --peers` reads the result.

PEER/bin/python packages/quantease/benchmarks/peer_llmcompressor_layers.py PROBLEMS FOLDER
"""

import sys
import time
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.observers import Observer
from safetensors.torch import load_file, save_file

OBSERVERS = {
    "default": ("memoryless_minmax", {}),
    "mse": ("memoryless_mse", {}),
    "imatrix": ("imatrix_mse", {}),
}
TOKENS = 32_768


def main() -> None:
    torch.set_num_threads(1)
    stored, folder = load_file(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(key.removesuffix(".weight") for key in stored if key.endswith(".weight"))
    for bits in (3, 2):
        for label, (observer, options) in OBSERVERS.items():
            began = time.process_time()
            quantised = {
                name: quantise(stored[f"{name}.weight"], stored[f"{name}.sigma"], bits, observer, options)
                for name in names
            }
            save_file(quantised, folder / f"llm-compressor GPTQ, {label} observer-{bits}bit.safetensors")
            print(f"{bits} bit, {label}: {time.process_time() - began:.1f} CPU s for {len(names)} layers", flush=True)


def quantise(weight: torch.Tensor, sigma: torch.Tensor, bits: int, observer: str, options: dict) -> torch.Tensor:
    """Per channel, asymmetric, static activation order."""
    arguments = QuantizationArgs(
        num_bits=bits, type="int", symmetric=False, strategy="channel", actorder="static", observer=observer
    )
    watching = Observer.load_from_registry(observer, base_name="weight", args=arguments, **options)
    if observer == "imatrix_mse":
        watching._imatrix_sum = sigma.diagonal().clone() * TOKENS
        watching._imatrix_count = torch.tensor(TOKENS)
    watching(weight)
    found = watching.get_qparams()
    result = quantize_weight(
        weight.clone()[None],
        sigma.clone()[None],
        found["scale"][None],
        found["zero_point"][None],
        None,
        arguments,
    )
    return result[0][0].contiguous()


if __name__ == "__main__":
    main()
