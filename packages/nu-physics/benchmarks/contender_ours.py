"""nu-physics itself, through its public functions: eigen-decomposition of X and validation are inside the timing."""

import numpy as np
from nu_physics import OscillationParameters, ScalarNSI, probability, survival
from protocol import serve


def build(workload):
    energy = np.array(workload["energy_MeV"])
    nature = OscillationParameters(**workload["parameters"])
    snsi = ScalarNSI(ee=workload["eta_ee"])
    options = {"density_g_cm3": workload["density_g_cm3"], "electron_fraction": 0.5}
    length = workload["baseline_km"]
    nine = np.array(workload["nine_baselines_km"])
    return {
        "ee": (lambda: survival(energy, length, nature, snsi, **options), np.asarray, energy.size),
        "ee-vacuum": (lambda: survival(energy, length, nature, snsi), np.asarray, energy.size),
        "ee-9-baselines": (
            lambda: survival(energy, nine, nature, snsi, **options),
            np.asarray,
            energy.size * nine.size,
        ),
        "all": (lambda: probability(energy, length, nature, snsi, **options), np.asarray, energy.size),
    }


serve(build)
