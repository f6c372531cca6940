"""Removal with compensation, and low rank, against brute force."""

from dataclasses import replace

import pytest
import torch
from ffn_heavyhitter import LowRank, Narrow, StatisticsError, collect, compress, merge
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.low_rank import activation_aware_factors, chosen_heavy, rank_for_share
from ffn_heavyhitter.narrow import compensated, removal_error
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from ffn_heavyhitter.scores import heavy_first, score
from oracles.ffn_best_approximation import eckart_young_error, least_squares_removal
from oracles.ffn_neuron_by_neuron import ffn_output


def _watched(family):
    """A one-layer model, its FFN, statistics, and the activations that they were summed over."""
    model = tiny(family, layers=1, dtype=torch.float64)
    (ffn,) = find_ffns(model)
    inputs = []
    handle = ffn.up.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0].detach()))
    layer = collect(model, [{"input_ids": tokens(8, 24)}], moments=True).layers[ffn.name]
    handle.remove()
    hidden, exact = ffn_output(ffn.weights(), ffn.activation, inputs[0])
    return ffn, layer, hidden, exact


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias", [True, False])
def test_ridge_equals_lstsq_on_the_tokens(family, bias):
    ffn, layer, hidden, exact = _watched(family)
    weights = ffn.weights()
    order = heavy_first(score("hybrid", layer, weights), 40)
    has_bias = bias or weights.down_bias is not None
    narrow = compensated(weights, order, 40, layer, Narrow(40, ridge=0.05, bias=bias))
    centred = hidden - hidden.mean(0) if has_bias else hidden
    ridge = 0.05 * float(centred.square().mean(0).median())
    down, shift = least_squares_removal(hidden, weights.down, order[:40], ridge, has_bias)
    torch.testing.assert_close(narrow.down, down, rtol=1e-8, atol=1e-8 * float(down.abs().max()))
    assert (narrow.down_bias is not None) == has_bias
    if has_bias:
        old = 0 if weights.down_bias is None else weights.down_bias
        torch.testing.assert_close(narrow.down_bias, old + shift, rtol=1e-8, atol=1e-8 * float(down.abs().max()))
    ours = hidden[:, order[:40]] @ narrow.down.T + (narrow.down_bias if has_bias else 0)
    by_hand = float((ours - exact).square().sum(1).mean())
    assert removal_error(weights, order, narrow, layer) == pytest.approx(by_hand, rel=1e-9)


