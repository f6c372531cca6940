# /// script
# requires-python = ">=3.11"
# dependencies = ["jaxnu==0.2.4", "numpy"]
# ///
"""jaxnu's NuFast backend, compiled, float64. It has no scalar NSI: it gets the effective parameters."""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jaxnu.oscillator import probability_constant  # noqa: E402
from jaxnu.params import OscParams  # noqa: E402
from protocol import serve  # noqa: E402


def build(workload):
    p = workload["effective"]
    angle = [jnp.arcsin(jnp.sqrt(p[k])) for k in ("sin2_theta12", "sin2_theta13", "sin2_theta23")]
    params = OscParams(*angle, jnp.asarray(p["delta_cp"]), jnp.asarray(p["dm21_eV2"]), jnp.asarray(p["dm31_eV2"]))
    energy = jnp.asarray(workload["energy_MeV"]) * 1e-3
    length, density = workload["baseline_km"], workload["density_g_cm3"]

    def call(density, **channel):
        @jax.jit
        def compiled(params, energy):
            return probability_constant(params, energy, length, density, 0.5, anti=True, **channel)

        return lambda: compiled(params, energy).block_until_ready()

    one = {"flavor_in": 0, "flavor_out": 0}
    count = energy.size
    return {
        "ee": (call(density, **one), np.asarray, count),
        "ee-vacuum": (call(0.0, **one), np.asarray, count),
        "all": (call(density), lambda r: np.swapaxes(np.asarray(r), -1, -2), count),
    }


serve(build)
