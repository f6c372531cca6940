"""Deep inelastic neutrino-nucleon cross sections at leading order, from parton densities.

d2 sigma / dx dy = (G_F^2 M E / pi) (1 + Q^2 / M_V^2)^-2 { (x y^2 + m^2 y / 2ME) F1
    + [1 - m^2 / 4E^2 - (1 + M x / 2E) y] F2 +- [x y (1 - y/2) - m^2 y / 4ME] F3 - (m^2 / ME) F5 },
F2 = 2 x F1 = 2 x sum(q + qbar), F3 = 2 sum(q - qbar), F5 = F2 / 2x     (upper sign: neutrinos)

with couplings of each current (Kretzer & Reno, Phys. Rev. D 66 (2002) 113007; Albright & Jarlskog, Nucl. Phys. B 84
(1975) 467 for the terms with the lepton's mass m). Charm is produced with slow rescaling, xi = x (1 + m_c^2 / Q^2).
Below the least Q^2 of the densities they are frozen; a final state below W = M + m_pi is cut. For massless quarks the
terms add up to 2x q (1 - m^2 / 2MEx): the threshold of a heavy lepton. A neutron is a proton with u and d
exchanged. Energies in GeV, cross sections in cm2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from nu_physics.constants import FERMI_per_GeV2, HBAR_C_eV_m
from nu_physics.errors import InvalidInput, check_choice

__all__ = ["PartonDensities", "cross_section", "inelasticity_spectrum"]

Array = NDArray[np.float64]

_GEV2_cm2 = (HBAR_C_eV_m * 1.0e-9 * 1.0e2) ** 2
_NUCLEON_GeV = 0.93891875
_PION_GeV = 0.13957
_CHARM_GeV = 1.4
_W_GeV = 80.3692
_Z_GeV = 91.1880
_SIN2_WEAK = 0.23122
_SIN2_CABIBBO = 0.0506
LEPTON_MASS_GeV = (0.00051099895, 0.1056583755, 1.77693)
_TARGETS = ("proton", "neutron")
_CURRENTS = ("CC", "NC")
_TOP, _GLUON = 6, 21


@dataclass(frozen=True)
class PartonDensities:
    """x f(x, Q^2) of the light and heavy quarks, bicubic in the logarithms, zero above x = 1.

    Parameters
    ----------
    splines : dict of PDG code to spline over (ln x, ln Q^2)
    x_range, q2_range_GeV2 : (float, float)
        Of the grid; values outside are frozen at its edge, except that nothing is above x = 1.
    """

    splines: dict[int, RectBivariateSpline]
    x_range: tuple[float, float]
    q2_range_GeV2: tuple[float, float]

    @classmethod
    def from_grid(cls, path: Path) -> PartonDensities:
        """Read one member of a set in the text format ``lhagrid1`` of LHAPDF 6; subgrids are joined at their seams."""
        blocks = Path(path).read_text(encoding="utf-8").split("---\n")[1:-1]
        if not blocks:
            raise InvalidInput(f"{path} holds no grid in the format lhagrid1; take a member file such as *_0000.dat")
        grids: list[Array] = []
        q_all: list[Array] = []
        for block in blocks:
            lines = block.splitlines()
            x, q = (np.array(lines[i].split(), dtype=float) for i in (0, 1))
            codes = [int(code) for code in lines[2].split()]
            values = np.array([line.split() for line in lines[3:]], dtype=float).reshape(x.size, q.size, len(codes))
            first = 1 if q_all else 0  # a subgrid begins with the last Q of the one before
            grids.append(values[:, first:])
            q_all.append(q[first:])
        table, q = np.concatenate(grids, axis=1), np.concatenate(q_all)
        splines = {
            code: RectBivariateSpline(np.log(x), 2.0 * np.log(q), table[:, :, i], kx=3, ky=3)
            for i, code in enumerate(codes)
            if abs(code) < _TOP
        }
        return cls(splines, (float(x[0]), float(x[-1])), (float(q[0] ** 2), float(q[-1] ** 2)))

    def density(self, code: int, x: Array, q2_GeV2: Array) -> Array:
        """Return f(x, Q^2), not times x."""
        if code not in self.splines:
            return np.zeros_like(x)
        inside = np.clip(x, *self.x_range)
        frozen = np.clip(q2_GeV2, *self.q2_range_GeV2)
        return np.where(x < 1.0, self.splines[code].ev(np.log(inside), np.log(frozen)) / inside, 0.0)


def inelasticity_spectrum(
    densities: PartonDensities,
    energy_GeV: float,
    y: Array,
    *,
    antineutrino: bool,
    current: str = "CC",
    flavour: int = 1,
    target: str = "proton",
    points: int = 240,
) -> Array:
    """Return d sigma / dy in cm2 at each inelasticity y = 1 - E'/E.

    Parameters
    ----------
    densities : PartonDensities
    energy_GeV : float
    y : array of shape (n,)
        In (0, 1).
    antineutrino : bool
    current : {"CC", "NC"}
    flavour : {0, 1, 2}
        Of the neutrino: e, mu, tau; the charged lepton's mass matters for the last.
    target : {"proton", "neutron"}
    points : int
        Gauss-Legendre nodes over ln x.

    Returns
    -------
    array of shape (n,)
    """
    check_choice("current", current, _CURRENTS)
    check_choice("target", target, _TARGETS)
    lepton = LEPTON_MASS_GeV[flavour] if current == "CC" else 0.0
    nodes, weights = np.polynomial.legendre.leggauss(points)
    low = max(densities.x_range[0], lepton**2 / (2.0 * _NUCLEON_GeV * energy_GeV))
    log_x = 0.5 * np.log(low) * (1.0 - nodes)
    x = np.exp(log_x)[None, :]
    weight = weights * (-0.5 * np.log(low)) * np.exp(log_x)
    value = _double_differential(
        densities, energy_GeV, x, np.asarray(y, dtype=float)[:, None], antineutrino, current, lepton, target
    )
    return np.asarray(value @ weight)


def cross_section(
    densities: PartonDensities,
    energy_GeV: float,
    *,
    antineutrino: bool,
    current: str = "CC",
    flavour: int = 1,
    target: str = "proton",
) -> float:
    """Return the total cross section in cm2: the integral of :func:`inelasticity_spectrum` over y."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    y = 0.5 * (1.0 + nodes)
    spectrum = inelasticity_spectrum(
        densities, energy_GeV, y, antineutrino=antineutrino, current=current, flavour=flavour, target=target
    )
    return float(0.5 * weights @ spectrum)


