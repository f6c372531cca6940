"""Statistics against loops, and independence of batching and padding."""

import pytest
import torch
from ffn_heavyhitter import CalibrationError, Statistics, StatisticsError, collect
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.random_models import FAMILIES, tiny, tokens
from ffn_heavyhitter.scores import SCORES, heavy_first, score
from oracles.ffn_neuron_by_neuron import ffn_output


@pytest.mark.parametrize("family", FAMILIES)
def test_sums_equal_the_neuron_loop(family):
    model = tiny(family, layers=1, dtype=torch.float64)
    (ffn,) = find_ffns(model)
    inputs = []
    handle = ffn.up.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0].detach()))
    ids = tokens(rows=2, length=5)
    layer = collect(model, [{"input_ids": ids}], hits=True, moments=True, inputs=True).layers[ffn.name]
    handle.remove()
    x = inputs[0].reshape(-1, 32)
    hidden, _ = ffn_output(ffn.weights(), ffn.activation, x)
    close = {"rtol": 1e-11, "atol": 1e-11}
    assert layer.tokens == 10
    torch.testing.assert_close(layer.activation, hidden.sum(0), **close)
    torch.testing.assert_close(layer.magnitude, hidden.abs().sum(0), **close)
    torch.testing.assert_close(layer.square, hidden.square().sum(0), **close)
    torch.testing.assert_close(layer.first_square, hidden[[0, 5]].square().sum(0), **close)
    torch.testing.assert_close(layer.peak, hidden.abs().amax(0), **close)
    torch.testing.assert_close(layer.input_sum, x.sum(0), **close)
    torch.testing.assert_close(layer.input_peak, x.abs().amax(0), **close)
    assert torch.equal(layer.inputs, x)
    torch.testing.assert_close(layer.hidden_moment, hidden.T @ hidden, **close)
    torch.testing.assert_close(layer.input_moment, x.T @ x, **close)
    norms = hidden.abs() * ffn.weights().down.norm(dim=0)
    hits = torch.zeros(96, dtype=torch.float64)
    for row in norms:
        for i in sorted(range(96), key=lambda i: -row[i])[:10]:
            hits[i] += 1
    torch.testing.assert_close(layer.hits, hits)


@pytest.mark.parametrize("family", FAMILIES)
def test_batching_and_padding_do_not_matter(family):
    model = tiny(family)
    lengths = [3, 9, 17, 24] * 4
    rows = [tokens(1, length, seed=length + i) for i, length in enumerate(lengths)]
    one_by_one = collect(model, [{"input_ids": row} for row in rows], hits=True)
    ids, mask = torch.zeros(16, 24, dtype=torch.long), torch.zeros(16, 24, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : row.shape[1]], mask[i, : row.shape[1]] = row[0], 1
    together = collect(model, [{"input_ids": ids, "attention_mask": mask}], hits=True)
    assert together.tokens == one_by_one.tokens == sum(lengths)
    for name, layer in one_by_one.layers.items():
        weights = next(ffn for ffn in find_ffns(model) if ffn.name == name).weights()
        for key in ("mean", "rms", "hybrid", "deviation"):
            a, b = score(key, layer, weights), score(key, together.layers[name], weights)
            assert ((a - b).abs() / a).max() < 1e-6, (name, key)


def test_halves_add_up():
    model, ids = tiny("llama", dtype=torch.float64), tokens(4)
    whole = collect(model, [{"input_ids": ids}], moments=True, inputs=True)
    first, second = (collect(model, [{"input_ids": part}], moments=True, inputs=True) for part in ids.chunk(2))
    halves = first + second
    for name, layer in whole.layers.items():
        assert halves.layers[name].tokens == layer.tokens
        for key, tensor in layer.tensors().items():
            torch.testing.assert_close(halves.layers[name].tensors()[key], tensor, rtol=1e-12, atol=1e-12)


def test_fisher_equals_switching_neurons_by_a_mask():
    model = tiny("llama", layers=1, dtype=torch.float64)
    ids = tokens(rows=1, length=6)
    (ffn,) = find_ffns(model)
    layer = collect(model, [{"input_ids": ids}], gradients=True).layers[ffn.name]
    gate = torch.ones(1, 6, 96, dtype=torch.float64, requires_grad=True)
    handle = ffn.down.register_forward_pre_hook(lambda module, arguments: (arguments[0] * gate,))
    loss = model(input_ids=ids, labels=ids).loss * 5
    (gradient,) = torch.autograd.grad(loss, gate)
    handle.remove()
    torch.testing.assert_close(layer.fisher, gradient[0].square().sum(0), rtol=1e-9, atol=1e-20)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_saved_statistics_come_back(tmp_path):
    model = tiny("gpt2")
    statistics = collect(model, [{"input_ids": tokens()}], hits=True)
    statistics.save(tmp_path / "statistics.safetensors")
    again = Statistics.load(tmp_path / "statistics.safetensors")
    again.check(model)
    assert again.tokens == statistics.tokens
    for name, layer in statistics.layers.items():
        for key, tensor in layer.tensors().items():
            assert torch.equal(again.layers[name].tensors()[key], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.safetensors"]


def test_bad_calibration_is_named():
    model = tiny("llama")
    with pytest.raises(CalibrationError, match="held no token"):
        collect(model, [])
    with pytest.raises(CalibrationError, match=r"input_ids of shape \(B, T\), got \(4,\)"):
        collect(model, [{"input_ids": torch.arange(4)}])
    with pytest.raises(CalibrationError, match="attention_mask has shape"):
        collect(model, [{"input_ids": tokens(), "attention_mask": torch.ones(1, 3)}])
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3] = float("inf")
    with pytest.raises(CalibrationError, match=r"model.layers.1.mlp: an activation is not finite"):
        collect(model, [{"input_ids": tokens()}])
    assert not model.model.layers[0].mlp.down_proj._forward_pre_hooks


def test_scores_say_what_they_lack():
    model = tiny("llama", layers=1)
    (ffn,) = find_ffns(model)
    layer = collect(model, [{"input_ids": tokens()}]).layers[ffn.name]
    with pytest.raises(StatisticsError, match="hits=True"):
        score("frequency", layer, ffn.weights())
    with pytest.raises(StatisticsError, match="gradients=True"):
        score("fisher", layer, ffn.weights())
    with pytest.raises(ValueError, match="score='size' is unknown"):
        score("size", layer, ffn.weights())
    for name in set(SCORES) - {"frequency", "fisher", "hybrid_fisher"}:
        order = heavy_first(score(name, layer, ffn.weights()), 16)
        reverse = heavy_first(score(f"reversed:{name}", layer, ffn.weights()), 80)
        assert sorted(order.tolist()) == list(range(96))
        assert set(order[:16].tolist()) == set(reverse[80:].tolist())
