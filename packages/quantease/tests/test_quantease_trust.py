"""What comes in is checked before the run, and what lies on disk is what was written, or refused by name."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantease import (
    ExportError,
    FolderWarning,
    FormatWarning,
    LayerError,
    ModelError,
    OutlierConfig,
    QuantizationScheme,
    ScaleWarning,
    SchemeError,
    SolverConfig,
    export_compressed_tensors,
    export_dense,
    load_model,
    load_native,
    load_tokenizer,
    quantize_layer,
    quantize_model,
    save_native,
)
from quantease.cli import main
from quantease_cases import WINDOWS, layer, numbered_words, tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*calibration tokens are fewer:quantease.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TRUST = Path(__file__).parents[1] / "benchmarks" / "trust.py"
WRITE = {"compressed-tensors": export_compressed_tensors, "dense": export_dense, "native": save_native}
PLAIN = QuantizationScheme(3, 16)


def _quantized(architecture: str = "llama", **named):
    return quantize_model(tiny(architecture), WINDOWS, PLAIN, error_feedback=False, **named)


def _logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(WINDOWS[:1], use_cache=False).logits


def _same(a, b) -> bool:
    codes = all(torch.equal(layer.codes, b.layers[name].codes) for name, layer in a.layers.items())
    return codes and torch.equal(_logits(a.model), _logits(b.model)) and a.reports == b.reports


# one layer: magnitudes, types, containers


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    exponent=st.floats(-44, 37),
    tiny_rows=st.integers(0, 6),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    scale_dtype=st.sampled_from([None, "float16", "bfloat16", "float32"]),
    group=st.sampled_from([None, 8]),
    symmetric=st.booleans(),
    method=st.sampled_from(["quantease", "gptq", "rtn", "paper"]),
    bits=st.integers(2, 8),
)
def test_weights_of_any_size_are_coded_or_refused_or_warned_about(
    exponent, tiny_rows, dtype, scale_dtype, group, symmetric, method, bits
) -> None:
    """Rounding to nearest on the row's own exact grid bounds the error wherever no scale was lost."""
    weight, hessian = layer(6, 16, seed=bits)
    rows = torch.ones(6, 1, dtype=torch.float64)
    rows[:tiny_rows] = 10.0**exponent
    given_weight = (weight * rows).to(dtype)
    if not bool(torch.isfinite(given_weight).all()) or not bool(given_weight.any()):
        return
    scheme = QuantizationScheme(bits, group, symmetric, scale_dtype)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            result = quantize_layer(given_weight, hessian, scheme, SolverConfig(method))
        except LayerError as error:
            assert "scales range up to" in str(error)  # noqa: PT017 (any other result is judged below)
            assert exponent > 4
            return
    certificate = result.certificate
    assert bool(torch.isfinite(result.dequantize(torch.float64)).all())
    held = torch.finfo(result.scale.dtype).tiny
    grouped = given_weight.double().reshape(6, -1, group or 16)
    low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    lost = (span > 0) & (span / (2**bits - 1) < held)
    assert certificate.lost_scales == int(lost.sum())
    assert any(one.category is ScaleWarning for one in seen) == bool(lost.any())
    assert certificate.improving_moves >= certificate.lost_scales
    assert not (certificate.optimal and result.error > 0.99)
    step = span / (2**bits - 1)
    kept = ~lost.any(1)
    gap = (given_weight.double() - result.dequantize(torch.float64)).reshape(6, -1, group or 16).abs().amax(2)
    if method == "rtn":  # a shrunk grid cuts the largest values, at most to a quarter
        assert bool((gap[kept] <= 2**bits * step[kept]).all())


def test_scales_too_small_for_float16_become_float32_or_a_warning() -> None:
    weight, hessian = layer(8, 16)
    small = weight.float() * 1e-8
    normal = quantize_layer(weight.float(), hessian, PLAIN)
    chosen = quantize_layer(small, hessian, PLAIN)
    assert chosen.scheme.scale_dtype == "float32"
    assert chosen.error == pytest.approx(normal.error, rel=0.02)
    with pytest.warns(ScaleWarning, match=r"8 scales lie below 6.1e-05, the smallest float16"):
        lost = quantize_layer(small, hessian, QuantizationScheme(3, 16, scale_dtype="float16"))
    assert lost.error == pytest.approx(1.0)
    assert lost.certificate.improving_moves >= 8
    assert not lost.certificate.optimal
    for magnitude in (1e6, 1e30):
        with pytest.raises(
            LayerError, match=r"row \d of the weight needs a scale of .*, but float16 scales range up to"
        ):
            quantize_layer(weight.float() * magnitude, hessian, PLAIN)
    huge = quantize_layer(weight.float() * 1e30, hessian, QuantizationScheme(3, 16, scale_dtype="float32"))
    assert huge.error == pytest.approx(normal.error, rel=0.02)


