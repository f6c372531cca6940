"""Oscillation probabilities at constant density: the electron survival probability and all nine channels.

P(alpha -> beta) = |<beta| exp(-i H L) |alpha>|^2 with H of :mod:`nu_physics.oscillation.scalar_nsi`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nu_physics.constants import MATTER_eV2_per_MeV
from nu_physics.errors import InvalidInput, check_choice, check_energies, check_range
from nu_physics.oscillation import kernels
from nu_physics.oscillation.parameters import OscillationParameters
from nu_physics.oscillation.scalar_nsi import ScalarNSI, effective_mass_squared, electron_spectrum
from nu_physics.oscillation.vector_nsi import VectorNSI

__all__ = [
    "SURVIVAL_PARAMETERS",
    "Propagation",
    "mass_squared_derivatives",
    "probability",
    "propagation",
    "survival",
    "survival_gradient",
]

# what a derivative of P_ee can be taken with respect to
SURVIVAL_PARAMETERS = (
    "sin2_theta12",
    "sin2_theta13",
    "sin2_theta23",
    "dm21_eV2",
    "dm31_eV2",
    "delta_cp",
    "m_lightest_eV",
    "eta_ee",
    "eta_mm",
    "eta_tt",
    "eta_em",
    "eta_et",
    "eta_mt",
    "eta_em_imag",
    "eta_et_imag",
    "eta_mt_imag",
    "density_g_cm3",
)


@dataclass(frozen=True)
class Propagation:
    """X in its own eigenbasis, and the potential: all that a kernel needs, once per parameter point."""

    levels_eV2: NDArray[np.float64]
    electron: NDArray[np.float64]
    vectors: NDArray[np.complex128]
    matter_eV2_per_MeV: float


def propagation(
    parameters: OscillationParameters,
    snsi: ScalarNSI | None = None,
    *,
    density_g_cm3: float = 0.0,
    electron_fraction: float = 0.5,
    antineutrino: bool = True,
) -> Propagation:
    """Diagonalise X once; see :func:`survival` for the arguments."""
    check_range("density_g_cm3", density_g_cm3, 0.0, 1e12)
    check_range("electron_fraction", electron_fraction, 0.0, 1.0)
    levels, weights, vectors = electron_spectrum(effective_mass_squared(parameters, snsi, density_g_cm3))
    sign = -1.0 if antineutrino else 1.0
    matter = sign * MATTER_eV2_per_MeV * electron_fraction * density_g_cm3
    return Propagation(levels, np.sqrt(weights), vectors, matter)


def survival(
    energy_MeV: object,
    baseline_km: object,
    parameters: OscillationParameters,
    snsi: ScalarNSI | None = None,
    nsi: VectorNSI | None = None,
    *,
    density_g_cm3: float = 0.0,
    electron_fraction: float = 0.5,
    antineutrino: bool = True,
) -> NDArray[np.float64]:
    """Return P_ee, exact at constant density, for every pair of baseline and energy.

    Parameters
    ----------
    energy_MeV : float or array of shape S_E
        Neutrino energies, positive.
    baseline_km : float or array of shape S_L
        Baselines, not negative.
    parameters : OscillationParameters
    snsi : ScalarNSI, optional
    nsi : VectorNSI, optional
    density_g_cm3 : float
        Matter density; 0 is vacuum.
    electron_fraction : float
        Electrons per nucleon, Y_e.
    antineutrino : bool
        True (a reactor's) conjugates U and eta and flips the potential.

    Returns
    -------
    numpy.ndarray of shape S_L + S_E, float64
        Values in [0, 1].

    Raises
    ------
    InvalidInput
        Energies not positive and finite, negative baselines or densities.

    References
    ----------
    Ge and Parke, PRL 122 (2019) 211801; kernel: see :mod:`nu_physics.oscillation.kernels`.

    Examples
    --------
    >>> from nu_physics.oscillation import OscillationParameters, survival
    >>> p = survival([2.0, 4.0, 8.0], 52.5, OscillationParameters(), density_g_cm3=2.45)
    >>> [round(float(v), 4) for v in p]
    [0.6897, 0.2168, 0.6553]
    """
    energy = check_energies("energy_MeV", energy_MeV)
    baseline = check_energies("baseline_km", baseline_km, positive=False)
    options = {
        "density_g_cm3": density_g_cm3,
        "electron_fraction": electron_fraction,
        "antineutrino": antineutrino,
    }
    if nsi is not None:
        full = probability(energy, baseline, parameters, snsi, nsi, **options)  # type: ignore[arg-type]
        return np.ascontiguousarray(full[..., 0, 0])
    setup = propagation(parameters, snsi, **options)  # type: ignore[arg-type]
    out = np.empty((baseline.size, energy.size))
    kernels.survival_grid(
        setup.levels_eV2, setup.electron, setup.matter_eV2_per_MeV, energy.ravel(), baseline.ravel(), out
    )
    return out.reshape(baseline.shape + energy.shape)


def probability(
    energy_MeV: object,
    baseline_km: object,
    parameters: OscillationParameters,
    snsi: ScalarNSI | None = None,
    nsi: VectorNSI | None = None,
    *,
    density_g_cm3: float = 0.0,
    electron_fraction: float = 0.5,
    antineutrino: bool = True,
) -> NDArray[np.float64]:
    """Return all nine P(alpha -> beta) at constant density.

    Arguments as in :func:`survival`.

    Returns
    -------
    numpy.ndarray of shape S_L + S_E + (3, 3), float64
        Index [..., alpha, beta] with flavours e, mu, tau.

    Examples
    --------
    >>> p = probability(1000.0, 295.0, OscillationParameters(), antineutrino=False)
    >>> bool(abs(p.sum(axis=-1) - 1.0).max() < 1e-13)
    True
    """
    energy = check_energies("energy_MeV", energy_MeV)
    baseline = check_energies("baseline_km", baseline_km, positive=False)
    setup = propagation(
        parameters,
        snsi,
        density_g_cm3=density_g_cm3,
        electron_fraction=electron_fraction,
        antineutrino=antineutrino,
    )
    vectors = setup.vectors.conj() if antineutrino else setup.vectors
    flavour = (nsi or VectorNSI()).matrix()
    if antineutrino:
        flavour = flavour.conj()
    potential = vectors.conj().T @ flavour @ vectors
    potential = 0.5 * (potential + potential.conj().T)
    levels = setup.levels_eV2  # measured from the lowest
    x = (vectors * levels) @ vectors.conj().T
    mixed = x @ flavour
    middle = np.outer(vectors[:, 1], vectors[:, 1].conj())
    first = np.array([_hermitian_numbers(x), _hermitian_numbers(flavour)])
    second = np.array(
        [
            _hermitian_numbers(-levels[1] * (levels[2] - levels[1]) * middle),
            _hermitian_numbers(mixed + mixed.conj().T - levels[2] * flavour),
            _hermitian_numbers(flavour @ flavour),
        ]
    )
    out = np.empty((baseline.size, energy.size, 9))
    kernels.probability_grid(
        setup.levels_eV2,
        np.ascontiguousarray(potential),
        first,
        second,
        setup.matter_eV2_per_MeV,
        energy.ravel(),
        baseline.ravel(),
        out,
    )
    return out.reshape((*baseline.shape, *energy.shape, 3, 3))


def _hermitian_numbers(matrix: NDArray[np.complex128]) -> list[float]:
    """The nine real numbers of a Hermitian matrix, in the order of the kernel."""
    m = matrix
    diagonal = [float(m[k, k].real) for k in range(3)]
    pairs = ((0, 1), (0, 2), (1, 2))
    return diagonal + [float(part) for i, j in pairs for part in (m[i, j].real, m[i, j].imag)]


def _angle_generators(parameters: OscillationParameters) -> dict[str, NDArray[np.complex128]]:
    """dU/dtheta U^dagger and dU/ddelta U^dagger (anti-Hermitian) for the angles and the Dirac phase.

    With U = R23 R13(delta) R12, dU/dtheta_k U^dagger is the generator of rotation k carried to the left through the
    rotations that stand before it.
    """
    s13, s23 = parameters.sin2_theta13**0.5, parameters.sin2_theta23**0.5
    c13, c23 = (1.0 - s13**2) ** 0.5, (1.0 - s23**2) ** 0.5
    phase = complex(np.cos(parameters.delta_cp), np.sin(parameters.delta_cp))
    rot23 = np.array([[1, 0, 0], [0, c23, s23], [0, -s23, c23]], dtype=np.complex128)
    rot13 = np.array([[c13, 0, s13 / phase], [0, 1, 0], [-s13 * phase, 0, c13]], dtype=np.complex128)
    gen12 = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0]], dtype=np.complex128)
    gen13 = np.array([[0, 0, 1 / phase], [0, 0, 0], [-phase, 0, 0]], dtype=np.complex128)
    gen23 = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.complex128)
    left13 = rot23 @ rot13
    d_delta = np.array([[0, 0, -1j * s13 / phase], [0, 0, 0], [-1j * s13 * phase, 0, 0]], dtype=np.complex128)
    return {
        "sin2_theta12": left13 @ gen12 @ left13.conj().T,
        "sin2_theta13": rot23 @ gen13 @ rot23.conj().T,
        "sin2_theta23": gen23,
        "delta_cp": rot23 @ d_delta @ rot13.conj().T @ rot23.conj().T,
    }


def _angle_slope(sin2: float, name: str) -> float:
    """Dtheta / d(sin^2 theta) = 1 / sin(2 theta)."""
    product = sin2 * (1.0 - sin2)
    if product <= 0.0:
        raise InvalidInput(f"{name} = {sin2!r}: the derivative is not defined at 0 or 1; the allowed range is (0, 1)")
    return 0.5 / float(np.sqrt(product))


def mass_squared_derivatives(
    parameters: OscillationParameters,
    snsi: ScalarNSI | None,
    names: tuple[str, ...],
    density_g_cm3: float,
) -> dict[str, NDArray[np.complex128]]:
    """Return dX/dp (3 x 3, Hermitian) for each name; X as in effective_mass_squared, analytic throughout."""
    for name in names:
        check_choice("parameter", name, SURVIVAL_PARAMETERS)
    mixing = parameters.mixing_matrix()
    adjoint = mixing.conj().T
    parity = np.exp(1j * np.array([0.0, parameters.alpha1, parameters.alpha2]))
    masses = parameters.masses_eV
    mass = (mixing * (masses * parity)) @ adjoint
    standard = (mixing * parameters.masses_squared_above_lightest_eV2) @ adjoint
    active = snsi or ScalarNSI()
    factor = active.density_factor(density_g_cm3)
    scale = active.mass_scale_eV(parameters)
    eta = active.matrix()
    shift = scale * factor * eta

    def complete(d_standard: NDArray[np.complex128], d_mass: NDArray[np.complex128]) -> NDArray[np.complex128]:
        cross = d_mass @ shift
        return d_standard + cross + cross.conj().T

    def from_shift(d_shift: NDArray[np.complex128]) -> NDArray[np.complex128]:
        half = (mass + shift) @ d_shift
        return half + half.conj().T

    normal = parameters.dm31_eV2 > 0
    safe = np.where(masses > 0, masses, 1.0)
    out: dict[str, NDArray[np.complex128]] = {}
    angles = _angle_generators(parameters)
    for name in names:
        if name in angles:
            slope = 1.0 if name == "delta_cp" else _angle_slope(getattr(parameters, name), name)
            g = slope * angles[name]
            out[name] = complete(g @ standard - standard @ g, g @ mass - mass @ g)
        elif name in ("dm21_eV2", "dm31_eV2", "m_lightest_eV"):
            if name == "dm21_eV2":
                d_squared = np.array([0.0, 1.0, 0.0])
            elif name == "dm31_eV2":
                d_squared = np.array([0.0, 0.0, 1.0]) if normal else np.array([-1.0, -1.0, 0.0])
            else:
                d_squared = np.zeros(3)
            if name == "m_lightest_eV":
                # the lightest mass itself has unit slope, also at zero where m / sqrt(m^2) is 0 / 0
                d_masses = np.where(masses > 0, parameters.m_lightest_eV / safe, 0.0)
                d_masses[0 if normal else 2] = 1.0
            else:
                d_masses = np.where(masses > 0, 0.5 * d_squared / safe, 0.0)
            value = complete((mixing * d_squared) @ adjoint, (mixing * (d_masses * parity)) @ adjoint)
            if name == "dm31_eV2" and active.scale == "atm":
                value = value + from_shift(shift * (0.5 / parameters.dm31_eV2))
            out[name] = value
        elif name == "density_g_cm3":
            reference = active.density_reference_g_cm3
            zero = np.zeros((3, 3), dtype=np.complex128)
            out[name] = zero if reference is None else from_shift(scale * eta / reference)
        else:
            out[name] = from_shift(scale * factor * _eta_unit(name))
    return out


def _eta_unit(name: str) -> NDArray[np.complex128]:
    """Hermitian unit matrix of one eta direction."""
    row, column = ("emt".index(c) for c in name[4:6])
    unit = np.zeros((3, 3), dtype=np.complex128)
    value = 1j if name.endswith("_imag") else 1.0
    unit[row, column] = value
    unit[column, row] = np.conj(value)
    return unit


def gradient_projection(setup: Propagation, derivatives: dict[str, NDArray[np.complex128]]) -> NDArray[np.float64]:
    """Rows of (G_11, G_22, G_33, G_12, G_13, G_23) = Re(V^dagger dX V), one per parameter, shape (n, 6)."""
    rows = np.empty((len(derivatives), 6))
    for k, derivative in enumerate(derivatives.values()):
        g = (setup.vectors.conj().T @ derivative @ setup.vectors).real
        rows[k] = g[0, 0], g[1, 1], g[2, 2], g[0, 1], g[0, 2], g[1, 2]
    return rows


def survival_gradient(
    energy_MeV: object,
    baseline_km: object,
    parameters: OscillationParameters,
    snsi: ScalarNSI | None = None,
    *,
    names: tuple[str, ...] = ("sin2_theta12", "sin2_theta13", "dm21_eV2", "dm31_eV2", "eta_ee"),
    density_g_cm3: float = 0.0,
    electron_fraction: float = 0.5,
    antineutrino: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return P_ee and its exact derivatives with respect to the named parameters.

    dP/dp = sum_kl K_kl Re(V^dagger dX/dp V)_kl with the Daleckii-Krein kernel K of the matrix exponential; it stays
    finite at degenerate levels and at the resonance.

    Parameters
    ----------
    energy_MeV, baseline_km, parameters, snsi, density_g_cm3, electron_fraction, antineutrino
        As in :func:`survival`.
    names : tuple of str
        Any of ``SURVIVAL_PARAMETERS``.

    Returns
    -------
    probability : numpy.ndarray of shape S_L + S_E
    gradient : numpy.ndarray of shape (len(names),) + S_L + S_E

    Raises
    ------
    InvalidInput
        Unknown name, or an angle at 0 or 90 degrees whose sin^2 has no derivative.

    Examples
    --------
    >>> p, g = survival_gradient(4.0, 52.5, OscillationParameters(), names=("sin2_theta12",))
    >>> step = 1e-6
    >>> up = survival(4.0, 52.5, OscillationParameters(0.307 + step))
    >>> down = survival(4.0, 52.5, OscillationParameters(0.307 - step))
    >>> bool(abs(g[0] - (up - down) / (2 * step)) < 1e-8)
    True
    """
    energy = check_energies("energy_MeV", energy_MeV)
    baseline = check_energies("baseline_km", baseline_km, positive=False)
    setup = propagation(
        parameters,
        snsi,
        density_g_cm3=density_g_cm3,
        electron_fraction=electron_fraction,
        antineutrino=antineutrino,
    )
    derivatives = mass_squared_derivatives(parameters, snsi, names, density_g_cm3)
    project = gradient_projection(setup, derivatives)
    flat_energy, flat_baseline = energy.ravel(), baseline.ravel()
    value = np.empty((flat_baseline.size, flat_energy.size))
    slope = np.empty((len(names), flat_baseline.size, flat_energy.size))
    work = np.empty((7, flat_energy.size))
    one = np.ones(1)
    per_density = (-1.0 if antineutrino else 1.0) * MATTER_eV2_per_MeV * electron_fraction
    for m in range(flat_baseline.size):
        kernels.survival_weighted_gradient(
            setup.levels_eV2,
            setup.electron,
            setup.matter_eV2_per_MeV,
            flat_energy,
            flat_baseline[m : m + 1],
            one,
            value[m],
            work,
        )
        slope[:, m] = project @ work[:6]
        if "density_g_cm3" in names:
            slope[names.index("density_g_cm3"), m] += per_density * work[6]
    shape = baseline.shape + energy.shape
    return np.clip(value, 0.0, 1.0).reshape(shape), slope.reshape((len(names), *shape))
