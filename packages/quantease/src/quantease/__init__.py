"""Outlier-aware 2-8 bit weight quantisation of language models by coordinate descent.

Our formulation of arXiv:2309.01885: GPTQ start, lazy-block coordinate descent with a certificate of coordinate-wise
optimality, exact error feedback against the full-precision model, outliers kept in 16 bit.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantease.coordinate_descent import Certificate
    from quantease.errors import CalibrationWarning, ExportError, LayerError, ModelError, SchemeError
    from quantease.layer import LayerResult, quantize_layer
    from quantease.outliers import SparseWeights
    from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

_HOME = {
    "CalibrationWarning": "errors",
    "Certificate": "coordinate_descent",
    "ExportError": "errors",
    "LayerError": "errors",
    "LayerResult": "layer",
    "ModelError": "errors",
    "OutlierConfig": "scheme",
    "QuantizationScheme": "scheme",
    "SchemeError": "errors",
    "SolverConfig": "scheme",
    "SparseWeights": "outliers",
    "quantize_layer": "layer",
}

__all__ = [
    "CalibrationWarning",
    "Certificate",
    "ExportError",
    "LayerError",
    "LayerResult",
    "ModelError",
    "OutlierConfig",
    "QuantizationScheme",
    "SchemeError",
    "SolverConfig",
    "SparseWeights",
    "quantize_layer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quantease' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"quantease.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