def test_parameters_and_arrays_are_layers_too() -> None:
    weight, hessian = layer(8, 16)
    expected = quantize_layer(weight, hessian, PLAIN)
    big_endian = weight.numpy().astype(">f8")
    frozen = weight.numpy().copy()
    frozen.flags.writeable = False
    for same in (torch.nn.Parameter(weight), weight.numpy(), big_endian, frozen, weight.T.contiguous().T):
        found = quantize_layer(same, hessian.numpy(), PLAIN)
        assert torch.equal(found.codes, expected.codes)
        assert not found.dequantize().requires_grad
    with pytest.raises(LayerError, match="weight is a list"):
        quantize_layer([[1.0]], hessian, PLAIN)  # type: ignore[arg-type]
    with pytest.raises(LayerError, match=r"weight of shape \(0, 16\) is empty"):
        quantize_layer(weight[:0], hessian, PLAIN)
    weight[3, 5] = float("inf")
    with pytest.raises(LayerError, match=r"weight\[3, 5\]=inf is not finite"):
        quantize_layer(weight, hessian, PLAIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [(f, v) for f in ("bits", "group_size") for v in (16.0, "16", True, 0, -1)]
    + [("symmetric", v) for v in ("yes", 1, None)]
    + [("scale_dtype", v) for v in ("half", 16, torch.float16)],
)
def test_a_scheme_is_of_the_right_types(field: str, value: object) -> None:
    with pytest.raises(SchemeError, match=f"{field}="):
        QuantizationScheme(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sweeps", 2.0),
        ("starts", "2"),
        ("starts", True),
        ("refit_rounds", 1.5),
        ("ridge", "0.1"),
        ("ridge", float("nan")),
    ],
)
def test_a_solver_is_of_the_right_types(field: str, value: object) -> None:
    with pytest.raises(SchemeError, match=f"{field}="):
        SolverConfig(**{field: value})
    with pytest.raises(SchemeError, match="fraction="):
        OutlierConfig("0.1")  # type: ignore[arg-type]


# before the run


def test_what_would_fail_later_is_refused_before_any_block() -> None:
    def never(_at) -> None:
        raise AssertionError("a block was solved")

    def refused(error, match: str, model=None, windows=WINDOWS, scheme=PLAIN, **named) -> None:
        model = tiny("llama") if model is None else model
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(error, match=match):
            quantize_model(model, windows, scheme, progress=never, **named)
        assert all(torch.equal(before[n], t) or t.isnan().any() for n, t in model.state_dict().items())

    for name in ("model.layers.2.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"):
        for value in (float("nan"), float("-inf")):
            broken = tiny("llama")
            broken.get_parameter(name).data.view(-1)[7] = value
            refused(LayerError, f"{name}.*is not finite", broken)
    huge = tiny("llama")
    huge.model.layers[2].mlp.down_proj.weight.data[5] *= 1e30
    refused(LayerError, r"model.layers.2.mlp.down_proj: row 5 .* needs a scale", huge)
    half = QuantizationScheme(3, 16, scale_dtype="float16")
    refused(SchemeError, r"does not fit a checkpoint of bfloat16", tiny("llama").bfloat16(), scheme=half)
    refused(ModelError, r"skip pattern '\*.nothing' matches no linear layer", skip=["*.nothing"])
    refused(ModelError, r"token 100, but the model knows 0 to 100", windows=WINDOWS.clone().fill_(100))
    refused(ModelError, r"token -1", windows=WINDOWS.clone().fill_(-1))
    refused(SchemeError, r"drift_windows=2.0", drift_windows=2.0)
    refused(SchemeError, r"threads=0", threads=0)
    refused(SchemeError, r"error_feedback='no'", error_feedback="no")
    refused(SchemeError, r"export='onnx' is unknown", export="onnx")
    refused(ExportError, r"is a Conv1D; it holds its weight as", tiny("gpt2"), export="compressed-tensors")
    refused(ExportError, r"outliers, which pack-quantized", export="compressed-tensors", outliers=OutlierConfig(0.1))
    pruned = tiny("llama")
    pruned.model.layers = pruned.model.layers[:2]
    refused(ExportError, r"model.layers.2.*by the config it should have", pruned, export="dense")


