"""What bad input gets: an error that names the field, the value or module, and the remedy."""

__all__ = [
    "CalibrationWarning",
    "ExportError",
    "FolderWarning",
    "FormatWarning",
    "LayerError",
    "ModelError",
    "ScaleWarning",
    "SchemeError",
]


class SchemeError(ValueError):
    """A scheme, solver or outlier setting that cannot be used."""


class LayerError(ValueError):
    """Weight or moments of one layer that cannot be quantised."""


class ModelError(ValueError):
    """A model, or a part of it, that the pipeline does not support."""


class ExportError(ValueError):
    """A result that the chosen format, or every engine that reads it, cannot hold."""


class CalibrationWarning(UserWarning):
    """The result is usable, but the calibration data deserve a look."""


class ScaleWarning(UserWarning):
    """Weights so small that the type of the scales cannot hold theirs."""


class FormatWarning(UserWarning):
    """The result is usable, but not by every engine or not in every format."""


class FolderWarning(UserWarning):
    """Something in a folder of finished pieces was damaged and is done again."""
