"""Nothing silently wrong: who may load a folder, dtypes, outliers, adapters, few tokens. Whole: benchmarks/trust.py."""

import copy
import json
import random
import warnings
from dataclasses import replace

import pytest
import torch
import transformers
from ffn_heavyhitter import (
    CalibrationError,
    CompressionError,
    FFNWarning,
    Int8,
    LowRank,
    MixedBits,
    Narrow,
    Plan,
    Split,
    UnsupportedArchitectureError,
    collect,
    compress,
)
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.least_squares import inverse_factor, solve
from ffn_heavyhitter.probe import checked
from ffn_heavyhitter.random_models import output, tiny, tokens
from oracles.ffn_tiny_architectures import REFUSED, answers, batch, build
from oracles.ffn_trust import cells, faults, outlier_draws, rewritten, without_the_plug_in
from safetensors.torch import load_file, save_file

SEED = 20261128


def test_a_sample_of_the_matrix_has_no_fault(tmp_path):
    chosen = random.Random(SEED).sample(cells(), 2)
    found = {}
    for i, (name, way) in enumerate(chosen):
        (tmp_path / str(i)).mkdir()
        found[name, way] = faults(name, way, tmp_path / str(i))
    strangers = without_the_plug_in([tmp_path / str(i) for i in range(len(chosen))])
    assert not any(found.values()), found
    assert not any(strangers.values()), strangers


@pytest.mark.parametrize(("label", "run"), list(outlier_draws(8, SEED)))
def test_outlier_weights_are_right_or_refused(label, run):
    assert run() in ("right", "refused", "warned"), label


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_adapter_fits_is_refused_with_what_to_do(name):
    with pytest.raises(UnsupportedArchitectureError, match=REFUSED[name][3]):
        find_ffns(build(name))


def test_two_encoders_as_encoder_and_decoder_are_refused():
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4
    )
    pair = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(config, config)
    with pytest.raises(UnsupportedArchitectureError, match="EncoderDecoderModel is an encoder-decoder model"):
        collect(transformers.EncoderDecoderModel(pair), [{"input_ids": tokens()}])


@pytest.mark.parametrize(
    ("name", "norm", "keeps"),
    [
        ("phi", "input_layernorm", False),
        ("cohere", "input_layernorm", False),
        ("stablelm-parallel", "input_layernorm", False),
        ("olmo2", "post_attention_layernorm", False),
        ("bloom-post-norm-residual", "post_attention_layernorm", False),
        ("gpt-neox-parallel", "post_attention_layernorm", True),
        ("phi3", "post_attention_layernorm", True),
    ],
)
def test_a_norm_that_others_read_is_never_folded(name, norm, keeps):
    model = build(name)
    ffns = [replace(ffn, layout=replace(ffn.layout, norm=norm)) for ffn in find_ffns(model)]
    assert [ffn.norm is not None for ffn in checked(model, ffns)] == [keeps] * 2
    with torch.no_grad():  # what the check prevents
        wide = copy.deepcopy(model).double()
        before = answers(wide, batch(wide))
        for ffn in find_ffns(wide):
            scale = torch.linspace(0.5, 2, 32, dtype=torch.float64)
            replace(ffn, layout=replace(ffn.layout, norm=norm)).scale_input(scale)
            for layer in ffn.inner:
                layer.weight.mul_(scale)
        changed = float((answers(wide, batch(wide)) - before).abs().max() / before.abs().max())
    assert (changed < 1e-12) == keeps


def test_an_adapter_that_describes_another_ffn_is_refused():
    model = build("llama")
    swapped = [
        replace(ffn, layout=replace(ffn.layout, gate=ffn.layout.up, up=ffn.layout.gate)) for ffn in find_ffns(model)
    ]
    with pytest.raises(UnsupportedArchitectureError, match="the model answers differently"):
        checked(model, swapped)


def test_moments_of_half_precision_are_those_of_the_same_values_in_double():
    model = tiny("llama").half()
    (first, *_) = find_ffns(model)
    with torch.no_grad():
        first.weights().gate[3].copy_(first.weights().gate[3] * (9e3 / first.weights().gate[3].abs().max()))
    rows = []
    handle = first.down.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].detach().double()))
    layer = collect(model, [{"input_ids": tokens()}], hits=True, moments=True).layers[first.name]
    handle.remove()
    hidden = rows[0].reshape(-1, 96)
    assert hidden.abs().max() > 256  # squares overflow
    torch.testing.assert_close(layer.hidden_moment, hidden.T @ hidden, rtol=1e-5, atol=1e-2)
    norms = hidden.abs() * first.weights().down_norms
    assert torch.equal(layer.hits, torch.bincount(norms.topk(10).indices.flatten(), minlength=96).double())


