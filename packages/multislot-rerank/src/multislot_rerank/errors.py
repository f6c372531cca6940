"""What bad input gets: an error that names the field, the row and the remedy."""

__all__ = ["InvalidInput"]


class InvalidInput(ValueError):
    """An argument is outside what its documentation allows."""
