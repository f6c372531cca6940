"""Quantise one linear layer, from its weight and the second moment of its inputs.

    min over What   sum_i (t_i - what_i) (Sigma + mu I) (t_i - what_i)^T,    mu = ridge * mean diag(Sigma)

The target T is W. With a cross moment C = X Xq^T between the inputs X of the full-precision model and the inputs Xq of
the partly quantised one (Sigma = Xq Xq^T), minimising ||W X - What Xq||^2 + mu ||W - What||^2 is the same problem with

    T = W (C + mu I) (Sigma + mu I)^-1,

so every solver follows the full-precision target exactly.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantease.coordinate_descent import Certificate, SortedMoment, certify, coordinate_descent, objective
from quantease.errors import LayerError, ScaleWarning, SchemeError
from quantease.gptq import gptq, upper_factor
from quantease.grid import Grid, fit_grid
from quantease.outliers import SparseWeights, choose_outliers, polish
from quantease.paper import published, published_with_outliers
from quantease.refit import refit_scales
from quantease.scales import count_lost_scales, needs_double, with_scale_type
from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

__all__ = ["LayerResult", "quantize_layer", "solve_layer", "split_rows"]

REFIT_ROUNDS = 2
DEAD_RELATIVE = 1e-10
ASYMMETRY = 1e-4
STRIP = 128
NEAR, TRUSTED, SAMPLE = 4e-4, 1e-4, 16


@dataclass(frozen=True)
class LayerResult:
    """A quantised layer and what is known about it.

    Attributes
    ----------
    codes : Tensor of shape (q, p), uint8
    scale : Tensor of shape (q, groups), scheme.scale_dtype
    zero : Tensor of shape (q, groups), uint8
        With ``scheme.real_zero`` it holds offsets, -scale * zero in scheme.scale_dtype.
    scheme : QuantizationScheme
    sparse : SparseWeights or None
        Added to the grid values; the codes under it are their zero.
    error : float
        f(What) / f(0) without the ridge; to about six digits, and to twelve where the weight is in float64.
    history : tuple of float
        f / f(0) with the ridge: after the start, then after each sweep. Empty where the solver keeps none.
    certificate : Certificate
        Whether a single code change could still lower the objective.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    scheme: QuantizationScheme
    sparse: SparseWeights | None
    error: float
    history: tuple[float, ...]
    certificate: Certificate

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weight of shape (q, p): scale * (code - zero) plus the sparse part, computed in ``dtype``."""
        weight = self.dense(dtype)
        if self.sparse is not None:
            weight[self.sparse.rows.long(), self.sparse.columns.long()] += self.sparse.values.to(dtype)
        return weight

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The grid part alone, scale * (code - zero), or scale * code + offset."""
        by_group = self.codes.to(dtype).reshape(*self.scale.shape, -1)
        if self.scheme.real_zero:
            lines = by_group.mul_(self.scale.to(dtype)[:, :, None]).add_(self.zero.to(dtype)[:, :, None])
            return lines.reshape(self.codes.shape)
        shifted = by_group.sub_(self.zero.to(dtype)[:, :, None])
        return shifted.mul_(self.scale.to(dtype)[:, :, None]).reshape(self.codes.shape)

    @property
    def bits_per_weight(self) -> float:
        """Codes, scales, zeros and sparse part with its indices, in bits a weight."""
        bits = self.codes.numel() * self.scheme.bits + self.scale.numel() * self.scale.element_size() * 8
        if self.scheme.real_zero:
            bits += self.zero.numel() * self.zero.element_size() * 8
        elif not self.scheme.symmetric:
            bits += self.zero.numel() * self.scheme.bits
        sparse = 0.0 if self.sparse is None else self.sparse.bits((self.codes.shape[0], self.codes.shape[1]))
        return (bits + sparse) / self.codes.numel()


@dataclass(frozen=True)
class _Solution:
    """One solver's answer, in the working type.

    ``settled``: no code changed in the last sweep; ``pulled``: target @ sigma, where it was needed; ``gradient``:
    (target - approximation) @ sigma, where it is known.
    """

    codes: Tensor
    grid: Grid
    values: Tensor | None
    history: tuple[float, ...] = ()
    settled: bool = False
    pulled: Tensor | None = None
    gradient: Tensor | None = None

    def approximation(self, free: Tensor | None) -> Tensor:
        dense = self.grid.decode(self.codes)
        return dense if free is None or self.values is None else torch.where(free, self.values, dense)


