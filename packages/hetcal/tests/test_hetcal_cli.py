import json

import numpy as np
import pandas as pd
import pytest
from hetcal.cli import main
from hetcal.links import sigmoid
from hetcal_cases import heterogeneous


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    for name, seed in (("cal", 0), ("test", 1)):
        X, y, z, region, _ = heterogeneous(3000, seed)
        table = pd.DataFrame(X, columns=list("abcd")).assign(
            place=np.array(["n", "s", "e", "w"])[region], clicked=y, score=sigmoid(z), logit=z
        )
        table.to_csv(folder / f"{name}.csv", index=False)
        table.to_parquet(folder / f"{name}.parquet")
    return folder


BASE = ["--label", "clicked", "--features", "a", "b", "c", "d"]


def test_fit_apply_inspect(files, capsys):
    model = str(files / "model.json")
    train = [str(files / "cal.csv"), "--score", "score", *BASE, "--partitioner", "tree"]
    evaluation = ["--test", str(files / "test.csv"), "--require-lift", "0.03"]
    assert main(["fit", *train, *evaluation, "--out", model]) == 0
    assert "chosen: tree" in capsys.readouterr().out
    out = files / "scored.parquet"
    apply = ["apply", model, str(files / "test.parquet"), "--out", str(out)]
    assert main([*apply, "--logit", "score"]) == 3
    assert "was fitted on a probability; name its column with --score" in capsys.readouterr().err
    assert not out.exists()
    assert main([*apply, "--score", "score"]) == 0
    scored = pd.read_parquet(out)
    assert scored["calibrated"].between(0, 1).all()
    assert abs(scored["calibrated"].mean() - scored["clicked"].mean()) < 0.03
    assert main(["inspect", model]) == 0
    shown = capsys.readouterr().out
    assert "leaf 0: " in shown
    assert "a: number" in shown


def test_exit_codes(files, capsys):
    data = [str(files / "cal.csv"), "--logit", "logit", *BASE, "--partitioner", "tree"]
    model = ["--out", str(files / "m.json")]
    assert main(["fit", *data, "--test", str(files / "test.csv"), "--require-lift", "0.5", *model]) == 4
    assert main(["fit", *data, "--require-lift", "0.5", *model]) == 2
    assert main(["fit", str(files / "cal.csv"), "--logit", "nothing", *BASE, *model]) == 3
    assert "no column 'nothing'" in capsys.readouterr().err
    assert main(["fit", str(files / "absent.csv"), "--logit", "logit", *BASE, *model]) == 3
    assert main([]) == 2


def test_report_is_one_self_contained_page(files):
    page, data = files / "r.html", files / "r.json"
    common = [
        str(files / "cal.csv"),
        "--logit",
        "logit",
        *BASE,
        "--partitioner",
        "tree",
        "--test",
        str(files / "test.csv"),
    ]
    assert main(["report", *common, "--out", str(page)]) == 0
    assert main(["report", *common, "--out", str(data)]) == 0
    text, result = page.read_text(), json.loads(data.read_text())
    assert "<script" not in text
    assert "http" not in text
    assert text.count("<svg") == 2 + len(result["leaves"])
    assert result["within_change"] == pytest.approx(0, abs=1e-12)
    assert result["lift"]["lift"] == pytest.approx(result["between_lift"], abs=1e-12)
    assert sum(leaf["rows"] for leaf in result["leaves"]) == 3000
    assert "leaf 0" in "\n".join(result["tree"])


