"""Low rank where it costs least: the matrices of the light neurons alone, in the metric of their inputs.

    minimise E|(W - W') x|^2 over rank W' = r,   C = E[x x^T]

has the solution W' = P W with P the projector on the r leading eigenvectors of the OUTPUT's second moment W C W^T: with
C = L L^T, Eckart-Young on W L gives W' L = P W L. Nothing is inverted, so a rank-deficient C needs no care. Gate and up
factor by their outputs over tokens, down likewise, V_L ~= B R. A light part of m_L neurons costs r (d + m_L) a matrix
in place of d m_L.

What the light part loses, the heavy neurons' output weights make up for. With a_H their activations, C the second
moment of all activations and z = R a'_L what the light part now hands to B, the error

    E|V_L a_L - B z - D a_H|^2   is least for   D = (V_L C_LH - B E[z a_H^T]) (C_HH + lam I)^-1,

lam in units of the median of C's diagonal. E[z a_H^T] is no moment of the dense FFN: it takes the inputs themselves.

How many neurons stay dense is a free choice at given bytes: at rank r there is room for

    h = (share d m - r (d + m)) / (d - r).

"auto" tries r = 4, 8, 16, ... in each layer and keeps what errs least on tokens held out from the fit.

Heavy rows and the light parts' first factors read the same input, and heavy columns and B write the same output, so a
token costs one product each, beside two small ones for the light neurons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import (
    CompressedFeedForward,
    run_neurons,
    shape_spec,
    widened,
)
from ffn_heavyhitter.frozen import Spec, spec_dtype
from ffn_heavyhitter.least_squares import solve, typical_square
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.validation import GROUP, heavy_count
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["LowRank", "LowRankFeedForward", "activation_aware_factors", "chosen_heavy", "rank_for_share"]

_FITTED = 0.75  # of the tokens; "auto" judges on the others


def activation_aware_factors(matrix: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors of the best rank-r approximation in the metric of the input's second moment.

    Parameters
    ----------
    matrix : Tensor of shape (rows, columns)
    moment : Tensor of shape (columns, columns)
        C, symmetric and positive semi-definite of any rank.
    rank : int

    Returns
    -------
    left, right : Tensor of shape (rows, rank) and (rank, columns)
        ``left @ right`` approximates the matrix; ``left`` has orthonormal columns. Both float64.

    Examples
    --------
    >>> left, right = activation_aware_factors(torch.eye(3), torch.diag(torch.tensor([9.0, 4.0, 1.0])), 2)
    >>> (left @ right).diagonal().tolist()
    [1.0, 1.0, 0.0]
    """
    wide, metric = matrix.double(), moment.double()
    if matrix.shape[0] <= matrix.shape[1]:
        vectors = torch.linalg.eigh(wide @ metric @ wide.T).eigenvectors
        left = vectors[:, -rank:].flip(1)
    else:
        # the same leading left singular vectors of W L, from the smaller side, without a root of what may be singular
        values, basis = torch.linalg.eigh(metric)
        root = basis * values.clamp(min=0).sqrt()
        left = torch.linalg.svd(wide @ root, full_matrices=False).U[:, :rank]
    return left, left.T @ wide


def rank_for_share(share: float, width: int, hidden_size: int, heavy: int) -> int:
    """Rank at which heavy neurons and a low-rank light part take ``share`` of the dense FFN's weights.

    r = d (share m - h) / (d + m - h)

    Raises
    ------
    ValueError
        If the heavy neurons alone take the share.
    """
    rank = int(hidden_size * (share * width - heavy) / (hidden_size + width - heavy))
    if rank < 1:
        raise ValueError(f"heavy={heavy} neurons leave nothing of share={share} for a light part; lower heavy")
    return rank


