"""A model as a folder: weights in shards, config, generation config, tokenizer, and a list of what belongs to it.

Every export goes through ``written``: the folder appears under its name whole, or not at all. ``quantease.json`` holds
the SHA-256 of every file, and of its own content, so that ``load_model`` and ``load_native`` read what was written or
refuse it with the name of the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from papershelf_core.files import replacing, sha256
from torch import Tensor, nn

from quantease.checkpoint import naming
from quantease.errors import ExportError
from quantease.preflight import stored_type

__all__ = ["DESCRIPTION", "SHARD", "read_description", "state_of", "written"]

DESCRIPTION = "quantease.json"
SHARD = "5GB"
# what belongs to a tokenizer, by the names that model folders use
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
    "*.tiktoken",
    "preprocessor_config.json",
    "processor_config.json",
)


def state_of(model: nn.Module, stored_as: torch.dtype) -> dict[str, Tensor]:
    """Parameters and persistent buffers in the type that they are stored in; of tied ones the first name.

    The config ties the others again.
    """
    kept: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    state = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for key, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if tensor.numel() and kept.setdefault(place, key) != key:
            continue
        narrow = key in parameters and tensor.is_floating_point()
        state[key] = (tensor.to(stored_as) if narrow and tensor.dtype == torch.float32 else tensor).contiguous()
    return state


@contextlib.contextmanager
def written(
    model: nn.Module,
    state: dict[str, Tensor],
    target: str | os.PathLike[str],
    tokenizer: Any,
    weights: str = "model{suffix}.safetensors",
    max_shard_size: int | str = SHARD,
    described: dict[str, Any] | None = None,
    edit_config: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    more: dict[str, str] | None = None,
) -> Iterator[Path]:
    """Write everything into a scratch folder, give it to be checked, and let it have its name.

    Parameters
    ----------
    model : torch.nn.Module
        Its config and generation config go with it.
    state : dict of str to Tensor
    target : path
        Absent, or an empty folder.
    tokenizer : Hugging Face tokenizer, path or None
        None: the tokenizer files of the folder that the model was read from, where there are any.
    weights : str
        Pattern of the names of shards.
    max_shard_size : int or str
        Bytes, or such as "5GB".
    described : dict, optional
        More for ``quantease.json``.
    edit_config : callable, optional
        Changes what ``config.json`` says.
    more : dict of str to str, optional
        Further text files.
    """
    from huggingface_hub import save_torch_state_dict

    goal = Path(target)
    refuse_existing(goal)
    try:
        with replacing(goal) as scratch:
            with naming(goal):
                scratch.mkdir(parents=True)
                whole = {key: _alone(tensor) for key, tensor in state.items()}
                save_torch_state_dict(
                    whole, scratch, filename_pattern=weights, max_shard_size=max_shard_size, metadata={"format": "pt"}
                )
                _write_config(model, scratch, edit_config)
                _write_tokenizer(model, tokenizer, scratch)
                for name, text in (more or {}).items():
                    (scratch / name).write_text(text, encoding="utf-8")
                _describe(scratch, described or {})
            yield scratch
    except FileExistsError as error:
        raise ExportError(str(error)) from error


def refuse_existing(target: str | os.PathLike[str]) -> None:
    """Refuse a target that holds something."""
    goal = Path(target)
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise ExportError(f"{goal} exists; choose another name or delete it")


def read_description(folder: Path) -> dict[str, Any] | None:
    """``quantease.json`` of a folder once every file that it lists was checked; None where there is none.

    Raises
    ------
    ExportError
        Names the file that is missing or is not the one that was written.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        return None
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        own = about.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ExportError(f"{file} is damaged ({type(error).__name__}); export the model again") from error
    if own != _digest(about):
        raise ExportError(f"{file} is damaged: its checksum does not match; export the model again")
    for name, digest in about["files"].items():
        if not (folder / name).is_file():
            raise ExportError(f"{folder / name} is missing; export the model again")
        if sha256(folder / name) != digest:
            raise ExportError(
                f"{folder / name} is not the file that was written; export the model again, or delete {DESCRIPTION} "
                "if you changed it on purpose"
            )
    described: dict[str, Any] = about
    return described


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on the CPU in a storage of its own: a slice of another one cannot be saved."""
    held = tensor.detach().cpu().contiguous()
    return held if held.untyped_storage().nbytes() == held.numel() * held.element_size() else held.clone()


def _write_config(model: nn.Module, folder: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    config: Any = model.config
    config.save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    described |= {"architectures": [type(model).__name__], "dtype": str(stored_type(model)).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(edit(described), indent=1) + "\n", encoding="utf-8")
    generation: Any = getattr(model, "generation_config", None)
    if generation is not None:
        generation.to_json_file(folder / "generation_config.json")


def _write_tokenizer(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    source = tokenizer
    if tokenizer is None:
        source = getattr(model.config, "_name_or_path", None)
    elif not isinstance(tokenizer, str | os.PathLike):
        tokenizer.save_pretrained(folder)
        source = getattr(tokenizer, "name_or_path", None)
    if not source or not Path(source).is_dir():
        return
    for file in sorted(Path(source).iterdir()):
        named = any(fnmatch(file.name, pattern) for pattern in TOKENIZER_FILES)
        if named and file.is_file() and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)
        elif named and file.is_dir() and not (folder / file.name).exists():
            shutil.copytree(file, folder / file.name)


def _describe(folder: Path, described: dict[str, Any]) -> None:
    import importlib.metadata

    about = {"quantease": importlib.metadata.version("quantease")} | described
    about["files"] = {
        file.relative_to(folder).as_posix(): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()
    }
    about["sha256"] = _digest(about)
    (folder / DESCRIPTION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _digest(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
