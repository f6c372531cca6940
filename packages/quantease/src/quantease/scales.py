"""The type that scales are stored in, and the scales that it cannot hold.

    s = (max(0, max w) - min(0, min w)) / (2^b - 1),   symmetric: s = 2 max |w| / (2^b - 1)

float16 holds normal numbers from 6.1e-5 to 65504, bfloat16 and float32 from 1.2e-38 to 3.4e38. A scale above the range
is an error. One below it is raised to the smallest normal number, and its weights may all round to zero: such scales
are counted in the certificate of the layer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from quantease.errors import LayerError
from quantease.scheme import QuantizationScheme

__all__ = ["count_lost_scales", "with_scale_type"]

# beyond these a square of a weight leaves float32
SMALLEST_SINGLE, LARGEST_SINGLE = 1e-15, 1e12


def with_scale_type(weight: Tensor, scheme: QuantizationScheme, keep: Tensor | None = None) -> QuantizationScheme:
    """The scheme with its ``scale_dtype`` settled for a weight (q, p).

    Where the scheme names none: the weight's own type if that has 16 bits; else float16, or float32 where float16 is
    too coarse for a row.

    Raises
    ------
    LayerError
        If a row needs a scale that the type cannot hold.
    """
    scales = widest_scales(weight, scheme, keep)
    settled = scheme
    if scheme.scale_dtype is None:
        own = {torch.bfloat16: "bfloat16", torch.float16: "float16"}.get(weight.dtype)
        coarse = own is None and bool(_below(scales, replace(scheme, scale_dtype="float16")).any())
        settled = replace(scheme, scale_dtype=own or ("float32" if coarse else "float16"))  # type: ignore[arg-type]
    largest = torch.finfo(settled.torch_scale_dtype).max
    if float(scales.max()) > largest:
        row = int(scales.amax(1).argmax())
        raise LayerError(
            f"row {row} of the weight needs a scale of {float(scales[row].max()):.3g}, but {settled.scale_dtype} "
            f"scales range up to {largest:.5g}; look for a damaged weight"
            + ("" if scheme.is_ggml else ", or use scale_dtype='float32'")
        )
    return settled


def count_lost_scales(weight: Tensor, scheme: QuantizationScheme, keep: Tensor | None = None) -> int:
    """Rows or groups that are not zero and whose scale lies below the normal numbers of ``scheme.scale_dtype``."""
    return int(_below(widest_scales(weight, scheme, keep), scheme).sum())


def needs_double(weight: Tensor, scheme: QuantizationScheme) -> bool:
    """Whether squares of the weight or of its scales may leave the range of float32."""
    scales = widest_scales(weight, scheme)
    held = scales[scales > 0]
    return len(held) > 0 and (float(held.min()) < SMALLEST_SINGLE or float(held.max()) > LARGEST_SINGLE)


def widest_scales(weight: Tensor, scheme: QuantizationScheme, keep: Tensor | None = None) -> Tensor:
    """Scale of the whole range of every row or group, float64 of shape (q, groups); ``keep`` masks what it serves."""
    served = weight.detach() if keep is None else weight.detach() * keep
    size = weight.shape[1] if scheme.group_size is None else scheme.group_size
    grouped = served.reshape(len(weight), -1, size)
    low, high = grouped.amin(2).double().clamp_(max=0), grouped.amax(2).double().clamp_(min=0)
    span = 2 * torch.maximum(-low, high) if scheme.symmetric else high - low
    return span / (scheme.levels - 1)


def _below(scales: Tensor, scheme: QuantizationScheme) -> Tensor:
    return (scales > 0) & (scales < scheme.least_scale)
