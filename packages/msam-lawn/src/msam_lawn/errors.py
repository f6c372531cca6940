"""What bad input gets: an error that names the field, the value or module, and the remedy."""

__all__ = ["EngineError", "GradientError", "HomogeneityError", "PrecisionWarning", "SettingsError"]


class SettingsError(ValueError):
    """A setting is outside its range or contradicts another; the message names both and the remedy."""


class EngineError(ValueError):
    """The engine that was asked for cannot compute this model's gradient exactly; the message names the module."""


class GradientError(RuntimeError):
    """There is no gradient to step with, or the wrapper did not make it; plain descent is never taken instead."""


class HomogeneityError(ValueError):
    """No homogeneous tail could be traced, or the traced one failed its numerical check."""


class PrecisionWarning(UserWarning):
    """Weights of 16 bits round most of the perturbation away."""
