"""Neutrinos at production, generated live: Pythia 8 decays a scalar of mass 2m at rest into the channel's two products.

In the Sun's core what lives long is stopped or absorbed before it decays: muons, charged pions and kaons, long-lived
neutral kaons and neutrons give no neutrino above the MeV range and their decays are switched off. A hadron with beauty
or charm may interact before it decays: over a length L = m_p / (rho sigma), with sigma = 14 mb for mesons and 24 mb for
baryons in a core of 148.9 g/cm3, against its decay length gamma beta c tau; an interaction leaves it the share 0.7
(beauty) or 0.6 m_c / m (charm) of its energy. (Ritz & Seckel, Nucl. Phys. B 304 (1988) 877, treat the same losses;
the numbers are those of the production code of charon, arXiv:2007.15010.) Electroweak showers are off; vector
bosons decay isotropically, as of no polarisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nu_physics.errors import InvalidInput, MissingExtra, check_choice
from nu_physics.solar.channels import FLAVOURS, HADRONIC, check_open

__all__ = ["ENVIRONMENTS", "X_EDGES", "YieldSample", "generate", "generator_version"]

Environment = Literal["sun", "vacuum"]
ENVIRONMENTS = ("sun", "vacuum")

# Bins of x = E / m: 20 a decade from 1e-4 to 1.
X_EDGES: NDArray[np.float64] = np.logspace(-4.0, 0.0, 81)

_STOPPED = (13, 211, 321, 130, 2112)
_BEAUTY = (511, 521, 531, 541, 5122, 5132, 5232, 5332)
_CHARM = (411, 421, 431, 4122, 4132, 4232, 4332)
_CORE_DENSITY_g_cm3 = 148.9
_MESON_CROSS_SECTION_cm2 = 14.0e-27
_BARYON_CROSS_SECTION_cm2 = 24.0e-27
_NUCLEONS_per_g = 6.02214076e23
_CHARM_QUARK_GeV = 1.27
_LOSSY = frozenset(_BEAUTY + _CHARM)
_NEUTRINO_INDEX = {12: 0, 14: 1, 16: 2, -12: 3, -14: 4, -16: 5}
_LARGEST_SEED = 900_000_000


@dataclass(frozen=True)
class YieldSample:
    """Neutrinos of ``events`` annihilations.

    Parameters
    ----------
    channel, mass_GeV, environment, seed, events
        What was generated.
    version : str
        Version of Pythia.
    number : array of shape (6, 80)
        Neutrinos per annihilation by flavour (``channels.FLAVOURS``) and bin of x = E / m (``X_EDGES``).
    error : array of shape (6, 80)
        Standard error of ``number``, from the spread between annihilations.
    """

    channel: str
    mass_GeV: float
    environment: str
    seed: int
    events: int
    version: str
    number: NDArray[np.float64]
    error: NDArray[np.float64]


class _Hadron(NamedTuple):
    """A hadron with beauty or charm before its decay."""

    code: int
    mass_GeV: float
    lifetime_cm: float
    energy_GeV: float
    momentum_GeV: tuple[float, float, float]


def generator_version() -> str:
    """Return the version of the installed Pythia."""
    try:
        return metadata.version("pythia8mc")
    except metadata.PackageNotFoundError:
        raise MissingExtra("pythia", "generating spectra") from None


def generate(
    channel: str,
    mass_GeV: float,
    *,
    events: int = 5000,
    decays: int = 10,
    seed: int = 1,
    environment: Environment = "sun",
) -> YieldSample:
    """Generate annihilations and count the neutrinos.

    Parameters
    ----------
    channel : str
        One of ``channels.HADRONIC``; the neutrino channels are lines and need no generator.
    mass_GeV : float
        Mass of the annihilating particle.
    events : int
        Annihilations.
    decays : int
        How often each hadron with beauty or charm loses its energy and decays, every time with the weight 1 / decays:
        that is where the neutrinos of the core come from, and it costs less than an annihilation.
    seed : int
        1 to 900 000 000; a chunk of a larger sample needs a seed of its own.
    environment : {"sun", "vacuum"}
        With the Sun's stopping rules, or with every decay, once.

    Returns
    -------
    YieldSample

    Raises
    ------
    InvalidInput
        Channel unknown or closed at this mass, or a number out of range.
    MissingExtra
        Pythia is not installed.
    """
    products = check_open(check_choice("channel", channel, HADRONIC), mass_GeV).products
    check_choice("environment", environment, ENVIRONMENTS)
    if not 1 <= events <= 10**8:
        raise InvalidInput(f"events = {events} is outside the allowed range [1, 100000000]")
    if not 1 <= seed <= _LARGEST_SEED:
        raise InvalidInput(f"seed = {seed} is outside the allowed range [1, {_LARGEST_SEED}]")
    if not 1 <= decays <= 1000:
        raise InvalidInput(f"decays = {decays} is outside the allowed range [1, 1000]")
    version = generator_version()
    pythia = _generator(products, mass_GeV, seed, environment)
    random = np.random.default_rng(seed)
    total, squares = (np.zeros((len(FLAVOURS), X_EDGES.size - 1)) for _ in range(2))
    done = 0
    while done < events:
        if not pythia.next():
            continue
        neutrinos, heavy = _products(pythia.event)
        found = _histogram(neutrinos, mass_GeV)
        if heavy:
            found += _histogram(_decays_in_the_core(pythia, heavy, decays, random), mass_GeV) / decays
        total += found
        squares += found**2
        done += 1
    mean = total / events
    error = np.sqrt(np.maximum(squares / events - mean**2, 0.0) / max(events - 1, 1))
    return YieldSample(channel, float(mass_GeV), environment, seed, events, version, mean, error)


def _generator(products: tuple[int, int], mass_GeV: float, seed: int, environment: str) -> Any:
    """Pythia with one process: e+ e- -> scalar of mass 2m -> products."""
    try:
        import pythia8mc
    except ImportError:
        raise MissingExtra("pythia", "generating spectra") from None
    pythia = pythia8mc.Pythia("", False)
    for setting in (
        "Print:quiet = on",
        "Beams:idA = 11",
        "Beams:idB = -11",
        f"Beams:eCM = {2.0 * mass_GeV!r}",
        "PDF:lepton = off",
        "PartonLevel:ISR = off",
        "PartonLevel:MPI = off",
        "Higgs:useBSM = on",
        "HiggsBSM:ffbar2H2 = on",
        "HiggsH2:parity = 0",  # isotropic decays of its vector bosons
        f"35:m0 = {2.0 * mass_GeV!r}",
        "35:mWidth = 0.01",
        "35:doForceWidth = on",
        "35:mMin = 0",
        "35:mMax = 0",
        "35:onMode = off",
        f"35:onIfMatch = {products[0]} {products[1]}",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
    ):
        if not pythia.readString(setting):
            raise RuntimeError(f"Pythia refused the setting {setting!r}")
    if not pythia.init():
        raise InvalidInput(
            f"mass_GeV = {mass_GeV:g}: Pythia cannot open {products} at this mass; take one further above the threshold"
        )
    if environment == "sun":
        for code in (*_STOPPED, *_BEAUTY, *_CHARM):
            pythia.particleData.mayDecay(code, False)
    else:
        for code in _STOPPED:  # Pythia leaves some of them stable by default
            pythia.particleData.mayDecay(code, True)
    return pythia


def _products(event: Any) -> tuple[list[tuple[int, float]], list[_Hadron]]:
    """Return final neutrinos (flavour's index, energy) and final hadrons with beauty or charm."""
    neutrinos, heavy = [], []
    for particle in event:
        code = particle.id()
        flavour = _NEUTRINO_INDEX.get(code)
        if flavour is not None:
            if particle.isFinal():
                neutrinos.append((flavour, particle.e()))
        elif abs(code) in _LOSSY and particle.isFinal():
            momentum = (particle.px(), particle.py(), particle.pz())
            heavy.append(_Hadron(code, particle.m(), 0.1 * particle.tau0(), particle.e(), momentum))
    return neutrinos, heavy


def _histogram(neutrinos: list[tuple[int, float]], mass_GeV: float) -> NDArray[np.float64]:
    """Counts by flavour and bin of x."""
    counts = np.zeros((len(FLAVOURS), X_EDGES.size - 1))
    if neutrinos:
        flavour, energy = (np.asarray(column) for column in zip(*neutrinos, strict=True))
        x = np.minimum(energy / mass_GeV, 1.0)
        inside = x >= X_EDGES[0]
        bins = np.minimum(np.searchsorted(X_EDGES, x[inside], side="right") - 1, X_EDGES.size - 2)
        np.add.at(counts, (flavour[inside].astype(np.int64), bins), 1.0)
    return counts


def _decays_in_the_core(
    pythia: Any, heavy: list[_Hadron], decays: int, random: np.random.Generator
) -> list[tuple[int, float]]:
    """Let every hadron lose energy and decay ``decays`` times: beauty first, then charm, its own and beauty's."""
    beauty = [hadron for hadron in heavy if abs(hadron.code) in _BEAUTY for _ in range(decays)]
    charm = [hadron for hadron in heavy if abs(hadron.code) in _CHARM for _ in range(decays)]
    neutrinos: list[tuple[int, float]] = []
    if beauty:
        of_beauty, daughters = _decay(pythia, beauty, _BEAUTY, random)
        neutrinos += of_beauty
        charm += [hadron for hadron in daughters if abs(hadron.code) in _CHARM]
    if charm:
        neutrinos += _decay(pythia, charm, _CHARM, random)[0]
    return neutrinos


def _decay(
    pythia: Any, hadrons: list[_Hadron], codes: tuple[int, ...], random: np.random.Generator
) -> tuple[list[tuple[int, float]], list[_Hadron]]:
    """Take the energy that each has at its decay, decay all and return their products."""
    energies = _energy_at_decay(hadrons, random)
    pythia.event.reset()
    for hadron, energy in zip(hadrons, energies, strict=True):
        scale = math.sqrt(max(energy**2 - hadron.mass_GeV**2, 0.0)) / math.hypot(*hadron.momentum_GeV)
        momentum = (scale * component for component in hadron.momentum_GeV)
        pythia.event.append(hadron.code, 1, 0, 0, *momentum, float(energy), hadron.mass_GeV)
    for code in codes:
        pythia.particleData.mayDecay(code, True)
    pythia.moreDecays()
    for code in codes:
        pythia.particleData.mayDecay(code, False)
    return _products(pythia.event)


def _energy_at_decay(hadrons: list[_Hadron], random: np.random.Generator) -> NDArray[np.float64]:
    """Interactions before the decay, in competition with it; a hadron without energy left decays at rest."""
    mass, lifetime_cm, energy = np.array([(h.mass_GeV, h.lifetime_cm, h.energy_GeV) for h in hadrons]).T
    code = np.abs([h.code for h in hadrons])
    kept = np.where(np.isin(code, _BEAUTY), 0.7, 0.6 * _CHARM_QUARK_GeV / mass)
    cross_section = np.where(code // 1000 % 10 != 0, _BARYON_CROSS_SECTION_cm2, _MESON_CROSS_SECTION_cm2)
    interaction_length_cm = 1.0 / (_CORE_DENSITY_g_cm3 * _NUCLEONS_per_g * cross_section)
    moving = np.asarray(energy > mass)
    while moving.any():
        decay_length_cm = np.sqrt(np.maximum(energy**2 - mass**2, 0.0)) / mass * lifetime_cm
        decays = random.random(mass.size) * (decay_length_cm + interaction_length_cm) < interaction_length_cm
        moving &= ~decays
        energy = np.where(moving, np.maximum(kept * energy, mass), energy)
        moving &= energy > mass
    return np.asarray(energy)
