"""The heavy-hitter report on made-up statistics whose answers are known, and its pictures."""

import json

import pytest
import torch
from ffn_heavyhitter import Statistics, analyse, collect
from ffn_heavyhitter.plots import plot_report
from ffn_heavyhitter.random_models import tiny, tokens
from ffn_heavyhitter.statistics import LayerStatistics


def _statistics(magnitude, hits, first=None, tokens_seen=10):
    m = len(magnitude)
    magnitude = torch.tensor(magnitude, dtype=torch.float64)
    square = magnitude.square()
    layer = LayerStatistics(
        tokens=tokens_seen,
        activation=magnitude,
        magnitude=magnitude,
        square=square,
        first_square=torch.zeros(m, dtype=torch.float64) if first is None else first * square,
        peak=magnitude,
        input_sum=torch.zeros(2, dtype=torch.float64),
        input_peak=torch.ones(2, dtype=torch.float64),
        down_norms=torch.ones(m, dtype=torch.float64),
        hits=torch.tensor(hits, dtype=torch.float64),
    )
    return Statistics({"layer": layer}, "same")


def test_one_neuron_owns_everything():
    one = _statistics([0.0] * 19 + [5.0], [0.0] * 18 + [10.0, 10.0], first=0.25)
    (layer,) = analyse(one, one).layers
    assert layer.share_of_norm["0.1"] == pytest.approx(1.0)
    assert layer.gini == pytest.approx(0.95)
    assert layer.always_on == pytest.approx(0.1)
    assert layer.massive == pytest.approx(0.25)
    assert layer.massive_neuron == 19
    assert layer.peak == 5.0
    assert layer.stability == 1.0


def test_all_neurons_alike():
    even = _statistics([1.0] * 20, [1.0] * 20)
    report = analyse(even, even)
    (layer,) = report.layers
    assert layer.gini == pytest.approx(0.0, abs=1e-12)
    assert layer.share_of_norm["0.25"] == pytest.approx(0.25)
    assert layer.hit_rate == pytest.approx(0.1)
    assert "does not hold" in report.verdict


def test_halves_that_disagree_are_not_stable():
    left = _statistics([9.0, 9.0] + [1.0] * 18, [5.0, 5.0] + [0.5] * 18)
    right = _statistics([1.0] * 18 + [9.0, 9.0], [0.5] * 18 + [5.0, 5.0])
    report = analyse(left, right, {"a": left, "b": right, "c": left})
    assert report.layers[0].stability == 0.0
    assert report.domain_overlap == {"a / b": 0.0, "a / c": 1.0, "b / c": 0.0}


def test_report_of_a_model_as_json_and_pictures(tmp_path):
    model = tiny("bert")
    halves = [collect(model, [{"input_ids": tokens(seed=seed)}], hits=True) for seed in (0, 1)]
    report = analyse(*halves)
    report.to_json(tmp_path / "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["tokens"] == 192
    assert [layer["width"] for layer in document["layers"]] == [96, 96]
    assert len(report.rows()) == 3
    written = plot_report(report, halves[0] + halves[1], tmp_path / "pictures")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(path.name for path in written)
    assert all(path.read_text().startswith("<?xml") for path in written)
