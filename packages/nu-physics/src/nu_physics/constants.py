"""Constants of nature and unit conversions, each computed from the exact SI values where it can be.

Sources: SI 2019 (exact h, c, e, N_A); CODATA 2018 for the Fermi constant, 1.1663787e-5 GeV^-2; PDG 2024 for particle
masses and the neutron lifetime, as also listed in ``pdg2024.yaml`` of dayabay-data-official 1.0.1.
"""

from __future__ import annotations

import math

PLANCK_J_s = 6.62607015e-34
LIGHT_SPEED_m_s = 299792458.0
ELEMENTARY_CHARGE_C = 1.602176634e-19
AVOGADRO_per_mol = 6.02214076e23
FERMI_per_GeV2 = 1.1663787e-5

HBAR_C_eV_m = PLANCK_J_s * LIGHT_SPEED_m_s / (2.0 * math.pi * ELEMENTARY_CHARGE_C)

# sin^2(PHASE * dm2[eV^2] * L[km] / E[MeV]): 1 / (4 hbar c), 1.26693268 for km/GeV or m/MeV, times 1000 for km/MeV.
PHASE_km_per_MeV = 1.0e3 / (4.0 * HBAR_C_eV_m * 1.0e6)

# N_A (hbar c)^3 in eV per (GeV^-2 mol cm^-3): turns a density in mol/cm3 times a coupling in GeV^-2 into eV.
DENSITY_eV_per_GeV2 = AVOGADRO_per_mol * (HBAR_C_eV_m * 1.0e-9 * 1.0e2) ** 3 * 1.0e9

# V = sqrt(2) G_F N_e in eV for one mole of electrons per cm3, and 2 E V in eV^2 for E = 1 MeV.
POTENTIAL_eV = math.sqrt(2.0) * FERMI_per_GeV2 * DENSITY_eV_per_GeV2
MATTER_eV2_per_MeV = 2.0e6 * POTENTIAL_eV

ELECTRON_MASS_MeV = 0.51099895
PROTON_MASS_MeV = 938.27208816
NEUTRON_MASS_MeV = 939.5654205
NEUTRON_PROTON_MeV = NEUTRON_MASS_MeV - PROTON_MASS_MeV
NEUTRON_LIFETIME_s = 878.4
FINE_STRUCTURE = 7.2973525693e-3
HBAR_MeV_s = PLANCK_J_s / (2.0 * math.pi * ELEMENTARY_CHARGE_C) * 1.0e-6

GIGAWATT_MeV_per_s = 1.0e9 / (ELEMENTARY_CHARGE_C * 1.0e6)
DAY_s = 86400.0
YEAR_days = 365.25
