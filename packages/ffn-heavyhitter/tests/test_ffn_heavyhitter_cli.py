"""The command line on a tiny model folder, and the claims in quick mode."""

import json

import pytest
import torch
import transformers
from ffn_heavyhitter import Int8, collect, compress
from ffn_heavyhitter.backend import choose_backend
from ffn_heavyhitter.cli import main
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.random_models import VOCABULARY, output, tiny, tokens
from ffn_heavyhitter.reproduce import claims
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    tiny("llama").save_pretrained(folder / "model")
    words = {f"w{i}": i for i in range(VOCABULARY - 1)} | {"?": VOCABULARY - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder / "model")
    text = " ".join(f"w{int(i)}" for i in tokens(1, 1000)[0])
    (folder / "text.txt").write_text(text)
    return folder


def _run(place, *arguments, expect=0):
    paths = [str(place / a[1:]) if a.startswith("@") else a for a in arguments]
    assert main(paths) == expect


TEXT = ("--text", "@text.txt", "--tokens", "512", "--length", "64")


def test_the_whole_way(place, capsys):
    _run(place, "analyze", "@model", *TEXT, "--json", "@report.json", "--domain", f"again={place / 'text.txt'}")
    printed = capsys.readouterr().out
    assert "heavy sets of text / again overlap by 100%" in printed
    assert json.loads((place / "report.json").read_text())["tokens"] == 512
    _run(place, "plan", "@model", *TEXT, "--method", "int8", "--heavy", "16", "--out", "@plan.json")
    _run(
        place, "compress", "@model", *TEXT, "--plan", "@plan.json", "--out", "@small", "--statistics", "@s.safetensors"
    )
    assert (place / "s.safetensors").exists()
    assert "wrote" in capsys.readouterr().out
    _run(place, "eval", "@small", *TEXT, "--against", "@model", "--json", "@eval.json")
    found = json.loads((place / "eval.json").read_text())
    assert found["ratio"] == pytest.approx(1.0, abs=0.02)
    _run(place, "merge", "@small", "--out", "@merged")
    _run(place, "eval", "@merged", *TEXT, "--against", "@small")
    assert "quantization_config" not in json.loads((place / "merged" / "config.json").read_text())


def test_plans_for_a_size_and_for_widths(place, capsys):
    _run(place, "plan", "@model", *TEXT, "--size", "0.7", "--out", "@sized.json")
    sized = json.loads((place / "sized.json").read_text())
    assert sized["model_bytes"] <= 0.7 * sized["dense_bytes"]
    _run(place, "plan", "@model", *TEXT, "--per-layer", "--share", "0.7", "--out", "@widths.json")
    _run(place, "compress", "@model", *TEXT, "--plan", "@widths.json", "--out", "@narrow")
    assert "bytes on disk" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["mixed_bits", "narrow", "low_rank", "split"])
def test_every_method_writes_a_model(place, method, capsys):
    heavy = {"narrow": [], "low_rank": ["--heavy", "auto"]}.get(method, ["--heavy", "16"])
    _run(place, "compress", "@model", *TEXT, "--method", method, *heavy, "--out", f"@by-{method}")
    _run(place, "eval", f"@by-{method}", *TEXT)
    assert "perplexity" in capsys.readouterr().out


