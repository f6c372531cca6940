"""Allocation against exact dynamic programming, plans and their files, recovery."""

import copy
import json

import numpy as np
import pytest
import torch
from ffn_heavyhitter import (
    BudgetError,
    CompressionError,
    Int8,
    MixedBits,
    Narrow,
    Plan,
    collect,
    compress,
    plan_budget,
    plan_widths,
    recover,
)
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.allocate import Option, allocate
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.plan import tuned_ridge
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from ffn_heavyhitter.sensitivity import Sensitivity
from oracles.exact_allocation import best_error


def _problem(seed, layers=6, options=6):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 200, (layers, options))
    errors = rng.random((layers, options)) * rng.lognormal(size=(layers, 1)) * 200 / sizes
    return {
        f"layer {i}": [Option(str(j), int(sizes[i, j]), float(errors[i, j])) for j in range(options)]
        for i in range(layers)
    }


@pytest.mark.parametrize("seed", range(40))
def test_allocation_is_within_half_a_percent_of_exact(seed):
    options = _problem(seed)
    floor = sum(min(o.bytes for o in found) for found in options.values())
    top = sum(max(o.bytes for o in found) for found in options.values())
    budget = floor + int((top - floor) * (0.1 + 0.8 * (seed % 10) / 10))
    ours = allocate(options, budget)
    best = best_error([[(o.bytes, o.error) for o in found] for found in options.values()], budget)
    assert ours.bytes <= budget
    assert best * (1 - 1e-12) <= ours.error
    assert ours.error <= 1.005 * best


