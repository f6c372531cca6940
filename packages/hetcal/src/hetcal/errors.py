"""What bad input gets: an error that names the field, the value or row, and the remedy."""

__all__ = ["ArtefactError", "CalibrationWarning", "DataError", "LeafMapError"]


class DataError(ValueError):
    """The data given cannot be used; the message names the field, the rows and the remedy."""


class ArtefactError(ValueError):
    """A saved calibrator cannot be read or written: wrong schema, damaged, or not exportable."""


class LeafMapError(ValueError):
    """A partitioner returned leaf numbers that are not integers in ``0 .. n_leaves - 1``."""


class CalibrationWarning(UserWarning):
    """The result is usable, but something about the data deserves a look."""
