"""Products of activations with rows of int8 weights, the activations in 16 bits or in 8.

    W_ij ~= s_i Q_ij,  Q in -127 .. 127        x_tj ~= m_t v_tj / V,  m_t = max_j |x_tj|,  v an integer in -V .. V

- 8 bits: V = 127. One pass of PyTorch's product of unsigned bytes, v + 128, with signed ones.
- 16 bits: V = 127 * 257. The two bytes of v + 2^15 + 128 = 256 h + l are two rows of ONE such product, so that the
  weights are read once:

    (W x)_t = s m_t / V * (256 Q (h - 128) + Q (l - 128)).

Adding 2^23 rounds a float to an integer, ties to even, and leaves it in the low bits: no slow conversion is needed.
The kernel is ``onednn.qlinear_pointwise``. Where it is missing, or adds in 16 bits and so saturates (x86 without VNNI),
the same numbers come from floating-point products of the rounded activations.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

__all__ = ["SMALLEST", "STEPS", "PackedRows", "codes_and_scale", "kernel_is_exact", "rounded"]

LARGEST_CODE = 127
STEPS = {8: 127.0, 16: 127.0 * 257}
_BIAS = {8: 128, 16: 2**15 + 128}
SMALLEST = 1e-30
_FEW_ROWS = 8  # below, one strided copy of the bytes is cheaper than two conversions
_ELEMENTS = 1 << 22  # of the largest intermediate result
_LEAST_CHUNK = 64  # tokens: fewer would read the weights too often


class PackedRows:
    """Int8 weights in the kernel's layout.

    Parameters
    ----------
    codes : Tensor of shape (rows, columns), int8
    scale : Tensor of shape (rows,), float32
    """

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        self.rows, self.columns = codes.shape
        self.packed = torch.ops.onednn.qlinear_prepack(codes.contiguous(), None)
        self.scale = scale.float().contiguous()
        self.zero = torch.zeros(self.rows, dtype=torch.int64)

    def product(self, x: Tensor, bits: int) -> Tensor:
        """W x for each row of x.

        Parameters
        ----------
        x : Tensor of shape (T, columns), float32
        bits : {8, 16}

        Returns
        -------
        Tensor of shape (T, rows), float32
        """
        chunk = max(_LEAST_CHUNK, _ELEMENTS // (2 * self.rows))
        if len(x) <= chunk:
            return self._product(x, bits)
        return torch.cat([self._product(part, bits) for part in x.split(chunk)])

    def _product(self, x: Tensor, bits: int) -> Tensor:
        count, steps = len(x), _constant(STEPS[bits])
        if not count:
            return x.new_empty(0, self.rows)
        largest = _largest(x)
        shifted = (x * (steps / largest)).add_(_constant(float(2**23 + _BIAS[bits])))
        if bits == 8:
            return self._kernel(shifted.view(torch.int32).to(torch.uint8)).mul_(largest.div_(steps))
        y = self._kernel(_two_bytes(shifted))
        return torch.add(y[:count], y[count:], alpha=256).mul_(largest.div_(steps))

    def _kernel(self, codes: Tensor) -> Tensor:
        found: Tensor = _qlinear()(
            codes, 1.0, 128, self.packed, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return found


def rounded(x: Tensor, bits: int) -> Tensor:
    """The values that the kernel's bytes stand for, shape of x, in single precision at the least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    largest = _largest(x)
    steps = largest.new_tensor(STEPS[bits])  # a Python number over a tensor is a product with the reciprocal
    return (x * (steps / largest)).round_().mul_(largest / steps)


def codes_and_scale(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Codes -127 .. 127 to nearest and one scale a row.

    Examples
    --------
    >>> codes, scale = codes_and_scale(torch.tensor([[2.0, -1.0], [0.0, 0.0]]))
    >>> codes.tolist(), (127 * scale).tolist()
    ([[127, -64], [0, 0]], [2.0, 0.0])
    """
    wide = matrix.double()
    scale = (wide.abs().amax(1) / LARGEST_CODE).float()
    steps = scale.double().clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    return (wide / steps).round_().clamp_(-LARGEST_CODE, LARGEST_CODE).to(torch.int8), scale


@functools.cache
def kernel_is_exact() -> bool:
    """Whether this build and processor have the kernel and it adds without saturation."""
    generator = torch.Generator().manual_seed(0)
    largest = torch.full((33, 64), LARGEST_CODE, dtype=torch.int8)
    drawn = torch.randint(-LARGEST_CODE, LARGEST_CODE + 1, (48, 96), generator=generator, dtype=torch.int8)
    try:
        for codes, count in ((largest, 2), (largest, 40), (drawn, 2), (drawn, 40)):
            packed = PackedRows(codes, torch.ones(len(codes)))
            given = torch.randint(0, 256, (count, codes.shape[1]), generator=generator, dtype=torch.uint8)
            given[0] = 255
            wanted = (given.long() - 128) @ codes.long().T
            if not torch.equal(packed._kernel(given).long(), wanted):
                return False
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return True


@functools.cache
def _qlinear() -> Any:
    return torch.ops.onednn.qlinear_pointwise.default


@functools.cache
def _constant(value: float) -> Tensor:
    """A number as a tensor: operators take it faster than Python's."""
    with torch.inference_mode(False):
        return torch.tensor(value)


def _largest(x: Tensor) -> Tensor:
    """Largest absolute value of each row, never zero."""
    return x.abs().amax(-1, keepdim=True).clamp_(min=SMALLEST)


def _two_bytes(shifted: Tensor) -> Tensor:
    """High and low bytes of the integers in the low bits of floats: shape (2 T, columns), low bytes first."""
    count, columns = shifted.shape
    if count < _FEW_ROWS:
        return shifted.view(torch.uint8).view(count, columns, 4)[:, :, :2].permute(2, 0, 1).reshape(-1, columns)
    integers = shifted.view(torch.int32)
    found = torch.empty(2, count, columns, dtype=torch.uint8)
    found[0].copy_(integers)
    found[1].copy_(integers.bitwise_right_shift_(8))
    return found.view(-1, columns)