def test_compensation_lowers_the_error_in_this_order():
    ffn, layer, *_ = _watched("llama")
    weights = ffn.weights()
    order = heavy_first(score("hybrid", layer, weights), 48)
    errors = [
        removal_error(weights, order, compensated(weights, order, 48, layer, Narrow(48, way, ridge=1e-6)), layer)
        for way in ("ridge", "mean", "none")
    ]
    assert errors[0] < 0.7 * errors[1]
    assert errors[1] < errors[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_uniform_widths_make_a_plain_model(family, tmp_path):
    model, ids = tiny(family), tokens()
    statistics = collect(model, [{"input_ids": ids}], moments=True)
    way = Narrow(64, bias=family not in ("gemma",))
    compress(model, way, statistics)
    assert not compressed_ffns(model)
    assert getattr(model.config, "quantization_config", None) is None
    after = output(model, ids)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert {ffn.weights().width for ffn in find_ffns(again)} == {64}
    assert torch.equal(output(again, ids), after)


def test_widths_of_each_layer_stay_with_the_plug_in():
    model, ids = tiny("llama"), tokens()
    before = output(model, ids)
    statistics = collect(model, [{"input_ids": ids}], moments=True)
    names = list(statistics.layers)
    compress(model, {names[0]: Narrow(96), names[1]: Narrow(72)}, statistics)
    assert [module.spec["width"] for module in compressed_ffns(model).values()] == [96, 72]
    assert 0 < (output(model, ids) - before).norm() < before.norm()
    merge(model)
    assert [ffn.weights().width for ffn in find_ffns(model)] == [96, 72]


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
@pytest.mark.parametrize("input_rank", [None, 5])
@pytest.mark.parametrize("rank", [2, 7])
def test_low_rank_equals_eckart_young(shape, input_rank, rank):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(*shape, generator=generator, dtype=torch.float64)
    x = torch.randn(60, shape[1], generator=generator, dtype=torch.float64)
    x[:, 3] = 0.0
    if input_rank is not None:
        basis = torch.randn(input_rank, shape[1], generator=generator, dtype=torch.float64)
        x = x[:, :input_rank] @ basis
    left, right = activation_aware_factors(matrix, x.T @ x, rank)
    error = float(((left @ right - matrix) @ x.T).square().sum())
    scale = float((matrix @ x.T).square().sum())
    assert abs(error - eckart_young_error(matrix, x, rank)) <= 1e-10 * scale


def test_low_rank_of_nothing_is_finite():
    left, right = activation_aware_factors(torch.eye(4), torch.zeros(4, 4), 2)
    assert torch.isfinite(left @ right).all()


@pytest.mark.parametrize("heavy", [0, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_module_equals_its_dense_weights(family, heavy):
    model, ids = tiny(family, dtype=torch.float64), tokens()
    before = output(model, ids)
    statistics = collect(model, [{"input_ids": ids}], moments=True, inputs=True)
    way = LowRank(share=0.75, heavy=heavy)
    promised = [way.bytes(ffn.weights()) for ffn in find_ffns(model)]
    compress(model, way, statistics)
    stored = [
        sum(p.numel() * p.element_size() for p in module.parameters()) for module in compressed_ffns(model).values()
    ]
    assert promised == stored
    after = output(model, ids)
    assert 0 < (after - before).norm() < before.norm()
    torch.testing.assert_close(output(merge(model), ids), after, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_heavy_outputs_make_up_for_the_light_part_as_lstsq_would(family):
    model = tiny(family, layers=1, dtype=torch.float64)
    (ffn,) = find_ffns(model)
    layer = collect(model, [{"input_ids": tokens(8, 24)}], moments=True, inputs=True).layers[ffn.name]
    hidden, exact = ffn_output(ffn.weights(), ffn.activation, layer.inputs)
    plain = LowRank(share=0.6, heavy=24, compensation="none").apply(ffn, layer)
    ours = LowRank(share=0.6, heavy=24, ridge=0.05).apply(ffn, layer)
    ridge = 0.05 * float(hidden.square().mean(0).median()) * layer.tokens
    heavy = hidden[:, plain.order.long()[:24]]
    rows = torch.cat([heavy, ridge**0.5 * torch.eye(24, dtype=torch.float64)])
    missing = torch.cat([exact - plain(layer.inputs), torch.zeros(24, 32, dtype=torch.float64)])
    change = torch.linalg.lstsq(rows, missing).solution.T
    torch.testing.assert_close(ours.down_last[:, :24], plain.down_last[:, :24] + change, rtol=1e-8, atol=1e-9)
    assert torch.equal(ours.down_last[:, 24:], plain.down_last[:, 24:])
    assert (ours(layer.inputs) - exact).norm() < 0.98 * (plain(layer.inputs) - exact).norm()


def test_auto_takes_the_heavy_share_with_the_least_error_on_tokens_not_fitted():
    model = tiny("llama", layers=1, dtype=torch.float64)
    (ffn,) = find_ffns(model)
    layer = collect(model, [{"input_ids": tokens(16, 24)}], moments=True, inputs=True).layers[ffn.name]
    seen = 16 * 24 * 3 // 4
    part = collect(model, [{"input_ids": tokens(16, 24)[:12]}], moments=True, inputs=True).layers[ffn.name]
    x = layer.inputs[seen:]
    _, exact = ffn_output(ffn.weights(), ffn.activation, x)
    way = LowRank(share=0.75)
    # ranked on all tokens, fitted on three quarters, judged on the rest
    errors = {}
    for heavy in (64, 48, 16, 0):
        order = heavy_first(score("hybrid", layer, ffn.weights()), heavy)
        fit = replace(part, square=layer.square)
        module = replace(way, heavy=heavy).apply(ffn, fit)
        assert torch.equal(module.order.long(), order)
        errors[heavy] = float((module(x) - exact).square().sum())
    assert chosen_heavy(way, ffn, layer) == min(errors, key=errors.get)
    assert way.apply(ffn, layer).spec["heavy"] == min(errors, key=errors.get)
    assert max(errors.values()) > 1.05 * min(errors.values())
    stored = sum(p.numel() * p.element_size() for p in way.apply(ffn, layer).parameters())
    assert stored <= way.bytes(ffn.weights()) <= 1.1 * stored


def test_rank_spends_the_share():
    rank = rank_for_share(0.75, 1536, 576, 768)
    assert rank == 164
    assert 3 * (576 * (768 + rank) + rank * 768) <= 0.75 * 3 * 576 * 1536
    with pytest.raises(ValueError, match="leave nothing"):
        rank_for_share(0.5, 1536, 576, 800)


def test_refusals():
    model = tiny("llama", layers=1)
    statistics = collect(model, [{"input_ids": tokens()}])
    with pytest.raises(StatisticsError, match="compensation='mean'"):
        compress(model, Narrow(64), statistics)
    with pytest.raises(ValueError, match="width=200 exceeds the 96"):
        compress(model, Narrow(200, "none"), statistics)
    with pytest.raises(ValueError, match="compensation='guess'"):
        Narrow(64, "guess")
    with pytest.raises(ValueError, match=r"share=1.5 must be inside"):
        LowRank(share=1.5)
    with pytest.raises(ValueError, match="compensation='mean' must be none or ridge"):
        LowRank(0.75, compensation="mean")
    with pytest.raises(ValueError, match="heavy='most' must be a number, a share or 'auto'"):
        LowRank(0.75, heavy="most")
    with pytest.raises(StatisticsError, match="inputs=True"):
        compress(model, LowRank(0.75, 32), collect(model, [{"input_ids": tokens()}], moments=True))