def test_a_model_is_quantised_once() -> None:
    quantized = _quantized()
    with pytest.raises(ModelError, match="was quantised by quantize_model already"):
        quantize_model(quantized.model, WINDOWS, PLAIN)
    quantized.model.load_state_dict(tiny("llama").state_dict())
    again = quantize_model(quantized.model, WINDOWS, PLAIN, error_feedback=False)
    assert again.reports == quantized.reports


def test_layers_that_engines_fuse_are_left_out_together() -> None:
    with pytest.warns(FormatWarning, match=r"layers.0.mlp.gate_proj is left out although layers that engines merge"):
        _quantized(skip="*gate_proj")
    assert len(_quantized(skip=["*.q_proj", "*.k_proj", "*.v_proj"]).layers) == 3 * 4


def test_small_layers_are_named_before_the_run() -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3] = 1e-9
    with pytest.warns(ScaleWarning, match=r"layers.1.mlp.up_proj: 2 scales lie below"):
        quantize_model(model, WINDOWS, QuantizationScheme(3, 16, scale_dtype="float16"), error_feedback=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "falcon"])
def test_a_cast_model_is_exported_in_its_type(tmp_path: Path, architecture: str, dtype) -> None:
    """``.to(dtype)`` rounds rotary frequencies, which every loader computes again: they are put right at the start."""
    model = tiny(architecture).to(dtype)
    exact = {name: tensor.clone() for name, tensor in tiny(architecture).named_buffers() if "inv_freq" in name}
    quantized = quantize_model(model, WINDOWS, PLAIN, error_feedback=False, export="compressed-tensors")
    assert all(torch.equal(tensor, model.get_buffer(name)) for name, tensor in exact.items())
    for name, write in WRITE.items():
        write(quantized, tmp_path / name)
        stored = json.loads(
            (tmp_path / name / ("model_config" if name == "native" else "config")).with_suffix(".json").read_text()
        )
        assert stored["dtype"] == str(dtype).removeprefix("torch.")
        reloaded = load_native(tmp_path / name) if name == "native" else _plain(tmp_path / name)
        assert next(reloaded.parameters()).dtype == dtype
        assert torch.equal(_logits(reloaded), _logits(model))


def _plain(folder: Path, **named):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **named).eval()


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_bf16_folder_stays_bf16_in_shards_with_all_its_files(tmp_path: Path, symmetric: bool) -> None:
    """Computed in float32, stored as it came: nothing but the quantised weights changes in any format."""
    from safetensors.torch import load_file

    source = tiny("llama").bfloat16()
    source.generation_config.update(max_new_tokens=7, do_sample=True, temperature=0.6)
    source.save_pretrained(tmp_path / "in", max_shard_size="40KB")
    numbered_words(tmp_path / "in", chat_template="{{ messages[0]['content'] }}")
    (tmp_path / "in" / "merges.txt").write_text("#version\n")
    assert (tmp_path / "in" / "model.safetensors.index.json").exists()
    model = load_model(str(tmp_path / "in"))
    quantized = quantize_model(model, WINDOWS, QuantizationScheme(3, 16, symmetric), error_feedback=False)
    for name, write in WRITE.items():
        out = tmp_path / name
        write(quantized, str(out), load_tokenizer(tmp_path / "in") if name == "dense" else None, max_shard_size="20KB")
        shards = sorted(out.glob("*-of-*.safetensors"))
        assert len(shards) > 1
        assert list(out.glob("*.safetensors.index.json"))
        tensors = {key: tensor for shard in shards for key, tensor in load_file(shard).items()}
        assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.bfloat16}
        assert torch.equal(tensors["model.embed_tokens.weight"], source.model.embed_tokens.weight)
        assert torch.equal(_logits(load_model(out)), _logits(model))
        generation = json.loads((out / "generation_config.json").read_text())
        assert (generation["max_new_tokens"], generation["temperature"]) == (7, 0.6)
        assert (out / "merges.txt").read_text() == "#version\n"
        assert load_tokenizer(out)("w3 w99")["input_ids"] == [3, 99]
        assert load_tokenizer(out).apply_chat_template([{"role": "user", "content": "w5"}], tokenize=False) == "w5"
        if name != "native":
            assert torch.equal(_logits(_plain(out, dtype=torch.float32)), _logits(model))
            in_bf16 = _plain(out)
            weights = quantized.model.state_dict()
            _logits(in_bf16)  # symmetric ones are decompressed at the first call
            assert in_bf16.dtype == torch.bfloat16
            for layer_name in quantized.layers:
                assert torch.equal(in_bf16.get_submodule(layer_name).weight.float(), weights[f"{layer_name}.weight"])


