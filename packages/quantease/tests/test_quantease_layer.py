from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oracles import quantease_by_entry as oracle
from quantease import LayerError, OutlierConfig, QuantizationScheme, SchemeError, SolverConfig, quantize_layer
from quantease.coordinate_descent import SortedMoment, _by_column, certify, coordinate_descent, objective
from quantease.gptq import _block_by_column, gptq, upper_factor
from quantease.grid import Grid, _error, _error_in_tensors, _minmax, _search, _search_in_tensors, fit_grid
from quantease.layer import _regularise
from quantease.outliers import choose_outliers, polish
from quantease.paper import published
from quantease.refit import refit_scales
from quantease_cases import layer

SWEEPS_TO_CONVERGE = 200


def _parts(seed: int):
    """A random layer and a random way to quantise it: bits, symmetry, groups, dead inputs, order."""
    rng = np.random.default_rng(seed)
    group = [None, 4, 8][seed % 3]
    scheme = QuantizationScheme(int(rng.integers(2, 9)), group, bool(rng.integers(2)))
    weight, hessian = layer(int(rng.integers(2, 7)), int(rng.integers(2, 5)) * 8, seed, dead=int(rng.integers(3)))
    sigma = _regularise(hessian / hessian.diagonal().mean(), float(rng.choice([0, 0.01, 0.2])))
    grid = fit_grid(weight, scheme, ["weighted", "mse", "minmax"][int(rng.integers(3))], sigma.diagonal())
    natural = torch.arange(len(sigma))
    order = torch.argsort(sigma.diagonal(), descending=True, stable=True) if rng.integers(2) else natural
    return weight, sigma, grid, order


@pytest.mark.parametrize("seed", range(50))
def test_codes_equal_the_per_entry_oracle_and_no_single_move_improves(seed: int, monkeypatch) -> None:
    monkeypatch.setattr("quantease.gptq.BLOCK_COLUMNS", 7)
    weight, sigma, grid, order = _parts(seed)
    numbers = (grid.scale.numpy(), grid.zero.numpy(), grid.group_size, grid.largest_code, sigma.numpy())
    start = gptq(weight, grid, upper_factor(sigma[order][:, order]), order).codes
    np.testing.assert_array_equal(start.numpy(), oracle.gptq(weight.numpy(), *numbers, order.numpy()))

    found = coordinate_descent(weight, start, grid, SortedMoment.of(sigma, order), SWEEPS_TO_CONVERGE)
    codes, history = found.codes, found.history
    expected = oracle.coordinate_descent(weight.numpy(), start.numpy(), *numbers, order.numpy(), SWEEPS_TO_CONVERGE)
    np.testing.assert_array_equal(codes.numpy(), expected)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(history))
    assert history[-1] == pytest.approx(oracle.objective(weight.numpy(), grid.decode(codes).numpy(), sigma.numpy()))
    assert certify(found.gradient, codes, grid, sigma).improving_moves == 0
    assert oracle.improving_moves(weight.numpy(), codes.numpy(), *numbers) == 0


@pytest.mark.parametrize("seed", range(12))
def test_tensor_form_gives_the_codes_of_the_row_form(seed: int, monkeypatch) -> None:
    """What runs on other devices, run here: grid, GPTQ and descent, with and without free entries."""
    monkeypatch.setattr("quantease.coordinate_descent.BLOCK_COLUMNS", 5)
    weight, sigma, grid, order = _parts(seed)
    factor = upper_factor(sigma[order][:, order])
    free = choose_outliers(weight, sigma.diagonal(), OutlierConfig(0.1)) if seed % 2 else None
    rows = gptq(weight, grid, factor, order, free)
    found = coordinate_descent(weight, rows.codes, grid, SortedMoment.of(sigma, order), 7, free, rows.rounded)
    monkeypatch.setattr("quantease.gptq._block_by_row", _block_by_column)
    monkeypatch.setattr("quantease.coordinate_descent._by_row", _by_column)
    columns = gptq(weight, grid, factor, order, free)
    other = coordinate_descent(weight, columns.codes, grid, SortedMoment.of(sigma, order), 7, free, columns.rounded)
    assert torch.equal(rows.codes, columns.codes)
    torch.testing.assert_close(rows.rounded, columns.rounded)
    assert torch.equal(found.codes, other.codes)
    torch.testing.assert_close(found.gradient, other.gradient)
    assert found.history == pytest.approx(other.history, rel=1e-10)


