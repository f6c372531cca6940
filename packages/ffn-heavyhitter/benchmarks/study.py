"""What all studies share: one model, one text, and cells that are measured once and kept on disk."""

import copy
import json
import subprocess
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ffn_heavyhitter import Statistics, collect, compress
from ffn_heavyhitter.evaluation import perplexity_ratio, window_nll
from ffn_heavyhitter.models import load_causal_model, load_tokenizer, model_folder
from ffn_heavyhitter.text import detokenise, token_windows
from papershelf_core import datasets
from safetensors.torch import save_file
from sts import pairs
from torch import Tensor

LENGTH = 512
FIT_WINDOWS, HELD_OUT_WINDOWS, TEST_WINDOWS = 24, 8, 16


class Study:
    """A causal model on WikiText-2: 12288 + 4096 calibration tokens of valid, 8192 evaluation tokens of test."""

    def __init__(self, model: str, cache: Path, peers: str | None) -> None:
        self.folder, self.cache, self.peers = str(model_folder(model)), cache, peers
        cache.mkdir(parents=True, exist_ok=True)

    @cached_property
    def dense(self) -> Any:
        return load_causal_model(self.folder)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder)

    def _windows(self, split: str, count: int) -> Tensor:
        text = detokenise(datasets.load("wikitext2", split=split).text)
        return token_windows(self.tokenizer, text, tokens=count * LENGTH, length=LENGTH)

    @cached_property
    def calibration(self) -> Tensor:
        return self._windows("valid", FIT_WINDOWS + HELD_OUT_WINDOWS)

    @cached_property
    def test(self) -> Tensor:
        return self._windows("test", TEST_WINDOWS)

    def _collected(self, name: str, windows: Tensor) -> Statistics:
        path = self.cache / f"{name}.safetensors"
        if not path.exists():
            batches = [{"input_ids": window[None]} for window in windows]
            collect(self.dense, batches, moments=True, gradients=True, inputs=True).save(path)
        return Statistics.load(path)

    @cached_property
    def fit(self) -> Statistics:
        return self._collected("fit", self.calibration[:FIT_WINDOWS])

    @cached_property
    def held_out(self) -> Statistics:
        return self._collected("held_out", self.calibration[FIT_WINDOWS:])

    @cached_property
    def statistics(self) -> Statistics:
        return self.fit + self.held_out

    @cached_property
    def dense_nll(self) -> Tensor:
        return torch.tensor(self.cell("dense", lambda: {"nll": window_nll(self.dense, self.test).tolist()})["nll"])

    def cell(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The finished cell from disk, or measured now and kept."""
        path = self.cache / f"{name}.json"
        if not path.exists():
            start = time.monotonic()
            found = measure()
            found["seconds"] = round(time.monotonic() - start, 1)
            scratch = path.with_name(path.name + ".part")
            scratch.write_text(json.dumps(found))
            scratch.replace(path)
            print(f"{name}: {_brief(found)}", flush=True)
        return json.loads(path.read_text())

    @cached_property
    def other_domain(self) -> Statistics:
        """As many calibration tokens, of single sentences: captions, headlines and forum posts of STS-B train."""
        sentences = "\n".join(sentence for row in pairs("train") for sentence in row[1:])
        windows = token_windows(self.tokenizer, sentences, tokens=self.calibration.numel(), length=LENGTH)
        return collect(self.dense, [{"input_ids": window[None]} for window in windows], moments=True)

    def compressed(self, treatment: Any, statistics: Statistics | None = None) -> Any:
        """A compressed copy of the dense model."""
        return compress(copy.deepcopy(self.dense), treatment, statistics or self.statistics)

    def perplexity(self, model: Any) -> dict[str, Any]:
        return self.paired(window_nll(model, self.test).tolist())

    def paired(self, nll: list[float]) -> dict[str, Any]:
        result = perplexity_ratio(torch.tensor(nll), self.dense_nll)
        return {
            "nll": nll,
            "perplexity": result.perplexity,
            "ratio": result.ratio,
            "standard_error": result.standard_error,
        }

    @cached_property
    def windows_file(self) -> Path:
        path = self.cache / "windows.safetensors"
        if not path.exists():
            save_file({"calibration": self.calibration, "evaluation": self.test}, path)
        return path

    def peer(self, script: str, *arguments: str) -> None:
        """Run a peer's script, in the environment given or in one that uv makes from its inline dependencies."""
        file = str(Path(__file__).with_name(script))
        prefix = [self.peers, "-W", "ignore"] if self.peers else ["uv", "run", "--no-project", "--script"]
        subprocess.run([*prefix, file, *arguments], check=True, cwd="/")


def _brief(found: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v:.5g}" if isinstance(v, float) else f"{k}={v}" for k, v in found.items() if k != "nll")
