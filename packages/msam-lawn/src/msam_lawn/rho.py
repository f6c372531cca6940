"""Radius schedules: rho_t as a function of the optimizer step t = 0, 1, ..."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from msam_lawn.errors import SettingsError

__all__ = ["RhoSchedule", "check_rho", "cosine_rho", "linear_rho"]

RhoSchedule = Callable[[int], float]


def check_rho(rho: float) -> float:
    """The radius as a float; negative and non-finite ones are refused."""
    value = float(rho)
    if not math.isfinite(value) or value < 0:
        raise SettingsError(f"rho={rho!r} must be a finite number of at least 0")
    return value


def linear_rho(start: float, end: float, steps: int) -> RhoSchedule:
    """Straight line from ``start`` at step 0 to ``end`` at step ``steps``, constant afterwards.

    Examples
    --------
    >>> rho = linear_rho(0.0, 0.1, steps=10)
    >>> rho(0), rho(5), rho(99)
    (0.0, 0.05, 0.1)
    """
    start, end = check_rho(start), check_rho(end)
    _check_steps(steps)
    return _Line(start, end, steps)


def cosine_rho(start: float, end: float, steps: int) -> RhoSchedule:
    """Half a cosine from ``start`` at step 0 to ``end`` at step ``steps``, constant afterwards.

    Examples
    --------
    >>> rho = cosine_rho(0.1, 0.0, steps=10)
    >>> round(rho(0), 6), round(rho(5), 6), round(rho(10), 6)
    (0.1, 0.05, 0.0)
    """
    start, end = check_rho(start), check_rho(end)
    _check_steps(steps)
    return _HalfCosine(start, end, steps)


# Classes, not lambdas: an optimizer that holds one can be copied and pickled.


@dataclass(frozen=True)
class _Line:
    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class _HalfCosine:
    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        fall = 1 + math.cos(math.pi * min(step / self.steps, 1.0))
        return self.end + 0.5 * (self.start - self.end) * fall


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise SettingsError(f"steps={steps} must be at least 1")
