"""GGUF files: every layer's bytes decode to the run's values, and the file is the model that was quantised."""

import gguf
import numpy as np
import pytest
import torch
from quantease import (
    ExportError,
    LayerError,
    ModelError,
    OutlierConfig,
    QuantizationScheme,
    SchemeError,
    SolverConfig,
    check_source,
    export_compressed_tensors,
    export_dense,
    export_gguf,
    gguf_scheme,
    load_model,
    quantize_layer,
    quantize_model,
    save_native,
)
from quantease.cli import main
from quantease.gguf_file import GGUF_TYPES, packed_blocks
from quantease_cases import WINDOWS, layer, tiny

TYPES = {kind: getattr(gguf.GGMLQuantizationType, kind.upper()) for kind in GGUF_TYPES}


def weights_of_every_kind(seed):
    """Rows that differ in size, sign, offset and spread, as trained layers and damaged ones have them."""
    weight, sigma = layer(24, 96, seed)
    draw = torch.Generator().manual_seed(seed)
    size = 10 ** torch.empty(24, 1, dtype=torch.float64).uniform_(-1.5, 2, generator=draw)
    weight = weight * size
    weight[0] = 0
    weight[1] = weight[1].abs()
    weight[2] = -weight[2].abs()
    weight[3] = 1.7 * size[3]
    weight[4] += 40 * size[4]
    weight[5, :32] = 0
    weight[6, 7] *= 50
    weight[7] = torch.round(weight[7] / size[7]) * size[7]
    return weight, sigma


@pytest.mark.parametrize("kind", GGUF_TYPES)
@pytest.mark.parametrize("seed", range(6))
def test_the_bytes_decode_to_the_layer_bit_for_bit(kind, seed):
    weight, sigma = weights_of_every_kind(seed)
    found = quantize_layer(weight.float(), sigma, gguf_scheme(kind))
    blocks = packed_blocks(found)
    decoded = torch.from_numpy(gguf.dequantize(blocks, TYPES[kind]).copy())
    assert torch.equal(decoded, found.dequantize(torch.float32))
    assert found.bits_per_weight == 8 * blocks.size / weight.numel()
    assert bool((decoded[0] == 0).all())


@pytest.mark.parametrize("kind", GGUF_TYPES)
@pytest.mark.parametrize("seed", range(6))
def test_no_row_is_worse_than_ggmls_rounding(kind, seed):
    weight, sigma = weights_of_every_kind(seed)
    theirs = torch.from_numpy(gguf.dequantize(gguf.quantize(weight.float().numpy(), TYPES[kind]), TYPES[kind]).copy())
    found = quantize_layer(weight.float(), sigma, gguf_scheme(kind), SolverConfig(ridge=0.01))
    sigma.diagonal().add_(0.01 * sigma.diagonal().mean())

    def errors(approximation):
        left = weight - approximation.double()
        return ((left @ sigma) * left).sum(1)

    # a constant row is off by the rounding of a float16 scale, either way
    rounding = errors(torch.zeros_like(weight)) * 2.0**-22
    assert bool((errors(found.dequantize(torch.float32)) <= errors(theirs) + rounding).all())
    assert float(errors(found.dequantize(torch.float32)).sum()) < 0.5 * float(errors(theirs).sum())


@pytest.mark.parametrize("kind", ["q4_0", "q4_1", "q5_1"])
def test_no_single_code_would_lower_the_error(kind):
    """By trying every other code of every weight, in float64."""
    weight, sigma = layer(3, 64, 5)
    sigma = sigma / sigma.diagonal().mean()
    found = quantize_layer(weight, sigma, gguf_scheme(kind), SolverConfig(ridge=0.01))
    assert found.certificate.optimal
    sigma = sigma + 0.01 * torch.eye(64, dtype=torch.float64)
    steps = found.scale.double().repeat_interleave(32, 1)
    gradient = (weight - found.dequantize(torch.float64)) @ sigma
    for code in range(found.scheme.levels):
        change = (code - found.codes.double()) * steps
        gain = 2 * gradient * change - sigma.diagonal() * change.square()
        assert float(gain.max()) <= 1e-9


