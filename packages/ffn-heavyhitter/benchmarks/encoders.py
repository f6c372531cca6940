"""Contenders for an encoder: fp32, the whole-model form, and ONNX Runtime's dynamic int8 where it is installed."""

import copy
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from ffn_heavyhitter import compress_model
from ffn_heavyhitter.models import load_encoder, load_tokenizer

Run = Callable[[dict], torch.Tensor]
BATCH = 32


def contenders(name: str, threads: int = 1) -> dict[str, Run]:
    """Last hidden states of a batch, by contender; fp32 first."""
    dense = load_encoder(name, dtype=torch.float32)
    found = {"fp32": _torch(dense)}
    for bits in (16, 8):
        found[f"int8, {bits}-bit activations"] = _torch(compress_model(copy.deepcopy(dense), activation_bits=bits))
    try:
        found["ONNX Runtime dynamic int8"] = _onnx(dense, threads)
    except ImportError:
        print("ONNX Runtime: not measured (needs onnxruntime and onnx)")
    return found


def embed(run: Run, name: str, sentences: list[str]) -> torch.Tensor:
    """Mean-pooled unit vectors, in the order of the sentences."""
    tokenizer = _tokenizer(name)
    parts = []
    for start in range(0, len(sentences), BATCH):
        batch = dict(tokenizer(sentences[start : start + BATCH], padding=True, truncation=True, return_tensors="pt"))
        mask = batch["attention_mask"][..., None].float()
        pooled = (run(batch) * mask).sum(1) / mask.sum(1)
        parts.append(torch.nn.functional.normalize(pooled, dim=-1))
    return torch.cat(parts)


def similarities(vectors: torch.Tensor) -> torch.Tensor:
    """Of each vector with the next 16."""
    return torch.cat([(vectors * vectors.roll(-shift, 0)).sum(1) for shift in range(1, 17)])


def batch(name: str, rows: int, length: int) -> dict:
    """Random tokens without padding."""
    tokenizer = _tokenizer(name)
    ids = torch.randint(1000, len(tokenizer), (rows, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


@cache
def _tokenizer(name: str):
    return load_tokenizer(name)


def _torch(model) -> Run:
    def run(given: dict) -> torch.Tensor:
        with torch.inference_mode():
            return model(**given).last_hidden_state

    return run


def _onnx(dense, threads: int) -> Run:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = dense
            self.eval()  # export would leave the model in training mode

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    folder = Path(tempfile.mkdtemp())
    example = torch.ones(2, 16, dtype=torch.int64)
    axes = {name: {0: "rows", 1: "length"} for name in ("ids", "mask", "hidden")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Wrapped(),
            (example, example),
            str(folder / "fp32.onnx"),
            input_names=["ids", "mask"],
            output_names=["hidden"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(folder / "int8.onnx", options, providers=["CPUExecutionProvider"])

    def run(given: dict) -> torch.Tensor:
        feed = {"ids": given["input_ids"].numpy(), "mask": given["attention_mask"].numpy()}
        return torch.from_numpy(session.run(None, feed)[0])

    return run
