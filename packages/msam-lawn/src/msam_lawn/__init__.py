"""Micro-batch sharpness-aware minimisation (mSAM) and LAWN for torch and JAX.

Papers: arXiv:2302.09693, arXiv:2212.04343, arXiv:2108.05839. ``msam_lawn.torch`` needs the extra ``torch``,
``msam_lawn.jax`` the extra ``jax``; what is here needs neither.
"""

from msam_lawn.errors import EngineError, GradientError, HomogeneityError, PrecisionWarning, SettingsError
from msam_lawn.rho import cosine_rho, linear_rho
from msam_lawn.shards import shard_sizes

__all__ = [
    "EngineError",
    "GradientError",
    "HomogeneityError",
    "PrecisionWarning",
    "SettingsError",
    "cosine_rho",
    "linear_rho",
    "shard_sizes",
]
