"""Whole models in int8 rows: the product, the layers, files, generation, and who may load them."""

import copy
import json

import pytest
import torch
import transformers
from ffn_heavyhitter import (
    CompressionError,
    MixedBits,
    UnsupportedArchitectureError,
    choose_backend,
    collect,
    compress,
    compress_model,
    merge,
    native,
)
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.cli import main
from ffn_heavyhitter.errors import StatisticsError
from ffn_heavyhitter.evaluation import bytes_on_disk
from ffn_heavyhitter.int8_linear import Int8Linear, SharedInput, int8_linear, int8_modules
from ffn_heavyhitter.int8_rows import PackedRows, codes_and_scale, kernel_is_exact, rounded
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles.ffn_int8_rows_by_hand import product
from oracles.ffn_tiny_architectures import REFUSED, answers, batch, build
from safetensors.torch import load_file

needs_kernel = pytest.mark.skipif(not kernel_is_exact(), reason="PyTorch has no exact int8 kernel here")
WAYS = ["dense", pytest.param("int8", marks=needs_kernel), "native"]


def _off(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def _ways(model, way, few=None):
    for module in int8_modules(model).values():
        if isinstance(module, Int8Linear):
            module.shared.use(way, few)


def _require(way):
    if way == "native" and not native.available():
        pytest.skip("no C compiler here")


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.sampled_from([1, 2, 7, 8, 9, 70]),
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    power=st.integers(-20, 20),
    bits=st.sampled_from([8, 16]),
)
def test_every_way_gives_the_product_of_the_rounded_numbers(way, seed, count, rows, columns, power, bits):
    _require(way)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, columns, generator=generator) * 10.0**power
    x[0, 0] *= 1000
    x[-1] *= seed % 2
    weight = torch.randn(rows, columns, generator=generator)
    codes, scale = codes_and_scale(weight)
    layer = int8_linear(weight, None, bits)
    assume(not layer.spec["outliers"])
    assert torch.equal(layer.codes.data, codes)
    wanted = product(x, codes, scale, bits)
    if way == "native":
        found = native.product(x, codes, scale, bits)
    else:
        layer.shared.use(way)
        found = layer(x)
    rounding_of_sums = 2e-6 * product(x.abs(), codes.abs(), scale, bits) + 1e-35
    assert ((found - wanted).abs() <= rounding_of_sums).all()
    assert torch.equal(found[x.abs().amax(1) == 0], torch.zeros_like(found[x.abs().amax(1) == 0]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 5, 20])
def test_inputs_of_any_layout(way, count):
    _require(way)
    generator = torch.Generator().manual_seed(0)
    layer = int8_linear(torch.randn(6, 24, generator=generator), torch.nn.Parameter(torch.randn(6)), 16)
    layer.shared.use("int8" if kernel_is_exact() else "dense", way)
    wide = torch.randn(24, 2 * count, generator=generator)
    with torch.no_grad():
        for x in (wide.T[:count], wide.T[::2], wide.T[None, :count], wide.reshape(2 * count, 24)[:, None]):
            wanted = torch.nn.functional.linear(x.double(), layer.dense(torch.float64), layer.bias.double())
            assert _off(layer(x).double(), wanted) < 1e-4
        assert layer(torch.empty(0, 24)).shape == (0, 6)


@needs_kernel
def test_sixteen_bits_keep_what_the_weights_give():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 200, generator=generator), torch.randn(50, 200, generator=generator)
    codes, scale = codes_and_scale(weight)
    packed, wanted = PackedRows(codes, scale), x.double() @ (codes.double() * scale.double()[:, None]).T
    assert _off(packed.product(x, 16).double(), wanted) < 5e-5
    assert 1e-3 < _off(packed.product(x, 8).double(), wanted) < 2e-2
    assert _off(rounded(x, 16), x) < 5e-5


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_finite_is_not_made_finite(way):
    _require(way)
    layer = int8_linear(torch.randn(5, 40, generator=torch.Generator().manual_seed(0)), None, 16)
    layer.shared.use("int8" if way == "int8" else "dense", way)
    for value in (float("nan"), float("inf"), float("-inf")):
        x = torch.ones(3, 40)
        x[1, 7] = value
        found = layer(x)
        assert torch.isfinite(found[[0, 2]]).all()
        assert not torch.isfinite(found[1]).any()


