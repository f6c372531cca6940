"""Slates a CPU second: our vector environment (256 at a time) against RecSim 0.2.4, one thread each.

OMP_NUM_THREADS=1 uv run packages/multislot-rerank/benchmarks/simulator_speed.py [--json FILE]
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from multislot_rerank.environment import MultiSlotVectorEnv
from papershelf_core.timing import Machine

PEER = Path(__file__).parent / "peers" / "recsim_slates.py"
SECONDS, BATCH = 3.0, 256


def ours(items: int, slots: int) -> float:
    environment = MultiSlotVectorEnv(BATCH, candidates=items, slots=slots)
    environment.reset(seed=0)
    actions = [np.full(BATCH, slot) for slot in range(slots)]
    slates, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        for action in actions:
            environment.step(action)
        environment.step(actions[0])  # starts the next requests
        slates += BATCH
    return slates / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        install = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", scratch, "recsim==0.2.4"]
        subprocess.run(install, check=True)
        call = ["uv", "run", "--no-project", "--quiet", "--script", str(PEER), scratch]
        peer = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    rows = {}
    for items, slots in ((10, 3), (100, 10)):
        name, mine = f"{slots} of {items}", ours(items, slots)
        rows[name] = {"ours": mine, "recsim": peer[name], "times": mine / peer[name]}
        print(f"{name:<10} ours {mine:>9.0f} slates/s   RecSim {peer[name]:>6.0f} slates/s   {mine / peer[name]:.0f}x")
    print(Machine.here("multislot-rerank", "gymnasium"))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": str(Machine.here()), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