def test_a_real_zero_serves_a_shifted_row_as_well_as_a_centred_one():
    weight, sigma = layer(16, 64, 2)
    centred = quantize_layer(weight, sigma, gguf_scheme("q4_1"), SolverConfig("rtn"))
    shifted = quantize_layer(weight + 100, sigma, gguf_scheme("q4_1"), SolverConfig("rtn"))
    spread = (weight - centred.dequantize(torch.float64)).square().mean()
    # offsets of 100 in float16 are off by up to 1/32
    assert float((weight + 100 - shifted.dequantize(torch.float64)).square().mean()) < float(spread) + 3e-3


def test_an_offset_beyond_float16_is_refused():
    weight, sigma = layer(4, 32, 0)
    with pytest.raises(LayerError, match="offset lies above the range of float16"):
        quantize_layer(weight + 7e4, sigma, gguf_scheme("q5_1"))


def write_source(model, file, kind=gguf.GGMLQuantizationType.F32):
    """The GGUF of a tiny Llama as llama.cpp's converter makes it: rows of q and k interleaved by halves of a head."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_array("tokenizer.ggml.tokens", [f"w{i}" for i in range(config.vocab_size)])
    writer.add_string("general.name", "tiny")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        value = tensor.float().numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        place = names.get_name(name, try_suffixes=(".weight",))
        if value.ndim == 2 and kind != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(place, gguf.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(place, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def quantised(kind="q4_0", **options):
    return quantize_model(tiny("llama"), WINDOWS, gguf_scheme(kind), export="gguf", threads=1, **options)


def logits(model):
    with torch.no_grad():
        return model(WINDOWS[:2]).logits


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tiny("llama"), tmp_path_factory.mktemp("gguf") / "f32.gguf")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_the_file_is_the_quantised_model(kind, source, tmp_path):
    done = quantised(kind)
    export_gguf(done, tmp_path / "out.gguf", source)
    assert torch.equal(logits(load_model(tmp_path / "out.gguf")), logits(done.model))
    read, before = gguf.GGUFReader(tmp_path / "out.gguf"), gguf.GGUFReader(source)
    assert read.fields["general.name"].contents() == "tiny"
    assert read.fields["tokenizer.ggml.tokens"].contents() == before.fields["tokenizer.ggml.tokens"].contents()
    assert read.fields["general.file_type"].contents() == int(getattr(gguf.LlamaFileType, f"MOSTLY_{kind.upper()}"))
    types = {tensor.name: tensor.tensor_type for tensor in read.tensors}
    assert {types[name] for name in types if ".attn_q." in name or ".ffn_up." in name} == {TYPES[kind]}
    assert types["token_embd.weight"] == gguf.GGMLQuantizationType.F32
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.filterwarnings("ignore")
def test_a_source_of_any_type_gives_the_rest(tmp_path):
    source = write_source(tiny("llama"), tmp_path / "q8.gguf", gguf.GGMLQuantizationType.Q8_0)
    export_gguf(quantised(), tmp_path / "out.gguf", source)
    types = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["token_embd.weight"] == gguf.GGMLQuantizationType.Q8_0
    assert types["blk.0.ffn_up.weight"] == gguf.GGMLQuantizationType.Q4_0


@pytest.mark.filterwarnings("ignore")
def test_resumed_runs_give_the_same_file(source, tmp_path):
    for name in ("a", "b"):
        export_gguf(quantised("q5_1", folder=tmp_path / "work"), tmp_path / f"{name}.gguf", source)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_source_of_another_model_is_refused_and_nothing_is_left(source, tmp_path):
    other = tiny("llama")
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight.copy_(torch.randn(64, 32))
    cases = {
        "other.gguf": (write_source(other, tmp_path / "other.gguf"), "is not what .* was quantised from"),
        "cut.gguf": (tmp_path / "cut.gguf", "cannot be read as GGUF"),
        "none.gguf": (tmp_path / "none.gguf", "is no file"),
    }
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:400])
    done = quantised()
    before = sorted(path.name for path in tmp_path.iterdir())
    for given, said in cases.values():
        with pytest.raises(ExportError, match=said):
            export_gguf(done, tmp_path / "out.gguf", given)
    with pytest.raises(ExportError, match="exists"):
        export_gguf(done, tmp_path / "cut.gguf", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.filterwarnings("ignore")
def test_what_does_not_go_together_is_refused_before_the_run(tmp_path):
    scheme = gguf_scheme("q4_1")
    for options, error, said in (
        ({"export": "native"}, ExportError, "native cannot hold a grid of GGUF"),
        ({"export": "compressed-tensors"}, ExportError, "compressed-tensors cannot hold a grid of GGUF"),
        ({"outliers": OutlierConfig(0.01)}, SchemeError, "outliers=None"),
        ({"solver": SolverConfig("paper")}, SchemeError, "method='quantease'"),
    ):
        with pytest.raises(error, match=said):
            quantize_model(tiny("llama"), WINDOWS, scheme, threads=1, **options)
    with pytest.raises(ExportError, match=r"no grid of GGUF; take scheme=quantease.gguf_scheme"):
        quantize_model(tiny("llama"), WINDOWS, QuantizationScheme(4, 32), export="gguf", threads=1)
    with pytest.raises(ExportError, match="Conv1D"):
        quantize_model(tiny("gpt2"), WINDOWS, scheme, export="gguf", threads=1)
    done = quantize_model(tiny("llama"), WINDOWS, scheme, threads=1)
    for write in (export_compressed_tensors, save_native):
        with pytest.raises(ExportError, match="GGUF"):
            write(done, tmp_path / "out")
    export_dense(done, tmp_path / "dense")
    assert torch.equal(logits(load_model(tmp_path / "dense")), logits(done.model))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 4, "real_zero": True}, "group_size"),
        ({"bits": 4, "group_size": 32, "symmetric": True, "real_zero": True}, "real_zero"),
        ({"bits": 4, "signed_scale": True}, "signed_scale"),
        ({"bits": 4, "group_size": 32, "real_zero": 1}, "real_zero"),
    ],
)
def test_schemes_that_make_no_sense_are_refused(options, said):
    with pytest.raises(SchemeError, match=said):
        QuantizationScheme(**options)
    with pytest.raises(SchemeError, match="q4_k"):
        gguf_scheme("q4_k")


@pytest.mark.filterwarnings("ignore")
def test_command_line(source, tmp_path, capsys):
    (tmp_path / "calib.txt").write_text("w1 w2 " * 40, encoding="utf-8")
    start = ["quantize", str(source), str(tmp_path / "out.gguf"), "--calib", str(tmp_path / "calib.txt")]
    for more, said in (
        (["--type", "q4_0"], "--type is for --format gguf"),
        (["--format", "gguf"], "needs --type"),
        (["--format", "gguf", "--type", "q4_0", "--bits", "3"], "leave those options out"),
        (["--format", "gguf", "--type", "q4_0", "--gguf", str(tmp_path / "none")], "is no file"),
    ):
        assert main([*start, *more]) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


def changed(model, name, by):
    with torch.no_grad():
        dict(model.named_parameters())[name].copy_(by(dict(model.named_parameters())[name].detach().clone()))
    return model


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("model.embed_tokens.weight", lambda w: w.roll(1, 0)),
        ("model.norm.weight", lambda w: 3 * w),
        ("model.layers.1.post_attention_layernorm.weight", lambda w: w + 0.1),
        ("model.layers.0.mlp.down_proj.weight", lambda w: w + 0.05 * w.std() * torch.randn(w.shape)),
        ("model.layers.2.self_attn.k_proj.weight", lambda w: w.flip(0)),
        ("model.layers.2.self_attn.v_proj.weight", lambda w: 1.4 * w),
    ],
)
def test_a_source_that_differs_in_any_tensor_is_known_before_the_run(tmp_path, name, by):
    source = write_source(changed(tiny("llama"), name, by), tmp_path / "other.gguf")
    with pytest.raises(ExportError, match="is not that of the model"):
        check_source(tiny("llama"), source)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_a_source_of_the_model_is_one_in_any_type(tmp_path, kind):
    check_source(tiny("llama"), write_source(tiny("llama"), tmp_path / "x.gguf", gguf.GGMLQuantizationType[kind]))


def rewritten(source, target, tensors=(), **keys):
    """The source with more tensors and other keys."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture" and name not in keys:
            kind = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], kind)
    for name, value in keys.items():
        if name == "general.alignment":
            writer.add_custom_alignment(value)
        elif value is not None:
            writer.add_string(name, value)
    for tensor in [*reader.tensors]:
        writer.add_tensor(tensor.name, np.ascontiguousarray(tensor.data), raw_dtype=tensor.tensor_type)
    for name, value in tensors:
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("alignment", [16, 64, 256])
def test_alignment_and_tensors_that_torch_does_not_know_travel(source, tmp_path, alignment):
    more = [("rope_freqs.weight", np.array([1.0, np.nan, 3.0, np.inf], np.float32))]
    given = rewritten(source, tmp_path / "in.gguf", more, **{"general.alignment": alignment})
    export_gguf(quantised("q8_0"), tmp_path / "out.gguf", given)
    read = gguf.GGUFReader(tmp_path / "out.gguf")
    assert read.alignment == alignment
    assert all(tensor.data_offset % alignment == 0 for tensor in read.tensors)
    (kept,) = [tensor for tensor in read.tensors if tensor.name == "rope_freqs.weight"]
    assert kept.data.tobytes() == more[0][1].tobytes()