@pytest.mark.parametrize("place", ["row", "column"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_weights_that_would_drown_their_row_are_kept_beside(place, size):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(12, 96, generator=generator)
    (weight[3, 5:6] if place == "row" else weight[:, 5]).mul_(size / weight[:, 5].abs().min())
    layer = int8_linear(weight, None, 16)
    assert layer.spec["outliers"] == (1 if place == "row" else 12)
    x = torch.randn(4, 96, generator=generator)
    x[:, 5] = 1 / size  # what the others say counts
    wanted = x.double() @ weight.double().T
    for way in ("dense", "int8") if kernel_is_exact() else ("dense",):
        layer.shared.use(way)
        assert _off(layer(x).double(), wanted) < 0.02, way


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_bit_identical(family, tmp_path):
    dense, ids = tiny(family), tokens()
    model = compress_model(copy.deepcopy(dense))
    expected = output(model, ids)
    assert _off(expected, output(dense, ids)) < 0.05
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(output(again, ids), expected)
    assert {type(module) for module in int8_modules(again).values()} == {
        type(module) for module in int8_modules(model).values()
    }
    again.save_pretrained(tmp_path / "second", max_shard_size="20KB")
    assert torch.equal(output(type(model).from_pretrained(tmp_path / "second"), ids), expected)
    merged = merge(again)
    assert not int8_modules(merged)
    assert _off(output(merged, ids), expected) < 1e-3
    merged.save_pretrained(tmp_path / "merged")
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    assert torch.equal(output(type(model).from_pretrained(tmp_path / "merged"), ids), output(merged, ids))


@pytest.mark.parametrize("name", ["llama-tied", "bert-masked", "gpt2"])
def test_a_tied_head_shares_the_embeddings_rows(name, tmp_path):
    dense = build(name)
    model = compress_model(copy.deepcopy(dense))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.source is embedding
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.numel() == 97 * 32 and tensor.dtype == torch.int8 for tensor in stored.values()) == 1
    assert bytes_on_disk(tmp_path) < 0.45 * sum(4 * p.numel() for p in dense.parameters()) + 20_000
    inputs = batch(model)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(answers(again, inputs), answers(model, inputs))
    merged = merge(again)
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight


def test_layers_that_read_one_input_run_once_and_never_take_anothers_output():
    model = compress_model(tiny("llama"))
    attention = model.model.layers[0].self_attn
    shared = attention.q_proj.shared
    assert shared.members == [attention.q_proj, attention.k_proj, attention.v_proj]
    runs = []
    real, shared.run = shared.run, lambda x: runs.append(x) or real(x)
    x, other = torch.randn(1, 5, 32), torch.randn(1, 5, 32)
    alone = [SharedInput([one]).run(x) for one in shared.members]
    with torch.no_grad():
        assert all(torch.equal(one(x), want) for one, want in zip(shared.members, alone, strict=True))
        assert len(runs) == 1
        assert shared._held is None
        attention.q_proj(x)
        assert torch.equal(attention.k_proj(other), SharedInput([attention.k_proj]).run(other))
        attention.q_proj(x)
        x.mul_(2)  # the same tensor, other numbers
        assert torch.equal(attention.k_proj(x), SharedInput([attention.k_proj]).run(x))
        assert torch.equal(attention.k_proj(x), attention.k_proj(x))


@pytest.mark.parametrize("name", ["llama-tied", "qwen2", "gemma3", "gpt2", "opt"])
def test_generation_with_and_without_a_cache(name):
    model = compress_model(build(name))
    ids = tokens(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": mask, "pad_token_id": 0, "eos_token_id": None}
    cached = model.generate(ids, **options)
    assert cached.shape == (2, 17)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    alone = model.generate(ids[:1, 3:], **{**options, "attention_mask": None})
    if name not in ("gpt2", "opt"):  # positions of padded rows are counted otherwise there
        assert torch.equal(cached[0, 9:], alone[0, 6:])


def test_padding_changes_nothing():
    model, ids = compress_model(tiny("bert")), tokens(3, 12)
    padded = torch.cat([ids, torch.zeros(3, 5, dtype=torch.long)], 1)
    mask = (torch.arange(17) < 12).long().expand(3, 17)
    with torch.no_grad():
        wanted = model(input_ids=ids).last_hidden_state
        found = model(input_ids=padded, attention_mask=mask).last_hidden_state[:, :12]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_loaded_cast_and_under_autocast(dtype, tmp_path):
    ids = tokens()
    model = compress_model(tiny("llama"))
    wanted = output(model, ids)
    model.save_pretrained(tmp_path)
    loaded, cast = type(model).from_pretrained(tmp_path, dtype=dtype), copy.deepcopy(model).to(dtype)
    made = compress_model(tiny("llama", dtype=dtype))
    for one in (loaded, cast, made):
        assert one.dtype == output(one, ids).dtype == dtype
        assert all(module.scale.dtype == torch.float32 for module in int8_modules(one).values())
        assert _off(output(one, ids).double(), wanted.double()) < 0.05
        _ways(one, "dense")
        assert _off(output(one, ids).double(), wanted.double()) < 0.05
    if dtype != torch.float64:
        with torch.autocast("cpu", dtype=dtype):
            assert _off(output(model, ids).float(), wanted) < 0.05


def test_gradients_flow_through_int8_layers():
    dense = tiny("bert")
    model = compress_model(copy.deepcopy(dense))

    def gradient(of):
        read = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        found = of(inputs_embeds=read)[0]
        (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
        return read.grad

    assert _off(gradient(model), gradient(dense)) < 0.1


def test_ffns_may_go_to_a_treatment(tmp_path):
    dense, ids = tiny("llama"), tokens()
    statistics = collect(dense, [{"input_ids": ids}], moments=True)
    ways = {"all": MixedBits(heavy=16, heavy_bits=8, light_bits=6, group_size=32)}
    ways["one"] = {find_ffns(dense)[0].name: ways["all"]}
    for name, way in ways.items():
        model = compress_model(copy.deepcopy(dense), ffn=way, statistics=statistics)
        expected = output(model, ids)
        assert _off(expected, output(dense, ids)) < 0.1
        model.save_pretrained(tmp_path / name)
        again = type(model).from_pretrained(tmp_path / name)
        assert torch.equal(output(again, ids), expected)
        assert _off(output(merge(again), ids), expected) < 1e-3
    with pytest.raises(StatisticsError, match="ffn treatments need statistics"):
        compress_model(copy.deepcopy(dense), ffn=ways["all"])


def test_a_body_and_another_head_load(tmp_path):
    model = compress_model(build("llama-tied"))
    model.save_pretrained(tmp_path)
    inputs = batch(model)
    body = transformers.AutoModel.from_pretrained(tmp_path)
    assert torch.equal(answers(body, inputs), answers(model.model, inputs))
    other = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert torch.equal(answers(other.model, inputs), answers(body, inputs))
    assert type(other.score) is torch.nn.Linear


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_adapter_knows_is_refused_by_name(name):
    with pytest.raises(UnsupportedArchitectureError, match=REFUSED[name][3]):
        compress_model(build(name))


def test_bad_input_changes_nothing():
    dense = tiny("llama")
    with pytest.raises(ValueError, match="activation_bits=4 must be 16 or 8"):
        compress_model(dense, activation_bits=4)
    with pytest.raises(CompressionError, match="training mode"):
        compress_model(tiny("llama").train())
    with torch.no_grad():
        dense.model.layers[1].self_attn.o_proj.weight[0, 0] = torch.nan
    with pytest.raises(CompressionError, match=r"model.layers.1.self_attn.o_proj: a weight is not finite"):
        compress_model(dense)
    assert not int8_modules(dense)
    model = compress_model(tiny("llama"))
    for again in (compress_model, lambda m: compress(m, MixedBits(), None)):
        with pytest.raises(CompressionError, match="already compressed"):
            again(model)


@pytest.mark.parametrize("lost", ["model.layers.0.self_attn.q_proj.codes", "model.embed_tokens.scale"])
def test_a_folder_that_lacks_a_tensor_is_refused(lost, tmp_path):
    from safetensors.torch import save_file

    compress_model(tiny("llama")).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    del stored[lost]
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CompressionError, match=rf"{lost} of shape .* is not among"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole.update(activation_bits=4), "whole.activation_bits=4 must be 16 or 8"),
        (lambda whole: whole.pop("inputs"), "whole.inputs=None of the compressed model must be a list"),
        (lambda whole: whole.update(tied=[]), r"whole.tied=\[\] of the compressed model must be a dict"),
        (lambda whole: whole.update(more=1), r"whole has unknown fields \['more'\]"),
        (lambda whole: whole.clear(), "whole.activation_bits=None"),
        (lambda whole: whole.update(outliers={"lm_head": 2}), "lm_head.outlier_row of shape .* is not among"),
    ],
)
def test_bad_configs_are_named(change, said, tmp_path):
    model = compress_model(tiny("llama"))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["quantization_config"]["ffn_heavyhitter"]["whole"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CompressionError, match=said):
        type(model).from_pretrained(tmp_path)


