"""The int8 FFN with loops over tokens: quantise a token, integer dot products, rescale."""

import torch
from torch import Tensor


def quantised_token(x: Tensor) -> Tensor:
    """What 8 bits with the token's own scale keep of it: 255 steps over [-max, max]."""
    scale = x.abs().max()
    step = 2 / 255
    return ((x / scale) / step).round().clamp(-128, 127) * step * scale


def int8_ffn(weights, heavy: int, activation, x: Tensor) -> Tensor:
    """Output (T, d) from dequantised weights, heavy neurons first, in float64."""
    rows = []
    for token in x.double():
        q = quantised_token(token)
        up = weights.up.double() @ q
        if weights.up_bias is not None:
            up = up + weights.up_bias.double()
        if weights.gate is None:
            a = activation(up)
        else:
            gate = weights.gate.double() @ q
            a = activation(gate) * up
        light = quantised_token(a[heavy:])
        y = weights.down[:, :heavy].double() @ a[:heavy] + weights.down[:, heavy:].double() @ light
        if weights.down_bias is not None:
            y = y + weights.down_bias.double()
        rows.append(y)
    return torch.stack(rows)