@pytest.mark.parametrize("options", [{}, {"moments": True}, {"hits": True}, {"gradients": True}])
def test_values_beyond_half_precision_are_named_not_summed(options):
    model = tiny("llama").half()
    (first, *_) = find_ffns(model)
    with torch.no_grad():
        first.weights().gate.fill_(6e4)
        first.weights().up.fill_(6e4)
    with pytest.raises(CalibrationError, match=r"model.layers.0.mlp: an activation is not finite in float16.*float32"):
        collect(model, [{"input_ids": tokens()}], **options)


def test_a_narrower_dtype_that_cannot_hold_the_weights_is_refused_at_load(tmp_path):
    model = tiny("llama")
    with torch.no_grad():
        find_ffns(model)[0].weights().down[0, 0] = 1e5
    compress(model, Split(heavy=16), collect(model, [{"input_ids": tokens()}])).save_pretrained(tmp_path)
    with pytest.raises(CompressionError, match=r"layers.0.mlp.down is not finite in float16.*dtype=torch.float32"):
        type(model).from_pretrained(tmp_path, dtype=torch.float16)


@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_rows_of_any_size_keep_their_digits(size):
    model = tiny("llama", layers=1)
    (ffn,) = find_ffns(model)
    with torch.no_grad():
        ffn.weights().up.mul_(size / ffn.weights().up.abs().max())
        ffn.weights().down.div_(size)
    statistics = collect(model, [{"input_ids": tokens(8)}], moments=True)
    for way in (Int8(heavy=16, smoothing=0), MixedBits(heavy=16, heavy_bits=8, light_bits=8, group_size=32)):
        dense = way.apply(ffn, statistics.layers[ffn.name]).dense_weights()
        for name, tensor in ffn.weights().tensors().items():
            assert (dense.tensors()[name] - tensor).norm() < 0.05 * tensor.norm(), (way, name)


@pytest.mark.parametrize(("size", "warned"), [(1.0, False), (1e3, True)])
def test_a_weight_that_drowns_its_row_is_said(size, warned):
    model = tiny("llama", layers=1)
    with torch.no_grad():
        up = find_ffns(model)[0].weights().up
        up[3, 2] = size * up[3].abs().max()
    statistics = collect(model, [{"input_ids": tokens(40)}], moments=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compress(model, Int8(heavy=16, smoothing=0), statistics)
    assert [str(w.message).startswith("model.layers.0.mlp: in 1 of 192 rows one weight") for w in said] == [
        True
    ] * warned


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_gradients_flow_through_an_int8_ffn(family):
    model = tiny(family)
    ours = rewritten(model, {"input_ids": tokens()}, "int8")

    def gradient(of):
        read = of.get_input_embeddings()(tokens()).detach().requires_grad_()
        found = of(inputs_embeds=read)[0]
        (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
        return read.grad

    assert (gradient(ours) - gradient(model)).norm() < 0.1 * gradient(model).norm()


def test_normal_equations_of_any_scale():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 12, generator=generator).double() * 10 ** torch.linspace(-6, 8, 12).double()
    moment = rows.T @ rows
    wanted = torch.randn(12, 3, generator=generator).double() / moment.diagonal().sqrt()[:, None]
    found = solve(moment, moment @ wanted)
    torch.testing.assert_close(found * moment.diagonal().sqrt()[:, None], wanted * moment.diagonal().sqrt()[:, None])
    factor, size = inverse_factor(moment), moment.diagonal().sqrt()
    unit = moment / torch.outer(size, size)
    torch.testing.assert_close((factor * size).T @ (factor * size) @ unit, torch.eye(12).double(), rtol=1e-6, atol=1e-6)


def test_few_tokens_warn_and_too_few_are_refused():
    model = tiny("llama")
    few, fewer = (collect(model, [{"input_ids": tokens(1, n)}], moments=True, inputs=True) for n in (80, 8))
    for way in (Int8(heavy=16), MixedBits(heavy=16), Narrow(64), LowRank(0.75, heavy=32)):
        with pytest.warns(FFNWarning, match=r"2 FFNs are fitted on 80 calibration tokens; 8 for each neuron, 768 for"):
            compress(copy.deepcopy(model), way, few)
        with pytest.raises(CalibrationError, match=r"8 calibration tokens leave the moments that .* fits singular"):
            compress(copy.deepcopy(model), way, fewer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compress(copy.deepcopy(model), Split(heavy=16), fewer)


def test_widths_of_a_multimodal_model_are_those_of_its_text_part(tmp_path):
    text = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 8}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 16}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=96
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    statistics = collect(model, [{"input_ids": tokens().clamp(max=90)}], moments=True)
    compress(model, Narrow(64, bias=False), statistics)
    assert not compressed_ffns(model)
    assert (model.config.text_config.intermediate_size, model.config.vision_config.intermediate_size) == (64, 48)
    assert "intermediate_size" not in model.config.to_dict()
    model.save_pretrained(tmp_path)
    ids = tokens(1).clamp(max=90)
    assert torch.equal(output(type(model).from_pretrained(tmp_path).eval(), ids), output(model, ids))


