"""Three-flavour oscillations with scalar and vector non-standard interactions."""

from nu_physics.oscillation.parameters import PRESETS, OscillationParameters, preset
from nu_physics.oscillation.probability import SURVIVAL_PARAMETERS, probability, survival, survival_gradient
from nu_physics.oscillation.scalar_nsi import (
    EffectiveParameters,
    ScalarNSI,
    effective_mass_squared,
    effective_parameters,
    eta_from_coupling,
    eta_resonance,
)
from nu_physics.oscillation.vector_nsi import VectorNSI

__all__ = [
    "PRESETS",
    "SURVIVAL_PARAMETERS",
    "EffectiveParameters",
    "OscillationParameters",
    "ScalarNSI",
    "VectorNSI",
    "effective_mass_squared",
    "effective_parameters",
    "eta_from_coupling",
    "eta_resonance",
    "preset",
    "probability",
    "survival",
    "survival_gradient",
]
