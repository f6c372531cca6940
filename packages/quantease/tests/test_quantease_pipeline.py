from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from quantease import (
    CalibrationWarning,
    ExportError,
    LayerError,
    ModelError,
    OutlierConfig,
    QuantizationScheme,
    SolverConfig,
    export_compressed_tensors,
    export_dense,
    load_native,
    paired_difference,
    quantize_layer,
    quantize_model,
    save_native,
    token_nll,
    token_windows,
)
from quantease.blocks import find_blocks
from quantease_cases import WINDOWS, tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*calibration tokens are fewer:quantease.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
EXPORTED = [(2, None, False), (3, 16, False), (4, 16, True), (8, None, False)]
ARCHITECTURES = ["llama", "opt", "gpt2", "gemma3", "falcon", "mistral"]


def _codes(quantized):
    return {name: layer.codes for name, layer in quantized.layers.items()}


def _same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_goes_through_and_descent_helps(architecture: str) -> None:
    model, reference = tiny(architecture), tiny(architecture)
    quantized = quantize_model(model, WINDOWS, QuantizationScheme(3, 16), drift_windows=2)
    blocks = find_blocks(reference)
    inside = [m for b in blocks.modules for m in b.modules() if type(m).__name__.endswith(("Linear", "Conv1D"))]
    assert len(quantized.layers) == len(inside)
    for report in quantized.reports:
        assert list(report.history) == sorted(report.history, reverse=True)
        assert report.history[-1] <= report.history[0]
    with torch.no_grad():
        ours = model(WINDOWS[:2], use_cache=False).logits
        full = reference(WINDOWS[:2], use_cache=False).logits
        quantize_model(reference, WINDOWS, QuantizationScheme(3, 16), SolverConfig("rtn", grid="minmax"))
        nearest = reference(WINDOWS[:2], use_cache=False).logits
    assert float((ours - full).square().mean()) < float((nearest - full).square().mean())


def test_shared_inputs_are_one_problem_and_the_moment_is_that_of_the_inputs() -> None:
    model = tiny("llama")
    seen = []
    handle = model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        for window in WINDOWS:
            model(window[None], use_cache=False)
    handle.remove()
    x = torch.cat([one.reshape(-1, one.shape[-1]) for one in seen]).double()
    attention = model.model.layers[0].self_attn
    stacked = torch.cat([getattr(attention, f"{n}_proj").weight.data for n in "qkv"])
    expected = quantize_layer(stacked, x.T @ x, QuantizationScheme(3))

    quantized = quantize_model(model, WINDOWS, QuantizationScheme(3), error_feedback=False)
    groups = [[name.rsplit(".", 1)[1] for name in report.modules] for report in quantized.reports[:4]]
    assert groups == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    found = torch.cat([quantized.layers[f"model.layers.0.self_attn.{n}_proj"].codes for n in "qkv"])
    assert torch.equal(found, expected.codes)
    assert quantized.reports[0].error == pytest.approx(expected.error, rel=1e-6)


def test_stored_moments_give_the_same_codes(tmp_path: Path) -> None:
    runs = [
        quantize_model(
            tiny("llama"), WINDOWS, QuantizationScheme(3), drift_windows=2, moments=tmp_path / "m" if keep else None
        )
        for keep in (False, True, True)
    ]
    assert _same(_codes(runs[0]), _codes(runs[1]))
    assert _same(_codes(runs[0]), _codes(runs[2]))
    quantize_model(tiny("llama"), WINDOWS[:3], QuantizationScheme(3), moments=tmp_path / "m")
    assert len(list((tmp_path / "m").glob("*/moments-*.safetensors"))) == 2 * 3  # other tokens, pieces of their own


@pytest.mark.parametrize(("bits", "group", "symmetric"), EXPORTED)
def test_round_trip_through_transformers(tmp_path: Path, bits: int, group: int | None, symmetric: bool) -> None:
    from compressed_tensors.compressors import unpack_from_int32
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    scheme = QuantizationScheme(bits, group, symmetric)
    quantized = quantize_model(tiny("llama"), WINDOWS, scheme, error_feedback=False)
    export_compressed_tensors(quantized, tmp_path / "out")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        ours, theirs = (m(WINDOWS[:1], use_cache=False).logits for m in (quantized.model, reloaded))
    assert torch.equal(ours, theirs)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    for name, layer in quantized.layers.items():
        codes = unpack_from_int32(stored[f"{name}.weight_packed"], bits, layer.codes.shape).int() + (1 << (bits - 1))
        assert torch.equal(codes, layer.codes.int())
    with pytest.raises(ExportError, match="exists; choose another name"):
        export_compressed_tensors(quantized, tmp_path / "out")


