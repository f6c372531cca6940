import dataclasses
import io
import json

import numpy as np
import pytest
from papershelf_core import claims
from rich.console import Console

HELD = claims.Claim("2202.04837", "AUC above <peer>", "peer [1.0]", 0.91, 0.90, "AUC", "higher", True, "5 seeds")
FAILED = claims.Claim("-", "half the time", "other", 3.0, 4.0, "ms", "lower", np.bool_(False))


def text_of(table):
    page = io.StringIO()
    Console(width=160, file=page).print(table)
    return page.getvalue()


def test_table_shows_failures_as_such_and_keeps_brackets():
    shown = text_of(claims.table([HELD, FAILED]))
    assert "FAILS" in shown
    assert "peer [1.0]" in shown
    assert "0.75x" in shown


def test_json_round_trip():
    report = claims.from_json(claims.to_json([HELD, FAILED], {"curve": "<svg/>"}, "papershelf-core"))
    assert report.claims == (HELD, FAILED)
    assert report.pictures == {"curve": "<svg/>"}
    assert "papershelf-core 0." in report.machine


def test_html_is_self_contained_and_escaped():
    svg = '<?xml version="1.0"?><!DOCTYPE svg><svg><path/></svg>'
    page = claims.to_html({"hetcal": claims.Report((HELD, FAILED), "machine", {"Lift": svg})}, "Scoreboard")
    assert "AUC above &lt;peer&gt;" in page
    assert "<?xml" not in page
    assert "<figure><svg><path/></svg><figcaption>Lift" in page
    assert "1 of 2 claims hold." in page
    assert "://" not in page
    assert "<script" not in page


def test_publish_writes_whole_files(tmp_path, capsys):
    target = tmp_path / "deep" / "report.json"
    claims.publish([HELD, FAILED], "hetcal", json_path=target)
    assert "1 of 2 claims hold" in capsys.readouterr().out
    assert json.loads(target.read_text())["claims"][1]["holds"] is False
    assert [path.name for path in target.parent.iterdir()] == ["report.json"]


def test_ratio_of_a_row_without_a_peer():
    assert claims.Claim("-", "s", "oracle", 1e-13, None, "", "lower", True).ratio is None
    assert HELD.ratio == pytest.approx(0.91 / 0.90)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ours": float("nan")}, "ours=nan"),
        ({"peer_value": np.inf}, "peer_value=inf"),
        ({"better": "nicer"}, "better="),
        ({"bar": np.nan}, "bar=nan"),
        ({"interval": (2.0, 1.0)}, "interval="),
        ({"interval": (0.0, np.inf)}, "interval="),
    ],
)
def test_a_claim_without_a_number_is_refused(keywords, message):
    fields = {
        "paper": "-",
        "statement": "s",
        "peer": "p",
        "ours": 1.0,
        "peer_value": 1.0,
        "unit": "",
        "better": "lower",
    }
    with pytest.raises(ValueError, match=message):
        claims.Claim(**(fields | {"holds": True} | keywords))


def test_a_timed_miss_inside_its_interval_is_noise_and_says_so():
    row = claims.Claim("-", "twice as fast", "peer", 5.2, 10.0, "ms", "lower", False, "", (4.9, 5.4), True, 5.0)
    assert row.verdict == "within noise"
    assert dataclasses.replace(row, holds=True).verdict == "holds"
    for other in ({"timed": False}, {"bar": 4.8}, {"bar": 5.5}, {"interval": None}, {"bar": None}):
        assert dataclasses.replace(row, **other).verdict == "FAILS"
    shown = text_of(claims.table([row, FAILED, HELD]))
    assert "within noise" in shown
    assert "[4.9, 5.4]" in shown
    assert claims.score([row, FAILED, HELD]) == "1 of 3 claims hold, 1 within noise."
    assert '<tr class="within">' in claims.to_html({"x": claims.Report((row,), "machine")})
    assert claims.from_json(claims.to_json([row])).claims == (row,)


def test_a_document_without_intervals_is_read():
    document = json.loads(claims.to_json([HELD]))
    for name in ("interval", "timed", "bar"):
        del document["claims"][0][name]
    assert claims.from_json(json.dumps(document | {"schema": 1})).claims == (HELD,)


@pytest.mark.parametrize("text", ["[]", '{"claims": [], "schema": 99}'])
def test_documents_of_another_kind_are_refused(text):
    with pytest.raises(ValueError, match=r"schema|no claims document"):
        claims.from_json(text)
