"""Three-flavour oscillation parameters in the PDG convention, and the presets of published global fits.

U = R23(theta23) diag-phase R13(theta13, delta) R12(theta12) diag(1, e^{i alpha1/2}, e^{i alpha2/2}), and
m1, m2, m3 follow from ``m_lightest_eV`` and the two splittings: normal ordering (``dm31_eV2 > 0``) has m1 = m_lightest,
inverted ordering (``dm31_eV2 < 0``) has m3 = m_lightest and m1 = sqrt(m_lightest^2 - dm31).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, check_choice, check_range

__all__ = ["PRESETS", "OscillationParameters", "preset"]

Ordering = Literal["normal", "inverted"]


@dataclass(frozen=True)
class OscillationParameters:
    """Mixing angles, splittings and the lightest mass; the ordering is the sign of ``dm31_eV2``.

    Parameters
    ----------
    sin2_theta12, sin2_theta13, sin2_theta23 : float
        Squared sines of the mixing angles, each in [0, 1]. theta12 above 45 degrees is the dark side and is allowed.
    dm21_eV2 : float
        m2^2 - m1^2 in eV^2, not negative.
    dm31_eV2 : float
        m3^2 - m1^2 in eV^2; negative for the inverted ordering.
    delta_cp : float
        Dirac phase in radians.
    m_lightest_eV : float
        Lightest mass in eV; unobservable without scalar NSI.
    alpha1, alpha2 : float
        Majorana phases in radians. They are unobservable in standard oscillations, but a scalar interaction adds to the
        mass matrix before it is squared, so that a CP parity (alpha = pi turns m_i into -m_i) changes the answer.

    Raises
    ------
    InvalidInput
        A value outside its range; the message names the field.

    Examples
    --------
    >>> nature = OscillationParameters(dm31_eV2=-2.45e-3)
    >>> nature.ordering
    'inverted'
    >>> [round(float(m), 5) for m in nature.masses_eV]
    [0.0495, 0.05025, 0.0]
    """

    sin2_theta12: float = 0.307
    sin2_theta13: float = 0.0218
    sin2_theta23: float = 0.545
    dm21_eV2: float = 7.53e-5
    dm31_eV2: float = 2.5283e-3
    delta_cp: float = 0.0
    m_lightest_eV: float = 0.0
    alpha1: float = 0.0
    alpha2: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sin2_theta12", "sin2_theta13", "sin2_theta23"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("dm21_eV2", self.dm21_eV2, 0.0, 1.0)
        check_range("dm31_eV2", self.dm31_eV2, -1.0, 1.0)
        check_range("m_lightest_eV", self.m_lightest_eV, 0.0, 10.0)
        for name in ("delta_cp", "alpha1", "alpha2"):
            check_range(name, getattr(self, name))
        if self.dm31_eV2 == 0.0:
            raise InvalidInput("dm31_eV2 = 0 has no ordering; give a positive (normal) or negative (inverted) value")
        if 0.0 < self.dm31_eV2 < self.dm21_eV2:
            raise InvalidInput(
                f"dm31_eV2 = {self.dm31_eV2!r} lies between 0 and dm21_eV2 = {self.dm21_eV2!r}: m3 would be the middle "
                "state; the allowed ranges are dm31_eV2 >= dm21_eV2 (normal) and dm31_eV2 < 0 (inverted)"
            )

    @property
    def ordering(self) -> Ordering:
        """Vacuum ordering: ``"normal"`` if dm31 is positive, else ``"inverted"``."""
        return "normal" if self.dm31_eV2 > 0 else "inverted"

    @property
    def dm32_eV2(self) -> float:
        """m3^2 - m2^2 in eV^2."""
        return self.dm31_eV2 - self.dm21_eV2

    @property
    def dm_ee_eV2(self) -> float:
        """cos^2(theta12) dm31 + sin^2(theta12) dm32, the splitting that a reactor spectrum sees."""
        return (1.0 - self.sin2_theta12) * self.dm31_eV2 + self.sin2_theta12 * self.dm32_eV2

    @property
    def masses_squared_above_lightest_eV2(self) -> NDArray[np.float64]:
        """m_i^2 - m_lightest^2 in eV^2, shape (3,): what oscillations see, without the digits m_lightest^2 costs."""
        base = 0.0 if self.dm31_eV2 > 0 else -self.dm31_eV2
        return np.array([base, base + self.dm21_eV2, base + self.dm31_eV2])

    @property
    def masses_eV(self) -> NDArray[np.float64]:
        """m1, m2, m3 in eV, shape (3,)."""
        masses: NDArray[np.float64] = np.sqrt(self.m_lightest_eV**2 + self.masses_squared_above_lightest_eV2)
        return masses

    def mixing_matrix(self) -> NDArray[np.complex128]:
        """Return U of shape (3, 3), rows e, mu, tau; PDG convention with the Majorana phases on the right."""
        s12, s13, s23 = (math.sqrt(v) for v in (self.sin2_theta12, self.sin2_theta13, self.sin2_theta23))
        c12, c13, c23 = (math.sqrt(1.0 - v) for v in (self.sin2_theta12, self.sin2_theta13, self.sin2_theta23))
        phase = complex(math.cos(self.delta_cp), math.sin(self.delta_cp))
        unmixed = np.array(
            [
                [c12 * c13, s12 * c13, s13 * phase.conjugate()],
                [-s12 * c23 - c12 * s23 * s13 * phase, c12 * c23 - s12 * s23 * s13 * phase, s23 * c13],
                [s12 * s23 - c12 * c23 * s13 * phase, -c12 * s23 - s12 * c23 * s13 * phase, c23 * c13],
            ]
        )
        majorana = np.exp(0.5j * np.array([0.0, self.alpha1, self.alpha2]))
        return unmixed * majorana

    def replace(self, **changes: float) -> OscillationParameters:
        """Return a copy with the named fields changed; an unknown name is refused with the nearest ones."""
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            check_choice("oscillation parameter", name, known)
        return dataclasses.replace(self, **changes)

    def with_ordering(self, ordering: Ordering) -> OscillationParameters:
        """Return the partner in the other ordering with the same size of dm_ee, or self if it already has it.

        |dm31| is carried over so that c12^2 dm31 + s12^2 dm32 keeps its size: the starting point of every fit of the
        wrong ordering.
        """
        check_choice("ordering", ordering, ("normal", "inverted"))
        if ordering == self.ordering:
            return self
        flipped = -self.dm_ee_eV2 + self.sin2_theta12 * self.dm21_eV2
        return dataclasses.replace(self, dm31_eV2=flipped)


# name -> (parameters, where the numbers are from)
PRESETS: dict[str, tuple[OscillationParameters, str]] = {
    "pdg2020": (
        OscillationParameters(0.307, 0.0218, 0.545, 7.53e-5, 2.5283e-3, 1.36 * math.pi),
        "PDG 2020, the truth of JUNO's sensitivity papers (arXiv:2204.13249, arXiv:2405.18008); normal ordering",
    ),
    "nufit52-no": (
        OscillationParameters(0.303, 0.02225, 0.451, 7.41e-5, 2.507e-3, math.radians(232.0)),
        "NuFIT 5.2 with SK atmospheric data, normal ordering (JHEP 09 (2020) 178, table of November 2022)",
    ),
    "nufit60-no": (
        OscillationParameters(0.308, 0.02215, 0.470, 7.49e-5, 2.513e-3, math.radians(212.0)),
        "NuFIT 6.0 with IceCube-24 and SK data, normal ordering (JHEP 12 (2024) 216, Table 1)",
    ),
    "nufit52-io": (
        OscillationParameters(0.303, 0.02223, 0.569, 7.41e-5, -2.4119e-3, math.radians(276.0)),
        "NuFIT 5.2 with SK atmospheric data, inverted ordering (dm32 = -2.486e-3)",
    ),
    "nufit60-io": (
        OscillationParameters(0.308, 0.02231, 0.550, 7.49e-5, -2.4091e-3, math.radians(274.0)),
        "NuFIT 6.0 with IceCube-24 and SK data, inverted ordering (dm32 = -2.484e-3)",
    ),
    "nufit61-no": (
        OscillationParameters(0.3088, 0.02248, 0.470, 7.537e-5, 2.511e-3, math.radians(212.0)),
        "NuFIT 6.1 (2025) with IceCube and SK data, normal ordering, as transcribed in mbustama/Magnus",
    ),
    "nufit61-io": (
        OscillationParameters(0.3088, 0.02262, 0.550, 7.537e-5, -2.40763e-3, math.radians(274.0)),
        "NuFIT 6.1 with IceCube and SK data, inverted ordering (dm32 = -2.483e-3), as transcribed in mbustama/Magnus",
    ),
    "juno2025": (
        OscillationParameters(0.3092, 0.0218, 0.545, 7.50e-5, 2.5283e-3, 1.36 * math.pi),
        "JUNO 59.1 days, arXiv:2511.14593: sin2_theta12 and dm21; the rest as pdg2020",
    ),
}


def preset(name: str) -> OscillationParameters:
    """Return the named global-fit values.

    Raises
    ------
    InvalidInput
        Unknown name; the message lists the nearest ones.

    Examples
    --------
    >>> preset("pdg2020").sin2_theta12
    0.307
    """
    return PRESETS[check_choice("preset", name, PRESETS)][0]
