"""Direct-detection limits as a library: upper limits on the cross section on a nucleon, by name.

Interpolated linearly in the logarithms between the points, never extrapolated.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nu_physics.errors import InvalidInput, check_choice, check_range

__all__ = ["DirectDetectionLimit", "limit", "limit_names", "read_limit"]

COUPLINGS = ("spin-independent", "spin-dependent")


@dataclass(frozen=True)
class DirectDetectionLimit:
    """One experiment's curve.

    Parameters
    ----------
    name, title, source : str
    coupling : {"spin-independent", "spin-dependent"}
        Spin-dependent means on protons.
    mass_GeV, cross_section_cm2 : tuples of floats
        Points, masses rising.
    """

    name: str
    title: str
    source: str
    coupling: str
    mass_GeV: tuple[float, ...]
    cross_section_cm2: tuple[float, ...]

    def __post_init__(self) -> None:
        check_choice(f"coupling of limit {self.name!r}", self.coupling, COUPLINGS)
        mass, sigma = np.asarray(self.mass_GeV, dtype=float), np.asarray(self.cross_section_cm2, dtype=float)
        if mass.shape != sigma.shape or mass.ndim != 1 or mass.size < 2:
            raise InvalidInput(f"limit {self.name!r} needs two equal rows of at least two points")
        if not (np.isfinite(mass).all() and np.isfinite(sigma).all() and (sigma > 0).all() and (mass > 0).all()):
            raise InvalidInput(f"limit {self.name!r}: masses and cross sections must be finite and positive")
        if np.any(np.diff(mass) <= 0):
            raise InvalidInput(f"limit {self.name!r}: masses must rise; sort the points and drop repeated masses")

    @property
    def range_GeV(self) -> tuple[float, float]:
        """Masses between which the limit is defined."""
        return self.mass_GeV[0], self.mass_GeV[-1]

    def cross_section(self, mass_GeV: float) -> float:
        """Return the upper limit in cm2.

        Raises
        ------
        InvalidInput
            A mass outside :attr:`range_GeV`.

        Examples
        --------
        >>> f"{limit('xenon1t-2018').cross_section(1000.0):.2g} cm2"
        '8.8e-46 cm2'
        """
        mass = check_range("mass_GeV", mass_GeV, 0.0, open_low=True)
        low, high = self.range_GeV
        if not low <= mass <= high:
            raise InvalidInput(
                f"mass_GeV = {mass:g} is outside limit {self.name!r}, which covers {low:g} to {high:g} GeV; take "
                "another limit (nu-physics solar limits lists them) or a mass inside"
            )
        return float(np.exp(np.interp(np.log(mass), np.log(self.mass_GeV), np.log(self.cross_section_cm2))))


@functools.cache
def _packaged() -> dict[str, Any]:
    text = (resources.files("nu_physics.data") / "limits.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def limit_names() -> tuple[str, ...]:
    """Return the names of the packaged limits."""
    return tuple(_packaged())


def limit(name: str) -> DirectDetectionLimit:
    """Return a packaged limit; an unknown name raises ``InvalidInput`` with the nearest ones.

    Examples
    --------
    >>> lz = limit("lz-2024")
    >>> lz.coupling, f"{lz.cross_section(1000.0):.1e} cm2"
    ('spin-independent', '2.8e-47 cm2')
    """
    return _from_table(name, _packaged()[check_choice("limit", name, _packaged())])


def read_limit(path: Path) -> DirectDetectionLimit:
    """Read a limit of one's own: a TOML file with title, coupling, source, mass_GeV and cross_section_cm2."""
    table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    missing = {"coupling", "mass_GeV", "cross_section_cm2"} - set(table)
    if missing:
        raise InvalidInput(f"{path} lacks {', '.join(sorted(missing))}")
    return _from_table(Path(path).stem, table)


def _from_table(name: str, table: dict[str, Any]) -> DirectDetectionLimit:
    return DirectDetectionLimit(
        name,
        str(table.get("title", name)),
        str(table.get("source", "")),
        str(table["coupling"]),
        tuple(float(value) for value in table["mass_GeV"]),
        tuple(float(value) for value in table["cross_section_cm2"]),
    )
