# /// script
# requires-python = ">=3.11"
# dependencies = ["nu-waves==1.2.7", "numpy"]
# ///
"""nu-waves with numpy, its own compiled event batches in vacuum; constant matter through its matter Hamiltonian."""

import numpy as np
from nu_waves.hamiltonian import matter, vacuum
from nu_waves.models.mixing import Mixing
from nu_waves.models.spectrum import Spectrum
from nu_waves.propagation.oscillator import NeutrinoEventBatch, Oscillator
from protocol import serve


def build(workload):
    p = workload["effective"]
    angles = {
        (1, 2): np.arcsin(np.sqrt(p["sin2_theta12"])),
        (1, 3): np.arcsin(np.sqrt(p["sin2_theta13"])),
        (2, 3): np.arcsin(np.sqrt(p["sin2_theta23"])),
    }
    mixing = Mixing(n_neutrinos=3, mixing_angles=angles, dirac_phases={(1, 3): p["delta_cp"]})
    spectrum = Spectrum(n_neutrinos=3, m_lightest=0.0, dm2={(2, 1): p["dm21_eV2"], (3, 1): p["dm31_eV2"]})
    energy = np.array(workload["energy_MeV"]) * 1e-3
    length = np.full(energy.size, workload["baseline_km"])
    free = Oscillator(vacuum.Hamiltonian(mixing=mixing, spectrum=spectrum, antineutrino=True))
    dense = matter.Hamiltonian(mixing=mixing, spectrum=spectrum, antineutrino=True)
    dense.set_constant_density(rho_in_g_per_cm3=workload["density_g_cm3"], Ye=0.5)
    medium = Oscillator(dense)
    zero = np.zeros(energy.size, dtype=int)
    batch = NeutrinoEventBatch(length, energy, zero, zero, np.ones(energy.size, dtype=bool))
    free_batch, medium_batch = free.compileEvents(batch), medium.compileEvents(batch)
    return {
        "ee-vacuum": (lambda: free.probability(free_batch), np.asarray, energy.size),
        "ee": (lambda: medium.probability(medium_batch), np.asarray, energy.size),
        "all": (lambda: medium.probability(L_km=length, E_GeV=energy), np.asarray, energy.size),
    }


serve(build)
