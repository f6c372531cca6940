"""Finished blocks on disk: one safetensors file a block, written whole or not at all.

Layout of the folder: ``settings.json`` (what the run was asked for), ``blocks/0000.safetensors`` (codes, scales, zeros
and sparse parts by module; the report rows in its metadata), ``report.jsonl`` (all rows so far).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantease.coordinate_descent import Certificate
from quantease.errors import ModelError
from quantease.layer import LayerResult
from quantease.outliers import SparseWeights
from quantease.scheme import QuantizationScheme

__all__ = ["Checkpoint", "MomentStore", "write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a text under a temporary name in the same folder, then rename it."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run into its folder, or refuse a folder that belongs to another run."""
    recorded = folder / "settings.json"
    if not recorded.exists():
        write_whole(recorded, json.dumps(settings, indent=1))
        return
    earlier = json.loads(recorded.read_text(encoding="utf-8"))
    differing = sorted(key for key in settings if earlier.get(key) != json.loads(json.dumps(settings[key])))
    if differing:
        raise ModelError(
            f"{folder} holds a run that differs in {', '.join(differing)}; choose another folder or delete it"
        )


class MomentStore:
    """Full-precision moments of every block, so that many settings can share one pass over the calibration text.

    Raises
    ------
    ModelError
        If the folder holds the moments of other weights or tokens.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, settings)

    def complete(self, blocks: int) -> bool:
        """Whether all blocks are there."""
        return all(self._block(index).exists() for index in range(blocks))

    def read(self, index: int) -> dict[str, Tensor]:
        """Sigma by the name of the first layer of each group."""
        stored: dict[str, Tensor] = load_file(self._block(index))
        return stored

    def write(self, index: int, totals: dict[str, Tensor]) -> None:
        """Keep the moments of one block."""
        scratch = self._block(index).with_suffix(".part")
        save_file({name: total.cpu().contiguous() for name, total in totals.items()}, scratch)
        os.replace(scratch, self._block(index))

    def _block(self, index: int) -> Path:
        return self.folder / f"{index:04d}.safetensors"


class Checkpoint:
    """Blocks of one run in one folder.

    Raises
    ------
    ModelError
        If the folder holds a run of other settings, weights or tokens.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        (folder / "blocks").mkdir(parents=True, exist_ok=True)
        _claim(folder, settings)

    def write(self, index: int, results: dict[str, LayerResult], rows: list[dict[str, Any]]) -> None:
        """Keep the results of one block and bring ``report.jsonl`` up to date."""
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
        target = self._block(index)
        scratch = target.with_name(target.name + ".part")
        contiguous = {name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}
        save_file(contiguous, scratch, metadata={"layers": json.dumps(described), "rows": json.dumps(rows)})
        os.replace(scratch, target)
        write_whole(self.folder / "report.jsonl", "".join(json.dumps(row) + "\n" for row in self._rows(index)))

    def read(self, index: int) -> tuple[dict[str, LayerResult], list[dict[str, Any]]] | None:
        """Results and report rows of a block, or None where it is not finished."""
        if not self._block(index).exists():
            return None
        with safe_open(self._block(index), framework="pt") as stored:
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

    def _block(self, index: int) -> Path:
        return self.folder / "blocks" / f"{index:04d}.safetensors"

    def _rows(self, last: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for index in range(last + 1):
            stored = self.read(index)
            if stored is not None:
                rows += stored[1]
        return rows