def test_half_precision_halves_what_stays_floating_point(place, capsys):
    for out, half in (("@whole", []), ("@half", ["--half"])):
        options = ("--method", "mixed_bits", "--heavy", "16")
        _run(place, "compress", "@model", *TEXT, *options, *half, "--out", out)
        _run(place, "eval", out, *TEXT, "--json", "@half.json")
    whole, half = ((place / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.65 * whole
    assert "perplexity" in capsys.readouterr().out


def test_bad_input_is_said_and_leaves_nothing(place, capsys):
    _run(place, "analyze", "@nowhere", expect=3)
    assert "no folder with a config.json" in capsys.readouterr().err
    _run(place, "compress", "@model", "--text", "@text.txt", "--tokens", "51200", "--out", "@none", expect=3)
    assert "the text has 1000 tokens" in capsys.readouterr().err
    _run(place, "compress", "@model", *TEXT, "--heavy", "1.5", "--out", "@none", expect=3)
    assert "must be inside (0, 1)" in capsys.readouterr().err
    _run(place, "compress", "@model", *TEXT, "--method", "narrow", "--heavy", "16", "--out", "@none", expect=3)
    assert "does not take all of heavy" in capsys.readouterr().err
    _run(place, "compress", "@model", *TEXT, "--heavy", "auto", "--out", "@none", expect=3)
    assert "--heavy auto is for --method low_rank" in capsys.readouterr().err
    _run(place, "plan", "@model", *TEXT, "--size", "0.01", "--out", "@none.json", expect=3)
    assert "below the floor" in capsys.readouterr().err
    assert not list(place.glob("none*"))
    _run(place, "compress", "@model", *TEXT, "--out", "@model", expect=3)
    assert "is not empty" in capsys.readouterr().err
    assert main([]) == 2


def _with_tokenizer(place, model, name):
    model.save_pretrained(place / name)
    for path in (place / "model").glob("tokenizer*"):
        (place / name / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize("head", ["BertModel", "BertForMaskedLM"])
def test_encoders_keep_their_class_and_pooler(place, head, capsys):
    dense = tiny("bert")
    if head != "BertModel":
        dense = getattr(transformers, head)(dense.config).eval()
    _with_tokenizer(place, dense, head)
    _run(place, "compress", f"@{head}", *TEXT, "--method", "split", "--heavy", "16", "--out", f"@small-{head}")
    _run(place, "merge", f"@small-{head}", "--out", f"@merged-{head}")
    for folder in (f"small-{head}", f"merged-{head}"):
        assert json.loads((place / folder / "config.json").read_text())["architectures"] == [head]
        again, info = type(dense).from_pretrained(place / folder, output_loading_info=True)
        assert not info["missing_keys"]
        ids = tokens()
        with torch.no_grad():
            ours, theirs = again(input_ids=ids), dense(input_ids=ids)
        for found, wanted in zip(ours.to_tuple(), theirs.to_tuple(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    capsys.readouterr()
    _run(place, "eval", f"@small-{head}", *TEXT, expect=3)
    assert "eval needs a causal language model" in capsys.readouterr().err


def test_folders_of_pytorch_files_are_counted(place, capsys):
    model = tiny("llama")
    _with_tokenizer(place, model, "old")
    (place / "old" / "model.safetensors").unlink()
    torch.save(model.state_dict(), place / "old" / "pytorch_model.bin")
    _run(place, "compress", "@old", *TEXT, "--heavy", "16", "--out", "@from-old")
    assert "bytes on disk, -" in capsys.readouterr().out
    (place / "old" / "pytorch_model.bin").unlink()
    before = sorted(place.iterdir())
    _run(place, "compress", "@old", *TEXT, "--heavy", "16", "--out", "@none", expect=3)
    assert "holds neither *.safetensors nor pytorch_model*.bin" in capsys.readouterr().err
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "text",
    ['{"schema": 1}', "[]", "not json", '{"schema": 1, "ffn_bytes": 1, "model_bytes": 1, "dense_bytes": 1}'],
)
def test_bad_plans_and_few_tokens_end_in_one_line(place, text, capsys):
    (place / "bad.json").write_text(text)
    before = sorted(place.iterdir())
    _run(place, "compress", "@model", *TEXT, "--plan", "@bad.json", "--out", "@none", expect=3)
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if line.startswith("ffn-heavyhitter:")]) == 1
    assert "bad.json" in said[-1]
    few = ("--text", "@text.txt", "--tokens", "8", "--length", "8")
    _run(place, "compress", "@model", *few, "--heavy", "16", "--out", "@none", expect=3)
    assert "8 calibration tokens" in capsys.readouterr().err
    assert sorted(place.iterdir()) == before


def test_backend_is_chosen_for_all_and_changes_little():
    model, ids = tiny("llama"), tokens()
    with pytest.raises(CompressionError, match="int8 FFNs"):
        choose_backend(model)
    compress(model, Int8(heavy=16), collect(model, [{"input_ids": ids}], moments=True))
    before = output(model, ids)
    choice = choose_backend(model, tokens=(1, 16), repeat=2)
    assert {module.backend for module in compressed_ffns(model).values()} == {choice.backend}
    assert (output(model, ids) - before).norm() < 0.05 * before.norm()
    assert torch.isfinite(output(model, ids)).all()


def test_quick_claims_hold(capsys):
    for row in claims():
        assert row.holds, row
