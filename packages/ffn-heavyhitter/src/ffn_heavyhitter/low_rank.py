"""Low rank where it costs least: the matrices of the light neurons alone, in the metric of their inputs.

    minimise E|(W - W') x|^2 over rank W' = r,   C = E[x x^T]

has the solution W' = P W with P the projector on the r leading eigenvectors of the OUTPUT's second moment W C W^T: with
C = L L^T, Eckart-Young on W L gives W' L = P W L. Nothing is inverted, so a rank-deficient C needs no care. Gate and up
factor by their outputs over tokens, down likewise. A light part of m_L neurons costs r (d + m_L) a matrix in place of
d m_L.

Heavy rows and the light parts' first factors read the same input, so they are one matrix: a token costs one product for
all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import CompressedFeedForward, Spec, shape_spec, spec_dtype
from ffn_heavyhitter.scores import heavy_first, score
from ffn_heavyhitter.statistics import LayerStatistics
from ffn_heavyhitter.validation import heavy_count
from ffn_heavyhitter.weights import FFNWeights

__all__ = ["LowRank", "LowRankFeedForward", "activation_aware_factors", "rank_for_share"]


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
    """Heavy neurons dense, light ones through factors of low rank."""

    kind = "low_rank"
    first: Tensor
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
            first=((matrices * (heavy + rank), d), dtype),
            inner_left=((matrices, light, rank), dtype),
            down_right=((rank, light), dtype),
            down_last=((d, heavy + rank), dtype),
            order=((m,), torch.int32),
        )
        for name in spec["biases"]:
            self.hold(**{name: ((d if name == "down_bias" else m,), dtype)})

    def forward(self, x: Tensor) -> Tensor:
        """Output of the FFN, shape (..., d)."""
        heavy = self.spec["heavy"]
        pieces = nn.functional.linear(x, self.first).chunk(self.inner_left.shape[0], dim=-1)
        hidden = [
            torch.cat([piece[..., :heavy], nn.functional.linear(piece[..., heavy:], left)], dim=-1)
            for piece, left in zip(pieces, self.inner_left, strict=True)
        ]
        biases = self.spec["biases"]
        if "up_bias" in biases:
            hidden[-1] = hidden[-1] + self.up_bias
        if "gate_bias" in biases:
            hidden[0] = hidden[0] + self.gate_bias
        a = self.activation(hidden[0])
        if self.spec["gated"]:
            a = a * hidden[1]
        last = torch.cat([a[..., :heavy], nn.functional.linear(a[..., heavy:], self.down_right)], dim=-1)
        return nn.functional.linear(last, self.down_last, self.down_bias if "down_bias" in biases else None)

    def dense_weights(self) -> FFNWeights:
        """The dense FFN with the factors multiplied out."""
        heavy, gated = self.spec["heavy"], self.spec["gated"]
        pieces = self.first.data.chunk(self.inner_left.shape[0])
        inner = [
            torch.cat([piece[:heavy], left @ piece[heavy:]])
            for piece, left in zip(pieces, self.inner_left.data, strict=True)
        ]
        last = self.down_last.data
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
    heavy : int or float
        Heavy neurons, which stay dense; 0 gives the usual uniform low rank.
    score : str
        What makes a neuron heavy.
    """

    share: float
    heavy: int | float = 0.5
    score: str = "mean"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share} must be inside (0, 1)")

    def _sizes(self, weights: FFNWeights) -> tuple[int, int]:
        heavy = heavy_count(self.heavy, weights.width)
        return heavy, rank_for_share(self.share, weights.width, weights.hidden_size, heavy)

    def bytes(self, weights: FFNWeights) -> int:
        """Bytes that the FFN's tensors take."""
        heavy, rank = self._sizes(weights)
        m, d, matrices = weights.width, weights.hidden_size, 2 if weights.gate is None else 3
        biases = sum(bias.numel() for name, bias in weights.tensors().items() if name.endswith("_bias"))
        values = matrices * (d * (heavy + rank) + rank * (m - heavy)) + biases
        return weights.up.element_size() * values + 4 * m

    def apply(self, ffn: FFN, layer: LayerStatistics) -> LowRankFeedForward:
        """The FFN with its light part factored."""
        weights = ffn.weights()
        heavy, rank = self._sizes(weights)
        if rank > min(weights.hidden_size, weights.width - heavy):
            raise CompressionError(
                f"{ffn.name}: rank {rank} exceeds the light part's; its share {self.share} saves nothing"
            )
        inputs, hidden = (layer.need(name, "moments=True") for name in ("input_moment", "hidden_moment"))
        order = heavy_first(score(self.score, layer, weights), heavy)
        sorted_ = weights.neurons(order)
        first, lefts = [], []
        for matrix in (sorted_.gate, sorted_.up):
            if matrix is not None:
                left, right = activation_aware_factors(matrix[heavy:], inputs, rank)
                first += [matrix[:heavy], right.to(matrix.dtype)]
                lefts.append(left)
        light = order[heavy:]
        left, right = activation_aware_factors(sorted_.down[:, heavy:], hidden[light][:, light], rank)
        module = LowRankFeedForward({**shape_spec(weights), "heavy": heavy, "rank": rank}, ffn.activation)
        module.fill({"first": torch.cat(first), "inner_left": torch.stack(lefts), "down_right": right, "order": order})
        module.fill({"down_last": torch.cat([sorted_.down[:, :heavy], left.to(sorted_.down.dtype)], dim=1)})
        module.fill({name: bias for name, bias in sorted_.tensors().items() if name.endswith("_bias")})
        return module