def quantize_layer(
    weight: Tensor,
    hessian: Tensor,
    scheme: QuantizationScheme,
    solver: SolverConfig | None = None,
    cross: Tensor | None = None,
    outliers: OutlierConfig | None = None,
) -> LayerResult:
    """Find codes, scales and zeros of one layer.

    Parameters
    ----------
    weight : Tensor or ndarray of shape (q, p)
        Any float type; float64, and what float32 cannot square, is solved in float64, everything else in float32 and
        settled in float64.
    hessian : Tensor of shape (p, p)
        Sigma = sum of x x^T over calibration tokens, up to a factor.
    scheme : QuantizationScheme
    solver : SolverConfig, optional
    cross : Tensor of shape (p, p), optional
        C = sum of x xq^T with the factor of ``hessian``; the target then follows the full-precision inputs x.
    outliers : OutlierConfig, optional

    Returns
    -------
    LayerResult

    Raises
    ------
    LayerError
        If shapes disagree, a value is not finite, Sigma is not symmetric, the group size does not divide p, or a scale
        lies above the range of its type.

    Warns
    -----
    ScaleWarning
        If scales lie below the range of their type.

    References
    ----------
    arXiv:2309.01885, Algorithms 1-3, and GPTQ (arXiv:2210.17323).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> weight, inputs = torch.randn(8, 16, generator=generator), torch.randn(16, 64, generator=generator)
    >>> result = quantize_layer(weight, inputs @ inputs.T, QuantizationScheme(bits=3), SolverConfig(sweeps=50))
    >>> result.codes.shape, result.certificate.optimal
    (torch.Size([8, 16]), True)
    """
    weight, hessian = _as_tensor("weight", weight), _as_tensor("hessian", hessian)
    cross = None if cross is None else _as_tensor("cross", cross)
    solver = SolverConfig() if solver is None else solver
    _check(weight, hessian, scheme, cross)
    check_combination(scheme, solver, outliers)
    result = solve_layer(weight, hessian, scheme, solver, cross, outliers)
    if result.certificate.lost_scales:
        warnings.warn(lost_scales_said(result.certificate.lost_scales, result.scheme), ScaleWarning, stacklevel=2)
    return result


def solve_layer(
    weight: Tensor,
    hessian: Tensor,
    scheme: QuantizationScheme,
    solver: SolverConfig,
    cross: Tensor | None,
    outliers: OutlierConfig | None,
) -> LayerResult:
    """``quantize_layer`` for input that was checked."""
    moment = hessian.double()
    unit = float(moment.diagonal().mean())
    moment = moment / unit
    ridge = solver.ridge_for(feedback=cross is not None)
    sigma = _regularise(moment, ridge)
    target = weight.double()
    scheme = with_scale_type(weight, scheme)
    if cross is not None:
        pulled = cross.double() / unit
        pulled.diagonal().add_(ridge)
        target = torch.linalg.solve(sigma, (target @ pulled).T).T
        scheme = with_scale_type(target, scheme)
    working = torch.float64 if weight.dtype == torch.float64 or needs_double(target, scheme) else torch.float32
    solution, free = _solve(target.to(working), sigma.to(working), scheme, solver, outliers)
    if solution.settled and working == torch.float32:
        solution = _settle(solution, target, sigma, solver.sweeps)
    return _result(solution, free, target, moment, sigma, scheme, outliers)


def _solve(
    target: Tensor, sigma: Tensor, scheme: QuantizationScheme, solver: SolverConfig, outliers: OutlierConfig | None
) -> tuple[_Solution, Tensor | None]:
    if solver.method == "paper" and outliers is not None:
        codes, grid, support, sparse = published_with_outliers(target, sigma, scheme, outliers, solver.sweeps)
        return _Solution(codes, grid, sparse + grid.decode(codes)), support
    free = None if outliers is None else choose_outliers(target, sigma.diagonal(), outliers)
    if solver.method in ("paper", "rtn"):
        grid = fit_grid(target, scheme, solver.grid, sigma.diagonal(), None if free is None else ~free)
        if solver.method == "paper":
            return _Solution(published(target, grid, sigma, solver.sweeps), grid, None), None
        return _Solution(grid.encode(target), grid, target), free
    solutions = [
        _from_start(target, sigma, scheme, solver, order, free)
        for order in _orders(sigma.diagonal(), solver.order, solver.starts)
    ]
    return _best_rows(solutions, target, sigma, free), free


