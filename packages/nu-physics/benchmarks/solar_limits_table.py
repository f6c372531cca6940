"""Write src/nu_physics/data/limits.toml from a checkout of kdund/dd_limit_plot (BSD-3-Clause).

    uv run packages/nu-physics/benchmarks/solar_limits_table.py CHECKOUT [--check]

Masses and limits are taken as they stand there, all points, to four digits. ``--check`` writes nothing and fails if the
shipped table differs. PICO-60 is not in that collection: its points are readings of the published curve.
"""

import argparse
import io
import re
import sys
import tomllib
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src" / "nu_physics" / "data" / "limits.toml"
COMMIT = "96e54ed"

# What the experiments state of the halo: density, most probable speed, galactic escape speed.
RECOMMENDED = "0.3 GeV/cm3, 238 km/s, escape 544 km/s: conventions of arXiv:2105.00599"
OLDER = "0.3 GeV/cm3, 220 km/s, escape 544 km/s"
UNREAD = "0.3 GeV/cm3; speeds as in the source"
SI, SD = "spin-independent", "spin-dependent"

CURVES = {
    "xenon1t-2018": ("WIMPSI_XENON1T_2018_1805.12562", SI, "XENON1T 1 t yr", OLDER, ""),
    "xenonnt-2023": (
        "WIMPSI_XENONnT_2023_2303.14729",
        SI,
        "XENONnT first run",
        RECOMMENDED,
        "power-constrained at the median",
    ),
    "xenonnt-2025": ("WIMPSI_XENONnT_2025_2502.18005", SI, "XENONnT 3.1 t yr", RECOMMENDED, ""),
    "pandax-4t-2021": ("WIMPSI_PandaX-4T_2021_2107.13438", SI, "PandaX-4T commissioning run", UNREAD, ""),
    "pandax-4t-2024": (
        "WIMPSI_PandaX_4T_2025_2408.00664",
        SI,
        "PandaX-4T 1.54 t yr",
        UNREAD,
        "traced from the published figure",
    ),
    "lz-2022": ("WIMPSI_LZ_2023_2207.03764", SI, "LZ first run", RECOMMENDED, "power-constrained at -1 sigma"),
    "lz-2024": ("WIMPSI_LZ_2024_2410.17036", SI, "LZ 4.2 t yr", RECOMMENDED, "power-constrained at -1 sigma"),
    "lz-2025-low-mass": ("WIMPSI_LZ_2025_lowmass_2512.08065v1", SI, "LZ low-mass search", UNREAD, ""),
    "lz-2024-sd": (
        "WIMPSDp_LZ_2024_2410.17036",
        SD,
        "LZ 4.2 t yr, proton",
        RECOMMENDED,
        "power-constrained at -1 sigma",
    ),
    "xenonnt-2023-sd": (
        "WIMPSDp_XENONnT_2023_2303.14729",
        SD,
        "XENONnT first run, proton",
        RECOMMENDED,
        "power-constrained at the median",
    ),
    "xenonnt-2025-sd": ("WIMPSDp_XENONnT_2025_2502.18005", SD, "XENONnT 3.1 t yr, proton", RECOMMENDED, ""),
}

PICO = {
    "name": "pico-60-2019",
    "title": "PICO-60 C3F8 complete exposure, proton",
    "source": "Phys. Rev. D 100 (2019) 022001 (arXiv:1902.04031)",
    "note": "readings of the published curve, three digits",
}

HEAD = f"""\
# Upper limits at 90 % confidence on the cross section of dark matter on a nucleon: mass in GeV, cross section in cm2.
# Written by benchmarks/solar_limits_table.py from kdund/dd_limit_plot at {COMMIT} (BSD-3-Clause, Copyright 2021, The
# Authors, contact Knut Dundas Mora); pico-60-2019 is a reading of the published curve. halo: what the limit assumes;
# another halo needs the limit derived anew. A limit holds between its first and last mass, nothing is extrapolated.
"""


def points(folder: Path, key: str) -> tuple[list[float], list[float]]:
    """Masses and upper limits of one file, by the header that the collection's metadata give."""
    metadata = (folder / "data" / "result_metadata.toml").read_text(encoding="utf-8")
    metadata = re.sub(r'(?s)reference\s*=\s*""".*?"""', "", metadata)  # holds escapes that TOML does not know
    about = tomllib.loads(metadata)
    entry = {**about["default_values"], **about[key]}
    if entry["units_independent_variable"] != "GeV/c^2" or entry["units_dependent_variable"] != "cm^2":
        sys.exit(f"{key}: units {entry['units_independent_variable']}, {entry['units_dependent_variable']}")
    text = (folder / "data" / f"{key}.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\s*[\d.]", line)]
    cells = [re.split(r"[,\s]+", line.strip()) for line in lines]
    mass, sigma = (
        np.array([float(row[entry["header"].index(name)]) for row in cells]) for name in ("wimp_mass", "upper_limit")
    )
    sigma = sigma * float(entry["scaling"])
    order = np.argsort(mass, kind="stable")
    rounded = np.array([float(f"{m:.4g}") for m in mass[order]])
    kept = np.append(True, np.diff(rounded) > 0)
    return rounded[kept].tolist(), sigma[order][kept].tolist()


def block(name: str, title: str, coupling: str, source: str, halo: str, note: str, mass: list, sigma: list) -> str:
    def wrapped(values: list[float]) -> str:
        lines, line = [], " "
        for value in values:
            text = f" {value:.4g},"
            if len(line) + len(text) > 118:
                lines.append(line)
                line = " "
            line += text
        return "\n".join([*lines, line])

    return (
        f'\n["{name}"]\ntitle = "{title}"\ncoupling = "{coupling}"\nsource = "{source}"\nhalo = "{halo}"\n'
        f'note = "{note}"\nmass_GeV = [\n{wrapped(mass)}\n]\ncross_section_cm2 = [\n{wrapped(sigma)}\n]\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    shipped = tomllib.loads(TARGET.read_text(encoding="utf-8"))
    written = io.StringIO(HEAD)
    written.seek(0, io.SEEK_END)
    for name, (key, coupling, title, halo, note) in CURVES.items():
        number = re.sub(r"v\d$", "", key.rpartition("_")[2])
        written.write(block(name, title, coupling, f"arXiv:{number}", halo, note, *points(arguments.checkout, key)))
    pico = shipped[PICO["name"]]
    written.write(
        block(
            PICO["name"],
            PICO["title"],
            SD,
            PICO["source"],
            OLDER,
            PICO["note"],
            pico["mass_GeV"],
            pico["cross_section_cm2"],
        )
    )
    if arguments.check:
        same = tomllib.loads(written.getvalue()) == shipped
        print("the shipped table is the collection's" if same else "the shipped table differs")
        sys.exit(0 if same else 1)
    TARGET.write_text(written.getvalue(), encoding="utf-8")
    print(f"{TARGET.name}: {len(CURVES) + 1} limits, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