# what lies on disk


def test_no_other_loader_takes_a_native_folder(tmp_path: Path, capsys) -> None:
    quantized = _quantized(outliers=OutlierConfig(0.05))
    save_native(quantized, tmp_path / "native", numbered_words(tmp_path / "tokenizer"))
    program = f"""
        import sys
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM
        for kind in (AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM):
            try:
                kind.from_pretrained({str(tmp_path / "native")!r})
            except (ValueError, OSError, KeyError) as error:
                print(kind.__name__, "quantease" in str(error) or "no file named" in str(error))
            else:
                print(kind.__name__, "was loaded")
        assert "quantease" not in sys.modules
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.count(" True\n") == 4, found.stdout + found.stderr

    text = tmp_path / "t.txt"
    text.write_text(" ".join(f"w{i}" for i in np.random.default_rng(0).integers(0, 100, 200)))
    from quantease import token_nll, token_windows

    windows = token_windows(load_tokenizer(tmp_path / "native"), text.read_text(), 32, 4, spread=True)
    expected = float(np.exp(token_nll(quantized.model, windows).mean()))
    assert main(["eval", str(tmp_path / "native"), "--text", str(text), "--length", "32", "--windows", "4"]) == 0
    assert f"perplexity {expected:.2f}," in capsys.readouterr().out
    with pytest.raises(ModelError, match="the model is quantised already"):
        quantize_model(load_model(tmp_path / "native"), WINDOWS, PLAIN)


def test_every_number_that_a_run_depends_on_is_part_of_what_it_is_known_by(tmp_path: Path) -> None:
    """Each change alone must not reuse a piece: the first block is then solved, not read."""
    few = WINDOWS[:2, :32]

    def run(change=lambda model: None, windows=few, scheme=PLAIN, dtype=torch.float32, **named) -> bool:
        model = tiny("llama").to(dtype)
        change(model)
        first = []
        quantize_model(
            model,
            windows,
            scheme,
            drift_windows=1,
            folder=str(tmp_path / "work"),
            moments=str(tmp_path / "moments"),
            progress=first.append,
            **named,
        )
        return first[0].seconds_left is None

    def scaled(name: str):
        return lambda model: model.get_parameter(name).data.mul_(2)

    def config(model) -> None:
        model.config.rms_norm_eps = 1e-3

    def buffer(model) -> None:
        model.model.rotary_emb.inv_freq.mul_(1.5)

    assert not run()
    assert run()
    other_tokens = few.clone()
    other_tokens[1, 31] = (other_tokens[1, 31] + 1) % 100
    assert not run(scaled("model.embed_tokens.weight"))
    assert not run(scaled("model.norm.weight"))
    assert not run(scaled("model.layers.2.input_layernorm.weight"))
    assert not run(config)
    assert not run(windows=other_tokens)
    assert not run(scheme=QuantizationScheme(3, 16, symmetric=True))
    assert not run(solver=SolverConfig("gptq"))
    assert not run(outliers=OutlierConfig(0.1))
    assert not run(error_feedback=False)
    assert not run(dtype=torch.bfloat16)
    assert not run(skip=["*.mlp.*"])
    assert not run(threads=torch.get_num_threads() + 1)
    with pytest.warns(FormatWarning, match="inv_freq is not what the config gives"):
        assert not run(buffer)
    assert run()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_pieces_are_named_and_done_again(tmp_path: Path, damage: str) -> None:
    named = {"folder": tmp_path / "w", "moments": tmp_path / "m"}
    straight = _quantized(**named)
    for file in [*tmp_path.glob("w/*/block-0001-*"), *tmp_path.glob("m/*/moments-0002-*"), *tmp_path.glob("w/*.jsonl")]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 16
        file.write_bytes({"flip": content, "cut": content[:9], "empty": b""}[damage])
    with pytest.warns(FolderWarning) as seen:
        resumed = _quantized(**named)
    said = " ".join(str(one.message) for one in seen if one.category is FolderWarning)
    assert "block-0001.safetensors did not match its checksum" in said
    assert "moments-0002.safetensors did not match its checksum" in said
    assert _same(resumed, straight)
    assert (tmp_path / "w" / "report.jsonl").read_text().count("\n") == len(straight.reports)


def test_a_foreign_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    """The run sets the number that its sums depend on, and gives the caller's back."""
    before = torch.get_num_threads()
    settings = {"scheme": QuantizationScheme(3), "drift_windows": 2, "threads": 1}
    straight = quantize_model(tiny("llama"), WINDOWS, **settings)

    class Killed(Exception):
        pass

    def die(at) -> None:
        if at.blocks_done == 1:
            raise Killed

    try:
        torch.set_num_threads(2)
        with pytest.raises(Killed):
            quantize_model(tiny("llama"), WINDOWS, folder=tmp_path, progress=die, **settings)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(3)
        done = []
        resumed = quantize_model(tiny("llama"), WINDOWS, folder=tmp_path, progress=done.append, **settings)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert done[0].seconds_left is None
    assert _same(resumed, straight)
    rows = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [row["error"] for row in rows] == [report.error for report in straight.reports]