def _double_differential(
    densities: PartonDensities,
    energy: float,
    x: Array,
    y: Array,
    antineutrino: bool,
    current: str,
    lepton: float,
    target: str,
) -> Array:
    """Evaluate the module's formula where the kinematics allow it, zero elsewhere."""
    q2 = 2.0 * _NUCLEON_GeV * energy * x * y
    boson = _W_GeV if current == "CC" else _Z_GeV
    quarks, antiquarks = (_charged if current == "CC" else _neutral)(densities, energy, x, y, q2, antineutrino, target)
    f2 = 2.0 * x * (quarks + antiquarks)
    f1 = quarks + antiquarks
    f3 = 2.0 * (quarks - antiquarks)
    f5 = f1
    m2, me = lepton**2, _NUCLEON_GeV * energy
    bracket = (
        (x * y**2 + m2 * y / (2.0 * me)) * f1
        + (1.0 - m2 / (4.0 * energy**2) - (1.0 + _NUCLEON_GeV * x / (2.0 * energy)) * y) * f2
        + (x * y * (1.0 - 0.5 * y) - m2 * y / (4.0 * me)) * f3
        - m2 / me * f5
    )
    value = FERMI_per_GeV2**2 * me / np.pi * _GEV2_cm2 / (1.0 + q2 / boson**2) ** 2 * bracket
    w2 = _NUCLEON_GeV**2 + q2 * (1.0 / x - 1.0)
    allowed = (
        (w2 > (_NUCLEON_GeV + _PION_GeV) ** 2) & (y * energy < energy - lepton) & _lepton_allowed(x, y, energy, m2)
    )
    return np.where(allowed, np.maximum(value, 0.0), 0.0)


