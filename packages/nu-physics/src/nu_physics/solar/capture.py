"""Capture of dark matter by the Sun.

C = (rho / m) sum_i int 4 pi r^2 dr sigma_i n_i(r) int du f(u) / u  w^2 (1 / E_max) int_{E_min}^{E_max} |F_i|^2 dE_R,
w^2 = u^2 + v_esc(r)^2,  E_min = m u^2 / 2,  E_max = beta_+ m w^2 / 2,  beta_+- = 4 m m_i / (m +- m_i)^2,
u < v_esc sqrt(beta_-),  sigma_i = sigma_p A^2 (mu_i / mu_p)^2

(Gould, Astrophys. J. 321 (1987) 571 and 388 (1992) 338.) For a boosted Maxwell halo and the exponential form factor
both inner integrals are closed. With x = u / v_0, a = m v_0^2 / 2 E_0, b = beta_+ a and J(alpha) = int du f / u
exp(-alpha x^2):

    inner = (2 E_0 / beta_+ m) [J(a) - exp(-b v_esc^2 / v_0^2) J(b)],     hydrogen: v_esc^2 J(0) + (v_0^2 / beta_-)
    J'(0)

and J is a sum of error functions. Other halos and the Helm form factor are integrated by Gauss-Legendre quadrature.
Spin-dependent scattering counts hydrogen alone; the other odd nuclei add a few per cent at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.special import erf

from nu_physics.constants import LIGHT_SPEED_m_s, PROTON_MASS_MeV
from nu_physics.errors import InvalidInput, check_choice, check_range
from nu_physics.solar.form_factors import FORM_FACTORS, ATOMIC_MASS_GeV, exponential_energy_GeV, helm
from nu_physics.solar.halo import BoostedMaxwell, Halo
from nu_physics.solar.sun import SolarModel, SUN_RADIUS_cm, solar_model

__all__ = ["CaptureResult", "EVAPORATION_MASS_GeV", "capture_rate"]

Array = NDArray[np.float64]

# Below about this mass the Sun's heat evaporates what it captures (Gould 1990; Busoni et al. 2013).
EVAPORATION_MASS_GeV = 4.0
METHODS = ("gould", "jkg")

_LIGHT_km_s = LIGHT_SPEED_m_s * 1.0e-3
_PROTON_GeV = PROTON_MASS_MeV * 1.0e-3
_GRAM_per_GeV = 1.78266192e-24


@dataclass(frozen=True)
class CaptureResult:
    """How many particles the Sun captures.

    Parameters
    ----------
    rate_per_s : float
        Captured particles a second, never more than ``geometric_limit_per_s``.
    per_element_per_s : dict of isotope to float
        Optically thin contributions; they sum to ``thin_rate_per_s``.
    thin_rate_per_s : float
        Without saturation.
    geometric_limit_per_s : float
        Every particle that meets the Sun is captured.
    method : str
    """

    rate_per_s: float
    per_element_per_s: dict[str, float] = field(repr=False)
    thin_rate_per_s: float
    geometric_limit_per_s: float
    method: str

    @property
    def saturated(self) -> bool:
        """Whether the optically thin sum exceeds the geometric limit."""
        return self.thin_rate_per_s > self.geometric_limit_per_s


def capture_rate(
    mass_GeV: float,
    *,
    sigma_si_cm2: float = 0.0,
    sigma_sd_cm2: float = 0.0,
    sun: SolarModel | None = None,
    halo: Halo | None = None,
    form_factor: str = "exponential",
    method: str = "gould",
) -> CaptureResult:
    """Return the capture rate.

    Parameters
    ----------
    mass_GeV : float
        At least ``EVAPORATION_MASS_GeV``.
    sigma_si_cm2, sigma_sd_cm2 : float
        Cross sections on a proton, spin-independent and spin-dependent.
    sun : SolarModel, optional
        B16-AGSS09 by default.
    halo : Halo, optional
        :class:`~nu_physics.solar.halo.BoostedMaxwell` by default.
    form_factor : {"exponential", "helm"}
    method : {"gould", "jkg"}
        The exact integral, or the fit of Jungman, Kamionkowski & Griest (Phys. Rep. 267 (1996) 195, equations
        9.19-9.24), which has a halo speed of 270 km/s, a composition of the Sun and its suppression factors built in.

    Raises
    ------
    InvalidInput
        A value outside its range; a mass below evaporation; no solar model; a form factor for ``"jkg"``.

    Examples
    --------
    >>> result = capture_rate(100.0, sigma_si_cm2=1e-45)
    >>> f"{result.rate_per_s:.2e} /s"
    '9.18e+19 /s'
    >>> max(result.per_element_per_s, key=result.per_element_per_s.get)
    'O16'
    """
    mass = check_range("mass_GeV", mass_GeV, EVAPORATION_MASS_GeV, 1.0e9)
    sigma_si = check_range("sigma_si_cm2", sigma_si_cm2, 0.0, 1.0e-20)
    sigma_sd = check_range("sigma_sd_cm2", sigma_sd_cm2, 0.0, 1.0e-20)
    check_choice("form_factor", form_factor, FORM_FACTORS)
    check_choice("method", method, METHODS)
    if method == "jkg" and form_factor != "exponential":
        raise InvalidInput(
            f"form_factor = {form_factor!r} has no meaning with method = 'jkg', which has its own built in"
        )
    if sun is not None and not isinstance(sun, SolarModel):
        raise InvalidInput(f"sun is a {type(sun).__name__}; give a SolarModel (solar_model('b16-gs98'))")
    sun, halo = sun or solar_model(), halo or BoostedMaxwell()
    if method == "jkg":
        per_element = _jkg(mass, sigma_si, sigma_sd, halo)
    else:
        per_element = _gould(mass, sigma_si, sigma_sd, sun, halo, form_factor)
    thin = math.fsum(per_element.values())
    limit = _geometric_limit(mass, sun, halo)
    return CaptureResult(min(thin, limit), per_element, thin, limit, method)


def _gould(
    mass: float, sigma_si: float, sigma_sd: float, sun: SolarModel, halo: Halo, form_factor: str
) -> dict[str, float]:
    """Captured per second by isotope."""
    flux = halo.density_GeV_cm3 / mass * 1.0e5  # 1/cm3, and km/s to cm/s
    closed = isinstance(halo, BoostedMaxwell) and form_factor == "exponential"
    escape = sun.escape_speed_km_s
    out = {}
    for name, number, fraction in zip(sun.isotopes, sun.mass_number, sun.mass_fraction, strict=True):
        hydrogen = name == "H1"
        nucleus = _PROTON_GeV if hydrogen else ATOMIC_MASS_GeV * float(number)
        sigma = sigma_si * number**2 * _reduced_ratio(mass, nucleus) ** 2 + (sigma_sd if hydrogen else 0.0)
        if sigma == 0.0:
            out[name] = 0.0
            continue
        if isinstance(halo, BoostedMaxwell) and closed:
            inner = _inner_closed(mass, nucleus, None if hydrogen else float(number), escape, halo)
        else:
            inner = _inner_quadrature(mass, nucleus, None if hydrogen else float(number), escape, halo, form_factor)
        nuclei = sun.density_g_cm3 * fraction / (nucleus * _GRAM_per_GeV)
        out[name] = float(flux * sigma * sun.volume_integral(nuclei * inner))
    return out


def _reduced_ratio(mass: float, nucleus: float) -> float:
    """mu_i / mu_p."""
    return nucleus * (mass + _PROTON_GeV) / (_PROTON_GeV * (mass + nucleus))


def _inner_closed(mass: float, nucleus: float, number: float | None, escape: Array, halo: BoostedMaxwell) -> Array:
    """Both inner integrals in km/s, by error functions; ``number`` None for a point nucleus."""
    plus = 4.0 * mass * nucleus / (mass + nucleus) ** 2
    minus = 4.0 * mass * nucleus / (mass - nucleus) ** 2 if mass != nucleus else math.inf
    v0 = halo.most_probable_speed_km_s
    x_max = np.minimum(escape * math.sqrt(minus), halo.fastest_km_s) / v0
    if number is None:
        return np.asarray(escape**2 * _moment(0.0, x_max, halo) - v0**2 / minus * _second_moment(x_max, halo))
    e0 = float(exponential_energy_GeV(np.asarray(number)))
    a = mass * (v0 / _LIGHT_km_s) ** 2 / (2.0 * e0)
    b = plus * a
    lost = np.exp(-b * (escape / v0) ** 2) * _moment(b, x_max, halo)
    return np.asarray(2.0 * e0 / (plus * mass) * _LIGHT_km_s**2 * (_moment(a, x_max, halo) - lost))


def _moment(alpha: float, x_max: Array, halo: BoostedMaxwell) -> Array:
    """J(alpha) = int du f / u exp(-alpha x^2) up to x_max, in s/km."""
    v0, vs = halo.most_probable_speed_km_s, halo.sun_speed_km_s
    eta, cut = vs / v0, halo.escape_speed_km_s / v0
    both = np.minimum(x_max, cut - eta)
    root = math.sqrt(1.0 + alpha)
    shift = eta / root
    scale = math.exp(-alpha * shift**2) * math.sqrt(math.pi) / (2.0 * root)
    slow = scale * (erf(x_max * root - shift) + erf(shift))
    fast = scale * (erf(both * root + shift) - erf(shift))
    if math.isfinite(cut):
        fast = fast + math.exp(-(cut**2)) * (_gauss(alpha, x_max) - _gauss(alpha, both))
    return np.asarray((slow - fast) / (math.sqrt(math.pi) * vs * halo.norm))


def _gauss(alpha: float, x: Array) -> Array:
    """int_0^x exp(-alpha t^2) dt."""
    if alpha == 0.0:
        return x
    root = math.sqrt(alpha)
    return np.asarray(math.sqrt(math.pi) / (2.0 * root) * erf(root * x))


def _second_moment(x_max: Array, halo: BoostedMaxwell) -> Array:
    """-J'(0) = int du f / u x^2 up to x_max, in s/km."""
    v0, vs = halo.most_probable_speed_km_s, halo.sun_speed_km_s
    eta, cut = vs / v0, halo.escape_speed_km_s / v0
    both = np.minimum(x_max, cut - eta)

    def primitive(x: Array, centre: float) -> Array:
        t = x - centre
        bell = 0.25 * math.sqrt(math.pi) * (1.0 + 2.0 * centre**2) * erf(t)
        return np.asarray(bell - np.exp(-t * t) * (0.5 * t + centre))

    zero = np.zeros_like(x_max)
    slow = primitive(x_max, eta) - primitive(zero, eta)
    fast = primitive(both, -eta) - primitive(zero, -eta)
    if math.isfinite(cut):
        fast = fast + math.exp(-(cut**2)) * (x_max**3 - both**3) / 3.0
    return np.asarray((slow - fast) / (math.sqrt(math.pi) * vs * halo.norm))