def test_command_line_errors_are_one_line_that_names_the_file(tmp_path: Path, capsys) -> None:
    source, text = tmp_path / "model", tmp_path / "t.txt"
    tiny("llama").save_pretrained(source, max_shard_size="40KB")
    numbered_words(source)
    text.write_text("w1 w2 w3 " * 40)
    shard = sorted(source.glob("model-*.safetensors"))[1]

    def said(damaged: Path, content: bytes | None) -> str:
        whole = damaged.read_bytes()
        if content is None:
            damaged.unlink()
        else:
            damaged.write_bytes(content)
        capsys.readouterr()
        assert main(["eval", str(source), "--text", str(text), "--length", "32", "--windows", "2"]) == 3
        damaged.write_bytes(whole)
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert str(damaged) in line
        return line

    said(shard, None)
    said(shard, b"")
    said(shard, shard.read_bytes()[:-5])
    said(source / "config.json", b"{")
    said(source / "tokenizer.json", b"{}"[:1])
    said(source / "model.safetensors.index.json", b"\xff")
    said(text, b"w1 \xff\xfe")
    assert main(["inspect", str(shard)]) == 3
    assert str(shard) in capsys.readouterr().err
    (tmp_path / "report.jsonl").write_text('{"block": 0}\n{"blo')
    assert main(["inspect", str(tmp_path)]) == 3
    assert str(tmp_path / "report.jsonl") in capsys.readouterr().err
    np.save(tmp_path / "w.npy", np.ones((4, 4)))
    (tmp_path / "x.npy").write_bytes((tmp_path / "w.npy").read_bytes()[:70])
    assert main(["layer", str(tmp_path / "w.npy"), str(tmp_path / "x.npy")]) == 3
    assert str(tmp_path / "x.npy") in capsys.readouterr().err


def test_weights_that_a_folder_lacks_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny("llama").save_pretrained(tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"holds no weights for model.layers.1.mlp.up_proj.weight"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("form", list(WRITE))
def test_a_changed_file_of_an_export_is_named(tmp_path: Path, form: str) -> None:
    WRITE[form](_quantized(), tmp_path / "whole", numbered_words(tmp_path / "tokenizer"))
    rng = np.random.default_rng(0)
    for file in sorted((tmp_path / "whole").iterdir()):
        shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged" / file.name).write_bytes(content)
        with pytest.raises((ExportError, ModelError), match=file.name):
            load_model(tmp_path / "damaged")
        shutil.rmtree(tmp_path / "damaged")


# the bars, small: benchmarks/trust.py runs them in full


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("llama", "right"),
        ("bamba", "right"),
        ("gpt2", "right or refused: compressed-tensors refused (transformer.h.0.attn.c_attn is a Conv1D"),
        ("mixtral", "refused: model.layers.0.mlp.experts.gate_up_proj of shape (4, 128, 32) packs the experts"),
        ("mamba", "refused: backbone.layers.0.mixer.dt_proj does not run on the calibration text"),
        ("rwkv", "r"),  # it rescales weights at every change of mode, which dense folders survive
    ],
)
def test_architectures_are_right_or_refused_for_the_true_reason(tmp_path: Path, name: str, right: str) -> None:
    from transformers import CONFIG_MAPPING

    spec = importlib.util.spec_from_file_location("quantease_trust", TRUST)
    assert spec is not None
    trust = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trust)
    said = trust.architecture(name, CONFIG_MAPPING[name], tmp_path)
    assert said.startswith(right)
    assert "WRONG" not in said


def test_killed_crowded_and_full_folders() -> None:
    asked = "--kills 1 --flips 0 --full-disks 1 --pairs 1 --architectures"
    found = subprocess.run([sys.executable, str(TRUST), *asked.split()], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "WRONG" not in found.stdout
    assert "kill -9 at 1 random moments: 1 identical" in found.stdout
    assert "1 full disks: 1 named error" in found.stdout
    assert "1 pairs of runs in one folder: 2 identical" in found.stdout
