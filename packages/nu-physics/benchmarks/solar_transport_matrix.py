"""Compute the shipped matrix from the Sun's centre to the Earth, src/nu_physics/data/sun_to_earth.npz, or check it.

uv run python packages/nu-physics/benchmarks/solar_transport_matrix.py --check 6        some columns against the shipped
uv run python packages/nu-physics/benchmarks/solar_transport_matrix.py --out FILE       the whole, a quarter of an hour
"""

import argparse
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
from nu_physics.solar.channels import FLAVOURS
from nu_physics.solar.propagation import ENERGY_EDGES_GeV, NusquidsTransport, propagation_matrix

BINS = ENERGY_EDGES_GeV.size - 1


def check(columns: int) -> None:
    """Recompute some columns; compare what arrives above a thousandth of the column's sum."""
    transport, shipped = NusquidsTransport(), propagation_matrix().elements
    drawn = np.random.default_rng(0).integers([len(FLAVOURS), BINS], size=(columns, 2))
    for flavour, energy_bin in drawn.tolist():
        live, kept = transport.column(flavour, energy_bin), shipped[:, :, flavour, energy_bin].astype(np.float64)
        difference = float(np.abs(live - kept).max() / live.sum())
        print(
            f"{FLAVOURS[flavour]:<10} bin {energy_bin:2d}: {live.sum():.6f} arrive, largest difference {difference:.1e}"
        )


def compute(out: Path) -> None:
    """All columns, written under the name at the end."""
    transport = NusquidsTransport()
    elements = np.zeros((len(FLAVOURS), BINS, len(FLAVOURS), BINS), dtype=np.float32)
    for flavour in range(len(FLAVOURS)):
        for energy_bin in range(BINS):
            elements[:, :, flavour, energy_bin] = transport.column(flavour, energy_bin)
        print(f"{flavour + 1} of {len(FLAVOURS)}: {FLAVOURS[flavour]}", flush=True)
    origin = f"nuSQuIDS {version('nusquids')}, b16-agss09, pdg2020 normal ordering, 30 nodes a decade"
    scratch = out.with_name(f".{out.name}.{os.getpid()}.npz")
    np.savez_compressed(scratch, edges_GeV=ENERGY_EDGES_GeV, elements=elements, origin=np.array(origin))
    scratch.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=int, default=6, metavar="COLUMNS")
    args = parser.parse_args()
    if args.out:
        compute(args.out)
    else:
        check(args.check)


if __name__ == "__main__":
    main()
