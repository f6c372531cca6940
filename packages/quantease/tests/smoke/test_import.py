"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata
import subprocess
import sys

import pytest
import quantease
import torch


def test_import_and_version() -> None:
    assert importlib.metadata.version("quantease") == "0.1.0"
    assert quantease.__all__ == sorted(quantease.__all__)
    assert all(getattr(quantease, name) is not None for name in quantease.__all__)


def test_a_layer_and_the_command() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(8, 32, generator=generator), torch.randn(32, 200, generator=generator)
    scheme, sigma = quantease.QuantizationScheme(3), inputs @ inputs.T
    solvers = [quantease.SolverConfig(method) for method in ("quantease", "gptq", "rtn")]
    errors = [quantease.quantize_layer(weight, sigma, scheme, solver).error for solver in solvers]
    assert errors == sorted(errors)
    helped = subprocess.run([sys.executable, "-m", "quantease.cli", "--help"], capture_output=True, check=True)
    assert helped.returncode == 0


@pytest.mark.filterwarnings("ignore:.*calibration tokens are fewer:quantease.CalibrationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_is_exported_and_loaded_again(tmp_path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=64
    )
    windows = torch.randint(0, 64, (4, 32), generator=torch.Generator().manual_seed(0))
    quantized = quantease.quantize_model(LlamaForCausalLM(config), windows, quantease.QuantizationScheme(4, 16))
    quantease.export_compressed_tensors(quantized, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_torch_is_imported_late() -> None:
    program = "import sys, quantease, quantease.cli; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