class LowRankFeedForward(CompressedFeedForward):
    """Heavy neurons dense, light ones through factors of low rank.

    ``inner_first`` holds, one below the other, the heavy rows of gate and up and then the right factors of both;
    ``down_last`` the heavy columns and B.
    """

    kind = "low_rank"
    inner_first: Tensor
    inner_left: Tensor
    down_right: Tensor
    down_last: Tensor
    up_bias: Tensor
    gate_bias: Tensor
    down_bias: Tensor
    order: Tensor

    def __init__(self, spec: Spec, activation: nn.Module) -> None:
        super().__init__(spec, activation)
        d, m, heavy, rank = spec["hidden_size"], spec["width"], spec["heavy"], spec["rank"]
        dtype, light, matrices = spec_dtype(spec), m - heavy, 2 if spec["gated"] else 1
        self.hold(
            inner_first=((matrices * (heavy + rank), d), dtype),
            inner_left=((matrices, light, rank), dtype),
            down_right=((rank, light), dtype),
            down_last=((d, heavy + rank), dtype),
            order=((m,), torch.int32),
        )
        for name in spec["biases"]:
            self.hold(**{name: ((d if name == "down_bias" else m,), dtype)})

    def run(self, x: Tensor) -> Tensor:
        """Output of the FFN, shape (..., d)."""
        bias = self.down_bias.to(x.dtype) if "down_bias" in self.spec["biases"] else None
        handed = torch.cat(self.handed_over(x.reshape(-1, x.shape[-1])), dim=1)
        return nn.functional.linear(handed, self.down_last.to(x.dtype), bias).reshape(x.shape)

    def handed_over(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """a_H, shape (tokens, heavy), and z, shape (tokens, rank): what the output is linear in."""
        heavy, rank = self.spec["heavy"], self.spec["rank"]
        matrices = 2 if self.spec["gated"] else 1
        first = nn.functional.linear(x, self.inner_first.to(x.dtype))
        dense, inner = first.split([matrices * heavy, matrices * rank], dim=1)
        inner = inner.reshape(-1, matrices, rank).transpose(0, 1)
        light = torch.bmm(inner, self.inner_left.transpose(1, 2).to(x.dtype))
        answers = self._activations(light[0], light[-1], slice(heavy, None))
        handed = nn.functional.linear(answers, self.down_right.to(x.dtype))
        return self._activations(dense[:, :heavy], dense[:, (matrices - 1) * heavy :], slice(None, heavy)), handed

    def _activations(self, gate: Tensor, up: Tensor, neurons: slice) -> Tensor:
        """Activations of some neurons from what their rows of gate and up give, shape (tokens, neurons)."""
        biases = self.spec["biases"]
        if "up_bias" in biases:
            up = up + self.up_bias[neurons].to(up.dtype)
        if not self.spec["gated"]:
            return self.activation(up)  # type: ignore[no-any-return]
        if "gate_bias" in biases:
            gate = gate + self.gate_bias[neurons].to(gate.dtype)
        return self.activation(gate) * up  # type: ignore[no-any-return]

    def dense_weights(self) -> FFNWeights:
        """The dense FFN with the factors multiplied out."""
        heavy, gated, last = self.spec["heavy"], self.spec["gated"], self.down_last.data
        matrices = 2 if gated else 1
        dense, right = self.inner_first.data.split([matrices * heavy, matrices * self.spec["rank"]])
        inner = [
            torch.cat([rows, left @ factor])
            for rows, left, factor in zip(
                dense.chunk(matrices) if heavy else [dense] * matrices,
                self.inner_left.data,
                right.chunk(matrices),
                strict=True,
            )
        ]
        down = torch.cat([last[:, :heavy], last[:, heavy:] @ self.down_right.data], dim=1)
        biases = {name: self.get_parameter(name).data for name in self.spec["biases"]}
        sorted_ = FFNWeights(up=inner[-1], down=down, gate=inner[0] if gated else None, **biases)
        return sorted_.neurons(torch.argsort(self.order.data.long()))


@dataclass(frozen=True)
class LowRank:
    """Low rank for the light neurons, at a given share of the dense FFN's weights.

    Attributes
    ----------
    share : float
        Share of the FFN's weights to keep, inside (0, 1).
    heavy : int, float or "auto"
        Heavy neurons, which stay dense; 0 gives the usual uniform low rank. "auto" chooses for each layer.
    compensation : {"none", "ridge"}
        Whether the heavy neurons' output weights make up for the light part's error; "ridge" needs statistics with
        second moments and inputs.
    ridge : float
        lam, in units of the median of C's diagonal.
    score : str
        What makes a neuron heavy.
    """

    share: float
    heavy: int | float | Literal["auto"] = "auto"
    compensation: Literal["none", "ridge"] = "ridge"
    ridge: float = 1.0
    score: str = "hybrid"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share} must be inside (0, 1)")
        if self.compensation not in ("none", "ridge"):
            raise ValueError(f"compensation={self.compensation!r} must be none or ridge")
        if not self.ridge > 0:
            raise ValueError(f"ridge={self.ridge} must be positive; dead neurons make the least squares singular")
        if isinstance(self.heavy, str) and self.heavy != "auto":
            raise ValueError(f"heavy={self.heavy!r} must be a number, a share or 'auto'")

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes that the FFN's tensors take; at most, where "auto" is still to choose."""
        m, d, matrices = weights.width, weights.hidden_size, 2 if weights.gate is None else 3
        biases = sum(bias.numel() for name, bias in weights.tensors().items() if name.endswith("_bias"))
        if isinstance(self.heavy, str):
            values = int(self.share * d * m)
        else:
            heavy = heavy_count(self.heavy, m)
            rank = rank_for_share(self.share, m, d, heavy)
            values = d * (heavy + rank) + rank * (m - heavy)
        return weights.up.element_size() * (matrices * values + biases) + 4 * m

    def least_tokens(self, weights: FFNWeights) -> int:
        """As many as the rank, or the heavy neurons whose second moment the compensation inverts."""
        m, d, auto = weights.width, weights.hidden_size, isinstance(self.heavy, str)
        heavies = heavy_for_ranks(self.share, m, d) if isinstance(self.heavy, str) else [heavy_count(self.heavy, m)]
        inverted = [heavy if self.compensation == "ridge" else 0 for heavy in heavies]
        ranks = [rank_for_share(self.share, m, d, heavy) for heavy in heavies if heavy < self.share * m]
        return math.ceil(max([*inverted, *ranks]) / (_FITTED if auto else 1))

    def apply(self, ffn: FFN, layer: LayerStatistics) -> LowRankFeedForward:
        """The FFN with its light part factored."""
        if isinstance(self.heavy, str):
            return replace(self, heavy=chosen_heavy(self, ffn, layer)).apply(ffn, layer)
        stored, weights = ffn.weights().up.dtype, widened(ffn.weights())
        heavy = heavy_count(self.heavy, weights.width)
        rank = rank_for_share(self.share, weights.width, weights.hidden_size, heavy)
        if rank > min(weights.hidden_size, weights.width - heavy):
            raise CompressionError(
                f"{ffn.name}: rank {rank} exceeds the light part's; its share {self.share} saves nothing"
            )
        order = heavy_first(score(self.score, layer, weights), heavy)
        module = LowRankFeedForward({**shape_spec(weights), "heavy": heavy, "rank": rank}, ffn.activation)
        module.fill(_factored(weights.neurons(order), layer, order, heavy, rank))
        if self.compensation == "ridge" and heavy:
            change = compensating_change(module, weights.neurons(order), layer, self.ridge)
            module.down_last.data[:, :heavy] += change.to(weights.down.dtype)
        return module.to(stored)


