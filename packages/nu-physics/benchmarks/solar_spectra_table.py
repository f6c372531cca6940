"""Generate the shipped table of spectra at production, src/nu_physics/data/solar_spectra.npz, channel by channel.

uv run python packages/nu-physics/benchmarks/solar_spectra_table.py PARTS --table solar_spectra.npz --channels bb cc

PARTS is a folder of finished samples, one a channel and mass: run it again and it continues; three quarters of an hour
of one core in all. The neutrinos of hadrons come from many decays of each, so that fewer annihilations do.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from nu_physics.solar.channels import CHANNELS, HADRONIC
from nu_physics.solar.production import generate, generator_version

MASSES_GeV = (10, 14, 20, 30, 45, 65, 100, 140, 200, 300, 450, 650, 1000, 1500, 2200, 3200, 5000, 7000, 10000)
EVENTS = {
    "bb": 8_000,
    "cc": 10_000,
    "gg": 3_000,
    "tt": 4_000,
    "hh": 4_000,
    "tautau": 15_000,
    "WW": 10_000,
    "ZZ": 10_000,
}
DECAYS = 20
ABOVE_THRESHOLD = 1.004
FLAVOURS = {"light": [0, 1, 3, 4], "tau": [2, 5]}


def masses(channel: str) -> list[float]:
    """The grid from just above the channel's threshold."""
    lowest = CHANNELS[channel].threshold_GeV * ABOVE_THRESHOLD
    return ([lowest] if lowest > MASSES_GeV[0] else []) + [float(mass) for mass in MASSES_GeV if mass > lowest]


def sample(parts: Path, channel: str, mass: float, seed: int) -> Path:
    """Generate one sample, or find it."""
    target = parts / f"{channel}-{mass:g}.npz"
    if not target.exists():
        found = generate(channel, mass, events=EVENTS[channel], decays=DECAYS, seed=seed)
        scratch = target.with_suffix(".new.npz")
        np.savez(scratch, number=found.number, error=found.error, events=found.events)
        scratch.replace(target)
    return target


def columns(parts: Path, channel: str) -> dict[str, np.ndarray]:
    """The channel's part of the table, flavours averaged."""
    loaded = []
    for step, mass in enumerate(masses(channel)):
        with np.load(sample(parts, channel, mass, seed=1 + 1000 * HADRONIC.index(channel) + step)) as part:
            loaded.append({name: part[name] for name in ("number", "error", "events")})
        print(f"{channel} {mass:g} GeV, {step + 1} of {len(masses(channel))}", flush=True)
    found = {f"{channel}_masses_GeV": np.array(masses(channel))}
    found[f"{channel}_events"] = np.array([part["events"] for part in loaded])
    for name, rows in FLAVOURS.items():
        found[f"{channel}_{name}"] = np.float32([part["number"][rows].mean(0) for part in loaded])
        error = [np.sqrt((part["error"][rows] ** 2).sum(0)) / len(rows) for part in loaded]
        found[f"{channel}_{name}_error"] = np.float32(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--table", type=Path, required=True, help="existing table, whose channels are replaced")
    parser.add_argument("--channels", nargs="+", choices=list(EVENTS), default=list(EVENTS))
    args = parser.parse_args()
    args.parts.mkdir(parents=True, exist_ok=True)
    with np.load(args.table) as old:
        new = {name: old[name] for name in old.files}
    origins = json.loads(str(new["origin"]))
    for channel in args.channels:
        new |= columns(args.parts, channel)
        origins[channel] = f"Pythia {generator_version()}, solar core, {DECAYS} decays a hadron of beauty or charm"
    new["origin"] = np.array(json.dumps(origins, sort_keys=True))
    scratch = args.table.with_name(f".{args.table.name}.{os.getpid()}.npz")
    np.savez_compressed(scratch, **new)
    scratch.replace(args.table)


if __name__ == "__main__":
    main()