def _from_start(
    target: Tensor,
    sigma: Tensor,
    scheme: QuantizationScheme,
    solver: SolverConfig,
    order: Tensor,
    free: Tensor | None,
) -> _Solution:
    """One visiting order, from the grid to the least squares of the outliers.

    The grid is fitted to the weights, then once more to the values that GPTQ rounded on it, which carry the errors of
    earlier columns; each row keeps the better of the two. Then sweeps, and scale refits followed by sweeps.
    """
    moment = SortedMoment.of(sigma, order)
    factor = upper_factor(moment.sorted)
    keep = None if free is None else ~free
    start = gptq(target, fit_grid(target, scheme, solver.grid, sigma.diagonal(), keep), factor, order, free)
    if solver.grid != "minmax":
        again = fit_grid(start.rounded, scheme, solver.grid, sigma.diagonal(), keep)
        start = start.better_rows(gptq(target, again, factor, order, free))
    grid, kept = start.grid, None if free is None else start.rounded
    if solver.method == "gptq":
        return _Solution(start.codes, grid, kept)
    found = coordinate_descent(target, start.codes, grid, moment, solver.sweeps, free, kept)
    history, rounds = found.history, solver.refit_rounds
    if rounds is None:
        rounds = 0 if solver.grid == "minmax" else REFIT_ROUNDS
    pulled = target @ sigma
    for _ in range(rounds):
        grid, gradient = refit_scales(target, pulled, found, grid, sigma, scheme, free)
        found = coordinate_descent(target, found.codes, grid, moment, solver.sweeps, free, found.values, gradient)
        history += found.history
    settled = free is None and len(found.history) <= solver.sweeps
    solution = _Solution(found.codes, grid, found.values, history, settled, pulled, found.gradient if settled else None)
    if free is not None:
        solution = replace(solution, values=polish(target, solution.approximation(free), sigma, free))
    return solution