def test_what_is_offloaded_to_disk_is_refused(tmp_path):
    model = compress_model(tiny("llama"))
    model.save_pretrained(tmp_path / "model")
    places = {"model.layers.0": "disk", "model.layers.1": "cpu", "model.embed_tokens": "cpu", "model.norm": "cpu"}
    places |= {"lm_head": "cpu", "model.rotary_emb": "cpu"}
    with pytest.raises(CompressionError, match="leave device_map out"):
        type(model).from_pretrained(tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload")


def test_many_threads_may_ask_at_once():
    from concurrent.futures import ThreadPoolExecutor

    model = compress_model(tiny("llama"))
    given = [tokens(seed=seed) for seed in range(6)]
    wanted = [output(model, ids) for ids in given]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: output(model, given[i % 6]), range(48)))
    assert all(torch.equal(one, wanted[i % 6]) for i, one in enumerate(found))


def test_the_backend_is_chosen_for_all():
    model, ids = compress_model(tiny("llama")), tokens(1, 4)
    before = output(model, ids)
    choice = choose_backend(model, tokens=(1, 16), repeat=2)
    layers = [module for module in int8_modules(model).values() if isinstance(module, Int8Linear)]
    assert {(one.shared.backend, one.shared.few) for one in layers} == {(choice.backend, choice.few)}
    assert choice.backend in ("int8", "dense")
    assert set(choice.speedup) == {1, 16}
    for way in ("dense", *(["native"] if native.available() else [])):
        _ways(model, "dense", way)
        assert _off(output(model, ids), before) < 1e-3


