"""Annihilation channels: names, products and the least mass at which each is open.

Two particles at rest of mass m each give the channel's two products with m of energy each, so a channel is open if m
is at least the product's mass. Masses: PDG 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

from nu_physics.errors import InvalidInput, check_choice, check_range

__all__ = ["CHANNELS", "FLAVOURS", "HADRONIC", "MONOCHROMATIC", "Channel", "channel", "check_open"]

# Order of every flavour axis of this package's solar half.
FLAVOURS = ("nu_e", "nu_mu", "nu_tau", "nubar_e", "nubar_mu", "nubar_tau")


@dataclass(frozen=True)
class Channel:
    """One annihilation channel.

    Parameters
    ----------
    name : str
        As in tables and on the command line.
    products : (int, int)
        PDG codes.
    threshold_GeV : float
        Least mass of the annihilating particle.
    """

    name: str
    products: tuple[int, int]
    threshold_GeV: float


CHANNELS = {
    entry.name: entry
    for entry in (
        Channel("cc", (4, -4), 1.87),
        Channel("bb", (5, -5), 5.28),
        Channel("tt", (6, -6), 172.57),
        Channel("gg", (21, 21), 1.0),
        Channel("tautau", (15, -15), 1.77693),
        Channel("WW", (24, -24), 80.3692),
        Channel("ZZ", (23, 23), 91.1880),
        Channel("hh", (25, 25), 125.20),
        Channel("nuenue", (12, -12), 0.0),
        Channel("numunumu", (14, -14), 0.0),
        Channel("nutaunutau", (16, -16), 0.0),
    )
}

# Channels whose products are the two neutrinos themselves, a line at E = m.
MONOCHROMATIC = {"nuenue": 0, "numunumu": 1, "nutaunutau": 2}
HADRONIC = tuple(name for name in CHANNELS if name not in MONOCHROMATIC)


def channel(name: str) -> Channel:
    """Return the channel of that name; an unknown one raises ``InvalidInput`` with the nearest names.

    Examples
    --------
    >>> channel("tautau").threshold_GeV
    1.77693
    """
    return CHANNELS[check_choice("channel", name, CHANNELS)]


def check_open(name: str, mass_GeV: float) -> Channel:
    """Return the channel if it is open at this mass, else raise ``InvalidInput`` naming the threshold."""
    found = channel(name)
    mass = check_range("mass_GeV", mass_GeV, 0.0, open_low=True)
    if mass < found.threshold_GeV:
        raise InvalidInput(
            f"channel {name!r} is closed at mass_GeV = {mass:g}: its products weigh {found.threshold_GeV:g} GeV each; "
            "take a heavier particle or another channel"
        )
    return found