def _inner_quadrature(
    mass: float, nucleus: float, number: float | None, escape: Array, halo: Halo, form_factor: str
) -> Array:
    """Both inner integrals by quadrature at 48 escape speeds, with a spline through them."""
    plus = 4.0 * mass * nucleus / (mass + nucleus) ** 2
    minus = 4.0 * mass * nucleus / (mass - nucleus) ** 2 if mass != nucleus else math.inf
    low, high = float(escape.min()), float(escape.max())
    knots = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(np.pi * np.arange(48) / 47)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    fastest = halo.fastest_km_s if math.isfinite(halo.fastest_km_s) else 4000.0
    u_max = np.minimum(knots * math.sqrt(minus), fastest)[:, None]
    u = 0.5 * u_max * (1.0 + nodes)
    w2 = u * u + knots[:, None] ** 2
    unit = 0.5 * mass / _LIGHT_km_s**2
    least, most = unit * u * u, unit * plus * w2
    kept = _suppression(least, most, number, form_factor)
    values = (halo.speed_density(u) / u * w2 * kept) @ weights * 0.5 * u_max[:, 0]
    return np.asarray(CubicSpline(knots, values)(np.clip(escape, low, high)))


def _suppression(least: Array, most: Array, number: float | None, form_factor: str) -> Array:
    """(1 / E_max) int_{E_min}^{E_max} |F|^2 dE_R."""
    if number is None:
        return np.asarray((most - least) / most)
    if form_factor == "exponential":
        e0 = float(exponential_energy_GeV(np.asarray(number)))
        return np.asarray(e0 / most * (np.exp(-least / e0) - np.exp(-most / e0)))
    grid = np.linspace(0.0, math.sqrt(float(most.max())) * 1.0001, 4001) ** 2
    primitive = PchipInterpolator(grid, helm(grid, number)).antiderivative()
    return np.asarray((primitive(most) - primitive(least)) / most)


