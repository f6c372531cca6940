"""How important a neuron is, from statistics: one pure function a score, higher is heavier.

With n_ti = |a_ti| |V_i| over calibration tokens t:

    mean        E_t n_ti                         the heavy hitter's definition, averaged
    rms         E_t[n_ti^2]^(1/2)                Wanda's and FLAP's WIFN at neuron level
    deviation   Var_t(a_ti)^(1/2) |V_i|          FLAP's WIFV
    frequency   P_t(n_ti among the top 10 %)     "large for any input token", read literally
    peak        max_t |a_ti|                     who needs more bits
    hybrid      PPM_i (sum_t a_ti^2)^(1/2)       peak-to-peak of the weights times the activation's norm
    fisher      E_t[(a_ti dL/da_ti)^2]^(1/2)     first-order loss of switching the neuron off
    hybrid_fisher   hybrid * fisher
    magnitude   |G_i| |U_i| |V_i|                weights alone
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["SCORES", "heavy_first", "score"]

Score = Callable[[LayerStatistics, FFNWeights], Tensor]


def mean(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Mean output norm."""
    return layer.magnitude / layer.tokens * weights.down_norms


def rms(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Root mean square of the output norm."""
    return (layer.square / layer.tokens).sqrt() * weights.down_norms


def deviation(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Standard deviation of the signed activation times the output norm."""
    variance = layer.square / layer.tokens - (layer.activation / layer.tokens).square()
    return variance.clamp(min=0).sqrt() * weights.down_norms


def frequency(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """How often the neuron is among its token's top 10 %."""
    return layer.need("hits", "hits=True") / layer.tokens


def peak(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Largest activation."""
    return layer.peak


def peak_to_peak(weights: FFNWeights) -> Tensor:
    """Sum over the neuron's matrices of max + |min| of its weights, each over the layer's largest."""
    rows = [matrix.double() for matrix in (weights.gate, weights.up, weights.down.T) if matrix is not None]
    spreads = [row.amax(1) + row.amin(1).abs() for row in rows]
    return torch.stack([spread / spread.max().clamp(min=torch.finfo(torch.float64).tiny) for spread in spreads]).sum(0)


def hybrid(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Peak-to-peak of the weights times the root of the summed squared activation."""
    return peak_to_peak(weights) * layer.square.sqrt()


def fisher(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Root of the empirical Fisher information of the neuron's gate."""
    return (layer.need("fisher", "gradients=True") / layer.tokens).sqrt()


def hybrid_fisher(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Product of the hybrid and the Fisher score."""
    return hybrid(layer, weights) * fisher(layer, weights)


def magnitude(layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Product of the norms of the neuron's weights."""
    rows = [weights.up] if weights.gate is None else [weights.gate, weights.up]
    norms = [torch.linalg.vector_norm(row.double(), dim=1) for row in rows]
    return torch.stack([*norms, weights.down_norms]).prod(0)


SCORES: dict[str, Score] = {
    f.__name__: f for f in (mean, rms, deviation, frequency, peak, hybrid, fisher, hybrid_fisher, magnitude)
}


def score(name: str, layer: LayerStatistics, weights: FFNWeights) -> Tensor:
    """Score the neurons of one FFN.

    Parameters
    ----------
    name : str
        A key of ``SCORES``; ``random`` and ``reversed:NAME`` are the controls.
    layer : LayerStatistics
    weights : FFNWeights

    Returns
    -------
    Tensor of shape (m,), float64
        Higher is heavier.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name == "random":
        return torch.rand(layer.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = name.removeprefix("reversed:")
    if plain not in SCORES:
        raise ValueError(f"score={name!r} is unknown; use one of {', '.join(SCORES)}, random, reversed:NAME")
    value = SCORES[plain](layer, weights)
    return -value if name.startswith("reversed:") else value


def heavy_first(scores: Tensor, heavy: int) -> Tensor:
    """Order of the neurons: the ``heavy`` highest scores first, both parts in their original order.

    Examples
    --------
    >>> heavy_first(torch.tensor([0.1, 5.0, 0.2, 3.0]), 2).tolist()
    [1, 3, 0, 2]
    """
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[torch.argsort(scores, descending=True, stable=True)[:heavy]] = True
    return torch.cat([chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]])
