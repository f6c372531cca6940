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
from typing import Any, Literal

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
_NEUTRINO_INDEX = {12: 0, 14: 1, 16: 2, -12: 3, -14: 4, -16: 5}
_LARGEST_SEED = 900_000_000


@dataclass(frozen=True)
class YieldSample:
    """Neutrinos counted in ``events`` annihilations.

    Parameters
    ----------
    channel, mass_GeV, environment, seed, events
        What was generated.
    version : str
        Version of Pythia.
    counts : integer array of shape (6, 80)
        Neutrinos by flavour (``channels.FLAVOURS``) and bin of x = E / m (``X_EDGES``).
    """

    channel: str
    mass_GeV: float
    environment: str
    seed: int
    events: int
    version: str
    counts: NDArray[np.int64]


def generator_version() -> str:
    """Return the version of the installed Pythia."""
    try:
        return metadata.version("pythia8mc")
    except metadata.PackageNotFoundError:
        raise MissingExtra("pythia", "generating spectra") from None


def generate(
    channel: str, mass_GeV: float, *, events: int = 5000, seed: int = 1, environment: Environment = "sun"
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
    seed : int
        1 to 900 000 000; a chunk of a larger sample needs a seed of its own.
    environment : {"sun", "vacuum"}
        With the Sun's stopping rules, or with every decay.

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
    version = generator_version()
    pythia = _generator(products, mass_GeV, seed, environment)
    random = np.random.default_rng(seed)
    flavour: list[int] = []
    energy: list[float] = []
    done = 0
    while done < events:
        if not pythia.next():
            continue
        if environment == "sun":
            _decay_in_the_core(pythia, _BEAUTY, random)
            _decay_in_the_core(pythia, _CHARM, random)
        for particle in pythia.event:
            index = _NEUTRINO_INDEX.get(particle.id())
            if index is not None and particle.isFinal():
                flavour.append(index)
                energy.append(particle.e())
        done += 1
    x = np.minimum(np.asarray(energy) / mass_GeV, 1.0)
    counts = np.stack([np.histogram(x[np.asarray(flavour) == i], X_EDGES)[0] for i in range(len(FLAVOURS))])
    return YieldSample(channel, float(mass_GeV), environment, seed, events, version, counts)


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


def _decay_in_the_core(pythia: Any, codes: tuple[int, ...], random: np.random.Generator) -> None:
    """Let the hadrons of these kinds lose energy in the core's matter, then decay."""
    found = False
    for index in range(pythia.event.size()):
        particle = pythia.event[index]
        if particle.isFinal() and abs(particle.id()) in codes:
            found = True
            _lose_energy(particle, codes is _BEAUTY, random)
    if found:
        for code in codes:
            pythia.particleData.mayDecay(code, True)
        pythia.moreDecays()
        for code in codes:
            pythia.particleData.mayDecay(code, False)


def _lose_energy(particle: Any, beauty: bool, random: np.random.Generator) -> None:
    """Interactions before the decay, in competition; a hadron without energy left decays at rest."""
    mass, energy = particle.m(), particle.e()
    kept = 0.7 if beauty else 0.6 * _CHARM_QUARK_GeV / mass
    baryon = abs(particle.id()) // 1000 % 10 != 0
    cross_section = _BARYON_CROSS_SECTION_cm2 if baryon else _MESON_CROSS_SECTION_cm2
    interaction_length_cm = 1.0 / (_CORE_DENSITY_g_cm3 * _NUCLEONS_per_g * cross_section)
    lifetime_cm = 0.1 * particle.tau0()
    interacted = False
    while energy > mass:
        momentum = math.sqrt(energy * energy - mass * mass)
        decay_length_cm = momentum / mass * lifetime_cm
        if random.random() * (decay_length_cm + interaction_length_cm) < interaction_length_cm:
            break
        interacted = True
        energy = max(kept * energy, mass)
    if interacted:
        scale = math.sqrt(max(energy * energy - mass * mass, 0.0)) / particle.pAbs()
        particle.px(scale * particle.px())
        particle.py(scale * particle.py())
        particle.pz(scale * particle.pz())
        particle.e(energy)