def test_compare_lists_every_way(files, capsys):
    common = [str(files / "cal.parquet"), "--logit", "logit", *BASE, "--test", str(files / "test.parquet")]
    assert main(["compare", *common, "--partitioner", "tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["identity", "global", "tree", "bag"]
    assert "chosen on the calibration rows: tree" in lines[-1]


def test_groups_from_columns(files, capsys):
    common = [
        str(files / "cal.csv"),
        "--logit",
        "logit",
        "--label",
        "clicked",
        "--features",
        "place",
        "--group",
        "place",
    ]
    assert main(["fit", *common, "--out", str(files / "g.json")]) == 0
    assert "regions" in capsys.readouterr().out


def test_what_cannot_work_exits_3_with_one_line_and_writes_nothing(files, tmp_path, capsys):
    cal, test = str(files / "cal.csv"), str(files / "test.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("a,b,c,d,logit,clicked\n")
    (tmp_path / "folder").mkdir()
    fit = ["--logit", "logit", *BASE, "--partitioner", "global"]
    out, page = ["--out", str(tmp_path / "m.json")], ["--test", test, "--out", str(tmp_path / "page.txt")]
    leak = ["--logit", "logit", "--label", "clicked", "--features", "clicked"]
    cases = [
        (["fit", str(tmp_path / "empty.csv"), *fit, *out], "empty.csv cannot be read as CSV"),
        (["fit", str(tmp_path / "header.csv"), *fit, *out], "header.csv has no rows"),
        (["fit", cal, *fit, "--test", str(tmp_path / "absent.csv"), *out], "absent.csv"),
        (["fit", cal, *fit, "--out", str(tmp_path / "folder")], "is a folder; name a file in it"),
        (["fit", cal, *fit, "--out", str(tmp_path / "no" / "m.json")], "does not exist; make it first"),
        (["fit", cal, *fit, "--seed", "-1", *out], "--seed -1 is outside"),
        (["fit", cal, *leak, *out], "holds the label column 'clicked'"),
        (["report", cal, *fit, *page], "ends in .html or .json"),
    ]
    for call, message in cases:
        assert main(call) == 3
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert message in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.csv", "folder", "header.csv"]


def test_bad_cells_exit_3_and_name_the_column(files, tmp_path, capsys):
    stray, infinite = str(tmp_path / "stray.csv"), str(tmp_path / "infinite.csv")
    table = pd.read_csv(files / "cal.csv")
    table.assign(a=table["a"].astype(str).where(table.index != 4, "1.2.3")).to_csv(stray, index=False)
    table.assign(a=table["a"].where(table.index != 4, np.inf)).to_csv(infinite, index=False)
    fit = ["--logit", "logit", *BASE, "--partitioner", "tree", "--out", str(tmp_path / "m.json")]
    assert main(["fit", stray, *fit]) == 3
    assert "'a' holds numbers but for 1 cells (row 4: '1.2.3')" in capsys.readouterr().err
    assert main(["fit", stray, *fit, "--categorical", "a"]) == 0
    assert main(["fit", str(files / "cal.csv"), *fit]) == 0
    capsys.readouterr()
    apply = ["--logit", "logit", "--out", str(tmp_path / "scored.csv")]
    assert main(["apply", str(tmp_path / "m.json"), infinite, *apply]) == 3
    assert "'a' has 1 infinity values (first in row 4)" in capsys.readouterr().err
    assert not (tmp_path / "scored.csv").exists()


def test_warnings_are_one_line(files, tmp_path, capsys):
    table = pd.read_csv(files / "cal.csv").assign(score=lambda t: 0.01 + 0.98 * t["clicked"])
    table.to_csv(tmp_path / "perfect.csv", index=False)
    call = ["fit", str(tmp_path / "perfect.csv"), "--score", "score", *BASE, "--partitioner", "global"]
    assert main([*call, "--out", str(tmp_path / "m.json")]) == 0
    assert capsys.readouterr().err.startswith("hetcal: warning: the base scores rank the calibration rows almost")


def test_compare_fits_every_way_with_the_options_given(files, tmp_path, capsys):
    table = pd.read_csv(files / "cal.csv")
    table.assign(w=np.where(table["a"] > 0, 5.0, 0.01)).to_csv(tmp_path / "w.csv", index=False)
    pd.read_csv(files / "test.csv").assign(w=1.0).to_csv(tmp_path / "t.csv", index=False)
    common = ["compare", str(tmp_path / "w.csv"), "--logit", "logit", *BASE, "place", "--test", str(tmp_path / "t.csv")]
    printed = []
    for more in ([], ["--weight", "w"], ["--calibrator", "shift"], ["--group", "place"]):
        assert main([*common, "--partitioner", "tree", *more]) == 0
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:-1]}
        printed.append(lines)
    plain, weighted, shifted, grouped = printed
    assert plain["tree"] != weighted["tree"]
    assert plain["bag"] != weighted["bag"]
    assert plain["tree"] != shifted["tree"]
    assert set(grouped) - set(plain) == {"groups"}
