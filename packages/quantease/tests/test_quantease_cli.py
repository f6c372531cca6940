from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from quantease.cli import main
from quantease.plots import draw_report
from quantease_cases import numbered_words, tiny


def test_the_readme_example_runs_as_written(capsys) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    exec(program, {})
    errors = [float(value) for value in re.findall(r"error (\S+?)[, ]", capsys.readouterr().out)]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 4


def test_layer_prints_every_method(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "w.npy", rng.normal(size=(8, 16)).astype(np.float32))
    np.save(tmp_path / "x.npy", rng.normal(size=(200, 16)).astype(np.float32))
    assert main(["layer", str(tmp_path / "w.npy"), str(tmp_path / "x.npy"), "--bits", "3"]) == 0
    found = dict(re.findall(r"^(\w+) +error (\S+),", capsys.readouterr().out, flags=re.MULTILINE))
    assert set(found) == {"quantease", "gptq", "rtn", "paper"}
    assert float(found["quantease"]) <= float(found["gptq"]) < float(found["rtn"])
    np.save(tmp_path / "x.npy", rng.normal(size=(200, 15)))
    assert main(["layer", str(tmp_path / "w.npy"), str(tmp_path / "x.npy")]) == 3
    assert "must be (tokens, p)" in capsys.readouterr().err


def _saved_model(folder: Path) -> Path:
    """A tiny model with a tokenizer of numbered words."""
    tiny("llama").save_pretrained(folder)
    numbered_words(folder)
    return folder


@pytest.mark.filterwarnings("ignore:.*calibration tokens are fewer:quantease.CalibrationWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantize_eval_and_compare_a_model_on_disk(tmp_path: Path, capsys) -> None:
    source, text = _saved_model(tmp_path / "model"), tmp_path / "t.txt"
    text.write_text(" ".join(f"w{i}" for i in np.random.default_rng(0).integers(0, 100, 400)))
    cut = ["--length", "32", "--windows", "6"]
    arguments = ["--calib", str(text), *cut, "--bits", "3", "--group-size", "16"]
    out, work = tmp_path / "out", tmp_path / "work"
    command = ["quantize", str(source), str(out), *arguments, "--drift-windows", "2", "--work", str(work)]
    assert main(command) == 0
    assert "21 layers at 4.188 bits a weight" in capsys.readouterr().out  # 3 + (16 + 3) / 16
    assert main(["inspect", str(work)]) == 0
    assert "12 problems" in capsys.readouterr().out
    assert main(["eval", str(out), "--text", str(text), *cut, "--against", str(source)]) == 0
    said = capsys.readouterr().out
    perplexities = [float(value) for value in re.findall(r"perplexity ([\d.]+)", said)]
    (paired,) = re.findall(r"difference (\S+) nats", said)
    assert float(paired) == pytest.approx(np.log(perplexities[0] / perplexities[1]), abs=2e-3)
    compare = ["compare", str(source), *arguments, "--text", str(text), "--test-windows", "4", "--methods"]
    assert main([*compare, "rtn", "quantease"]) == 0
    errors = dict(re.findall(r"^(\w+): .*mean layer error (\S+);", capsys.readouterr().out, flags=re.MULTILINE))
    assert float(errors["quantease"]) < float(errors["rtn"])


def test_unusable_input_is_one_line_and_code_three(tmp_path: Path, capsys) -> None:
    assert main([]) == 2
    (tmp_path / "t.txt").write_text("words")
    calibration = ["--calib", str(tmp_path / "t.txt")]
    assert main(["quantize", str(tmp_path), str(tmp_path / "o"), *calibration, "--bits", "9"]) == 3
    assert "bits=9" in capsys.readouterr().err
    assert main(["quantize", str(tmp_path), str(tmp_path / "o"), *calibration, "--outliers", "0.01"]) == 3
    assert "--format native" in capsys.readouterr().err
    assert main(["quantize", str(tmp_path), str(tmp_path), *calibration]) == 3
    assert "exists; choose another name" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_inspect_reads_a_report_and_draws_it(tmp_path: Path, capsys) -> None:
    row = {"block": 0, "modules": ["h.0.q", "h.0.k"], "error": 0.02, "history": [0.04, 0.02], "improving_moves": 3}
    row |= {"bits_per_weight": 3.03, "seconds": 0.5}
    (tmp_path / "report.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps(row | {"block": 1, "error": 0.03}) + "\n"
    )
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "q, k: error 0.02000, descent took 50.0%, 3 improving moves left" in said
    assert "2 problems; worst h.0.q, h.0.k: 0.03000" in said
    draw_report([row], tmp_path / "report.svg")
    assert (tmp_path / "report.svg").read_text().rstrip().endswith("</svg>")
    (tmp_path / "other.jsonl").write_text("{}\n")
    assert main(["inspect", str(tmp_path / "other.jsonl")]) == 3
