"""Documents in, documents out; exit codes."""

import json
from pathlib import Path

import pytest
from fastlp_rank import InvalidProblemError, SlotWeights
from fastlp_rank.cli import main
from fastlp_rank.problem_json import problem_from_json

DOCUMENT = {
    "items": ["p", "q", "r", "s"],
    "scores": [0.9, 0.8, 0.5, 0.4],
    "slots": {"dcg": 2},
    "groups": {"genre": ["x", "x", "y", "y"]},
    "constraints": [
        {"type": "group_exposure", "groups": "genre", "group": "x", "max_share": 0.5},
        {"type": "linear_exposure", "values": [1, 0, 0, 0], "upper": 0.9, "name": "cost"},
    ],
}


def test_solve_writes_names_and_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "problem.json", tmp_path / "solution.json"
    source.write_text(json.dumps(DOCUMENT))
    assert main(["solve", str(source), "--out", str(target)]) == 0
    answer = json.loads(target.read_text())
    assert answer["status"] == "OPTIMAL"
    assert answer["verified"]
    assert sum(entry["weight"] for entry in answer["lottery"]) == pytest.approx(1.0)
    assert {item for entry in answer["lottery"] for item in entry["ranking"]} <= set("pqrs")
    assert answer["activities"]["exposure[x]"] == pytest.approx(0.5 * SlotWeights.dcg(2).total)
    assert main(["solve", str(source)]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_infeasible_exits_3_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "problem.json"
    bound = {"type": "group_exposure", "groups": ["x", "x"], "group": "x", "max_share": 0.5}
    source.write_text(json.dumps({"scores": [1, 2], "slots": [1], "constraints": [bound]}))
    assert main(["solve", str(source)]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "INFEASIBLE"
    assert answer["bound"] is None
    assert answer["farkas_ray"] == {"exposure[x]": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [1.0, None]}, "not"),
        ({"slots": {"dgc": 2}}, "give {'dcg': m}"),
        ({"slots": None}, "slots"),
        ({"extra": 1}, "field 'extra' is unknown"),
        ({"items": ["p"]}, "items has 1 names for 4 scores"),
        ({"constraints": [{"type": "window"}]}, r"constraints\[0\]: type 'window' is unknown"),
        ({"constraints": [{"type": "linear_exposure"}]}, "field 'values' is missing"),
        ({"constraints": [{"type": "group_count", "groups": "genre", "max": 1}]}, "field 'max' is unknown"),
        ({"constraints": [{"type": "group_count", "groups": "mood", "group": "x"}]}, "groups 'mood' is not under"),
        ({"scores": [1, "2", 3, 4]}, r"scores\[1\] = '2' is no number"),
        ({"scores": [1, True, 3, 4]}, r"scores\[1\] = True is no number"),
        ({"scores": [10**400, 2, 3, 4]}, "scores is not an array of numbers"),
        ({"slots": {"dcg": True}}, "m = True slots"),
        ({"groups": None}, "groups is no JSON object"),
        ({"items": 4}, "items is no JSON list"),
        ({"items": {"p": 1, "q": 2, "r": 3, "s": 4}}, "items is no JSON list"),
        ({"constraints": None}, "constraints is no JSON list"),
        ({"constraints": [{"type": ["window"]}]}, r"type \['window'\] is unknown"),
        ({"constraints": [{"type": "group_exposure", "groups": "genre", "group": ["x"], "max_share": 1}]}, "no label"),
        ({"constraints": [{"type": "group_exposure", "groups": "genre", "group": "x", "max_share": "1"}]}, "no number"),
        ({"constraints": [{"type": "group_exposure", "groups": "genre", "group": "x", "max_share": [1]}]}, "no number"),
        ({"constraints": [{"type": "group_exposure", "groups": [["x"], "y", "y", "y"], "group": "x"}]}, "min_share"),
        (
            {"constraints": [{"type": "group_exposure", "groups": [["x"], 1, 2, 3], "min_share": 0.1}]},
            "neither True nor False",
        ),
        ({"constraints": [{"type": "linear_exposure", "values": [1, 2, 3, 4], "upper": "x"}]}, "upper = 'x'"),
        ({"constraints": [{"type": "linear_exposure", "values": [1, 2, 3, 4], "upper": 1, "name": ["q"]}]}, "no text"),
    ],
)
def test_bad_documents(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        problem_from_json({**DOCUMENT, **change})


def test_blocked_items_and_lists_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "problem.json"
    document = {
        **DOCUMENT,
        "groups": {"genre": [["x", "z"], ["x"], ["y"], []]},
        "blocked": [False, 1, 0, False],
        "feasibility_tol": 1e-7,
        "constraints": [{"type": "group_exposure", "groups": "genre", "group": "z", "max_share": 0.5}],
    }
    source.write_text(json.dumps(document))
    assert main(["solve", str(source)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verified"]
    assert {item for entry in answer["lottery"] for item in entry["ranking"]} <= {"p", "r", "s"}
    for change, message in (
        ({"blocked": [True, True, True, False]}, "1 of 4 candidates remain for 2 slots"),
        ({"blocked": [True, 2, False, False]}, r"blocked\[1\] = 2 is neither"),
        ({"feasibility_tol": 2}, "feasibility_tol = 2.0"),
        ({"feasibility_tol": "x"}, "feasibility_tol = 'x' is no number"),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            problem_from_json({**document, **change})


def test_missing_fields() -> None:
    with pytest.raises(InvalidProblemError, match="field 'slots' is missing"):
        problem_from_json({"scores": [1.0]})
    with pytest.raises(InvalidProblemError, match="no JSON object"):
        problem_from_json([1.0])


def test_bad_input_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "problem.json"
    source.write_text("{")
    assert main(["solve", str(source)]) == 3
    assert main(["solve", str(tmp_path / "nowhere.json")]) == 3
    assert main(["generate", "--n", "3", "--m", "4"]) == 3
    assert main(["bench", "--sizes", "3x4x1"]) == 3
    assert main(["generate", "--seed", "-1"]) == 3
    assert main(["bench", "--sizes", "4x3x1", "--seeds", "0"]) == 3
    source.write_bytes(b"\xff\xfe\x00")
    assert main(["solve", str(source)]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "problem.json is no JSON" in printed.err
    assert "--seed -1 is negative" in printed.err
    assert len(printed.err.splitlines()) == 7  # one line each


def test_a_target_that_cannot_be_written_exits_2_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert main(["generate", "--n", "9", "--m", "2", "--out", str(folder)]) == 3
    assert main(["generate", "--n", "9", "--m", "2", "--out", str(tmp_path / "no" / "file.json")]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert "is a folder; name a file in it" in capsys.readouterr().err


def test_generate_solve_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "problem.json"
    assert main(["generate", "--n", "30", "--m", "5", "--k", "2", "--seed", "3", "--out", str(source)]) == 0
    assert main(["solve", str(source), "--out", str(tmp_path / "solution.json")]) == 0


def test_bench_prints_a_row_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--sizes", "20x5x2", "--seeds", "2", "--json", str(tmp_path / "bench.json")]) == 0
    assert "20x5x2" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["sizes"][0]["core_us"] > 0


COUNT = {"type": "prefix_count", "groups": "source", "group": "y", "first": 2, "at_least": 1, "name": "early"}
PREFIX: dict[str, object] = {
    "items": ["a", "b", "c", "d"],
    "scores": [4.0, 3.0, 2.0, 1.0],
    "slots": {"dcg": 3},
    "groups": {"source": ["x", "x", "x", "y"], "age": ["o", "n", "n", "n"]},
    "constraints": [COUNT],
}


def test_prefix_counts_are_solved_by_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "problem.json"
    file.write_text(json.dumps(PREFIX))
    assert main(["solve", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["ranking"], shown["verified"]) == ("OPTIMAL", ["a", "d", "b"], True)
    assert shown["counts"] == {"x": [1, 1, 2], "y": [0, 1, 1]}
    assert shown["prices"]["early"] < 0
    file.write_text(json.dumps({**PREFIX, "constraints": [{**COUNT, "at_least": 2, "name": "two"}]}))
    assert main(["solve", str(file)]) == 4
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["objective"], shown["verified"]) == ("INFEASIBLE", None, True)
    assert "group 'y' must have 2" in shown["conflict"]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([COUNT, {"type": "linear_exposure", "values": [1] * 4, "upper": 1}], "one kind"),
        ([{**COUNT, "groups": "colour"}], "'colour' is not under 'groups'"),
        ([COUNT, {**COUNT, "groups": "age", "group": "o", "name": "old"}], "'age' beside 'source'"),
        ([{"type": "prefix_count", "groups": "source", "group": "y"}], "'first' is missing"),
        ([{**COUNT, "last": 2}], "'last' is unknown"),
    ],
)
def test_bad_prefix_documents(constraints: list[object], message: str) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        problem_from_json({**PREFIX, "constraints": constraints})


def test_a_tolerance_has_no_meaning_for_prefix_counts() -> None:
    with pytest.raises(InvalidProblemError, match="no meaning for prefix_count"):
        problem_from_json({**PREFIX, "feasibility_tol": 1e-6})
