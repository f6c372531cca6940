"""FFN and its statistics one token and one neuron at a time, in float64."""

import torch
from torch import Tensor


def ffn_output(weights, activation, x: Tensor) -> tuple[Tensor, Tensor]:
    """Activations (T, m) and output (T, d) of an FFN, by loops over tokens and neurons."""
    rows = x.reshape(-1, x.shape[-1]).double()
    hidden = torch.zeros(len(rows), weights.width, dtype=torch.float64)
    output = torch.zeros(len(rows), weights.hidden_size, dtype=torch.float64)
    for t, row in enumerate(rows):
        for i in range(weights.width):
            value = (weights.up[i].double() * row).sum()
            if weights.up_bias is not None:
                value = value + weights.up_bias[i].double()
            if weights.gate is None:
                value = activation(value)
            else:
                gate = (weights.gate[i].double() * row).sum()
                if weights.gate_bias is not None:
                    gate = gate + weights.gate_bias[i].double()
                value = activation(gate) * value
            hidden[t, i] = value
            output[t] += value * weights.down[:, i].double()
        if weights.down_bias is not None:
            output[t] += weights.down_bias.double()
    return hidden, output