def test_no_compiler_no_native_way(monkeypatch, tmp_path):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert native._built() is None
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "few_rows.c"
    broken.write_text("int few_rows(")
    monkeypatch.setattr(native, "_SOURCE", broken)
    assert native._built() is None
    assert not list((tmp_path / "ffn-heavyhitter").glob("*.so"))


def test_the_command_writes_whole_models(tmp_path, capsys):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    dense = tiny("llama")
    dense.save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "model")
    model, small = str(tmp_path / "model"), str(tmp_path / "small")
    assert main(["compress", model, "--whole", "--activation-bits", "8", "--out", small]) == 0
    assert "bytes on disk, -" in capsys.readouterr().out
    again = transformers.AutoModelForCausalLM.from_pretrained(small)
    assert again.config.quantization_config.whole["activation_bits"] == 8
    for wrong, said in (
        (["--activation-bits", "8"], "--activation-bits 8 is for --whole"),
        (["--whole", "--heavy", "16"], "--heavy needs --method or --plan beside --whole"),
    ):
        assert main(["compress", model, *wrong, "--out", str(tmp_path / "none")]) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def _layer(way, rows=6, columns=24):
    _require(way)
    torch.manual_seed(0)
    layer = int8_linear(torch.randn(rows, columns), torch.nn.Parameter(torch.randn(rows)), 16)
    layer.shared.use("int8" if kernel_is_exact() else "dense", way)
    return layer


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "write",
    [lambda x: x.mul_(2), lambda x: x.data.mul_(2), lambda x: x.numpy().__imul__(2), lambda x: x.copy_(x.flip(1))],
)
@pytest.mark.parametrize("count", [3, 300])
def test_an_input_written_over_between_siblings_is_read_anew(way, mode, write, count):
    first, second = _layer(way), _layer(way)
    first.shared = second.shared = shared = SharedInput([first, second])
    shared.use("int8" if kernel_is_exact() else "dense", way)
    with mode():
        x = torch.randn(count, 24)
        first(x)
        write(x)
        assert torch.equal(second(x), first(x.clone()) * 0 + second(x.clone()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("x", [torch.ones(2, 12), torch.ones(2, 25), torch.ones(2, 24).long(), torch.ones(2, 24) * 1j])
def test_inputs_of_other_widths_and_kinds_are_refused(way, x):
    with torch.no_grad(), pytest.raises(CompressionError, match="must end in 24 features and be real floating"):
        _layer(way)(x)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["bias", "scale", "codes"])
@pytest.mark.parametrize("kind", ["written", "replaced", "assigned", "loaded"])
def test_tensors_that_change_are_read_anew(way, name, kind):
    layer, x = _layer(way), torch.randn(3, 24)
    new = {key: value.clone() for key, value in layer.state_dict().items()}
    new[name] = -new[name] if name == "codes" else new[name] + 1
    with torch.no_grad():
        layer(x)
        if kind == "written":
            getattr(layer, name).copy_(new[name])
        elif kind == "replaced":
            setattr(layer, name, torch.nn.Parameter(new[name], requires_grad=False))
        else:
            layer.load_state_dict(new, assign=kind == "assigned")
        wanted = torch.nn.functional.linear(x, layer.dense(torch.float32), layer.bias)
        assert _off(layer(x), wanted) < 1e-4


@pytest.mark.parametrize("way", WAYS)
def test_a_state_of_another_dtype_is_cast_or_refused(way):
    layer, x = _layer(way), torch.randn(3, 24)
    with torch.no_grad():
        wanted, state = layer(x), layer.state_dict()
        layer.load_state_dict({**state, "scale": state["scale"].double()}, assign=True)
        assert torch.equal(layer(x), wanted)
        layer.load_state_dict({**state, "codes": state["codes"].half()}, assign=True)
        with pytest.raises(CompressionError, match=r"codes are torch\.float16"):
            layer(x)


def test_a_bias_that_learns_has_a_gradient():
    layer = _layer("dense")
    layer(torch.ones(2, 24)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((6,), 2.0))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("record", ["trace", "export"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_recorded_calls_compute(way, record):
    layer, x, other = _layer(way), torch.randn(3, 24), torch.randn(3, 24)
    with torch.no_grad():
        if record == "trace":
            found = torch.jit.trace(layer, (x,), check_trace=False)
        else:
            found = torch.export.export(layer, (x,)).module()
        assert _off(found(other), layer(other)) < 1e-4


def test_ways_of_another_machine_are_left(monkeypatch):
    layer, x = _layer("dense"), torch.randn(3, 24)
    with torch.no_grad():
        wanted = layer(x)
        monkeypatch.setattr("ffn_heavyhitter.int8_linear.kernel_is_exact", lambda: False)
        monkeypatch.setattr(native, "available", lambda: False)
        layer.shared.use("int8", "native")
        assert torch.equal(layer(x), wanted)


@pytest.mark.parametrize("ids", [[-1], [97], [-100, 3], [True], [1.0]])
def test_the_embedding_refuses_what_a_dense_one_does(ids):
    dense = tiny("llama")
    embedding = compress_model(copy.deepcopy(dense)).get_input_embeddings()
    for one in (dense.get_input_embeddings(), embedding):
        with pytest.raises((IndexError, RuntimeError)):
            one(torch.tensor(ids))


def test_hooks_are_not_lost_in_silence():
    dense = tiny("llama")
    handle = dense.model.layers[0].self_attn.o_proj.register_forward_hook(lambda layer, given, found: found * 3)
    with pytest.raises(CompressionError, match=r"self_attn\.o_proj has hooks"):
        compress_model(dense)
    handle.remove()
    compress_model(dense)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole["inputs"].append([1]), "names, each once"),
        (lambda whole: whole["inputs"].append("lm_head"), "a list of lists"),
        (lambda whole: whole["inputs"].append(whole["inputs"][0]), "names, each once"),
        (lambda whole: whole["inputs"].append(["model.norm"]), "model.norm, which is a LlamaRMSNorm"),
        (
            lambda whole: whole.update(inputs=[[name for group in whole["inputs"] for name in group]]),
            "inputs of different widths",
        ),
        (lambda whole: whole["embeddings"].append("model.norm"), "model.norm, which is a LlamaRMSNorm"),
        (lambda whole: whole.update(tied={"lm_head": "none"}), "no layer and embedding"),
        (lambda whole: whole.update(tied={"lm_head": "model.embed_tokens"}), "lm_head.codes, which nothing reads"),
        (lambda whole: whole.update(outliers={}), "outlier_column, which nothing reads"),
        *(
            (lambda whole, count=count: whole.update(outliers={"lm_head": count}), "a layer and how many it has")
            for count in (-2, 0, 1.5, "2", True)
        ),
    ],
)
def test_configs_changed_by_hand_are_named(change, said, tmp_path):
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[3, 5] = 1e4
    compress_model(model).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["quantization_config"]["ffn_heavyhitter"]["whole"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CompressionError, match=said):
        type(model).from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("scale", -1.0, "scale is negative"),
        ("scale", float("nan"), "scale is not finite"),
        ("outlier_row", -1, "outlier_row is outside"),
        ("outlier_column", 32, "outlier_column is outside"),
    ],
)
def test_damaged_tensors_are_named(key, value, said, tmp_path):
    from safetensors.torch import save_file

    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[3, 5] = 1e4
    compress_model(model).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored[f"model.layers.0.self_attn.q_proj.{key}"][0] = value
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CompressionError, match=f"q_proj.{said}"):
        type(model).from_pretrained(tmp_path)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    if native._built() is None:
        pytest.skip("no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a b"))
    return tmp_path / "a b" / "ffn-heavyhitter"