def _lepton_allowed(x: Array, y: Array, energy: float, m2: float) -> NDArray[np.bool_]:
    """Limits a - b <= y <= a + b of Albright and Jarlskog."""
    if m2 == 0.0:
        return np.asarray(y <= 1.0 / (1.0 + _NUCLEON_GeV * x / (2.0 * energy)))
    mex = 2.0 * _NUCLEON_GeV * energy * x
    scale = 2.0 * (1.0 + _NUCLEON_GeV * x / (2.0 * energy))
    a = (1.0 - m2 * (1.0 / mex + 1.0 / (2.0 * energy**2))) / scale
    b2 = (1.0 - m2 / mex) ** 2 - m2 / energy**2
    b = np.sqrt(np.maximum(b2, 0.0)) / scale
    return np.asarray((b2 > 0.0) & (y >= a - b) & (y <= a + b))


def _charged(
    densities: PartonDensities, energy: float, x: Array, y: Array, q2: Array, antineutrino: bool, target: str
) -> tuple[Array, Array]:
    """Quarks and antiquarks that a charged current sees: d, s and ubar, cbar for a neutrino; charge conjugate else."""
    sign = -1 if antineutrino else 1
    down, up = (1, 2) if target == "proton" else (2, 1)
    x, q2 = np.broadcast_arrays(x, q2)
    xi = x * (1.0 + _CHARM_GeV**2 / q2)
    rescaled = np.where(xi < 1.0, 1.0 - _CHARM_GeV**2 / (2.0 * _NUCLEON_GeV * energy * xi), 0.0)
    suppressed = np.maximum(rescaled, 0.0)
    light = (1.0 - _SIN2_CABIBBO) * densities.density(sign * down, x, q2)
    light = light + _SIN2_CABIBBO * densities.density(sign * 3, x, q2)
    charm = _SIN2_CABIBBO * densities.density(sign * down, xi, q2)
    charm = charm + (1.0 - _SIN2_CABIBBO) * densities.density(sign * 3, xi, q2)
    same = light + suppressed * charm
    opposite = densities.density(-sign * up, x, q2) + densities.density(-sign * 4, x, q2)
    return same, opposite


def _neutral(
    densities: PartonDensities, energy: float, x: Array, y: Array, q2: Array, antineutrino: bool, target: str
) -> tuple[Array, Array]:
    """Coupling-weighted quarks (left-handed for a neutrino) and antiquarks of a neutral current."""
    x, q2 = np.broadcast_arrays(x, q2)
    exchange = {1: 2, 2: 1} if target == "neutron" else {}
    same, opposite = np.zeros(x.shape), np.zeros(x.shape)
    for code in (1, 2, 3, 4, 5):
        up_type = exchange.get(code, code) % 2 == 0 if code < 3 else code % 2 == 0
        left = (0.5 - 2.0 / 3.0 * _SIN2_WEAK if up_type else -0.5 + _SIN2_WEAK / 3.0) ** 2
        right = (2.0 / 3.0 * _SIN2_WEAK if up_type else _SIN2_WEAK / 3.0) ** 2
        quark, antiquark = densities.density(code, x, q2), densities.density(-code, x, q2)
        same = same + left * quark + right * antiquark
        opposite = opposite + right * quark + left * antiquark
    return (opposite, same) if antineutrino else (same, opposite)
