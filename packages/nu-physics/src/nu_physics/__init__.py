"""Reactor neutrinos with scalar NSI (arXiv:2306.07343) and solar WIMPs at KM3NeT (arXiv:2203.13697).

Everything is loaded on first use; ``nu_physics.oscillation``, ``nu_physics.reactor`` and ``nu_physics.statistics`` hold
the reactor half, ``nu_physics.solar`` the other.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Background": "nu_physics.reactor.backgrounds",
    "Binning": "nu_physics.reactor.response",
    "BoostedMaxwell": "nu_physics.solar.halo",
    "BoundsJob": "nu_physics.solar.bounds",
    "EffectiveParameters": "nu_physics.oscillation.scalar_nsi",
    "Experiment": "nu_physics.reactor.experiment",
    "Fit": "nu_physics.statistics.fit",
    "FitResult": "nu_physics.statistics.fit",
    "InvalidInput": "nu_physics.errors",
    "MissingExtra": "nu_physics.errors",
    "MixedChannels": "nu_physics.solar.models",
    "NonLinearity": "nu_physics.reactor.response",
    "OscillationParameters": "nu_physics.oscillation.parameters",
    "Prior": "nu_physics.statistics.fit",
    "Resolution": "nu_physics.reactor.response",
    "ScalarNSI": "nu_physics.oscillation.scalar_nsi",
    "ScanJob": "nu_physics.statistics.scan",
    "ScanTable": "nu_physics.statistics.scan",
    "SingletScalar": "nu_physics.solar.models",
    "Site": "nu_physics.reactor.sites",
    "Systematics": "nu_physics.reactor.experiment",
    "VectorNSI": "nu_physics.oscillation.vector_nsi",
    "annihilation_rate": "nu_physics.solar.equilibrium",
    "arca": "nu_physics.solar.telescope",
    "capture_rate": "nu_physics.solar.capture",
    "cross_section": "nu_physics.reactor.ibd",
    "effective_parameters": "nu_physics.oscillation.scalar_nsi",
    "eta_bound": "nu_physics.statistics.analysis",
    "eta_profile": "nu_physics.statistics.analysis",
    "eta_resonance": "nu_physics.oscillation.scalar_nsi",
    "juno": "nu_physics.reactor.experiment",
    "limit": "nu_physics.solar.limits",
    "limit_names": "nu_physics.solar.limits",
    "load_dayabay": "nu_physics.reactor.dayabay",
    "load_site": "nu_physics.reactor.sites",
    "load_table": "nu_physics.statistics.scan",
    "mass_ordering": "nu_physics.statistics.analysis",
    "precision": "nu_physics.statistics.analysis",
    "preset": "nu_physics.oscillation.parameters",
    "probability": "nu_physics.oscillation.probability",
    "propagation_matrix": "nu_physics.solar.propagation",
    "rate_bound": "nu_physics.solar.bounds",
    "run_bounds": "nu_physics.solar.bounds",
    "run_scan": "nu_physics.statistics.scan",
    "site": "nu_physics.reactor.sites",
    "solar_model": "nu_physics.solar.sun",
    "source_spectrum": "nu_physics.solar.spectra",
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
