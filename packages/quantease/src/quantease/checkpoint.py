"""Finished blocks and moments on disk, known by all that they depend on.

A run is known by the checksum of every parameter and buffer, the config, the tokens, what was asked for, the number of
threads (sums of other threads differ in the last digit, and codes with them) and the versions of the libraries that
compute (``papershelf_core.work_folder``). Its pieces lie in ``FOLDER/<run>/``: ``block-0000-<checksum>.safetensors``
(codes, scales, zeros and sparse parts by module; the report rows in its metadata) and ``report.jsonl`` (all rows so
far), a copy of which lies in FOLDER. Another run in the same folder has pieces of its own.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from papershelf_core.files import write_text
from papershelf_core.work_folder import WorkFolder, identity
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quantease.coordinate_descent import Certificate
from quantease.errors import FolderWarning
from quantease.layer import LayerResult
from quantease.outliers import SparseWeights
from quantease.scheme import QuantizationScheme

__all__ = ["Checkpoint", "MomentStore", "digest_of_model", "digest_of_tensors", "naming", "run_identity"]


def run_identity(job: dict[str, Any]) -> dict[str, Any]:
    """What a run depends on: ``job``, and the versions of what computes it."""
    import numba
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numba": numba.__version__}
    return identity("quantease", job | {"libraries": versions})


def digest_of_model(model: nn.Module) -> str:
    """Checksum of the names, types, shapes and values of all parameters and buffers, and of class and config."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    config: Any = getattr(model, "config", None)
    described = {} if config is None else config.to_dict()
    described["attention"] = getattr(config, "_attn_implementation", None)
    text = json.dumps(
        {key: value for key, value in described.items() if key not in ("_name_or_path", "transformers_version")},
        sort_keys=True,
        default=str,
    )
    return digest_of_tensors(tensors, f"{type(model).__module__}.{type(model).__qualname__}\n{text}")


def digest_of_tensors(tensors: dict[str, Tensor], about: str = "") -> str:
    """SHA-256 of tensors by name, types and shapes included."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in tensors.items():
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Say which file could not be written: neither a full disk nor the safetensors library names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(f"{target} could not be written ({reason}); make room or choose another folder") from error


class _Pieces:
    """Safetensors files of one run, one a block."""

    def __init__(self, folder: Path, name: str, of: dict[str, Any]) -> None:
        self.folder, self.name = folder, name
        with naming(folder):
            self.work = WorkFolder(folder, of)

    def finished(self, index: int) -> Path | None:
        """The file of a block, checked against its checksum; a damaged one is named and counts as not done."""
        name, before = self._piece(index), len(self.work.damaged)
        try:
            found = self.work.finished(name)
        except FileNotFoundError:  # another run of the same job removed a damaged piece at the same moment
            found = None
        if len(self.work.damaged) > before:
            warnings.warn(
                f"{self.work.path / name} did not match its checksum and was removed; block {index} is done again",
                FolderWarning,
                stacklevel=4,
            )
        return found

    def keep(self, index: int, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Write the file of a block."""
        whole = {name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}
        with naming(self.work.path / self._piece(index)), self.work.writing(self._piece(index)) as scratch:
            save_file(whole, scratch, metadata=metadata)

    def _piece(self, index: int) -> str:
        return f"{self.name}-{index:04d}.safetensors"


class MomentStore:
    """Full-precision moments of every block, so that many settings can share one pass over the calibration text."""

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        self.pieces = _Pieces(folder, "moments", of)

    def complete(self, blocks: int) -> bool:
        """Whether all blocks are there and whole."""
        found = [self.pieces.finished(index) for index in range(blocks)]  # all of them, so that all damaged are named
        return None not in found

    def read(self, index: int) -> dict[str, Tensor]:
        """Sigma by the name of the first layer of each group."""
        found = self.pieces.finished(index)
        if found is None:
            raise OSError(
                f"{self.pieces.work.path}: the moments of block {index} went away during the run; start again"
            )
        stored: dict[str, Tensor] = load_file(found)
        return stored

    def write(self, index: int, totals: dict[str, Tensor]) -> None:
        """Keep the moments of one block."""
        self.pieces.keep(index, totals, {})


class Checkpoint:
    """Finished blocks of one run."""

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        self.folder = folder
        self.pieces = _Pieces(folder, "block", of)

    def write(self, index: int, results: dict[str, LayerResult], rows: list[dict[str, Any]]) -> None:
        """Keep the results of one block."""
        tensors: dict[str, Tensor] = {}
        described: dict[str, Any] = {}
        for name, result in results.items():
            tensors |= {f"{name}.codes": result.codes, f"{name}.scale": result.scale, f"{name}.zero": result.zero}
            described[name] = {
                "scheme": vars(result.scheme),
                "error": result.error,
                "history": result.history,
                "certificate": vars(result.certificate),
                "sparse": None if result.sparse is None else result.sparse.kind,
            }
            if result.sparse is not None:
                for part in ("rows", "columns", "values"):
                    tensors[f"{name}.sparse.{part}"] = getattr(result.sparse, part)
        self.pieces.keep(index, tensors, {"layers": json.dumps(described), "rows": json.dumps(rows)})

    def read(self, index: int) -> tuple[dict[str, LayerResult], list[dict[str, Any]]] | None:
        """Results and report rows of a block, or None where it is not finished."""
        found = self.pieces.finished(index)
        if found is None:
            return None
        with safe_open(found, framework="pt") as stored:
            metadata = stored.metadata()
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no mapping)
        results = {}
        for name, about in json.loads(metadata["layers"]).items():
            sparse = None
            if about["sparse"] is not None:
                parts: list[torch.Tensor] = [tensors[f"{name}.sparse.{part}"] for part in ("rows", "columns", "values")]
                sparse = SparseWeights(parts[0], parts[1], parts[2], about["sparse"])
            results[name] = LayerResult(
                tensors[f"{name}.codes"],
                tensors[f"{name}.scale"],
                tensors[f"{name}.zero"],
                QuantizationScheme(**about["scheme"]),
                sparse,
                about["error"],
                tuple(about["history"]),
                Certificate(**about["certificate"]),
            )
        return results, json.loads(metadata["rows"])

    def report(self, rows: list[dict[str, Any]]) -> None:
        """Write all rows so far, beside the blocks and into the folder."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        for place in (self.pieces.work.path, self.folder):
            with naming(place / "report.jsonl"):
                write_text(place / "report.jsonl", text)
