# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy<2", "gym==0.26.2", "absl-py", "gin-config", "scipy", "six"]
# ///
"""RecSim 0.2.4's interest-evolution environment: slates a CPU second, in an environment of its own.

RecSim imports TensorFlow and Dopamine for its agents and summaries; the simulator itself calls neither, so both are
replaced by empty modules. Usage: recsim_slates.py FOLDER_WITH_RECSIM
"""

import importlib.abc
import importlib.machinery
import json
import sys
import time
import types

import gin  # noqa: F401 - before its TensorFlow part is replaced

SECONDS = 3.0


class Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__ = ()

    def __getattr__(self, name: str) -> object:
        if name == "__version__":
            return "1.15.0"
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class EmptyFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("tensorflow", "dopamine"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        pass


sys.modules["gin.tf"] = Empty("gin.tf")
sys.meta_path.insert(0, EmptyFinder())
sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: E402
from recsim.environments import interest_evolution  # noqa: E402

rates = {}
for items, slots in ((10, 3), (100, 10)):
    settings = {"num_candidates": items, "slate_size": slots, "resample_documents": True, "seed": 0}
    environment = interest_evolution.create_environment(settings)
    environment.reset()
    rng = np.random.default_rng(0)
    steps, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        _, _, ended, _ = environment.step(rng.permutation(items)[:slots])
        steps += 1
        if ended:
            environment.reset()
    rates[f"{slots} of {items}"] = steps / (time.process_time() - began)
print(json.dumps(rates))
