"""The product of int8 rows with rounded activations, number by number: rounding in float32, sums in exact integers."""

import torch
from torch import Tensor


def product(x: Tensor, codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    """W x for each row of x, shape (T, rows), float64."""
    steps = 127 if bits == 8 else 127 * 257
    found = torch.zeros(len(x), len(codes), dtype=torch.float64)
    for t, row in enumerate(x):
        largest = float(row.abs().max().clamp(min=1e-30))
        factor = torch.tensor(float(steps)) / row.abs().max().clamp(min=1e-30)
        integers = [round(float(value * factor)) for value in row]
        for n, weights in enumerate(codes.tolist()):
            total = sum(w * v for w, v in zip(weights, integers, strict=True))
            found[t, n] = total * float(scale[n]) * largest / steps
    return found
