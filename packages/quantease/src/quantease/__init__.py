"""Outlier-aware 2-8 bit weight quantisation of language models by coordinate descent.

Our formulation of arXiv:2309.01885: GPTQ start, lazy-block coordinate descent with a certificate of coordinate-wise
optimality, exact error feedback against the full-precision model, outliers kept in 16 bit.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantease.calibration import token_windows
    from quantease.coordinate_descent import Certificate
    from quantease.errors import (
        CalibrationWarning,
        ExportError,
        FolderWarning,
        FormatWarning,
        LayerError,
        ModelError,
        ScaleWarning,
        SchemeError,
    )
    from quantease.evaluation import PairedDifference, paired_difference, token_nll
    from quantease.export import export_compressed_tensors, export_dense
    from quantease.gguf_file import check_source, export_gguf, gguf_scheme
    from quantease.layer import LayerResult, quantize_layer
    from quantease.models import load_model, load_tokenizer
    from quantease.native import QuantizedLinear, load_native, save_native
    from quantease.outliers import SparseWeights
    from quantease.pipeline import LayerReport, Progress, QuantizedModel, quantize_model
    from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

_HOME = {
    "CalibrationWarning": "errors",
    "Certificate": "coordinate_descent",
    "ExportError": "errors",
    "FolderWarning": "errors",
    "FormatWarning": "errors",
    "LayerError": "errors",
    "LayerReport": "pipeline",
    "LayerResult": "layer",
    "ModelError": "errors",
    "OutlierConfig": "scheme",
    "PairedDifference": "evaluation",
    "Progress": "pipeline",
    "QuantizationScheme": "scheme",
    "QuantizedLinear": "native",
    "QuantizedModel": "pipeline",
    "ScaleWarning": "errors",
    "SchemeError": "errors",
    "SolverConfig": "scheme",
    "SparseWeights": "outliers",
    "export_compressed_tensors": "export",
    "export_dense": "export",
    "check_source": "gguf_file",
    "export_gguf": "gguf_file",
    "gguf_scheme": "gguf_file",
    "load_model": "models",
    "load_native": "native",
    "load_tokenizer": "models",
    "paired_difference": "evaluation",
    "quantize_layer": "layer",
    "quantize_model": "pipeline",
    "save_native": "native",
    "token_nll": "evaluation",
    "token_windows": "calibration",
}

__all__ = [
    "CalibrationWarning",
    "Certificate",
    "ExportError",
    "FolderWarning",
    "FormatWarning",
    "LayerError",
    "LayerReport",
    "LayerResult",
    "ModelError",
    "OutlierConfig",
    "PairedDifference",
    "Progress",
    "QuantizationScheme",
    "QuantizedLinear",
    "QuantizedModel",
    "ScaleWarning",
    "SchemeError",
    "SolverConfig",
    "SparseWeights",
    "check_source",
    "export_compressed_tensors",
    "export_dense",
    "export_gguf",
    "gguf_scheme",
    "load_model",
    "load_native",
    "load_tokenizer",
    "paired_difference",
    "quantize_layer",
    "quantize_model",
    "save_native",
    "token_nll",
    "token_windows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quantease' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"quantease.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