def _geometric_limit(mass: float, sun: SolarModel, halo: Halo) -> float:
    """Pi R^2 (rho / m) int f(u) u (1 + v_esc(R)^2 / u^2) du, in 1/s."""
    fastest = halo.fastest_km_s if math.isfinite(halo.fastest_km_s) else 4000.0
    u = np.linspace(fastest * 1.0e-6, fastest, 4001)
    f = halo.speed_density(u)
    focused = float(trapezoid(f * (u + sun.escape_speed_km_s[-1] ** 2 / u), u))
    return math.pi * SUN_RADIUS_cm**2 * halo.density_GeV_cm3 / mass * focused * 1.0e5


# Jungman, Kamionkowski & Griest, tables 8 and 10: abundance f, potential phi, and the suppression's m_c, F_inf, alpha.
_JKG = {
    "H1": (0.772, 3.16, None),
    "He4": (0.209, 3.40, (18.2, 0.986, 1.58)),
    "C12": (3.87e-3, 3.23, (61.6, 0.788, 2.69)),
    "N14": (9.4e-4, 3.23, (75.2, 0.613, 2.69)),
    "O16": (8.55e-3, 3.23, (75.2, 0.613, 2.69)),
    "Ne": (1.51e-3, 3.23, (75.2, 0.613, 2.69)),
    "Mg": (7.39e-4, 3.23, (71.7, 0.281, 2.97)),
    "Si": (8.13e-4, 3.23, (71.7, 0.281, 2.97)),
    "S": (4.65e-4, 3.23, (57.0, 0.101, 3.10)),
    "Fe": (1.46e-3, 3.23, (29.3, 0.00677, 3.36)),
}
_JKG_SPEED_km_s, _JKG_ESCAPE_km_s = 270.0, 1156.0