def test_more_bytes_never_hurt():
    options = _problem(7)
    floor = sum(min(o.bytes for o in found) for found in options.values())
    errors = [allocate(options, budget).error for budget in range(floor, floor + 600, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_thirty_layers_stay_within_half_a_percent():
    options = _problem(3, layers=30)
    floor = sum(min(o.bytes for o in found) for found in options.values())
    for budget in (floor + 50, floor + 400, floor + 1500):
        ours = allocate(options, budget)
        best = best_error([[(o.bytes, o.error) for o in found] for found in options.values()], budget)
        assert ours.bytes <= budget
        assert best * (1 - 1e-12) <= ours.error <= 1.005 * best


def test_a_front_cut_short_costs_little(monkeypatch):
    options = _problem(5, layers=12)
    budget = sum(sum(o.bytes for o in found) // len(found) for found in options.values())
    exact = allocate(options, budget)
    monkeypatch.setattr("ffn_heavyhitter.allocate.FRONT", 64)
    cut = allocate(options, budget)
    assert cut.bytes <= budget
    assert exact.error <= cut.error <= 1.1 * exact.error


def test_a_budget_below_the_floor_names_the_floor():
    with pytest.raises(BudgetError, match="the smallest options take 30"):
        allocate({"a": [Option("x", 30, 1.0)]}, 29)
    with pytest.raises(BudgetError, match="layer a has no option"):
        allocate({"a": []}, 29)


@pytest.fixture(scope="module")
def calibrated():
    model = tiny("llama", layers=3)
    fit = collect(model, [{"input_ids": tokens(8)}], moments=True, gradients=True)
    held_out = collect(model, [{"input_ids": tokens(4, seed=9)}], moments=True)
    return model, fit, held_out


def test_widths_spend_the_share_and_beat_uniform_on_held_out_tokens(calibrated):
    model, fit, held_out = calibrated
    plan = plan_widths(model, fit, held_out, share=0.75, template=Narrow(72), multiple=8, smallest=0.25)
    widths = [way.width for way in plan.treatments.values()]
    assert sum(widths) <= 0.75 * 3 * 96
    assert all(width % 8 == 0 for width in widths)
    assert len(set(widths)) > 1
    before, ids = output(model, tokens(4, seed=9)), tokens(4, seed=9)
    errors = []
    for way in (plan.treatments, Narrow(72)):
        narrow = compress(copy.deepcopy(model), way, fit)
        errors.append(float((output(narrow, ids) - before).norm()))
    assert errors[0] < errors[1]
    with pytest.raises(ValueError, match=r"share=0\.3 must be between"):
        plan_widths(model, fit, held_out, share=0.3, template=Narrow(72))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
@pytest.mark.parametrize("way", [Int8(heavy=16), Narrow(64, "mean")])
def test_sensitivity_is_the_divergence_of_the_model_with_one_ffn_rewritten(family, way):
    model, ids = tiny(family, layers=2), tokens(3)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    statistics = collect(model, [{"input_ids": ids}], moments=True)
    ffn, batch = find_ffns(model)[1], {"input_ids": ids, "attention_mask": mask}
    measured = Sensitivity(model, [batch]).of(ffn, way.apply(ffn, statistics.layers[ffn.name]).eval())
    changed = compress(copy.deepcopy(model), {ffn.name: way}, statistics)
    with torch.no_grad():
        wanted, given = (m(**batch).logits[mask.bool()].double().log_softmax(-1) for m in (model, changed))
    by_hand = float((wanted.exp() * (wanted - given)).sum(-1).mean())
    assert measured == pytest.approx(by_hand, rel=1e-2, abs=1e-7)
    assert not ffn.up._forward_pre_hooks
    assert not ffn.down._forward_hooks


def test_measured_widths_give_the_sensitive_layer_more(calibrated):
    model, fit, held_out = calibrated
    options = {"share": 0.75, "template": Narrow(72), "multiple": 8, "smallest": 0.25}
    names = list(fit.layers)
    ways = []
    for loud in names:

        class Loud(Sensitivity):
            def of(self, ffn, module, loud=loud):
                return 100.0 if ffn.name == loud else 1.0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ffn_heavyhitter.plan.Sensitivity", Loud)
            measured = [{"input_ids": tokens(1)}]
            ways.append(plan_widths(model, fit, held_out, measured_on=measured, **options).treatments)
    for i, name in enumerate(names):
        widths = [way[name].width for way in ways]
        assert widths[i] == max(widths)
        assert min(widths) < widths[i]


def test_ridge_is_chosen_on_held_out_tokens(calibrated):
    model, _, held_out = calibrated
    few = collect(model, [{"input_ids": tokens(2)}], moments=True)  # 48 tokens for 72 neurons: overfits
    assert {way.ridge for way in tuned_ridge(model, Narrow(72), few, few).values()} == {0.01}
    assert min(way.ridge for way in tuned_ridge(model, Narrow(72), few, held_out).values()) > 0.01


def test_budget_plan_fits_and_spends_where_it_helps(calibrated, tmp_path):
    model, fit, _ = calibrated
    options = [MixedBits(heavy=16, heavy_bits=b + 2, light_bits=b, group_size=32) for b in (2, 4)] + [Int8(heavy=16)]
    sizes = [Plan.of(model, option).model_bytes for option in options]
    budget = (sizes[0] + sizes[2]) // 2
    plan = plan_budget(model, fit, [{"input_ids": tokens(4, seed=9)}], options, budget)
    assert sizes[0] < plan.model_bytes <= budget
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    compress(copy.deepcopy(model), plan.treatments, fit)
    with pytest.raises(BudgetError, match="below the floor"):
        plan_budget(model, fit, [{"input_ids": tokens(2)}], options, sizes[0] - 1)


def test_measured_budget_plan_spends_on_the_sensitive_layer(calibrated, monkeypatch):
    model, fit, _ = calibrated
    options = [MixedBits(heavy=16, heavy_bits=b + 2, light_bits=b, group_size=32) for b in (2, 6)]
    small, large = (Plan.of(model, option).model_bytes for option in options)
    budget, held_out = (
        small + (large - small) // 3,
        [{"input_ids": tokens(2, seed=9)}],
    )  # one layer may have the six bits
    for loud in fit.layers:
        monkeypatch.setattr(Sensitivity, "of", lambda self, ffn, module, loud=loud: 100.0 if ffn.name == loud else 1.0)
        plan = plan_budget(model, fit, held_out, options, budget, measured_on=held_out)
        assert [name for name, way in plan.treatments.items() if way.light_bits == 6] == [loud]


def test_bad_plans_are_named(calibrated, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text("{}")
    with pytest.raises(CompressionError, match="no plan of schema 1"):
        Plan.load(file)
    Plan.of(calibrated[0], Int8(heavy=16)).save(file)
    document = json.loads(file.read_text())
    document["treatments"]["model.layers.0.mlp"]["kind"] = "magic"
    file.write_text(json.dumps(document))
    with pytest.raises(CompressionError, match="kind='magic'"):
        Plan.load(file)


@pytest.mark.parametrize("uniform", [True, False])
def test_recovery_brings_predictions_closer_and_touches_ffns_alone(calibrated, uniform):
    dense, fit, _ = calibrated
    names = [ffn.name for ffn in find_ffns(dense)]
    way = Narrow(48) if uniform else {name: Narrow(40 + 8 * i) for i, name in enumerate(names)}
    model = compress(copy.deepcopy(dense), way, fit)
    ids = tokens(8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def divergence():
        wanted, given = output(dense, ids).log_softmax(-1), output(model, ids).log_softmax(-1)
        return float((wanted.exp() * (wanted - given)).sum(-1).mean())

    start = divergence()
    recover(model, dense, [{"input_ids": row[None]} for row in ids], epochs=4, learning_rate=1e-3)
    assert divergence() < 0.7 * start
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".mlp." in name for name in changed)


def test_recovery_refuses_integers(calibrated):
    dense, fit, _ = calibrated
    model = compress(copy.deepcopy(dense), Int8(heavy=16), fit)
    assert compressed_ffns(model)
    with pytest.raises(CompressionError, match="holds integers"):
        recover(model, dense, [{"input_ids": tokens(1)}])
