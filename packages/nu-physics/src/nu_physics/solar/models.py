"""Particle models: which channels a dark-matter particle annihilates into.

Real singlet scalar S through the Higgs portal, V = (lambda / 2) S^2 H^dagger H (our notation; v = 246.22 GeV):

    sigma_SI = lambda^2 f_N^2 mu^2 m_N^2 / (4 pi m_h^4 m^2)
    sigma v (S S -> X) = (2 lambda^2 v^2 / sqrt(s)) Gamma_h*(X) / [(s - m_h^2)^2 + m_h^2 Gamma_h^2],   s = 4 m^2
    sigma v (S S -> h h) = |M|^2 beta / (64 pi m^2),  M = lambda [1 + 3 m_h^2 / (s - m_h^2) - 2 lambda v^2 / (2 m^2 -
    m_h^2)]

with Gamma_h*(X) the tree-level width of a Higgs boson of mass sqrt(s) (Cline et al., Phys. Rev. D 88 (2013) 055025;
loop-induced gluons are left out). Quark masses run to the Z mass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nu_physics.errors import InvalidInput, check_range
from nu_physics.solar.channels import CHANNELS, channel, check_open
from nu_physics.solar.equilibrium import THERMAL_cm3_s

__all__ = ["MixedChannels", "ParticleModel", "SingletScalar", "annihilates"]

_HIGGS_GeV, _HIGGS_WIDTH_GeV, _VACUUM_GeV = 125.20, 4.1e-3, 246.22
_NUCLEON_GeV, _NUCLEON_COUPLING = 0.93891875, 0.30
_CM2_per_GeV2 = 3.893793721e-28
_CM3_s_per_GeV2 = _CM2_per_GeV2 * 2.99792458e10
# colours, mass at the Z mass in GeV
_FERMIONS = {"tautau": (1, 1.77693), "cc": (3, 0.62), "bb": (3, 2.86), "tt": (3, 172.57)}
_BOSONS = {"WW": (1.0, 80.3692), "ZZ": (0.5, 91.1880)}


class ParticleModel(Protocol):
    """What a bound needs of a particle: its name, and how it annihilates at a cross section on a nucleon."""

    @property
    def name(self) -> str:
        """Label in tables."""
        ...

    def branching(self, mass_GeV: float, sigma_si_cm2: float) -> dict[str, float]:
        """Return the share of annihilations by channel; it sums to one."""
        ...

    def annihilation_cm3_s(self, mass_GeV: float, sigma_si_cm2: float) -> float:
        """Return <sigma v> at rest."""
        ...


def annihilates(particle: ParticleModel, mass_GeV: float, sigma_si_cm2: float) -> tuple[dict[str, float], float]:
    """Return a model's branching ratios and <sigma v>, checked.

    Raises
    ------
    InvalidInput
        Not a particle model, or one without a name; a channel that is unknown; a share that is no number in [0, 1];
        shares that do not sum to one within 1e-6; <sigma v> negative or no number.
    """
    for method in ("branching", "annihilation_cm3_s"):
        if isinstance(particle, type) or not callable(getattr(particle, method, None)):
            raise InvalidInput(
                f"model = {particle!r} is no particle model: it needs name, branching, annihilation_cm3_s"
            )
    if not isinstance(getattr(particle, "name", None), str):
        raise InvalidInput(f"model = {particle!r} has no name; give it one as text: it labels its rows")
    shares = particle.branching(mass_GeV, sigma_si_cm2)
    if not isinstance(shares, Mapping):
        raise InvalidInput(f"branching of model {particle.name!r} returned a {type(shares).__name__}, not a dict")
    checked = {channel(key).name: _share(particle.name, key, value) for key, value in shares.items()}
    _sum_to_one(particle.name, checked)
    sigma_v = particle.annihilation_cm3_s(mass_GeV, sigma_si_cm2)
    return checked, check_range(f"annihilation_cm3_s of model {particle.name!r}", sigma_v, 0.0, 1.0)


def _share(model: str, key: str, value: float) -> float:
    return check_range(f"branching ratio of {key!r} in model {model!r}", value, 0.0, 1.0)


def _sum_to_one(model: str, shares: Mapping[str, float]) -> None:
    total = math.fsum(shares.values())
    if abs(total - 1.0) > 1.0e-6:
        raise InvalidInput(f"branching ratios of model {model!r} sum to {total:.9g}, not 1; divide each by that number")


@dataclass(frozen=True)
class MixedChannels:
    """Fixed branching ratios and a thermal cross section.

    Parameters
    ----------
    ratios : dict of channel to float
        Must sum to one within 1e-6.
    name : str
    annihilation : float
        <sigma v> in cm3/s.

    Examples
    --------
    >>> MixedChannels({"bb": 1.0}).branching(100.0, 0.0)
    {'bb': 1.0}
    """

    ratios: Mapping[str, float]
    name: str = ""
    annihilation: float = THERMAL_cm3_s

    def __post_init__(self) -> None:
        if not isinstance(self.ratios, Mapping):
            raise InvalidInput(f"ratios is a {type(self.ratios).__name__}; give a dict of channel to branching ratio")
        name = self.name or "+".join(str(key) for key in self.ratios)
        checked = {channel(key).name: _share(name, key, value) for key, value in self.ratios.items()}
        _sum_to_one(name, checked)
        check_range("annihilation", self.annihilation, 0.0, 1.0)
        object.__setattr__(self, "ratios", checked)
        object.__setattr__(self, "name", self.name or "+".join(key for key, value in checked.items() if value > 0))

    def branching(self, mass_GeV: float, sigma_si_cm2: float) -> dict[str, float]:
        """Return the ratios; a closed channel raises ``InvalidInput``."""
        for key, value in self.ratios.items():
            if value > 0:
                check_open(key, mass_GeV)
        return {key: value for key, value in self.ratios.items() if value > 0}

    def annihilation_cm3_s(self, mass_GeV: float, sigma_si_cm2: float) -> float:
        """Return <sigma v>."""
        return self.annihilation


@dataclass(frozen=True)
class SingletScalar:
    """Real singlet scalar; the portal coupling follows from the cross section on a nucleon.

    Examples
    --------
    >>> ratios = SingletScalar().branching(1000.0, 1e-46)
    >>> {name: round(value, 2) for name, value in ratios.items() if value > 0.01}
    {'tt': 0.02, 'WW': 0.49, 'ZZ': 0.24, 'hh': 0.25}
    """

    name: str = field(default="singlet-scalar")

    @staticmethod
    def portal_coupling(mass_GeV: float, sigma_si_cm2: float) -> float:
        """Return lambda that gives this spin-independent cross section."""
        mass = check_range("mass_GeV", mass_GeV, 0.0, open_low=True)
        sigma = check_range("sigma_si_cm2", sigma_si_cm2, 0.0)
        reduced = mass * _NUCLEON_GeV / (mass + _NUCLEON_GeV)
        unit = (_NUCLEON_COUPLING * reduced * _NUCLEON_GeV) ** 2 / (4.0 * math.pi * _HIGGS_GeV**4 * mass**2)
        return math.sqrt(sigma / (unit * _CM2_per_GeV2))

    def branching(self, mass_GeV: float, sigma_si_cm2: float) -> dict[str, float]:
        """Return the share of annihilations by channel."""
        parts = self._cross_sections_GeV2(mass_GeV, self.portal_coupling(mass_GeV, sigma_si_cm2))
        total = math.fsum(parts.values())
        if total == 0.0:
            raise InvalidInput(
                f"the singlet scalar does not annihilate at sigma_si_cm2 = {sigma_si_cm2!r}: no coupling"
            )
        return {key: parts[key] / total for key in CHANNELS if parts.get(key, 0.0) > 0.0}

    def annihilation_cm3_s(self, mass_GeV: float, sigma_si_cm2: float) -> float:
        """Return sigma v at rest."""
        parts = self._cross_sections_GeV2(mass_GeV, self.portal_coupling(mass_GeV, sigma_si_cm2))
        return math.fsum(parts.values()) * _CM3_s_per_GeV2

    @staticmethod
    def _cross_sections_GeV2(mass: float, coupling: float) -> dict[str, float]:
        energy, s = 2.0 * mass, 4.0 * mass**2
        propagator = 1.0 / ((s - _HIGGS_GeV**2) ** 2 + (_HIGGS_GeV * _HIGGS_WIDTH_GeV) ** 2)
        scale = 2.0 * (coupling * _VACUUM_GeV) ** 2 / energy * propagator
        out = {}
        for key, (colours, m) in _FERMIONS.items():
            if mass >= CHANNELS[key].threshold_GeV:
                width = colours * m**2 * energy / (8.0 * math.pi * _VACUUM_GeV**2) * (1.0 - (m / mass) ** 2) ** 1.5
                out[key] = scale * width
        for key, (identical, m) in _BOSONS.items():
            if mass > m:
                x = (m / energy) ** 2
                width = identical * energy**3 / (16.0 * math.pi * _VACUUM_GeV**2)
                out[key] = scale * width * math.sqrt(1.0 - 4.0 * x) * (1.0 - 4.0 * x + 12.0 * x**2)
        if mass > _HIGGS_GeV:
            exchange = 2.0 * coupling * _VACUUM_GeV**2 / (2.0 * mass**2 - _HIGGS_GeV**2)
            amplitude = coupling * (1.0 + 3.0 * _HIGGS_GeV**2 / (s - _HIGGS_GeV**2) - exchange)
            out["hh"] = amplitude**2 * math.sqrt(1.0 - (_HIGGS_GeV / mass) ** 2) / (64.0 * math.pi * mass**2)
        return out