@pytest.mark.parametrize("kind", ["unstructured", "column"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_outliers_as_modules_and_as_a_dense_merge(tmp_path: Path, architecture: str, kind) -> None:
    from transformers import AutoModelForCausalLM

    quantized = quantize_model(tiny(architecture), WINDOWS, QuantizationScheme(3), outliers=OutlierConfig(0.05, kind))
    with pytest.raises(ExportError, match="keeps outliers, which pack-quantized cannot hold"):
        export_compressed_tensors(quantized, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    save_native(quantized, tmp_path / "native")
    export_dense(quantized, tmp_path / "dense")
    with torch.no_grad():
        ours = quantized.model(WINDOWS[:1], use_cache=False).logits
        assert torch.equal(ours, load_native(tmp_path / "native")(WINDOWS[:1], use_cache=False).logits)
        dense = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)
        assert torch.equal(ours, dense(WINDOWS[:1], use_cache=False).logits)


def test_what_is_not_supported_is_refused_with_the_remedy(tmp_path: Path) -> None:
    scheme = QuantizationScheme(3)
    with pytest.raises(ModelError, match=r"packs the experts of a mixture into one parameter"):
        quantize_model(tiny("mixtral"), WINDOWS, scheme)
    with pytest.raises(ModelError, match=r"no ModuleList of blocks"):
        quantize_model(torch.nn.Linear(3, 3), WINDOWS, scheme)
    with pytest.raises(ModelError, match=r"must be token numbers"):
        quantize_model(tiny("llama"), WINDOWS[:0], scheme)
    with pytest.raises(ModelError, match=r"skip=\['\*'\] leaves out all of them"):
        quantize_model(tiny("llama"), WINDOWS, scheme, skip=["*"])
    with pytest.raises(LayerError, match=r"group_size=24 does not divide the 32 inputs of model.layers.0"):
        quantize_model(tiny("llama"), WINDOWS, QuantizationScheme(3, 24))
    broken = tiny("llama")
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    before = broken.model.layers[0].mlp.up_proj.weight.clone()
    with pytest.raises(LayerError, match=r"layers.1.mlp.up_proj.weight\[0, 0\]=nan"):
        quantize_model(broken, WINDOWS, scheme, error_feedback=False)
    assert torch.equal(broken.model.layers[0].mlp.up_proj.weight, before)
    conv = quantize_model(tiny("gpt2"), WINDOWS, scheme, error_feedback=False)
    with pytest.raises(
        ExportError, match=r"is a Conv1D; it holds its weight as \(inputs, outputs\).* use export_dense"
    ):
        export_compressed_tensors(conv, tmp_path / "conv")


def test_skipped_layers_stay_as_they_were() -> None:
    model, reference = tiny("llama"), tiny("llama")
    quantized = quantize_model(model, WINDOWS, QuantizationScheme(3), skip=["*.mlp.*"], error_feedback=False)
    assert not any(".mlp." in name for name in quantized.layers)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, reference.model.layers[0].mlp.up_proj.weight)


def test_few_tokens_are_warned_about() -> None:
    with pytest.warns(CalibrationWarning, match=r"384 calibration tokens are fewer than 20 times the 64 inputs"):
        quantize_model(tiny("llama"), WINDOWS, QuantizationScheme(3))


def test_nll_is_that_of_the_model_itself() -> None:
    model = tiny("llama").eval()
    nll = token_nll(model, WINDOWS)
    with torch.no_grad():
        loss = model(WINDOWS, labels=WINDOWS).loss
    assert nll.shape == (6, 63)
    assert nll.mean() == pytest.approx(float(loss), rel=1e-6)
    other = nll + np.linspace(0, 0.1, 6)[:, None]
    paired = paired_difference(other, nll)
    assert paired.mean == pytest.approx(0.05)
    assert paired.standard_error == pytest.approx(np.linspace(0, 0.1, 6).std(ddof=1) / math.sqrt(6))
    with pytest.raises(ModelError, match="at least two tokens"):
        token_nll(model, WINDOWS[:, :1])


def test_windows_are_cut_in_order_or_spread() -> None:
    def tokenizer(text, **_):
        return {"input_ids": [int(word) for word in text.split()]}

    text = " ".join(map(str, range(23)))
    assert token_windows(tokenizer, text, 5).tolist()[-1] == [15, 16, 17, 18, 19]
    assert token_windows(tokenizer, text, 5, 2, spread=True)[:, 0].tolist() == [0, 15]
    with pytest.raises(ModelError, match=r"4 windows of 5; 9 are asked for"):
        token_windows(tokenizer, text, 5, 9)