@pytest.mark.parametrize(("group", "symmetric"), [(None, False), (None, True), (8, False)])
def test_grid_search_in_tensors_gives_the_grid_of_the_row_form(group, symmetric: bool) -> None:
    weight, hessian = layer(12, 24, seed=1)
    scheme = QuantizationScheme(3, group, symmetric)
    grouped = weight.reshape(-1, group or 24)
    importance = hessian.diagonal().reshape(-1, group or 24).contiguous()
    widest, middle = _minmax(grouped, scheme)
    compiled = _search(grouped, importance, widest, middle, scheme)
    tensors = _search_in_tensors(grouped, importance, widest, middle, scheme)
    torch.testing.assert_close(compiled[0], tensors[0])
    assert torch.equal(compiled[1], tensors[1])
    error = _error(grouped, importance, *compiled, scheme)
    torch.testing.assert_close(error, _error_in_tensors(grouped, importance, *compiled, scheme))


def test_gptq_knows_the_objective_of_every_row() -> None:
    weight, sigma, grid, order = _parts(4)
    start = gptq(weight, grid, upper_factor(sigma[order][:, order]), order)
    torch.testing.assert_close(start.error, objective(weight, grid.decode(start.codes), sigma))


def test_refitted_scales_solve_the_normal_equations_and_carry_the_gradient() -> None:
    weight, hessian = layer(6, 24, seed=2)
    sigma = hessian / hessian.diagonal().mean()
    for group in (None, 8):
        scheme = QuantizationScheme(3, group, scale_dtype="float32")
        grid = fit_grid(weight, scheme, "minmax", sigma.diagonal())
        start = coordinate_descent(weight, grid.encode(weight), grid, SortedMoment.of(sigma), 0)
        refitted, gradient = refit_scales(weight, weight @ sigma, start, grid, sigma, scheme)
        assert bool((refitted.scale != grid.scale).any(1).all())
        residual = weight - refitted.decode(start.codes)
        integers = (start.codes - grid.columns()[1]).reshape(6, -1, group or 24)
        slope = ((residual @ sigma).reshape(integers.shape) * integers).sum(2)
        assert float(slope.abs().max()) < 1e-4 * float((weight @ sigma).abs().max())
        if group is None:
            torch.testing.assert_close(gradient, residual @ sigma)


def test_certificate_counts_the_moves_that_the_oracle_finds() -> None:
    weight, sigma, grid, _ = _parts(3)
    codes = grid.encode(weight)
    gradient = (weight - grid.decode(codes)) @ sigma
    numbers = (grid.scale.numpy(), grid.zero.numpy(), grid.group_size, grid.largest_code, sigma.numpy())
    moves = sum(
        certify(gradient[i : i + 1], codes[i : i + 1], grid.rows([i]), sigma).improving_moves
        for i in range(len(weight))
    )
    assert certify(gradient, codes, grid, sigma).improving_moves == moves > 0
    improvable = oracle.improving_moves(weight.numpy(), codes.numpy(), *numbers)
    assert improvable >= moves  # an entry may have several better codes; the certificate counts the entry


def test_published_sweeps_equal_the_entry_by_entry_form() -> None:
    weight, hessian = layer(4, 24, seed=5)
    sigma = hessian / hessian.diagonal().mean()
    grid = fit_grid(weight, QuantizationScheme(3), "minmax", sigma.diagonal())
    for sweeps in (1, 6):
        codes = published(weight, grid, sigma, sweeps)
        expected = oracle.published_sweeps(
            weight.numpy(), grid.scale.numpy(), grid.zero.numpy(), grid.largest_code, sigma.numpy(), sweeps
        )
        np.testing.assert_allclose(grid.decode(codes).numpy(), expected, atol=1e-12)


def test_brute_force_two_bits_six_inputs() -> None:
    """Share of the optimum on a fixed grid; seeded, so the ratios are numbers, not statistics."""
    scheme = QuantizationScheme(2)
    found, best = {1: 0.0, 8: 0.0}, 0.0
    for seed in range(25):
        weight, hessian = layer(4, 6, seed)
        sigma = _regularise(hessian / hessian.diagonal().mean(), 0.0)
        for starts in found:
            result = quantize_layer(
                weight, hessian, scheme, SolverConfig(grid="minmax", ridge=0, sweeps=99, starts=starts)
            )
            found[starts] += float(objective(weight, result.dequantize(torch.float64), sigma).sum())
        scale, zero = result.scale.double().numpy(), result.zero.double().numpy()
        best += sum(
            oracle.best_codes(w, s, z, 3, sigma.numpy()) for w, s, z in zip(weight.numpy(), scale, zero, strict=True)
        )
    assert 1 < found[8] / best < 1.15
    assert found[8] < found[1] < 1.5 * best


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_grid_is_what_is_exported_and_weighting_lowers_the_weighted_error(bits: int, symmetric: bool) -> None:
    weight, hessian = layer(64, 32, seed=bits)
    scheme = QuantizationScheme(bits, 16, symmetric)
    diagonal = hessian.diagonal()
    errors = {}
    for search in ("minmax", "mse", "weighted"):
        grid = fit_grid(weight, scheme, search, diagonal)
        assert torch.equal(grid.scale, grid.scale.half().double())
        assert bool(((grid.zero >= 0) & (grid.zero <= grid.largest_code) & (grid.zero == grid.zero.round())).all())
        assert not symmetric or bool((grid.zero == 1 << (bits - 1)).all())
        errors[search] = float(((weight - grid.decode(grid.encode(weight))).square() * diagonal).sum())
    assert errors["weighted"] <= errors["mse"]
    assert errors["weighted"] <= errors["minmax"]


