"""Direct-detection limits as a library: upper limits on the cross section on a nucleon, by name.

Interpolated linearly in the logarithms between the points, never extrapolated.
"""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nu_physics.errors import InvalidInput, check_choice, check_energies, check_range

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
    halo : str
        What the limit assumes: density, most probable speed, galactic escape speed. Another halo would need the limit
        derived anew from the experiment's data.
    note : str
        How the limit was made or read.

    Raises
    ------
    InvalidInput
        A coupling that is not known, rows that differ in length, values that are no positive numbers, masses that do
        not rise.
    """

    name: str
    title: str
    source: str
    coupling: str
    mass_GeV: tuple[float, ...]
    cross_section_cm2: tuple[float, ...]
    halo: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        check_choice(f"coupling of limit {self.name!r}", self.coupling, COUPLINGS)
        mass = check_energies(f"mass_GeV of limit {self.name!r}", self.mass_GeV)
        sigma = check_energies(f"cross_section_cm2 of limit {self.name!r}", self.cross_section_cm2)
        if mass.shape != sigma.shape or mass.ndim != 1 or mass.size < 2:
            raise InvalidInput(
                f"limit {self.name!r} has {mass.shape} masses and {sigma.shape} cross sections; "
                "it needs two equal rows of at least two points"
            )
        if np.any(np.diff(mass) <= 0):
            raise InvalidInput(f"limit {self.name!r}: masses must rise; sort the points and drop repeated masses")
        object.__setattr__(self, "mass_GeV", tuple(mass.tolist()))
        object.__setattr__(self, "cross_section_cm2", tuple(sigma.tolist()))

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
        '8.2e-46 cm2'
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
    ('spin-independent', '3.0e-47 cm2')
    """
    return _from_table(name, _packaged()[check_choice("limit", name, _packaged())])


def read_limit(path: str | os.PathLike[str], *, coupling: str | None = None) -> DirectDetectionLimit:
    """Read a limit of one's own.

    Parameters
    ----------
    path : path
        A TOML file with coupling, mass_GeV and cross_section_cm2 (and title, source, halo, note); or a text file
        (``.csv``, ``.txt``, ``.dat``) whose first two columns are mass in GeV and cross section in cm2, separated by
        commas or blanks, with comment lines that begin with ``#`` and at most one heading line.
    coupling : {"spin-independent", "spin-dependent"}, optional
        Needed for a text file, which cannot say it.

    Raises
    ------
    InvalidInput
        Names the file, and the line or field that has no meaning.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"limit {str(file)!r} cannot be read: {error}") from None
    if file.suffix != ".toml":
        if coupling is None:
            raise InvalidInput(f"{file} states no coupling; give coupling='spin-independent' or 'spin-dependent'")
        mass, sigma = _columns(file, text)
        return DirectDetectionLimit(file.stem, file.stem, str(file.name), coupling, mass, sigma)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{file} is no TOML file: {error}") from None
    if coupling is not None:
        table.setdefault("coupling", coupling)
        if table["coupling"] != coupling:
            raise InvalidInput(f"{file} states coupling {table['coupling']!r}, not {coupling!r}")
    missing = {"coupling", "mass_GeV", "cross_section_cm2"} - set(table)
    if missing:
        raise InvalidInput(f"{file} lacks {', '.join(sorted(missing))}")
    return _from_table(file.stem, table)


def _columns(file: Path, text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mass and cross section of every line."""
    rows: list[tuple[float, float]] = []
    headings = 0
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not cells:
            continue
        try:
            rows.append((float(cells[0]), float(cells[1])))
        except (ValueError, IndexError):
            headings += 1
            if rows or headings > 1:
                raise InvalidInput(f"{file}, line {number}: {line.strip()!r} is no mass and cross section") from None
    if not rows:
        raise InvalidInput(f"{file} holds no line with a mass in GeV and a cross section in cm2")
    return tuple(mass for mass, _ in rows), tuple(sigma for _, sigma in rows)


def _from_table(name: str, table: dict[str, Any]) -> DirectDetectionLimit:
    about = {key: str(table.get(key, "")) for key in ("source", "halo", "note")}
    return DirectDetectionLimit(
        name,
        str(table.get("title", name)),
        about["source"],
        table["coupling"],
        table["mass_GeV"],
        table["cross_section_cm2"],
        about["halo"],
        about["note"],
    )
