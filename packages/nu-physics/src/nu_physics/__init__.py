"""Reactor neutrinos with scalar non-standard interactions (arXiv:2306.07343): oscillations, JUNO, Daya Bay.

Everything is loaded on first use; ``nu_physics.oscillation``, ``nu_physics.reactor`` and ``nu_physics.statistics`` hold
the parts.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Background": "nu_physics.reactor.backgrounds",
    "Binning": "nu_physics.reactor.response",
    "EffectiveParameters": "nu_physics.oscillation.scalar_nsi",
    "Experiment": "nu_physics.reactor.experiment",
    "Fit": "nu_physics.statistics.fit",
    "FitResult": "nu_physics.statistics.fit",
    "InvalidInput": "nu_physics.errors",
    "MissingExtra": "nu_physics.errors",
    "NonLinearity": "nu_physics.reactor.response",
    "OscillationParameters": "nu_physics.oscillation.parameters",
    "Prior": "nu_physics.statistics.fit",
    "Resolution": "nu_physics.reactor.response",
    "ScalarNSI": "nu_physics.oscillation.scalar_nsi",
    "ScanJob": "nu_physics.statistics.scan",
    "ScanTable": "nu_physics.statistics.scan",
    "Site": "nu_physics.reactor.sites",
    "Systematics": "nu_physics.reactor.experiment",
    "VectorNSI": "nu_physics.oscillation.vector_nsi",
    "cross_section": "nu_physics.reactor.ibd",
    "effective_parameters": "nu_physics.oscillation.scalar_nsi",
    "eta_bound": "nu_physics.statistics.analysis",
    "eta_profile": "nu_physics.statistics.analysis",
    "eta_resonance": "nu_physics.oscillation.scalar_nsi",
    "juno": "nu_physics.reactor.experiment",
    "load_dayabay": "nu_physics.reactor.dayabay",
    "load_site": "nu_physics.reactor.sites",
    "load_table": "nu_physics.statistics.scan",
    "mass_ordering": "nu_physics.statistics.analysis",
    "precision": "nu_physics.statistics.analysis",
    "preset": "nu_physics.oscillation.parameters",
    "probability": "nu_physics.oscillation.probability",
    "run_scan": "nu_physics.statistics.scan",
    "site": "nu_physics.reactor.sites",
    "survival": "nu_physics.oscillation.probability",
    "survival_gradient": "nu_physics.oscillation.probability",
    "toys": "nu_physics.statistics.analysis",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nu_physics' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
