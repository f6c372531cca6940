import json

import numpy as np
import pandas as pd
import pytest
from multislot_rerank.cascade_world import CascadeWorld
from multislot_rerank.cli import main

REQUEST = {
    "k": 3,
    "objectives": [{"type": "Relevance"}, {"type": "AttributeRepeat", "attribute": "creator", "weight": 0.3}],
    "constraints": [{"type": "MinGap", "attribute": "creator", "gap": 3}],
    "candidates": {"scores": [0.9, 0.8, 0.7], "attributes": {"creator": ["ann", "ann", "bob"]}},
}


def write(tmp_path, document):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_rerank_prints_the_slate_and_what_was_relaxed(tmp_path, capsys):
    assert main(["rerank", write(tmp_path, REQUEST)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["items"] == [0, 2, 1]
    assert answer["utilities"] == pytest.approx([0.9, 0.7, 0.5])
    assert answer["relaxed"] == [{"slot": 2, "constraint": "MinGap(attribute='creator', gap=3)"}]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 9}, "k=9 is more than the 3 candidates"),
        ({"objectives": [{"type": "Relevanz"}]}, "type='Relevanz' is unknown; use one of AttributeRepeat"),
        ({"objectives": [{"type": "MaxSimilarity", "wait": 1}]}, "MaxSimilarity: .*wait"),
        ({"candidates": {"scores": [0.1, None]}}, "scores"),
        ({"k": "3"}, "k='3' must be at least 1, a whole number"),
        ({"k": 1.5}, "k=1.5 must be at least 1, a whole number"),
        ({"k": None}, "k=None must be at least 1, a whole number"),
        ({"objectives": None}, "objectives=None is no list"),
        ({"objectives": ["Relevance"]}, "'Relevance' is no objective or constraint"),
        ({"constraints": None}, "constraints=None is no list"),
        ({"constraints": [{"type": "Pin", "item": "a", "slot": 0}]}, "Pin: item='a' must be at least 0"),
        ({"candidates": [0.9]}, r"candidates=\[0.9\] is no object"),
        ({"candidates": {"scores": [0.9, 0.8, 0.7], "attributes": ["creator"]}}, "attributes is no mapping"),
        ({"candidates": {"scores": [0.9, 0.8, 0.7], "attributes": {"creator": "abc"}}}, "is one text"),
    ],
)
def test_bad_requests_end_with_status_3_and_the_reason(tmp_path, capsys, changed, message):
    assert main(["rerank", write(tmp_path, REQUEST | changed)]) == 3
    import re

    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_evaluate_prints_the_ladder(tmp_path, capsys, suffix):
    world = CascadeWorld.random(items=5, slots=2, damping=0.5, seed=0)
    log = world.log(4000, seed=1)
    slots = np.tile(np.arange(2), 4000)
    base = pd.DataFrame({"request": np.repeat(np.arange(4000), 2), "slot": slots})
    logged = base.assign(item=log.slates.ravel(), candidates=5, click=log.rewards.ravel())
    target = base.assign(item=np.tile(world.best_by_appeal, 4000))
    for name, frame in (("log", logged), ("target", target)):
        path = tmp_path / f"{name}.{suffix}"
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    files = [str(tmp_path / f"{name}.{suffix}") for name in ("log", "target")]
    assert main(["evaluate", *files, "--objective", "click", "--logging", "uniform"]) == 0
    shown = capsys.readouterr().out
    assert "recommended: replay (full)" in shown
    assert main(["evaluate", *files, "--objective", "click"]) == 3
    assert "or say logging='uniform'" in capsys.readouterr().err
    assert main(["evaluate", *files, "--logging", "uniform"]) == 3
    assert "frame has no column reward" in capsys.readouterr().err


def test_a_target_of_other_requests_is_refused(tmp_path, capsys):
    log = pd.DataFrame({"request": [0, 0, 1, 1], "slot": [0, 1, 0, 1], "item": [0, 1, 2, 0]})
    log.assign(candidates=3, reward=1).to_csv(tmp_path / "log.csv", index=False)
    for changed, message in (
        (log.assign(request=log["request"] + 5), "target has request 5 where the log has 0"),
        (log.assign(slot=0), "target has slot 0 where the log has 1"),
        (log.drop(columns="item"), "lacks the columns item"),
        (log.iloc[1:], "target has 3 rows where the log has 4"),
    ):
        changed.to_csv(tmp_path / "target.csv", index=False)
        assert main(["evaluate", str(tmp_path / "log.csv"), str(tmp_path / "target.csv"), "--logging", "uniform"]) == 3
        assert message in capsys.readouterr().err
        changed.assign(policy="a").to_csv(tmp_path / "policies.csv", index=False)
        assert main(["pareto", str(tmp_path / "log.csv"), str(tmp_path / "policies.csv"), "--logging", "uniform"]) == 3
        assert message.replace("target", "policy 'a'") in capsys.readouterr().err


def test_files_and_numbers_that_cannot_be_used_exit_3_with_one_line(tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "request.json").write_bytes(b"\xff\xfe")
    plan = ["plan", "--reward-deviation", "0.2"]
    for call, message in (
        (["evaluate", str(tmp_path / "empty.csv"), str(tmp_path / "empty.csv")], "empty.csv cannot be read as CSV"),
        (["rerank", str(tmp_path / "request.json")], "request.json is no JSON"),
        (["simulate", "--influence", "nan"], "--influence nan is not finite"),
        (["simulate", "--seed", "-1"], "--seed -1 is negative"),
        (
            [*plan, "--candidates", "9", "--slots", "2", "--standard-error", "1e-200"],
            "standard_error=1e-200 is too small",
        ),
        ([*plan, "--candidates", "1000", "--slots", "900", "--standard-error", "0.1"], "never match"),
    ):
        assert main(call) == 3
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_plan_prints_a_row_an_interaction(capsys):
    call = ["plan", "--candidates", "10", "--slots", "3", "--standard-error", "0.02", "--reward-deviation", "0.2"]
    assert main(call) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["full", "0.00139", "100", "84848"]
    assert len(rows) == 5


def test_pareto_simulate_and_benchmark(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = [
        {"request": i, "slot": 0, "item": int(a), "candidates": 3, "click": float(rng.random() < (0.7, 0.5, 0.2)[a]),
         "fresh": float(rng.random() < (0.1, 0.5, 0.8)[a])}
        for i, a in enumerate(rng.integers(3, size=600))
    ]  # fmt: skip
    log, policies = tmp_path / "log.csv", tmp_path / "policies.csv"
    pd.DataFrame(rows).to_csv(log, index=False)
    shown = [{"policy": f"item {a}", "request": i, "slot": 0, "item": a} for a in range(3) for i in range(600)]
    pd.DataFrame(shown).to_csv(policies, index=False)
    objectives = ["--objective", "click", "--objective", "fresh", "--logging", "uniform"]
    picture = tmp_path / "front.svg"
    assert main(["pareto", str(log), str(policies), *objectives, "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.count("*") == 3
    assert "on the other half: click 0." in out
    assert picture.read_text().startswith("<?xml")
    assert main(["pareto", str(log), str(policies), *objectives, "--less", "age"]) == 3
    assert "--less age" in capsys.readouterr().err
    assert main(["simulate", "--requests", "60", "--candidates", "8", "--slots", "3"]) == 0
    assert "greedy on the truth" in capsys.readouterr().out
    assert main(["simulate", "--slots", "9", "--candidates", "8"]) == 3
    assert main(["benchmark", "--candidates", "20", "--k", "3", "--requests", "5"]) == 0
    assert "p50 ms" in capsys.readouterr().out
