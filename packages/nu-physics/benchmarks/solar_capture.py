"""Time the capture integral against a plain numpy quadrature, and compare it with charon's.

uv run python packages/nu-physics/benchmarks/solar_capture.py
uv run python packages/nu-physics/benchmarks/solar_capture.py --charon CHECKOUT   # of github.com/icecube/charon

The peer's function is run as it is, and again with its length units multiplied by 2 pi: its metre is 1 / (h c) where
its second and gram use hbar.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse  # noqa: E402
import importlib  # noqa: E402
import sys  # noqa: E402
import types  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from nu_physics.solar.capture import capture_rate  # noqa: E402
from nu_physics.solar.form_factors import ATOMIC_MASS_GeV, exponential_energy_GeV  # noqa: E402
from nu_physics.solar.halo import BoostedMaxwell  # noqa: E402
from nu_physics.solar.sun import solar_model  # noqa: E402
from papershelf_core import timing  # noqa: E402
from papershelf_core.machine import Machine  # noqa: E402

LIGHT_km_s, PROTON_GeV = 299792.458, 0.93827208816


def naive(mass: float, sigma: float, nodes: int = 300) -> float:
    """29 isotopes x 2000 shells x 300 speeds, as one writes it first."""
    sun, halo = solar_model(), BoostedMaxwell()
    share = (np.arange(nodes) + 0.5) / nodes
    total = 0.0
    for isotope, number, fraction in zip(sun.isotopes, sun.mass_number, sun.mass_fraction, strict=True):
        nucleus = PROTON_GeV if isotope == "H1" else ATOMIC_MASS_GeV * number
        plus, minus = (4 * mass * nucleus / (mass + s * nucleus) ** 2 for s in (1, -1))
        escape = sun.escape_speed_km_s[:, None]
        top = np.minimum(escape * np.sqrt(minus), 2500.0)
        u = top * share
        w2 = u**2 + escape**2
        least, most = (0.5 * mass * factor / LIGHT_km_s**2 for factor in (u**2, plus * w2))
        if isotope == "H1":
            kept = (most - least) / most
        else:
            e0 = float(exponential_energy_GeV(np.asarray(number)))
            kept = e0 / most * (np.exp(-least / e0) - np.exp(-most / e0))
        inner = (halo.speed_density(u) / u * w2 * kept).mean(1) * top[:, 0]
        reduced = nucleus * (mass + PROTON_GeV) / (PROTON_GeV * (mass + nucleus))
        nuclei = sun.density_g_cm3 * fraction / (nucleus * 1.78266192e-24)
        total += sigma * (number * reduced) ** 2 * sun.volume_integral(nuclei * inner)
    return 0.3 / mass * 1e5 * total


def charon(checkout: Path, scale: float):
    """The peer's Gould rate as a function of mass and cross section, its length units multiplied by ``scale``."""
    package = types.ModuleType("charon")  # without its __init__, which imports the propagation and its dependencies
    package.__path__ = [str(checkout / "charon")]
    for name in [name for name in sys.modules if name.partition(".")[0] == "charon"]:
        del sys.modules[name]
    sys.modules["charon"] = package
    peer = importlib.import_module("charon.DM")

    for unit in ("meter", "cm", "km", "fermi"):
        setattr(peer.pc, unit, getattr(peer.pc, unit) * scale)
    here = Path.cwd()

    def rate(mass: float, sigma: float) -> float:
        os.chdir(checkout / "charon")  # it looks for its tables from here
        try:
            value = peer.DMSunCaptureRateGould(mass, sigma, model="struct_b16_agss09")
        finally:
            os.chdir(here)
        return float(np.sum(value))

    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--charon", type=Path, help="a checkout of the peer")
    args = parser.parse_args()
    print(Machine.here("nu-physics", "numpy", "scipy"))
    for mass in (20.0, 100.0, 1000.0):
        ours, plain = capture_rate(mass, sigma_si_cm2=1e-45).rate_per_s, naive(mass, 1e-45)
        print(
            f"{mass:g} GeV, spin-independent: {ours:.4e} /s; plain quadrature with 300 nodes {plain / ours:.5f} of it"
        )
    compared = timing.compare(
        {"ours": lambda: capture_rate(100.0, sigma_si_cm2=1e-45), "plain": lambda: naive(100.0, 1e-45)},
        repeat=5,
        clock="process",
    )
    print(f"a point: {compared.median['ours'] * 1e3:.2f} ms; plain quadrature {compared.ratio('plain')} times that")
    if args.charon:
        for label, scale in (("as released", 1.0), ("length units x 2 pi", 2.0 * np.pi)):
            rate = charon(args.charon.resolve(), scale)
            cells = [
                f"{rate(m, 1e-45) / capture_rate(m, sigma_si_cm2=1e-45).rate_per_s:.2f} at {m:g} GeV"
                for m in (20.0, 100.0, 1000.0)
            ]
            print(f"charon, {label}: {', '.join(cells)} of ours")


if __name__ == "__main__":
    main()
