"""Exact split and exact merge over five architectures."""

import pytest
import torch
from ffn_heavyhitter import CompressionError, Split, UnsupportedArchitectureError, collect, compress, merge
from ffn_heavyhitter.adapters import FFNLayout, find_ffns, register_adapter
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from oracles.ffn_neuron_by_neuron import ffn_output


def _state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_split_keeps_the_function_and_merge_the_bits(family):
    model, ids = tiny(family, dtype=torch.float64), tokens()
    before, state = output(model, ids), _state(model)
    compress(model, Split(heavy=16), collect(model, [{"input_ids": ids}]))
    assert len(compressed_ffns(model)) == 2
    after = output(model, ids)
    assert not torch.equal(after, torch.zeros_like(after))
    assert (after - before).abs().max() <= 1e-12 * before.abs().max()
    merge(model)
    assert model.state_dict().keys() == state.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(output(model, ids), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_split_in_single_precision(family):
    model, ids = tiny(family), tokens()
    before = output(model, ids)
    compress(model, Split(heavy=0.25), collect(model, [{"input_ids": ids}]))
    assert (output(model, ids) - before).abs().max() <= 1e-5 * before.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_equal_the_neuron_loop(family):
    model = tiny(family, layers=1, dtype=torch.float64)
    (ffn,) = find_ffns(model)
    weights, activation = ffn.weights(), ffn.activation
    statistics = collect(model, [{"input_ids": tokens()}])
    x = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    hidden, expected = ffn_output(weights, activation, x)
    split = Split(heavy=24).apply(ffn, statistics.layers[ffn.name])
    heavy, light = split.parts(x)
    chosen = (statistics.layers[ffn.name].magnitude * weights.down.norm(dim=0)).topk(24).indices
    by_hand = hidden[:, chosen] @ weights.down[:, chosen].T
    if weights.down_bias is not None:
        by_hand = by_hand + weights.down_bias
    torch.testing.assert_close(heavy, by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(heavy + light, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(split(x), expected, rtol=1e-12, atol=1e-12)


def test_a_layer_left_out_stays_dense():
    model, ids = tiny("llama"), tokens()
    statistics = collect(model, [{"input_ids": ids}])
    name = "model.layers.1.mlp"
    compress(model, {name: Split()}, statistics)
    assert list(compressed_ffns(model)) == [name]


def test_refusals():
    model, ids = tiny("llama"), tokens()
    statistics = collect(model, [{"input_ids": ids}])
    with pytest.raises(CompressionError, match="no FFNs of this model"):
        compress(model, {"model.layers.7.mlp": Split()}, statistics)
    with pytest.raises(CompressionError, match="training mode"):
        compress(model.train(), Split(), statistics)
    model.eval()
    with pytest.raises(ValueError, match=r"heavy=1.5 as a share must be inside \(0, 1\)"):
        compress(model, Split(heavy=1.5), statistics)
    with pytest.raises(CompressionError, match="no compressed FFN"):
        merge(model)
    compress(model, Split(), statistics)
    with pytest.raises(CompressionError, match="already compressed"):
        compress(model, Split(), statistics)
    with pytest.raises(CompressionError, match="already compressed"):
        collect(model, [{"input_ids": ids}])


def test_another_models_statistics_are_refused():
    model = tiny("llama")
    statistics = collect(model, [{"input_ids": tokens()}])
    with torch.no_grad():
        find_ffns(model)[0].weights().up.add_(1e-3)
    with pytest.raises(ValueError, match="other FFN weights"):
        compress(model, Split(), statistics)


def test_mixture_of_experts_is_refused():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    with pytest.raises(UnsupportedArchitectureError, match="mixes experts"):
        find_ffns(MixtralForCausalLM(config))


class StrangeBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Linear(4, 16)
        self.act = torch.nn.GELU()
        self.back = torch.nn.Linear(16, 4)

    def forward(self, input_ids):
        return self.back(self.act(self.wide(input_ids)))


def test_an_unknown_block_is_named_and_can_be_taught():
    model = torch.nn.Sequential(StrangeBlock())
    with pytest.raises(UnsupportedArchitectureError, match=r"StrangeBlock.*register_adapter"):
        find_ffns(model)
    layout = FFNLayout(up="wide", down="back", activation="act", home="wide", emptied=("act", "back"))
    register_adapter("StrangeBlock", layout)
    (ffn,) = find_ffns(model)
    assert ffn.name == "0.wide"
    assert ffn.weights().width == 16
    with pytest.raises(ValueError, match="already has the layout"):
        register_adapter("StrangeBlock", FFNLayout(up="a", down="b", activation="c", home="d"))
