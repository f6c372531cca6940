import json
import re
from pathlib import Path

import pytest
from msam_lawn.cli import main
from msam_lawn_cases import losses, tanh_mlp

README = Path(__file__).parents[1] / "README.md"


def with_batch_norm():
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    return model, torch.randn(10, 5), torch.randint(0, 3, (10,)), losses


def task():
    import torch

    torch.manual_seed(0)
    return tanh_mlp().double(), torch.randn(10, 5).double(), torch.randint(0, 3, (10,)), losses


@pytest.fixture
def named(monkeypatch):
    import sys
    import types

    module = types.ModuleType("msam_lawn_cli_task")
    module.task, module.with_batch_norm = task, with_batch_norm
    monkeypatch.setitem(sys.modules, "msam_lawn_cli_task", module)
    return "msam_lawn_cli_task:task"


def test_bench_and_plot(named, tmp_path, capsys):
    figures = tmp_path / "costs.json"
    assert main(["bench", named, "--micro-batches", "1", "5", "--repeat", "2", "--json", str(figures)]) == 0
    rows = json.loads(figures.read_text())["step_costs"]
    assert [row["micro_batches"] for row in rows] == [1, 5]
    assert main(["plot", str(figures), "--out", str(tmp_path / "costs.svg")]) == 0
    assert "<svg" in (tmp_path / "costs.svg").read_text()
    assert "of a plain step" in capsys.readouterr().out


def test_doctor_and_sharpness(named, capsys):
    assert main(["doctor", named, "--micro-batches", "10"]) == 0
    shown = capsys.readouterr().out
    assert "engine: low-rank" in shown
    assert "of the loop's cost for 10 micro-batches" in shown
    assert "LAWN would hold 2.weight (degree 1, after 1 (Tanh))" in shown
    assert main(["doctor", named.replace(":task", ":with_batch_norm"), "--micro-batches", "2"]) == 0
    shown = capsys.readouterr().out
    assert "engine: low-rank" not in shown
    assert "the low-rank engine is not exact here: 1 (BatchNorm1d) mixes the rows" in shown
    assert "batch statistics, moved once a step: 1" in shown
    assert main(["sharpness", named, "--top", "2"]) == 0
    assert "converged" in capsys.readouterr().out


def test_bad_input_is_code_two(capsys):
    assert main([]) == 2
    assert main(["doctor", "nothing"]) == 3
    assert "is no module:function" in capsys.readouterr().err


def test_the_readmes_example_runs(capsys):
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    exec(compile(example, "README", "exec"), {})
    shown = capsys.readouterr().out
    assert "low-rank" in shown
    assert "constrained held:" in shown