def test_error_and_history_equal_their_definitions() -> None:
    weight, hessian = layer(8, 32, seed=1)
    result = quantize_layer(weight, hessian, QuantizationScheme(3, 16))
    direct = oracle.objective(weight.numpy(), result.dequantize(torch.float64).numpy(), hessian.numpy())
    energy = oracle.objective(weight.numpy(), 0 * weight.numpy(), hessian.numpy())
    assert result.error == pytest.approx(direct / energy, rel=1e-10)
    assert list(result.history) == sorted(result.history, reverse=True)
    start = quantize_layer(weight, hessian, QuantizationScheme(3, 16), SolverConfig("gptq"))
    assert result.history[-1] < result.history[0]
    assert result.error < start.error


def test_float32_ends_where_float64_finds_no_better_code(monkeypatch) -> None:
    """Doubtful rows alone are done again in float64; all rows where float32 cannot be trusted. Both end the same."""
    weight, hessian = layer(200, 64, seed=5)
    single, scheme = weight.float(), QuantizationScheme(3, 16)
    done: list[int] = []

    def counting(target, *rest, **named):
        if target.dtype == torch.float64:
            done.append(len(target))
        return coordinate_descent(target, *rest, **named)

    monkeypatch.setattr("quantease.layer.coordinate_descent", counting)
    some = quantize_layer(single, hessian, scheme)
    monkeypatch.setattr("quantease.layer.TRUSTED", 0.0)
    every = quantize_layer(single, hessian, scheme)
    assert done[0] < 60
    assert done[1] == 200
    assert torch.equal(some.codes, every.codes)
    assert some.certificate.improving_moves == every.certificate.improving_moves == 0
    assert some.error == pytest.approx(every.error, rel=1e-6)
    sigma = _regularise(hessian / hessian.diagonal().mean(), 0.01)
    grid = Grid(some.scale.double(), some.zero.double(), 16, 3)
    gradient = (single.double() - some.dequantize(torch.float64)) @ sigma
    assert certify(gradient, some.codes.double(), grid, sigma).improving_moves == 0


