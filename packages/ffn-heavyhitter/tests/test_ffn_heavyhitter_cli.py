"""The command line on a tiny model folder, and the claims in quick mode."""

import json

import pytest
import torch
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
