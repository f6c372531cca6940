"""What to quantise to, how to solve for it, and which weights to keep out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from quantease.errors import SchemeError

__all__ = ["GridSearch", "Method", "Order", "OutlierConfig", "QuantizationScheme", "SolverConfig"]

Method = Literal["quantease", "gptq", "rtn", "paper"]
GridSearch = Literal["weighted", "mse", "minmax"]
Order = Literal["activation", "natural"]
ScaleDtype = Literal["float16", "bfloat16", "float32"]
OutlierKind = Literal["unstructured", "column"]
OutlierScore = Literal["magnitude", "sensitivity"]

MAX_STARTS = 8
RIDGE = 0.01
FEEDBACK_RIDGE = 0.05


@dataclass(frozen=True)
class QuantizationScheme:
    """The grid family: values scale * (code - zero) with code in 0 .. 2^bits - 1.

    Attributes
    ----------
    bits : int
        2 to 8.
    group_size : int, optional
        Consecutive input columns that share a scale; None is one scale an output channel.
    symmetric : bool
        Zero fixed at 2^(bits - 1).
    real_zero : bool
        Zero is any number: what is stored is the offset -scale * zero, in the type of the scales. For GGUF's *_1 types.
    signed_scale : bool
        A symmetric scale may be negative: the zero is 2^(bits - 1) or, mirrored, 2^(bits - 1) - 1. For GGUF's *_0.
    scale_dtype : {"float16", "bfloat16", "float32"}, optional
        The type scales are exported in; they are rounded to it before any weight is coded. None is the type of the
        checkpoint where that has 16 bits, else float16, or float32 for a layer that float16 is too coarse for.

    Examples
    --------
    >>> QuantizationScheme(bits=3, group_size=64).levels
    8
    """

    bits: int = 4
    group_size: int | None = None
    symmetric: bool = False
    scale_dtype: ScaleDtype | None = None
    real_zero: bool = False
    signed_scale: bool = False

    def __post_init__(self) -> None:
        if not _is_integer(self.bits) or not 2 <= self.bits <= 8:
            raise SchemeError(f"bits={self.bits!r} must be an integer from 2 to 8")
        if self.group_size is not None and (not _is_integer(self.group_size) or self.group_size < 1):
            raise SchemeError(
                f"group_size={self.group_size!r} must be a positive integer, or None for one scale a channel"
            )
        if not isinstance(self.symmetric, bool):
            raise SchemeError(f"symmetric={self.symmetric!r} must be True or False")
        if not isinstance(self.real_zero, bool) or (self.real_zero and self.symmetric):
            raise SchemeError(f"real_zero={self.real_zero!r} must be False, or True with symmetric=False")
        if self.real_zero and self.group_size is None:
            raise SchemeError("real_zero=True needs a group_size; 32 is GGUF's")
        if not isinstance(self.signed_scale, bool) or (self.signed_scale and not self.symmetric):
            raise SchemeError(f"signed_scale={self.signed_scale!r} must be False, or True with symmetric=True")
        if self.scale_dtype is not None:
            _one_of("scale_dtype", self.scale_dtype, get_args(ScaleDtype))

    @property
    def is_ggml(self) -> bool:
        """Whether only GGUF's blocks have such a grid."""
        return self.real_zero or self.signed_scale

    @property
    def least_scale(self) -> float:
        """Smallest scale: the smallest normal number of its type, and in GGUF's blocks the smallest of all."""
        about = torch.finfo(self.torch_scale_dtype)
        return about.smallest_normal * about.eps if self.is_ggml else about.smallest_normal

    @property
    def levels(self) -> int:
        """Number of grid points, 2^bits."""
        return 1 << self.bits

    @property
    def torch_scale_dtype(self) -> torch.dtype:
        """``scale_dtype`` as torch names it; float16 where there is none."""
        types = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
        return types[self.scale_dtype or "float16"]


@dataclass(frozen=True)
class SolverConfig:
    """How codes are found.

    Attributes
    ----------
    method : {"quantease", "gptq", "rtn", "paper"}
        GPTQ start and coordinate descent; GPTQ alone; rounding to nearest; the paper's Algorithms 1-3 as published.
    grid : {"weighted", "mse", "minmax"}
        Scale and zero of each row or group: of the smallest error weighted with diag(Sigma), of the smallest squared
        error, or of the whole range. With the first two GPTQ runs twice, the second time on a grid for what it rounded.
    sweeps : int
        Most sweeps of coordinate descent (30 is the paper's); it stops earlier at a coordinate-wise optimum.
    refit_rounds : int, optional
        Rounds of least-squares scales, each followed by sweeps. None is 2, and 0 with grid="minmax".
    ridge : float, optional
        Multiple of the mean diagonal added to Sigma in every objective. None is 0 for the paper's algorithms (as
        published), 0.05 with a cross moment and 0.01 otherwise.
    order : {"activation", "natural"}
        Order of columns: descending diag(Sigma), or as they are.
    starts : int
        Visiting orders to start GPTQ from; each row keeps its best result.
    """

    method: Method = "quantease"
    grid: GridSearch = "weighted"
    sweeps: int = 50
    refit_rounds: int | None = None
    ridge: float | None = None
    order: Order = "activation"
    starts: int = 1

    def ridge_for(self, feedback: bool) -> float:
        """The ridge, its default resolved; ``feedback`` says that there is a cross moment."""
        if self.ridge is not None:
            return self.ridge
        if self.method == "paper":
            return 0.0
        return FEEDBACK_RIDGE if feedback else RIDGE

    def __post_init__(self) -> None:
        _one_of("method", self.method, get_args(Method))
        _one_of("grid", self.grid, get_args(GridSearch))
        _one_of("order", self.order, get_args(Order))
        if not _is_integer(self.sweeps) or self.sweeps < 0 or (self.method == "paper" and self.sweeps < 1):
            raise SchemeError(
                f"sweeps={self.sweeps!r} must be an integer, not negative, and at least 1 for method='paper'"
            )
        if self.refit_rounds is not None and (not _is_integer(self.refit_rounds) or self.refit_rounds < 0):
            raise SchemeError(f"refit_rounds={self.refit_rounds!r} must be an integer and not negative")
        if self.ridge is not None and (not _is_number(self.ridge) or not 0 <= self.ridge < float("inf")):
            raise SchemeError(f"ridge={self.ridge!r} must be finite and not negative; 0.01 is a common choice")
        if not _is_integer(self.starts) or not 1 <= self.starts <= MAX_STARTS:
            raise SchemeError(f"starts={self.starts!r} must be an integer from 1 to {MAX_STARTS}")


@dataclass(frozen=True)
class OutlierConfig:
    """Which weights stay in 16 bit.

    Attributes
    ----------
    fraction : float
        Share of the entries (or of the columns), in (0, 1).
    kind : {"unstructured", "column"}
        Single entries anywhere, or whole input columns.
    score : {"magnitude", "sensitivity"}
        |w|, or w^2 diag(Sigma).
    """

    fraction: float = 0.01
    kind: OutlierKind = "unstructured"
    score: OutlierScore = "magnitude"

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, get_args(OutlierKind))
        _one_of("score", self.score, get_args(OutlierScore))
        if not _is_number(self.fraction) or not 0 < self.fraction < 1:
            raise SchemeError(f"fraction={self.fraction!r} must be in (0, 1); leave outliers=None to keep none")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise SchemeError(f"{field}={value!r} is unknown; use one of {', '.join(allowed)}")
