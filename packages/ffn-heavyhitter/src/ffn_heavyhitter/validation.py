"""Rules of input that several treatments share. Inside the package values are trusted."""

from __future__ import annotations

from torch import nn

from ffn_heavyhitter.errors import CompressionError

__all__ = ["heavy_count", "require_eval"]

GROUP = 8  # heavy neurons come in multiples of this, which kernels and packed bits like


def heavy_count(heavy: int | float, width: int) -> int:
    """Heavy neurons as a number, from a number or a share of the width.

    Raises
    ------
    ValueError
        If the share is outside (0, 1), or the number outside 0 .. width.

    Examples
    --------
    >>> heavy_count(0.05, 1536), heavy_count(64, 1536)
    (80, 64)
    """
    if isinstance(heavy, bool) or not isinstance(heavy, int | float):
        raise ValueError(f"heavy={heavy!r} must be a number of neurons or a share of them")
    if isinstance(heavy, float):
        if not 0 < heavy < 1:
            raise ValueError(f"heavy={heavy} as a share must be inside (0, 1); give an integer for a number of neurons")
        return min(width, max(GROUP, round(heavy * width / GROUP) * GROUP))
    if not 0 <= heavy <= width:
        raise ValueError(f"heavy={heavy} must be between 0 and the FFN's width {width}")
    return heavy


def require_eval(model: nn.Module) -> None:
    """Refuse a model in training mode: dropout would be lost without a word."""
    if model.training:
        raise CompressionError("the model is in training mode; call model.eval() first")
