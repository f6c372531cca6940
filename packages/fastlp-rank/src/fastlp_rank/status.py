"""How a solve ended."""

import enum

__all__ = ["Status"]


class Status(enum.IntEnum):
    """How a solve ended; the number is the kernel's return value."""

    OPTIMAL = 0
    """The lottery is feasible and no other is better."""
    INFEASIBLE = 1
    """No lottery meets all bounds; a Farkas ray proves it and the least-violation lottery is returned."""
    LIMIT = 2
    """Stopped at ``max_pricings``; the bound is valid, the lottery may violate rows by ``violations``."""
    NUMERICAL = 3
    """Rounding kept the answer from being proven; the bound is valid, the lottery may violate rows."""