@pytest.mark.parametrize("key", ["llama.block_count"])
@pytest.mark.parametrize("value", [None, "three"])
def test_metadata_that_is_missing_or_of_another_type_is_named(source, tmp_path, key, value):
    given = rewritten(source, tmp_path / "in.gguf", **{key: value})
    with pytest.raises(ExportError, match=rf"{key}=.*where a whole model has a int"):
        check_source(tiny("llama"), given)


@pytest.mark.filterwarnings("ignore")
def test_outliers_and_names_are_refused(source, tmp_path):
    with pytest.raises(SchemeError, match="outliers=None"):
        quantised("q8_0", outliers=OutlierConfig(0.01))
    with pytest.raises(ExportError, match=r"must end in \.gguf"):
        export_gguf(quantised("q8_0"), tmp_path / "out", source)


@pytest.mark.parametrize("kind", GGUF_TYPES)
@pytest.mark.parametrize("size", [2e-5, 5e-4, 1.0])
def test_small_weights_are_no_worse_than_ggmls_rounding(kind, size):
    """float16 has numbers below its smallest normal one, and GGUF's blocks may use them."""
    weight, sigma = layer(16, 96, 1)
    weight = weight * size
    found = quantize_layer(weight.float(), sigma, gguf_scheme(kind), SolverConfig(ridge=0.01))
    assert found.certificate.lost_scales == 0
    theirs = torch.from_numpy(gguf.dequantize(gguf.quantize(weight.float().numpy(), TYPES[kind]), TYPES[kind]).copy())
    errors = [((weight - w.double()) @ sigma * (weight - w.double())).sum() for w in (found.dequantize(), theirs)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", ["q4_0", "q5_0", "q8_0"])
def test_weights_of_one_size_are_exact(kind):
    """d = max / 2^(b-1) or / (2^(b-1) - 1): both ends of ggml's own grids."""
    draw = torch.Generator().manual_seed(3)
    _, sigma = layer(8, 64, 3)
    for sizes in (-2.0, 2.0):
        weight = torch.full((8, 64), sizes) * torch.randint(0, 2, (8, 64), generator=draw)
        found = quantize_layer(weight, sigma, gguf_scheme(kind), SolverConfig(ridge=0.01))
        assert float((found.dequantize() - weight).abs().max()) <= 2.0**-10


@pytest.mark.filterwarnings("ignore")
def test_a_gguf_that_lacks_a_tensor_or_is_cut_is_no_model(source, tmp_path):
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(tmp_path / "lacks.gguf", "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(
                name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for tensor in reader.tensors:
        if tensor.name != "blk.1.ffn_up.weight":
            writer.add_tensor(tensor.name, np.ascontiguousarray(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"no weights for model\.layers\.1\.mlp\.up_proj"):
        load_model(tmp_path / "lacks.gguf")
    for size in (0, 10, 200, 2000):
        (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:size])
        with pytest.raises(ModelError, match=r"cut\.gguf"):
            load_model(tmp_path / "cut.gguf")
