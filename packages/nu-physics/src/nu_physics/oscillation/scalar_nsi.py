"""Scalar non-standard interactions: a term added to the neutrino mass matrix, and what it does to the parameters.

H = (1/2E) (M + dM)(M + dM)^dagger + diag(V, 0, 0),    M = U diag(m1, m2, m3) U^dagger,    dM = S_m eta

with eta Hermitian (three real, three complex numbers) and S_m = sqrt(|dm31|) by default. For antineutrinos U, eta and V
become U*, eta* and -V (Ge and Parke, PRL 122 (2019) 211801, arXiv:1812.08376; arXiv:2306.07343 for JUNO).

The electron survival probability at one density depends on X = (M + dM)(M + dM)^dagger only through its splittings
and the three |U_ei|^2 of its eigenvectors. So for *every* eta there is a standard parameter set with the same P_ee for
all energies and baselines, matter included: :func:`effective_parameters`. The effective theta12 passes 45 degrees at

    eta_ee = (m2 - m1) cos(2 theta12) / (S_m cos^2 theta13),          :func:`eta_resonance`.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nu_physics.constants import DENSITY_eV_per_GeV2
from nu_physics.errors import InvalidInput, check_range
from nu_physics.oscillation.parameters import Ordering, OscillationParameters

__all__ = [
    "EffectiveParameters",
    "ScalarNSI",
    "effective_mass_squared",
    "effective_parameters",
    "eta_from_coupling",
    "eta_resonance",
]


@dataclass(frozen=True)
class ScalarNSI:
    """The matrix eta, its mass scale and the density it belongs to.

    Parameters
    ----------
    ee, mm, tt : float
        Real diagonal elements of eta, dimensionless.
    em, et, mt : complex
        Off-diagonal elements; eta is Hermitian, so these three are all there is.
    scale : "atm" or float
        S_m in eV: ``"atm"`` is sqrt(|dm31|) of the parameters it is used with; a number is taken as it is
        (part of the literature uses sqrt(2.55e-3) = 0.0505 eV).
    density_reference_g_cm3 : float, optional
        Density at which the oscillation parameters were measured, so that they already contain the scalar term there:
        dM(rho) = S_m eta (rho - rho_s) / rho_s. None: the parameters are those of the vacuum and eta is the medium's.

    Examples
    --------
    >>> ScalarNSI(ee=0.02, em=0.01 + 0.02j).matrix()[1, 0]
    np.complex128(0.01-0.02j)
    """

    ee: float = 0.0
    mm: float = 0.0
    tt: float = 0.0
    em: complex = 0.0
    et: complex = 0.0
    mt: complex = 0.0
    scale: Literal["atm"] | float = "atm"
    density_reference_g_cm3: float | None = None

    def __post_init__(self) -> None:
        for name in ("ee", "mm", "tt"):
            value = getattr(self, name)
            if isinstance(value, complex):
                raise InvalidInput(f"eta_{name} = {value!r}: diagonal elements of a Hermitian matrix are real")
            check_range(f"eta_{name}", value, -100.0, 100.0)
        for name in ("em", "et", "mt"):
            given = getattr(self, name)
            if isinstance(given, (str, bytes, bool)) or not isinstance(given, (numbers.Number, np.number)):
                raise InvalidInput(f"eta_{name} = {given!r}: a complex or real number is needed")
            value = complex(given)  # type: ignore[arg-type]
            if not (math.isfinite(value.real) and math.isfinite(value.imag)) or abs(value) > 100.0:
                raise InvalidInput(f"eta_{name} = {value!r} is outside the allowed range |eta| <= 100")
        if isinstance(self.scale, str):
            if self.scale != "atm":
                raise InvalidInput(f"scale = {self.scale!r}: give 'atm' or a mass in eV within (0, 10]")
        else:
            check_range("scale", self.scale, 0.0, 10.0, open_low=True)
        if self.density_reference_g_cm3 is not None:
            check_range("density_reference_g_cm3", self.density_reference_g_cm3, 0.0, 1e3, open_low=True)

    @classmethod
    def from_matrix(cls, eta: NDArray[np.complex128], scale: Literal["atm"] | float = "atm") -> ScalarNSI:
        """Build from a 3 x 3 Hermitian matrix; raises :class:`InvalidInput` if it is not Hermitian to 1e-12."""
        matrix = np.asarray(eta, dtype=np.complex128)
        if matrix.shape != (3, 3):
            raise InvalidInput(f"eta has shape {matrix.shape}; (3, 3) is needed")
        if not np.isfinite(matrix).all():
            raise InvalidInput("eta has entries that are not finite")
        gap = float(np.abs(matrix - matrix.conj().T).max())
        if gap > 1e-12 * max(1.0, float(np.abs(matrix).max())):
            raise InvalidInput(f"eta is not Hermitian: |eta - eta^dagger| reaches {gap:.3g}, allowed 1e-12")
        d = matrix.diagonal().real
        return cls(
            float(d[0]),
            float(d[1]),
            float(d[2]),
            complex(matrix[0, 1]),
            complex(matrix[0, 2]),
            complex(matrix[1, 2]),
            scale,
        )

    def matrix(self) -> NDArray[np.complex128]:
        """Return eta of shape (3, 3)."""
        em, et, mt = complex(self.em), complex(self.et), complex(self.mt)
        return np.array(
            [[self.ee, em, et], [em.conjugate(), self.mm, mt], [et.conjugate(), mt.conjugate(), self.tt]],
            dtype=np.complex128,
        )

    def mass_scale_eV(self, parameters: OscillationParameters) -> float:
        """S_m in eV: sqrt(|dm31|) for ``scale="atm"``."""
        return math.sqrt(abs(parameters.dm31_eV2)) if self.scale == "atm" else float(self.scale)

    def density_factor(self, density_g_cm3: float | None) -> float:
        """(rho - rho_s) / rho_s with a reference density, else 1."""
        reference = self.density_reference_g_cm3
        if reference is None:
            return 1.0
        if density_g_cm3 is None:
            raise InvalidInput(
                "density_g_cm3 is needed: this ScalarNSI has density_reference_g_cm3 set, so its strength depends on it"
            )
        return (density_g_cm3 - reference) / reference


@dataclass(frozen=True)
class EffectiveParameters:
    """The standard parameters that give the same P_ee; state 3 is the one with the least electron content."""

    sin2_theta12: float
    sin2_theta13: float
    dm21_eV2: float
    dm31_eV2: float

    @property
    def effective_ordering(self) -> Ordering:
        """Sign of the effective dm31; it may differ from the vacuum ordering."""
        return "normal" if self.dm31_eV2 > 0 else "inverted"

    def as_parameters(self) -> OscillationParameters:
        """Return them as :class:`OscillationParameters` (theta23, phases and masses do not enter P_ee)."""
        return OscillationParameters(self.sin2_theta12, self.sin2_theta13, 0.5, self.dm21_eV2, self.dm31_eV2, 0.0, 0.0)


def effective_mass_squared(
    parameters: OscillationParameters, snsi: ScalarNSI | None = None, density_g_cm3: float | None = None
) -> NDArray[np.complex128]:
    """Return X = (M + dM)(M + dM)^dagger - m_lightest^2 in eV^2, shape (3, 3), Hermitian.

    The square of the lightest mass is never formed: U diag(m^2 - m_l^2) U^dagger + M dM + dM M + dM dM.
    """
    mixing = parameters.mixing_matrix()
    adjoint = mixing.conj().T
    standard = (mixing * parameters.masses_squared_above_lightest_eV2) @ adjoint
    if snsi is not None:
        # a CP parity multiplies m_i by exp(i alpha_i): unobservable in M M^dagger, visible in the cross term with dM
        parity = np.exp(1j * np.array([0.0, parameters.alpha1, parameters.alpha2]))
        mass = (mixing * (parameters.masses_eV * parity)) @ adjoint
        shift = snsi.mass_scale_eV(parameters) * snsi.density_factor(density_g_cm3) * snsi.matrix()
        cross = mass @ shift
        standard = standard + cross + cross.conj().T + shift @ shift
    hermitian: NDArray[np.complex128] = 0.5 * (standard + standard.conj().T)
    return hermitian


def electron_spectrum(
    x_eV2: NDArray[np.complex128],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.complex128]]:
    """Eigenvalues (ascending, eV^2), |U_ei|^2 and eigenvectors of X with U_ei real and not negative.

    Eigenvalues are measured from the lowest one. One step of Rayleigh-quotient refinement would not help: LAPACK's
    error is at rounding level of the largest element, which is what the shift in effective_mass_squared keeps small.
    """
    values, vectors = np.linalg.eigh(x_eV2)
    row = vectors[0]
    size = np.abs(row)
    turn = np.where(size > 0, row.conj() / np.where(size > 0, size, 1.0), 1.0)
    vectors = vectors * turn
    weights = size**2
    return values - values[0], weights / weights.sum(), vectors


def effective_parameters(
    parameters: OscillationParameters, snsi: ScalarNSI | None = None, density_g_cm3: float | None = None
) -> EffectiveParameters:
    """Return the standard parameters whose P_ee equals that of ``parameters`` with ``snsi``, for all E and L.

    State 3 is the eigenstate of X with the least electron content; 1 and 2 are the other two in ascending order:
    sin^2 theta13' = |U_e3|^2, sin^2 theta12' = |U_e2|^2 / (1 - |U_e3|^2).

    Parameters
    ----------
    parameters : OscillationParameters
        The vacuum parameters.
    snsi : ScalarNSI, optional
        None returns the parameters themselves, relabelled.
    density_g_cm3 : float, optional
        Needed only if ``snsi`` has a reference density.

    Returns
    -------
    EffectiveParameters

    Raises
    ------
    InvalidInput
        The electron state is decoupled (|U_e3|^2 = 1).

    Examples
    --------
    >>> truth = OscillationParameters(dm31_eV2=-2.45e-3, m_lightest_eV=0.01)
    >>> moved = effective_parameters(truth, ScalarNSI(ee=0.003))
    >>> round(moved.sin2_theta12, 3), round(1e5 * moved.dm21_eV2, 2), moved.effective_ordering
    (0.399, 7.1, 'inverted')
    """
    values, weights, _ = electron_spectrum(effective_mass_squared(parameters, snsi, density_g_cm3))
    third = int(np.argmin(weights))
    first, second = (i for i in range(3) if i != third)
    rest = float(weights[first] + weights[second])
    return EffectiveParameters(
        sin2_theta12=float(weights[second]) / rest,
        sin2_theta13=float(weights[third]),
        dm21_eV2=float(values[second] - values[first]),
        dm31_eV2=float(values[third] - values[first]),
    )


def eta_resonance(
    parameters: OscillationParameters, snsi: ScalarNSI | None = None, density_g_cm3: float | None = None
) -> float:
    """Return the eta_ee at which the effective theta12 is 45 degrees, from the two-state closed form.

    eta_res = (m2 - m1) cos(2 theta12) / (S_m cos^2 theta13); the exact crossing (numerically, from
    :func:`effective_parameters`) lies within 1 % of it.

    Parameters
    ----------
    parameters : OscillationParameters
    snsi : ScalarNSI, optional
        Only its ``scale`` and its reference density are used.
    density_g_cm3 : float, optional
        Needed if ``snsi`` has a reference density; infinite where the term vanishes.

    Returns
    -------
    float

    Examples
    --------
    >>> inverted = OscillationParameters(dm31_eV2=-2.45e-3, m_lightest_eV=0.01)
    >>> f"{eta_resonance(inverted):.2e}"
    '5.90e-03'
    """
    m1, m2, _ = parameters.masses_eV
    active = snsi or ScalarNSI()
    scale = active.mass_scale_eV(parameters) * active.density_factor(density_g_cm3)
    if scale == 0.0:
        return math.inf
    # m2 - m1 from the splitting: no cancellation for a degenerate pair
    gap = parameters.dm21_eV2 / (m1 + m2) if m1 + m2 > 0 else 0.0
    return float(gap * (1.0 - 2.0 * parameters.sin2_theta12) / (scale * (1.0 - parameters.sin2_theta13)))


def eta_from_coupling(
    coupling_per_MeV2: float, density_g_cm3: float, charge_to_mass: float = 0.5, mass_scale_eV: float = 0.05
) -> float:
    """Convert a coupling y_f Y / m_phi^2 in MeV^-2 that multiplies the fermion density into eta.

    eta = 1e6 N_A (hbar c)^3 rho (Z/A) coupling / S_m, the convention of codes that keep the density apart (OscProb's
    PMNS_SNSI takes the coupling in MeV^-2 and a density in g/cm3).

    Examples
    --------
    >>> round(eta_from_coupling(10.0, 2.8, 0.5, 0.05), 4)
    1.2956
    """
    check_range("coupling_per_MeV2", coupling_per_MeV2)
    check_range("density_g_cm3", density_g_cm3, 0.0, 1e4)
    check_range("charge_to_mass", charge_to_mass, 0.0, 1.0)
    check_range("mass_scale_eV", mass_scale_eV, 0.0, 10.0, open_low=True)
    return 1.0e6 * DENSITY_eV_per_GeV2 * density_g_cm3 * charge_to_mass * coupling_per_MeV2 / mass_scale_eV