def test_full_precision_target_is_the_direct_least_squares() -> None:
    """With C = X Xq^T the solver minimises ||W X - What Xq||^2 up to a constant."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(24, 200, generator=generator, dtype=torch.float64)
    Xq = X + 0.3 * torch.randn(24, 200, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 24, generator=generator, dtype=torch.float64)
    scheme, solver = QuantizationScheme(3), SolverConfig(ridge=0.0, sweeps=100)
    fed = quantize_layer(weight, Xq @ Xq.T, scheme, solver, cross=X @ Xq.T)
    plain = quantize_layer(weight, Xq @ Xq.T, scheme, solver)

    def direct(result) -> float:
        return float((weight @ X - result.dequantize(torch.float64) @ Xq).square().sum())

    assert direct(fed) < direct(plain)
    target = weight @ X @ Xq.T @ torch.linalg.inv(Xq @ Xq.T)
    floor = float((weight @ X - target @ Xq).square().sum())
    energy = float((target @ Xq).square().sum())
    assert direct(fed) == pytest.approx(floor + fed.error * energy, rel=1e-9)


@pytest.mark.parametrize("kind", ["unstructured", "column"])
def test_outliers_lower_the_error_and_count_their_bits(kind) -> None:
    weight, hessian = layer(32, 64, seed=2)
    weight[torch.rand(32, 64, generator=torch.Generator().manual_seed(0)) < 0.02] *= 8
    outliers = OutlierConfig(0.05, kind)
    plain = quantize_layer(weight, hessian, QuantizationScheme(3))
    kept = quantize_layer(weight, hessian, QuantizationScheme(3), outliers=outliers)
    assert kept.sparse is not None
    assert kept.error < plain.error
    entries = round(0.05 * 64) * 32 if kind == "column" else round(0.05 * 32 * 64)
    assert len(kept.sparse.values) == entries
    extra = 3 * (32 * 16 + 32) if kind == "column" else entries * 32 + 33 * 32
    assert kept.bits_per_weight == pytest.approx(3 + (16 + 3) / 64 + extra / (32 * 64))
    under = kept.dense()[kept.sparse.rows.long(), kept.sparse.columns.long()]
    assert bool((under == 0).all())


def test_polish_is_the_least_squares_of_each_row() -> None:
    weight, sigma = layer(6, 16, seed=4)
    free = choose_outliers(weight, sigma.diagonal(), OutlierConfig(0.2, score="sensitivity"))
    start = torch.where(free, 0, weight + 0.1)
    polished = polish(weight, start, sigma, free)
    for i in range(6):
        S = free[i].nonzero().squeeze(1)
        rest = torch.where(free[i], 0, polished[i])
        delta = (
            torch.linalg.lstsq(sigma[S][:, S], (weight[i] - rest) @ sigma[:, S]).solution if len(S) else weight[i][S]
        )
        torch.testing.assert_close(polished[i, S], delta)
    assert torch.equal(polished[~free], start[~free])


def test_more_starts_never_raise_the_objective_of_a_row_and_are_reported_as_they_are() -> None:
    weight, hessian = layer(16, 32, seed=5)
    sigma = _regularise(hessian / hessian.diagonal().mean(), 0.01)
    one, four = (
        quantize_layer(weight, hessian, QuantizationScheme(2), SolverConfig(starts=starts, sweeps=SWEEPS_TO_CONVERGE))
        for starts in (1, 4)
    )
    rows_one, rows_four = (objective(weight, result.dequantize(torch.float64), sigma) for result in (one, four))
    assert bool((rows_four <= rows_one * (1 + 1e-12)).all())
    assert float(rows_four.sum()) < float(rows_one.sum())
    assert four.certificate.improving_moves == 0
    left, energy = (objective(weight, of, hessian).sum() for of in (four.dequantize(torch.float64), 0 * weight))
    assert four.error == pytest.approx(float(left / energy), rel=1e-10)


def test_the_paper_with_outliers_stays_on_its_grid() -> None:
    weight, hessian = layer(8, 32, seed=7)
    for kind in ("unstructured", "column"):
        result = quantize_layer(
            weight,
            hessian,
            QuantizationScheme(3),
            SolverConfig("paper", sweeps=10, ridge=0.0),
            outliers=OutlierConfig(0.05, kind),
        )
        assert result.sparse is not None
        assert len(torch.unique(result.codes)) <= 8
        assert result.error < quantize_layer(weight, hessian, QuantizationScheme(3), SolverConfig("rtn")).error


def test_a_silent_input_is_rounded_and_an_empty_row_stays_zero() -> None:
    weight, hessian = layer(4, 16, seed=8, dead=2)
    weight[1] = 0
    result = quantize_layer(weight, hessian, QuantizationScheme(4), SolverConfig(ridge=0.0, grid="minmax"))
    dequantized = result.dequantize(torch.float64)
    assert bool((dequantized[1] == 0).all())
    assert bool(((dequantized - weight)[:, -2:].abs() <= result.scale.double() / 2 + 1e-9).all())


def test_bad_input_is_refused_with_the_remedy() -> None:
    weight, hessian = layer(4, 24)
    scheme = QuantizationScheme(3)
    with pytest.raises(LayerError, match=r"does not divide the 24 columns; sizes that do: 24"):
        quantize_layer(weight, hessian, QuantizationScheme(3, 64))
    with pytest.raises(LayerError, match=r"hessian has shape \(4, 4\) but weight has 24 columns"):
        quantize_layer(weight, torch.eye(4), scheme)
    with pytest.raises(LayerError, match=r"hessian is not symmetric"):
        quantize_layer(weight, hessian + hessian.triu(1), scheme)
    with pytest.raises(LayerError, match=r"no positive or a negative diagonal"):
        quantize_layer(weight, -hessian, scheme)
    with pytest.raises(LayerError, match=r"hessian holds NaN"):
        quantize_layer(weight, hessian * float("nan"), scheme)
    with pytest.raises(LayerError, match=r"not positive definite; raise ridge"):
        quantize_layer(weight, torch.ones(24, 24), scheme, SolverConfig(ridge=0.0))
    weight[2, 5] = float("inf")
    with pytest.raises(LayerError, match=r"weight\[2, 5\]=inf"):
        quantize_layer(weight, hessian, scheme)
    with pytest.raises(SchemeError, match=r"bits=9"):
        QuantizationScheme(9)
    with pytest.raises(SchemeError, match=r"grid='fine' is unknown; use one of weighted, mse, minmax"):
        SolverConfig(grid="fine")
    with pytest.raises(SchemeError, match=r"fraction=0 must be in \(0, 1\)"):
        OutlierConfig(0)