def _factored(sorted_: FFNWeights, layer: LayerStatistics, order: Tensor, heavy: int, rank: int) -> dict[str, Tensor]:
    """The tensors of a ``LowRankFeedForward``, from weights with the heavy neurons first."""
    inputs, hidden = (layer.need(name, "moments=True") for name in ("input_moment", "hidden_moment"))
    matrices = [matrix for matrix in (sorted_.gate, sorted_.up) if matrix is not None]
    factors = [activation_aware_factors(matrix[heavy:], inputs, rank) for matrix in matrices]
    light, down = order[heavy:], sorted_.down
    left, right = activation_aware_factors(down[:, heavy:], hidden[light][:, light], rank)
    return {
        "inner_first": torch.cat([matrix[:heavy] for matrix in matrices] + [f[1].to(down.dtype) for f in factors]),
        "inner_left": torch.stack([f[0] for f in factors]),
        "down_right": right,
        "down_last": torch.cat([down[:, :heavy], left.to(down.dtype)], dim=1),
        "order": order,
        **{name: bias for name, bias in sorted_.tensors().items() if name.endswith("_bias")},
    }


def compensating_change(
    module: LowRankFeedForward, sorted_: FFNWeights, layer: LayerStatistics, ridge: float
) -> Tensor:
    """D of the heavy neurons' output weights, shape (d, heavy), float64.

    Parameters
    ----------
    module : LowRankFeedForward
        With its light part factored and its heavy columns as they were.
    sorted_ : FFNWeights
        The dense FFN, heavy neurons first.
    layer : LayerStatistics
        With second moments and inputs.
    ridge : float
    """
    heavy, order = module.spec["heavy"], module.order.long()
    how = "moments=True, inputs=True, or use compensation='none'"
    moment = layer.need("hidden_moment", how)[order][:, order] / layer.tokens
    x = layer.need("inputs", how).to(sorted_.up.dtype)
    dense, handed = module.handed_over(x)
    cross = (handed.T @ dense).double() / len(x)
    lost = sorted_.down[:, heavy:].double() @ moment[heavy:, :heavy] - module.down_last[:, heavy:].double() @ cross
    damped = moment[:heavy, :heavy].clone()
    damped.diagonal().add_(ridge * typical_square(moment))
    return solve(damped, lost.T).T


