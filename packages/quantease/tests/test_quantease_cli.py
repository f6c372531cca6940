from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from quantease.cli import main
from quantease.plots import draw_report


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
