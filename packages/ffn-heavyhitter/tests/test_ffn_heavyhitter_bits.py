"""Eight bits, mixed bits, packing and error feedback."""

import copy

import pytest
import torch
from ffn_heavyhitter import CompressionError, Int8, MixedBits, StatisticsError, collect, compress, merge
from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.feedback import round_with_feedback
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.packing import pack, unpack
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.ffn_int8_by_hand import int8_ffn


@settings(deadline=None, max_examples=40)
@given(bits=st.integers(1, 8), rows=st.integers(1, 5), groups=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_packing_round_trip(bits, rows, groups, seed):
    half = 1 << bits - 1
    codes = torch.randint(-half, half, (rows, 8 * groups), generator=torch.Generator().manual_seed(seed))
    packed = pack(codes.to(torch.int8), bits)
    assert packed.shape == (rows, groups * bits)
    assert torch.equal(unpack(packed, bits).long(), codes)


def _problem(rows=12, columns=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns // 4, columns, generator=generator, dtype=torch.float64)
    x = torch.randn(500, columns // 4, generator=generator, dtype=torch.float64) @ mixing
    x += 0.1 * torch.randn(500, columns, generator=generator, dtype=torch.float64)
    return torch.randn(rows, columns, generator=generator), x


def _loss(matrix, rounded, x):
    return float(((rounded.values().double() - matrix.double()) @ x.T).square().sum())


def test_feedback_lowers_the_output_error_and_nearest_is_nearest():
    matrix, x = _problem()
    low, high = torch.tensor([[-4.0]]), torch.tensor([[3.0]])
    plain = round_with_feedback(matrix, low, high, moment=None, group_size=16)
    passed = round_with_feedback(matrix, low, high, moment=x.T @ x, group_size=16)
    assert _loss(matrix, passed, x) < 0.5 * _loss(matrix, plain, x)
    steps = plain.scale.float().repeat_interleave(16, dim=1)
    candidates = torch.arange(-4, 4.0)[:, None, None] * steps
    nearest = (candidates - matrix).abs().amin(0)
    torch.testing.assert_close((plain.values().float() - matrix).abs(), nearest, rtol=1e-3, atol=1e-5)


def test_feedback_equals_optimal_brain_quantisation_step_by_step():
    matrix, x = _problem(rows=3, columns=16)
    moment = x.T @ x
    ours = round_with_feedback(
        matrix, torch.tensor([[-8.0]]), torch.tensor([[7.0]]), moment=moment, group_size=16, scale_dtype=torch.float32
    )
    damped = moment + 0.01 * moment.diagonal().median() * torch.eye(16, dtype=torch.float64)
    work = matrix.double().clone()
    for j in range(16):
        rest = slice(j, 16)
        inverse = torch.linalg.inv(damped[rest, rest])
        code = (work[:, j] / ours.scale[:, 0].double()).round().clamp(-8, 7)
        assert torch.equal(code.to(torch.int8), ours.codes[:, j])
        error = work[:, j] - code * ours.scale[:, 0].double()
        work[:, rest] -= error[:, None] * inverse[0] / inverse[0, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [3, 20])
def test_int8_equals_integers_by_hand(family, rows):
    model = tiny(family, layers=1)
    statistics = collect(model, [{"input_ids": tokens()}], moments=True)
    (ffn,) = find_ffns(model)
    activation = ffn.activation
    module = Int8(heavy=16).apply(ffn, statistics.layers[ffn.name])
    x = torch.randn(rows, 32, generator=torch.Generator().manual_seed(3))
    expected = int8_ffn(module.sorted_weights(), 16, activation, x)
    # the kernel's zero point may sit half a step beside zero: one step of either quantisation is the tolerance
    assert (module(x) - expected).norm() < 0.01 * expected.norm()
    module.backend = "dense"
    assert (module(x) - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_keeps_the_model(family):
    model, ids = tiny(family), tokens()
    before = output(model, ids)
    compress(model, Int8(heavy=16), collect(model, [{"input_ids": ids}], moments=True))
    after = output(model, ids)
    assert 0 < (after - before).norm() < 0.05 * before.norm()
    merged = output(merge(model), ids)
    assert (merged - before).norm() < 0.05 * before.norm()


def test_int8_survives_a_token_that_dwarfs_the_others():
    model = tiny("llama", layers=1)
    (ffn,) = find_ffns(model)
    layer = collect(model, [{"input_ids": tokens()}]).layers[ffn.name]
    x = torch.randn(12, 32, generator=torch.Generator().manual_seed(4))
    x[0] *= 1000
    exact = ffn.part("mlp")(x)[1:]
    ours = Int8(heavy=16, feedback=False, smoothing=0).apply(ffn, layer)(x)[1:]
    assert (ours - exact).norm() < 0.05 * exact.norm()
    assert torch.equal(Int8(heavy=16, feedback=False).apply(ffn, layer)(x[:0]), x[:0])
    assert torch.isfinite(Int8(feedback=False).apply(ffn, layer)(torch.zeros(2, 32))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_more_bits_are_better_and_heavy_ones_matter(family):
    model, ids = tiny(family), tokens()
    statistics = collect(model, [{"input_ids": ids}], moments=True, hits=True)
    before = output(model, ids)

    def error(way):
        compressed = compress(copy.deepcopy(model), way, statistics)
        return float((output(compressed, ids) - before).norm() / before.norm())

    plain = {"group_size": 16, "feedback": False}
    heavy = error(MixedBits(heavy=16, heavy_bits=8, light_bits=3, **plain))
    assert error(MixedBits(heavy=0, light_bits=8, **plain)) < 0.2 * heavy
    assert heavy < error(MixedBits(heavy=16, heavy_bits=8, light_bits=3, score="reversed:rms", **plain))
    assert error(MixedBits(heavy=16, group_size=16)) < error(MixedBits(heavy=16, group_size=16, feedback=False))


@pytest.mark.parametrize("way", [Int8(heavy=16), MixedBits(heavy=16, group_size=32), MixedBits(heavy=24)])
@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_are_what_is_stored(family, way):
    model = tiny(family, layers=1)
    statistics = collect(model, [{"input_ids": tokens()}], moments=True)
    (ffn,) = find_ffns(model)
    promised = way.bytes(ffn.weights())
    compress(model, way, statistics)
    (module,) = compressed_ffns(model).values()
    assert promised == sum(p.numel() * p.element_size() for p in module.parameters())


def test_bits_a_weight_by_hand():
    weights = find_ffns(tiny("llama", layers=1))[0].weights()
    # 16 of 96 neurons at 6 bits, 80 at 3, and a 16-bit scale for every 16 weights
    assert MixedBits(heavy=16, group_size=16).bits_a_weight(weights) == pytest.approx((16 * 6 + 80 * 3) / 96 + 1)


def test_refusals():
    model = tiny("llama", layers=1)
    statistics = collect(model, [{"input_ids": tokens()}])
    with pytest.raises(StatisticsError, match=r"moments=True, or use feedback=False"):
        compress(model, MixedBits(heavy=16), statistics)
    with pytest.raises(StatisticsError, match=r"moments=True, or use feedback=False"):
        compress(model, Int8(heavy=16), statistics)
    with pytest.raises(CompressionError, match="multiples of 8"):
        compress(model, MixedBits(heavy=13, feedback=False), statistics)
    with pytest.raises(ValueError, match="light_bits=1 must be between 2 and 8"):
        MixedBits(light_bits=1)
    with pytest.raises(ValueError, match="group_size=12"):
        MixedBits(group_size=12)
    assert not compressed_ffns(model)
