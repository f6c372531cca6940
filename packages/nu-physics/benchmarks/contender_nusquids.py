# /// script
# requires-python = ">=3.11"
# dependencies = ["nusquids==1.13.3", "numpy"]
# ///
"""nuSQuIDS, multi-energy mode without interactions, tolerance 1e-8; the ODE has no shortcut for constant density."""

import numpy as np
import nuSQuIDS as nsq  # noqa: N813
from protocol import serve


def build(workload):
    p = workload["effective"]
    units = nsq.Const()
    energy = np.array(workload["energy_MeV"])[:: workload["nusquids_stride"]] * 1e-3

    def solver(density):
        nus = nsq.nuSQUIDS(energy * units.GeV, 3, nsq.NeutrinoType.antineutrino, False)
        nus.Set_MixingAngle(0, 1, float(np.arcsin(np.sqrt(p["sin2_theta12"]))))
        nus.Set_MixingAngle(0, 2, float(np.arcsin(np.sqrt(p["sin2_theta13"]))))
        nus.Set_MixingAngle(1, 2, float(np.arcsin(np.sqrt(p["sin2_theta23"]))))
        nus.Set_CPPhase(0, 2, p["delta_cp"])
        nus.Set_SquareMassDifference(1, p["dm21_eV2"])
        nus.Set_SquareMassDifference(2, p["dm31_eV2"])
        nus.Set_rel_error(1e-8)
        nus.Set_abs_error(1e-8)
        length = workload["baseline_km"] * units.km
        nus.Set_Body(nsq.ConstantDensity(density, 0.5))
        nus.Set_Track(nsq.ConstantDensity.Track(length))
        state = np.zeros((energy.size, 3))
        state[:, 0] = 1.0

        def call():
            nus.Set_Track(nsq.ConstantDensity.Track(length))
            nus.Set_initial_state(state, nsq.Basis.flavor)
            nus.EvolveState()
            return np.array([nus.EvalFlavorAtNode(0, i) for i in range(energy.size)])

        return call

    return {"ee": (solver(workload["density_g_cm3"]), np.asarray, energy.size)}


serve(build)