def chosen_heavy(way: LowRank, ffn: FFN, layer: LayerStatistics) -> int:
    """The number of heavy neurons with the least output error on tokens that the fit has not seen.

    The error is E|G^(1/2) (y' - y)|^2 with G the second moment of the loss gradient, where that was collected.
    """
    weights = widened(ffn.weights())
    x = layer.need("inputs", "moments=True, inputs=True, or give heavy as a number").to(weights.up.dtype)
    seen = int(_FITTED * len(x))
    hidden = run_neurons(weights, ffn.activation, x[:seen])
    moments = [(rows.T @ rows).double() * (layer.tokens / seen) for rows in (x[:seen], hidden)]
    fit = replace(layer, inputs=x[:seen], input_moment=moments[0], hidden_moment=moments[1])
    exact = nn.functional.linear(run_neurons(weights, ffn.activation, x[seen:]), weights.down, weights.down_bias)
    errors = {}
    for heavy in heavy_for_ranks(way.share, weights.width, weights.hidden_size):
        change = replace(way, heavy=heavy).apply(ffn, fit)(x[seen:]) - exact
        metric = change if layer.gradient_moment is None else change @ layer.gradient_moment.to(change.dtype)
        errors[heavy] = float((change * metric).sum())
    return min(errors, key=lambda heavy: errors[heavy])


def heavy_for_ranks(share: float, width: int, hidden_size: int) -> list[int]:
    """Heavy neurons that leave room for rank 4, 8, 16, ... in ``share`` of the weights; 0, uniform low rank, last.

    Examples
    --------
    >>> heavy_for_ranks(0.75, 1536, 576)
    [1144, 1136, 1120, 1088, 1032, 872, 384, 0]
    """
    found, rank = [], 4
    while rank * (hidden_size + width) < share * hidden_size * width:
        room = (share * hidden_size * width - rank * (hidden_size + width)) / (hidden_size - rank)
        found.append(int(room) // GROUP * GROUP)
        rank *= 2
    return [*(heavy for heavy in found if heavy), 0]