def test_folders_of_schema_1_still_load(tmp_path):
    model = rewritten(tiny("llama"), {"input_ids": tokens()}, "int8")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    entry = config["quantization_config"]["ffn_heavyhitter"]
    config["quantization_config"] = {"quant_method": "ffn_heavyhitter", "layers": entry["layers"], "schema": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    stored = {key: tensor for key, tensor in load_file(tmp_path / "model.safetensors").items() if tensor.numel()}
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(output(again, tokens()), output(model, tokens()))


def test_a_folder_that_lacks_a_tensor_is_refused(tmp_path):
    model = rewritten(tiny("llama"), {"input_ids": tokens()}, "low_rank")
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored["model.layers.0.mlp.first"] = stored.pop("model.layers.0.mlp.inner_first")
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CompressionError, match=r"layers.0.mlp.inner_first of shape .* is not among"):
        type(model).from_pretrained(tmp_path)


def test_tensors_loaded_into_a_module_that_has_run_are_used():
    ids = tokens()
    first, second = (rewritten(tiny("llama"), {"input_ids": tokens(seed=seed)}, "int8") for seed in (0, 1))
    wanted, before = output(second, ids), output(first, ids)
    assert not torch.equal(wanted, before)
    first.load_state_dict(second.state_dict())
    assert torch.equal(output(first, ids), wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.clear() or d.update(schema=1), "ffn_bytes=None must be a number of bytes"),
        (lambda d: d.update(schema=7), "no plan of schema 1"),
        (lambda d: d.update(more=1), "unknown field more"),
        (lambda d: d.update(treatments=[]), r"treatments=\[\] must name an FFN"),
        (lambda d: d.update(model_bytes="9"), "model_bytes='9' must be a number"),
        (lambda d: d["treatments"]["model.layers.0.mlp"].update(heavy="x"), "heavy='x' does not fit int8's heavy"),
        (lambda d: d["treatments"]["model.layers.0.mlp"].update(heavy=True), "heavy=True does not fit"),
        (lambda d: d["treatments"]["model.layers.0.mlp"].update(depth=3), "int8 has no field 'depth'"),
        (lambda d: d["treatments"]["model.layers.0.mlp"].update(kind="cubic"), "kind='cubic' is none of"),
        (lambda d: d["treatments"].update({"model.layers.0.mlp": "int8"}), "'int8' is no treatment"),
        (lambda d: d["treatments"].update({"model.layers.0.mlp": {"kind": "narrow"}}), "narrow needs width"),
        (
            lambda d: d["treatments"].update({"model.layers.0.mlp": {"kind": "mixed_bits", "light_bits": 99}}),
            "light_bits=99 must be between 2 and 8",
        ),
    ],
)
def test_bad_plans_are_named(change, said, tmp_path):
    path = tmp_path / "plan.json"
    Plan.of(tiny("llama"), Int8(heavy=16)).save(path)
    assert Plan.load(path).treatments["model.layers.0.mlp"] == Int8(heavy=16)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CompressionError, match=said):
        Plan.load(path)
