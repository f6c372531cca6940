"""Heterogeneous calibration: calibrate per region of feature space and raise AUC without retraining.

Our formulation of arXiv:2202.04837: a partition of feature space, a calibrator in each region, shrunk towards the
global one, and a choice by cross-validation that falls back to global calibration where regions do not pay.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetcal.artefact import load, save
    from hetcal.errors import ArtefactError, CalibrationWarning, DataError, LeafMapError
    from hetcal.estimator import HeterogeneousCalibrator
    from hetcal.meta import HeterogeneousCalibratedClassifier
    from hetcal.metrics import ecce, multicalibration_error
    from hetcal.partition import CallablePartitioner, GroupPartitioner, TreePartitioner
    from hetcal.scorer import Scorer
    from hetcal.selection import Selection
    from hetcal.theory import auc_decomposition, auc_lift, check_optimality, optimal_auc

_HOME = {
    "ArtefactError": "errors",
    "CalibrationWarning": "errors",
    "CallablePartitioner": "partition",
    "DataError": "errors",
    "GroupPartitioner": "partition",
    "HeterogeneousCalibratedClassifier": "meta",
    "HeterogeneousCalibrator": "estimator",
    "LeafMapError": "errors",
    "Scorer": "scorer",
    "Selection": "selection",
    "TreePartitioner": "partition",
    "auc_decomposition": "theory",
    "auc_lift": "theory",
    "check_optimality": "theory",
    "ecce": "metrics",
    "load": "artefact",
    "multicalibration_error": "metrics",
    "optimal_auc": "theory",
    "save": "artefact",
}

__all__ = [
    "ArtefactError",
    "CalibrationWarning",
    "CallablePartitioner",
    "DataError",
    "GroupPartitioner",
    "HeterogeneousCalibratedClassifier",
    "HeterogeneousCalibrator",
    "LeafMapError",
    "Scorer",
    "Selection",
    "TreePartitioner",
    "auc_decomposition",
    "auc_lift",
    "check_optimality",
    "ecce",
    "load",
    "multicalibration_error",
    "optimal_auc",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hetcal' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hetcal.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
