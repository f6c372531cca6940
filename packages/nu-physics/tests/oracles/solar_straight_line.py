"""The paper's job as one straight script on the shipped tables: loops, no class, no function of the package.

Reads the files of nu_physics.data and the limit's points; its own interpolations, its own capture (the closed forms are
checked elsewhere, so that C is an argument), its own sums.
"""

import math
import tomllib
from importlib import resources

import numpy as np

DATA = resources.files("nu_physics.data")
YEAR_s = 365.25 * 86400.0
DISTANCE_cm = 1.495978707e13


def table(name):
    with (DATA / name).open("rb") as stream, np.load(stream) as archive:
        return {key: archive[key] for key in archive.files}


def limit(name, mass):
    entry = tomllib.loads((DATA / "limits.toml").read_text(encoding="utf-8"))[name]
    return math.exp(np.interp(math.log(mass), np.log(entry["mass_GeV"]), np.log(entry["cross_section_cm2"])))


def events_per_year(channel, mass, capture_per_s, volume_1_cm3, volume_2_cm3, sigma_v=3e-26, age_s=4.57e9 * YEAR_s):
    """Selected up-going events a year in ARCA."""
    reached = math.tanh(age_s * math.sqrt(capture_per_s * sigma_v * volume_2_cm3) / volume_1_cm3) ** 2
    gamma = 0.5 * capture_per_s * reached
    spectra, transport, area = table("solar_spectra.npz"), table("sun_to_earth.npz"), table("arca_area.npz")
    masses = spectra[f"{channel}_masses_GeV"]
    above = int(np.searchsorted(masses, mass, side="right"))
    below = above - 1
    if masses[below] == mass:
        share = 0.0
        above = min(above, masses.size - 1)
    else:
        share = math.log(mass / masses[below]) / math.log(masses[above] / masses[below])
    edges = transport["edges_GeV"]
    x_edges = [10.0 ** (-4.0 + 0.05 * k) for k in range(81)]
    source = np.zeros((6, edges.size - 1))
    for flavour in range(6):
        key = f"{channel}_tau" if flavour in (2, 5) else f"{channel}_light"
        row = (1.0 - share) * spectra[key][below] + share * spectra[key][above]
        for k in range(80):
            low, high = x_edges[k] * mass, x_edges[k + 1] * mass
            for i in range(edges.size - 1):
                overlap = math.log(min(high, edges[i + 1])) - math.log(max(low, edges[i]))
                if overlap > 0.0:
                    source[flavour, i] += float(row[k]) * overlap / math.log(high / low)
    total = 0.0
    elements = transport["elements"].astype(float)
    for flavour in (1, 4):
        arrived = np.einsum("ibj,bj->i", elements[flavour], source)
        for i, number in enumerate(arrived):
            energy = math.sqrt(edges[i] * edges[i + 1])
            if energy < 100.0:
                continue
            mean_m2 = 0.0
            centres = np.sqrt(area["energy_edges_GeV"][1:] * area["energy_edges_GeV"][:-1])
            weights = area["sun_share"] * (area["zenith_edges_deg"][:-1] >= 89.9)
            mean = weights @ area["area_m2"]
            mean_m2 = math.exp(np.interp(math.log(energy), np.log(centres), np.log(np.maximum(mean, 1e-30))))
            total += number * mean_m2 * 1.0e4
    return gamma * total / (4.0 * math.pi * DISTANCE_cm**2) * YEAR_s
