import json
import sys

import pytest
import reproduce
from papershelf_core import claims

ROW = claims.Claim("-", "ours is faster", "peer", 1.0, 2.0, "s", "lower", True)
CLOSE = claims.Claim("-", "ours is twice as fast", "peer", 1.1, 2.0, "s", "lower", False, "", (0.9, 1.2), True, 1.0)
LOST = claims.Claim("-", "ours is smaller", "peer", 3.0, 2.0, "MB", "lower", False)
REPORT = claims.Report((ROW, LOST), "a machine", {"curve": "<svg></svg>"})


def test_scoreboard_names_what_does_not_hold():
    grid = reproduce.scoreboard({"hetcal": REPORT}, ["quantease"], ["msam-lawn"])
    columns = [list(column.cells) for column in grid.columns]
    assert columns[0] == ["hetcal", "msam-lawn", "quantease"]
    assert columns[1][0] == "2"
    assert columns[2][0] == "1"
    assert columns[3][0] == "0"
    assert columns[4][0] == "ours is smaller"


def test_a_timed_row_inside_its_noise_is_not_called_failing():
    grid = reproduce.scoreboard({"hetcal": claims.Report((ROW, CLOSE), "a machine", {})}, [], [])
    assert [next(iter(column.cells)) for column in grid.columns] == ["hetcal", "2", "1", "1", "-"]


def test_reports_are_written_whole(tmp_path):
    reproduce.write({"hetcal": REPORT}, "quick", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["packages"]["hetcal"]["claims"][1]["holds"] is False
    assert "1 of 2 claims hold" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("status", "found"), [(0, True), (3, False)])
def test_a_crash_is_no_report(tmp_path, monkeypatch, status, found):
    script = tmp_path / "toy"
    text = claims.to_json([ROW])
    script.write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[3], 'w').write({text!r})\nprint('said')\nsys.exit({status})\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(reproduce.sys, "executable", str(tmp_path / "python"))
    report, output, _ = reproduce.run("toy", False, tmp_path)
    assert (report is not None) is found
    assert output == "said\n"
