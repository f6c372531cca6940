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
    assert main(["apply", model, str(files / "test.parquet"), "--logit", "logit", "--out", str(out)]) == 0
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
