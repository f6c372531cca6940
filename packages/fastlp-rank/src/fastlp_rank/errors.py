"""What bad input gets: one exception that names the field, the offending value and the remedy."""

__all__ = ["InvalidProblemError"]


class InvalidProblemError(ValueError):
    """The problem as stated has no meaning; the message says which field is wrong and what to do about it.

    Bounds that contradict each other are not an error: they are a result, ``Status.INFEASIBLE``.
    """
