"""Where the cores and the detector are: packaged sites and one's own TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_choice, check_range
from nu_physics.reactor.flux import check_fractions, packaged

__all__ = ["Core", "Site", "load_site", "site", "site_names"]


@dataclass(frozen=True)
class Core:
    """One source: its thermal power and distance."""

    name: str
    power_GW: float
    baseline_km: float

    def __post_init__(self) -> None:
        check_range(f"power_GW of core {self.name!r}", self.power_GW, 0.0, 1000.0)
        check_range(f"baseline_km of core {self.name!r}", self.baseline_km, 0.0, 1e5, open_low=True)


@dataclass(frozen=True)
class Site:
    """Cores, target and the medium between them.

    ``flux_normalisation`` multiplies the Huber-Mueller flux: 0.955 is the deficit that Daya Bay measures.
    """

    name: str
    description: str
    cores: tuple[Core, ...]
    fission_fractions: dict[str, float]
    target_protons: float
    efficiency: float
    density_g_cm3: float
    electron_fraction: float
    flux_normalisation: float

    def __post_init__(self) -> None:
        if not self.cores:
            raise InvalidInput(f"site {self.name!r} has no cores; give at least one [[cores]] entry")
        check_range("target_protons", self.target_protons, 0.0, open_low=True)
        check_range("efficiency", self.efficiency, 0.0, 1.0)
        check_range("density_g_cm3", self.density_g_cm3, 0.0, 1e3)
        check_range("electron_fraction", self.electron_fraction, 0.0, 1.0)
        check_range("flux_normalisation", self.flux_normalisation, 0.0, 10.0)
        check_fractions(self.fission_fractions)

    @property
    def power_GW(self) -> NDArray[np.float64]:
        """Thermal power of each core."""
        return np.array([core.power_GW for core in self.cores])

    @property
    def baseline_km(self) -> NDArray[np.float64]:
        """Distance of each core."""
        return np.array([core.baseline_km for core in self.cores])

    @property
    def flux_share(self) -> NDArray[np.float64]:
        """P / L^2 of each core divided by the sum: the share of the flux without oscillation."""
        weight = self.power_GW / self.baseline_km**2
        return np.asarray(weight / weight.sum())


def site_names() -> list[str]:
    """Return the names of the packaged sites."""
    return sorted(packaged("sites"))


def site(name: str) -> Site:
    """Return a packaged site.

    Examples
    --------
    >>> juno = site("juno-2022")
    >>> len(juno.cores), round(float(juno.power_GW[:8].sum()), 1)
    (9, 26.6)
    """
    table = packaged("sites")
    return _from_table(check_choice("site", name, table), table[name])


def load_site(path: str | Path, name: str | None = None) -> Site:
    """Read a site from a TOML file of the same form as the packaged ``sites.toml``."""
    with Path(path).open("rb") as stream:
        table = tomllib.load(stream)
    if name is None:
        if len(table) != 1:
            raise InvalidInput(f"{path} holds {len(table)} sites; name one of {', '.join(sorted(table))}")
        name = next(iter(table))
    return _from_table(check_choice("site", name, table), table[name])


def _from_table(name: str, table: dict[str, Any]) -> Site:
    fields = dict(table)
    known = ("name", "power_GW", "baseline_km")
    cores = []
    for entry in fields.pop("cores", []):
        for key in entry:
            check_choice(f"field of a core of site {name!r}", key, known)
        cores.append(Core(**entry))
    needed = set(Site.__dataclass_fields__) - {"name", "cores"}
    for key in fields:
        check_choice(f"field of site {name!r}", key, sorted(needed))
    missing = sorted(needed - set(fields))
    if missing:
        raise InvalidInput(f"site {name!r} lacks {', '.join(missing)}")
    return Site(name=name, cores=tuple(cores), **fields)