def _settle(solution: _Solution, target: Tensor, sigma: Tensor, sweeps: int) -> _Solution:
    """Descend once more in float64 wherever float32 may have left a better code.

    A code changes where |G_ij| passes s_ij Sigma_jj / 2. Rows with a G within NEAR of that are done again, and so are
    all rows should G in float32 turn out to be further than TRUSTED from G in float64 in those (both relative to the
    edge; 5e-5 is the most seen on real layers).
    """
    grid = replace(solution.grid, scale=solution.grid.scale.double(), zero=solution.grid.zero.double())
    solution = replace(solution, codes=solution.codes.double(), grid=grid)
    moment, gradient = SortedMoment.of(sigma), solution.gradient
    if gradient is not None:
        edge = grid.columns()[0].to(gradient.dtype) * (sigma.diagonal() / 2).to(gradient.dtype)
        near = ((gradient.abs() - edge).abs_() <= NEAR * edge).any(1)
        near[:: max(len(near) // SAMPLE, 1)] = True
        codes, part = solution.codes[near], grid.rows(near)
        exact = (target[near] - part.decode(codes)) @ sigma
        if bool(((exact - gradient[near]).abs_() <= TRUSTED * edge[near]).all()):
            found = coordinate_descent(target[near], codes, part, moment, sweeps, gradient=exact)
            solution.codes[near], gradient = found.codes, gradient.double()
            gradient[near] = found.gradient
            return replace(solution, gradient=gradient)
    found = coordinate_descent(target, solution.codes, grid, moment, sweeps)
    return replace(solution, codes=found.codes, gradient=found.gradient)


def _best_rows(solutions: list[_Solution], target: Tensor, sigma: Tensor, free: Tensor | None) -> _Solution:
    """Each row from the start that served it best: rows do not see each other."""
    best = solutions[0]
    if len(solutions) == 1:
        return best
    lowest = objective(target, best.approximation(free), sigma)
    for other in solutions[1:]:
        error = objective(target, other.approximation(free), sigma)
        better = error < lowest
        lowest = torch.minimum(error, lowest)
        values = None
        if best.values is not None and other.values is not None:
            values = torch.where(better[:, None], other.values, best.values)
        codes = torch.where(better[:, None], other.codes, best.codes)
        best = replace(best, codes=codes, grid=other.grid.where(better, best.grid), values=values)
    history = (min(s.history[0] for s in solutions), float(lowest.sum())) if best.history else ()
    return replace(best, history=history, settled=all(s.settled for s in solutions), gradient=None)


def _orders(diagonal: Tensor, order: str, starts: int) -> list[Tensor]:
    """Visiting orders: the asked one, the other one, then seeded random ones."""
    by_activation = torch.argsort(diagonal, descending=True, stable=True)
    natural = torch.arange(len(diagonal), device=diagonal.device)
    orders = [by_activation, natural] if order == "activation" else [natural, by_activation]
    generator = torch.Generator().manual_seed(0)
    for _ in range(starts - 2):
        orders.append(torch.randperm(len(diagonal), generator=generator).to(diagonal.device))
    return orders[:starts]


def _result(
    solution: _Solution,
    free: Tensor | None,
    target: Tensor,
    moment: Tensor,
    sigma: Tensor,
    scheme: QuantizationScheme,
    outliers: OutlierConfig | None,
) -> LayerResult:
    grid, codes, sparse = solution.grid, solution.codes, None
    if free is not None and outliers is not None and solution.values is not None:
        codes = torch.where(free, grid.columns()[1], codes)
        rows, columns = free.nonzero(as_tuple=True)
        kept = solution.values[rows, columns].to(scheme.torch_scale_dtype)
        if not bool(torch.isfinite(kept).all()):
            raise LayerError(
                f"an outlier lies above the range of {scheme.scale_dtype}; use scale_dtype='float32' or look for a "
                "damaged weight"
            )
        sparse = SparseWeights(rows.int(), columns.int(), kept, outliers.kind)
    result = LayerResult(
        codes=codes.to(torch.uint8),
        scale=grid.scale.to(scheme.torch_scale_dtype),
        zero=(-grid.scale * grid.zero).to(scheme.torch_scale_dtype) if scheme.real_zero else grid.zero.to(torch.uint8),
        scheme=scheme,
        sparse=sparse,
        error=0.0,
        history=(),
        certificate=Certificate(0, 0.0),
    )
    residual = target - result.dequantize(torch.float64)
    gradient = residual @ sigma if solution.gradient is None else solution.gradient
    working = solution.codes.dtype
    pulled = target.to(working) @ sigma.to(working) if solution.pulled is None else solution.pulled
    # what ridge and silent inputs added to the diagonal is taken off again
    added = (sigma.diagonal() - moment.diagonal()).clamp_(min=0)
    energy = _inner(pulled.double(), target)
    lost = count_lost_scales(target, scheme, None if free is None else ~free)
    certificate = certify(gradient, codes.double(), grid, sigma, free)
    certificate = replace(certificate, improving_moves=certificate.improving_moves + lost, lost_scales=lost)
    raw = energy - _inner(target * added, target)
    left = _inner(gradient, residual) - _inner(residual * added, residual)
    return replace(
        result,
        error=max(left, 0.0) / raw if raw > 0 else float(lost > 0),
        history=tuple(value / energy for value in solution.history) if energy else (),
        certificate=certificate,
    )


def _inner(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))


def _regularise(moment: Tensor, ridge: float) -> Tensor:
    """Sigma of mean diagonal 1 with the ridge added; an input that is never on gets a unit diagonal of its own."""
    sigma = moment.clone()
    sigma.diagonal().add_(ridge)
    dead = sigma.diagonal() <= DEAD_RELATIVE
    sigma[dead] = 0
    sigma[:, dead] = 0
    sigma.diagonal()[dead] = 1
    return sigma


def lost_scales_said(count: int, scheme: QuantizationScheme) -> str:
    """What a warning says about scales below the range of their type."""
    remedy = "leave such a layer out" if scheme.is_ggml else "Use scale_dtype='float32', or leave it out"
    return (
        f"{count} scales lie below {scheme.least_scale:.2g}, the smallest {scheme.scale_dtype} number for them, and "
        f"were raised to it: small weights round to zero. {remedy[0].upper()}{remedy[1:]}"
    )


def _as_tensor(name: str, given: Any) -> Tensor:
    """The tensor of an array or parameter, without its gradient."""
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "biuf":
            raise LayerError(f"{name} holds {given.dtype}; it must be numbers")
        return torch.tensor(given.astype(given.dtype.newbyteorder("="), copy=False))
    if not isinstance(given, Tensor):
        raise LayerError(f"{name} is a {type(given).__name__}; give a tensor or a numpy array")
    return given.detach()


def _check(weight: Tensor, hessian: Tensor, scheme: QuantizationScheme, cross: Tensor | None) -> None:
    if weight.ndim != 2 or not weight.is_floating_point():
        raise LayerError(f"weight of shape {tuple(weight.shape)} and type {weight.dtype} must be a float matrix (q, p)")
    if not weight.numel():
        raise LayerError(f"weight of shape {tuple(weight.shape)} is empty; it must have a row and a column")
    p = weight.shape[1]
    for name, matrix in (("hessian", hessian), ("cross", cross)):
        if matrix is None:
            continue
        if tuple(matrix.shape) != (p, p):
            raise LayerError(
                f"{name} has shape {tuple(matrix.shape)} but weight has {p} columns; it must be ({p}, {p})"
            )
        if not bool(torch.isfinite(matrix.sum(dtype=torch.float64))):  # one pass over what may be large
            raise LayerError(f"{name} holds NaN or infinity; look for overflow in the calibration inputs")
    check_finite("weight", weight)
    largest = float(hessian.diagonal().max())
    if largest <= 0 or float(hessian.diagonal().min()) < 0:
        raise LayerError("hessian has no positive or a negative diagonal; it must be a sum of x x^T over some tokens")
    if _asymmetry(hessian) > ASYMMETRY * largest:
        raise LayerError("hessian is not symmetric; it must be a sum of x x^T")
    size = scheme.group_size
    if size is not None and p % size:
        divisors = ", ".join(str(d) for d in range(16, p + 1) if p % d == 0 and d <= 256)
        raise LayerError(f"group_size={size} does not divide the {p} columns; sizes that do: {divisors or p}")
    with_scale_type(weight, scheme)


def check_combination(scheme: QuantizationScheme, solver: SolverConfig, outliers: OutlierConfig | None) -> None:
    """Refuse what a scheme of GGUF's types does not go with."""
    special = "real_zero" if scheme.real_zero else "signed_scale" if scheme.signed_scale else None
    if special and outliers is not None:
        raise SchemeError(f"{special}=True goes with outliers=None: GGUF's types have no place for outliers")
    if special and solver.method == "paper":
        raise SchemeError(f"{special}=True is no grid of the published algorithms; use method='quantease'")


def check_finite(name: str, weight: Tensor) -> None:
    """Refuse NaN and infinity, naming the first entry."""
    if bool(torch.isfinite(weight.sum(dtype=torch.float64))):  # one pass; a finite sum has finite terms
        return
    bad = ~torch.isfinite(weight)
    if bool(bad.any()):
        place = bad.nonzero()[0].tolist()
        raise LayerError(f"{name}{place}={float(weight[tuple(place)])} is not finite; repair the checkpoint")


def _asymmetry(matrix: Tensor) -> float:
    """Largest |a_ij - a_ji|, in strips that stay in the cache."""
    strips = range(0, len(matrix), STRIP)
    return max(float((matrix[i : i + STRIP, i:] - matrix[i:, i : i + STRIP].T).abs().max()) for i in strips)


def split_rows(result: LayerResult, outputs: list[int]) -> list[LayerResult]:
    """Take a stack of layers apart again; ``error``, ``history`` and ``certificate`` stay those of the stack."""
    parts = []
    start = 0
    for count in outputs:
        rows = slice(start, start + count)
        sparse = None
        if result.sparse is not None:
            mine = (result.sparse.rows >= start) & (result.sparse.rows < start + count)
            sparse = SparseWeights(
                result.sparse.rows[mine] - start,
                result.sparse.columns[mine],
                result.sparse.values[mine],
                result.sparse.kind,
            )
        parts.append(
            replace(result, codes=result.codes[rows], scale=result.scale[rows], zero=result.zero[rows], sparse=sparse)
        )
        start += count
    return parts
