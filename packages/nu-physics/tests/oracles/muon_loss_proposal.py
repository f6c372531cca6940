"""Muon losses in water but ionisation, b in 1e-6 cm2/g at energies between those of the package's knots.

Computed with PROPOSAL (bremsstrahlung and pairs of Kelner, Kokoulin & Petrukhin, photonuclear of ALLM97), as tabulated
by softpaws 1.0.0; converted to column density. The range is integrated as an ordinary differential equation.
"""

import numpy as np
from scipy.integrate import solve_ivp

ENERGY_GeV = [100.0, 177.83, 237.14, 421.7, 562.34, 749.89, 1e3, 1e4, 1e5, 1e6]
B = [2.312, 2.511, 2.604, 2.775, 2.852, 2.924, 2.990, 3.357, 3.555, 3.723]


def range_g_cm2(energy, threshold, ionisation):
    """Column until E falls to the threshold, with dE/dX = -(ionisation(E) + b E)."""

    def slope(_, e):
        b = 1e-6 * np.interp(np.log(e[0]), np.log(ENERGY_GeV), B)
        return [-(ionisation(e[0]) + b * e[0])]

    def stopped(_, e):
        return e[0] - threshold

    stopped.terminal = True
    solved = solve_ivp(slope, (0.0, 1e8), [energy], events=stopped, rtol=1e-8, atol=1e-8)
    return float(solved.t_events[0][0])
