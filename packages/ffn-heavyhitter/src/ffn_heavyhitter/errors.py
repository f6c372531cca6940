"""What bad input gets: an error that names the module, field or value, and the remedy."""

__all__ = [
    "BudgetError",
    "CalibrationError",
    "CompressionError",
    "FFNWarning",
    "StatisticsError",
    "UnsupportedArchitectureError",
]


class UnsupportedArchitectureError(ValueError):
    """The model has no FFN that an adapter knows, or one that must not be split (mixture of experts)."""


class CalibrationError(ValueError):
    """The calibration tokens cannot be used: none, too few, or not finite inside the model."""


class StatisticsError(ValueError):
    """The statistics belong to another model or lack what was asked of them."""


class CompressionError(ValueError):
    """A treatment does not fit the FFN, or the model is already compressed."""


class BudgetError(ValueError):
    """No plan fits the bytes given; the message holds the smallest budget that does."""


class FFNWarning(UserWarning):
    """The result is usable, but something about the data deserves a look."""
