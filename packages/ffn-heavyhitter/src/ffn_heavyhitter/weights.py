"""The weights of one FFN, neuron by neuron, whatever the architecture calls them.

Plain:  y = act(x U^T + b) V^T + c          gated:  y = ((act(x G^T + b_G)) * (x U^T + b)) V^T + c

Neuron i owns row i of U (and of G) and column i of V. The output is a sum over neurons,

    y = c + sum_i a_i(x) V_i,

so any order of the neurons gives the same function, and any set of them splits it exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["FFNWeights"]


@dataclass(frozen=True)
class FFNWeights:
    """Weights of one FFN.

    Attributes
    ----------
    up : Tensor of shape (m, d)
        Row i feeds neuron i.
    down : Tensor of shape (d, m)
        Column i is what neuron i writes.
    gate : Tensor of shape (m, d), optional
        Present in gated FFNs.
    up_bias, gate_bias : Tensor of shape (m,), optional
    down_bias : Tensor of shape (d,), optional
    """

    up: Tensor
    down: Tensor
    gate: Tensor | None = None
    up_bias: Tensor | None = None
    gate_bias: Tensor | None = None
    down_bias: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of neurons m."""
        return self.up.shape[0]

    @property
    def hidden_size(self) -> int:
        """Size d of the stream that the FFN reads and writes."""
        return self.up.shape[1]

    @property
    def down_norms(self) -> Tensor:
        """|V_i| of every neuron, shape (m,), float64."""
        norms: Tensor = torch.linalg.vector_norm(self.down.double(), dim=0)
        return norms

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by name."""
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: tensor for name, tensor in found if tensor is not None}

    def map(self, change: Callable[[Tensor], Tensor]) -> FFNWeights:
        """The same FFN with every tensor changed (cast, cloned, moved)."""
        return FFNWeights(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def neurons(self, index: Tensor) -> FFNWeights:
        """The FFN of some neurons, in the order of ``index``; the output bias stays.

        Examples
        --------
        >>> weights = FFNWeights(up=torch.arange(6.0).reshape(3, 2), down=torch.arange(6.0).reshape(2, 3))
        >>> weights.neurons(torch.tensor([2, 0])).down.tolist()
        [[2.0, 0.0], [5.0, 3.0]]
        """
        return FFNWeights(
            up=self.up[index],
            down=self.down[:, index],
            gate=None if self.gate is None else self.gate[index],
            up_bias=None if self.up_bias is None else self.up_bias[index],
            gate_bias=None if self.gate_bias is None else self.gate_bias[index],
            down_bias=self.down_bias,
        )