def _jkg(mass: float, sigma_si: float, sigma_sd: float, halo: Halo) -> dict[str, float]:
    """Fit formulae of the review; the halo enters by its density alone."""
    numbers = dict(zip((sun := solar_model()).isotopes, sun.mass_number, strict=True))
    scale = halo.density_GeV_cm3 / 0.3 / mass
    out = {}
    for name, (abundance, potential, shape) in _JKG.items():
        nucleus = _PROTON_GeV if name == "H1" else ATOMIC_MASS_GeV * float(numbers[name])
        sigma = sigma_si * float(numbers[name]) ** 2 * _reduced_ratio(mass, nucleus) ** 2
        suppression = 1.0
        if shape is not None:
            m_c, least, alpha = shape
            suppression = least + (1.0 - least) * math.exp(-((max(math.log(mass) / math.log(m_c), 0.0)) ** alpha))
        kinematic = _jkg_kinematics(mass / nucleus)
        out[name] = 4.8e24 * scale * suppression * sigma / 1.0e-40 * abundance * potential * kinematic / nucleus
    out["H1"] += 1.3e25 * scale * sigma_sd / 1.0e-40 * _jkg_kinematics(mass / _PROTON_GeV)
    return out


def _jkg_kinematics(x: float) -> float:
    """S(x) = [A^1.5 / (1 + A^1.5)]^(2/3), A = 1.5 x / (x - 1)^2 (v_esc / v)^2."""
    if x == 1.0:
        return 1.0
    a = 1.5 * x / (x - 1.0) ** 2 * (_JKG_ESCAPE_km_s / _JKG_SPEED_km_s) ** 2
    return float((a**1.5 / (1.0 + a**1.5)) ** (1.0 / 1.5))
