"""Compare spectra with two published sets of tables: PPPC4DMID at production, WimpSim at the Earth.

uv run --with pythia8mc==8.317.2 --with nusquids python packages/nu-physics/benchmarks/solar_wimpsim.py FOLDER

FOLDER is km3flux/data of the km3flux 1.0.3 wheel, which carries both (unpack it; it need not be installed). WimpSim's
spectra were made with its own oscillation parameters, with which ours are propagated here; both are annual means.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from nu_physics.oscillation import OscillationParameters
from nu_physics.solar.production import X_EDGES, generate
from nu_physics.solar.propagation import ENERGY_EDGES_GeV, NusquidsTransport
from nu_physics.solar.spectra import source_spectrum
from papershelf_core.machine import Machine

PPPC_COLUMN = {"tautau": 10, "bb": 13, "WW": 17}
WIMPSIM_CHANNEL = {"bb": 5, "WW": 8, "tautau": 11}
DISTANCE_cm = 1.495978707e13
WIMPSIM = OscillationParameters(
    sin2_theta12=math.sin(math.radians(33.58)) ** 2,
    sin2_theta13=math.sin(math.radians(9.12)) ** 2,
    sin2_theta23=math.sin(math.radians(40.40)) ** 2,
    dm21_eV2=7.58e-5,
    dm31_eV2=2.35e-3,
)


def production(folder: Path, events: int) -> None:
    table = np.loadtxt(folder / "read_cirelli" / "AtProduction_neutrinos_mu.dat", skiprows=1)
    print("muon neutrinos above x = 0.01 per annihilation in vacuum, ours / PPPC4DMID")
    for channel, column in PPPC_COLUMN.items():
        cells = []
        for mass in (50.0, 100.0, 500.0, 1000.0):
            if channel == "WW" and mass < 81:
                continue
            rows = table[table[:, 0] == mass]
            reference = np.trapezoid(np.where(rows[:, 1] >= -2, rows[:, column], 0.0), rows[:, 1])
            sample = generate(channel, mass, events=events, seed=17, environment="vacuum")
            ours = sample.number[[1, 4]][:, X_EDGES[:-1] > 0.0099].sum() / 2
            cells.append(f"{ours / reference:.3f} at {mass:g}")
        print(f"  {channel:<7} {', '.join(cells)} GeV")


def at_the_earth(folder: Path) -> None:
    transport = NusquidsTransport(WIMPSIM)
    edges = ENERGY_EDGES_GeV
    widths, centres = np.diff(edges), np.sqrt(edges[1:] * edges[:-1])
    bands = [(0.1, 0.2), (0.2, 0.3), (0.3, 0.45), (0.45, 0.6), (0.6, 0.8)]
    print("at 1 AU, ours / WimpSim: muon neutrino and antineutrino above z = 0.1; then their sum in bands of z")
    for channel, number in WIMPSIM_CHANNEL.items():
        for mass in (50.0, 100.0, 250.0, 500.0, 1000.0):
            if channel == "WW" and mass < 81:
                continue
            file = folder / "wimpsim" / "data" / f"we-m{mass:g}-ch{number}-su-1D-diff-f1.dat"
            reference = np.loadtxt(file)[[2, 3]] * 4.0 * math.pi * DISTANCE_cm**2 * 0.01
            source = source_spectrum(channel, mass).number / widths
            used = centres <= mass * 1.1
            arrived = np.zeros((6, centres.size))
            arrived[:, used] = transport.propagate(centres[used], source[:, used])
            summed = np.concatenate([np.zeros((2, 1)), np.cumsum((arrived * widths)[[1, 4]], axis=1)], axis=1)
            z = np.linspace(0.0, 1.0, 101)
            at = np.stack([np.interp(np.log(np.maximum(z * mass, edges[0])), np.log(edges), row) for row in summed])
            ours = np.diff(at, axis=1)
            hard = z[:-1] > max(0.099, edges[0] / mass)
            total = ours[:, hard].sum(1) / reference[:, hard].sum(1)
            cells = []
            for low, high in bands:
                inside = (z[:-1] > low - 1e-9) & (z[:-1] < high - 1e-9) & hard
                cells.append(f"{ours[:, inside].sum() / reference[:, inside].sum():.2f}")
            print(f"  {channel:<7} {mass:5g} GeV  {total[0]:.3f} {total[1]:.3f}   {' '.join(cells)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=5000, help="of each live sample (default: %(default)s)")
    args = parser.parse_args()
    print(Machine.here("nu-physics", "pythia8mc", "nusquids"))
    at_the_earth(args.folder)
    production(args.folder, args.events)


if __name__ == "__main__":
    main()
