"""Codes of b bits, 8 of them in b bytes.

Bit k of eight neighbouring codes makes byte k of their group: any b from 1 to 8 packs without a remainder.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pack", "packed_bytes", "unpack"]


def packed_bytes(codes: int, bits: int) -> int:
    """Bytes of a row of codes."""
    return codes // 8 * bits


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack signed codes.

    Parameters
    ----------
    codes : Tensor of shape (rows, n), int8
        Between -2^(bits - 1) and 2^(bits - 1) - 1; n is a multiple of 8.
    bits : int

    Returns
    -------
    Tensor of shape (rows, n / 8 * bits), uint8

    Examples
    --------
    >>> codes = torch.tensor([[-4, -3, -2, -1, 0, 1, 2, 3]], dtype=torch.int8)
    >>> packed = pack(codes, 3)
    >>> packed.shape, torch.equal(unpack(packed, 3), codes)
    (torch.Size([1, 3]), True)
    """
    rows, n = codes.shape
    unsigned = (codes.to(torch.int16) + (1 << bits - 1)).reshape(rows, n // 8, 1, 8)
    planes = unsigned >> torch.arange(bits, dtype=torch.int16)[:, None] & 1
    weight = (1 << torch.arange(8, dtype=torch.int16)).expand_as(planes)
    return (planes * weight).sum(-1).to(torch.uint8).reshape(rows, n // 8 * bits)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Codes as ``pack`` was given them, int8."""
    rows, width = packed.shape
    planes = packed.reshape(rows, width // bits, bits, 1).to(torch.int16)
    ones = planes >> torch.arange(8, dtype=torch.int16, device=packed.device) & 1
    weight = (1 << torch.arange(bits, dtype=torch.int16, device=packed.device))[:, None]
    unsigned = (ones * weight).sum(2).reshape(rows, width // bits * 8)
    return (unsigned - (1 << bits - 1)).to(torch.int8)
