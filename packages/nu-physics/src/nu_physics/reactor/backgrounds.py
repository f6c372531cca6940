"""Backgrounds: a rate with its uncertainty and a shape with its bin-to-bin uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_range
from nu_physics.reactor.flux import packaged
from nu_physics.reactor.response import Binning, shape_counts

__all__ = ["Background", "juno_backgrounds"]


@dataclass(frozen=True)
class Background:
    """One source of background counts.

    Parameters
    ----------
    name : str
    rate_per_day : float
        Counts per day of running over all bins; not reduced by the reactors' duty cycle.
    rate_uncertainty, shape_uncertainty : float
        Relative; the first is common to all bins, the second independent in each.
    shape : array of shape (bins,)
        Normalised to one.
    """

    name: str
    rate_per_day: float
    rate_uncertainty: float
    shape_uncertainty: float
    shape: NDArray[np.float64]

    def __post_init__(self) -> None:
        check_range(f"rate_per_day of {self.name!r}", self.rate_per_day, 0.0)
        check_range(f"rate_uncertainty of {self.name!r}", self.rate_uncertainty, 0.0, 10.0)
        check_range(f"shape_uncertainty of {self.name!r}", self.shape_uncertainty, 0.0, 10.0)
        if not np.isfinite(self.shape).all() or (self.shape < 0).any():
            raise InvalidInput(f"shape of background {self.name!r} has entries that are negative or not finite")

    def counts_per_day(self) -> NDArray[np.float64]:
        """Counts per day in each bin."""
        return np.asarray(self.rate_per_day * self.shape)


def juno_backgrounds(binning: Binning, reactor_shape: NDArray[np.float64]) -> tuple[Background, ...]:
    """Return JUNO's seven backgrounds in the given bins; ``reactor_shape`` serves the world's reactors."""
    out = []
    for entry in packaged("juno_detector")["background"]:
        if entry["shape"] == "reactor":
            shape = reactor_shape / reactor_shape.sum()
        else:
            shape = shape_counts(np.asarray(entry["energy_MeV"]), np.asarray(entry["shape"]), binning)
        out.append(
            Background(
                entry["name"],
                entry["rate_per_day"],
                entry["rate_uncertainty"],
                entry["shape_uncertainty"],
                shape,
            )
        )
    return tuple(out)