def test_a_damaged_library_is_built_anew(cache):
    library = native._built()
    whole = library.read_bytes()
    for damaged in (whole[:6000], b"", whole[:9000] + bytes(8) + whole[9008:]):
        library.write_bytes(damaged)
        found = native._built()
        assert found == library
        assert native._is_whole(found, found.with_suffix(".sha256"))


@pytest.mark.skipif(not hasattr(__import__("os"), "geteuid"), reason="permissions of POSIX")
def test_a_cache_that_others_may_write_is_not_used(cache, monkeypatch):
    library = native._built()
    for path in (cache, library):
        for more in (0o020, 0o002):
            before = path.stat().st_mode
            path.chmod(before | more)
            assert native._built() is None
            path.chmod(before)
    assert native._built() == library
    monkeypatch.setattr(native.os, "geteuid", lambda: 12345678)
    assert native._built() is None


@pytest.mark.parametrize("given", ["", "relative"])
def test_nothing_is_loaded_from_the_working_folder(given, cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert native._built().is_relative_to(tmp_path / "home" / ".cache")
    assert not (tmp_path / "ffn-heavyhitter").exists()
    assert not (tmp_path / "relative").exists()


def test_a_compiler_that_hangs_is_ended_with_what_it_started(cache, monkeypatch, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    compiler = folder / "cc"
    compiler.write_text("#!/bin/sh\nsleep 600\ntrue\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(native, "_SECONDS", 0.5)
    assert native._built() is None
    compiler.write_text("#!/bin/sh\nexit 0\n")
    assert native._built() is None
    assert not [*cache.iterdir()]


@pytest.mark.parametrize(
    "wrong",
    [
        ("back[t];", "back[t] * 1.0001f;"),
        ("y[t * rows + n] = scale[n] *", "y[t * rows + n] = scale[0] *"),
        ("rintf(row[k] * forth)", "(row[k] * forth)"),
        ("largest / steps : NAN", "largest / steps : 0"),
        ("float forth = steps / largest", "float forth = (steps = 32639) / largest"),
    ],
)
def test_a_library_of_wrong_sums_is_not_used(wrong, cache, monkeypatch, tmp_path):
    source = native._SOURCE.read_text()
    assert wrong[0] in source
    changed = tmp_path / "few_rows.c"
    changed.write_text(source.replace(*wrong))
    monkeypatch.setattr(native, "_SOURCE", changed)
    native._function.cache_clear()
    try:
        assert native._function() is None
    finally:
        native._function.cache_clear()
