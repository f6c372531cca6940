"""What every contender of probability.py speaks: one workload in, accuracy data and CPU seconds out.

The runner starts each script in its own environment, waits for "ready", and then writes one line per round; the
script answers each with the CPU seconds of one call. So the rounds of all contenders interleave.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

# Standard three-flavour parameters, and a scalar term of eta_ee for those who have one. Everyone else gets the
# effective parameters, which the runner takes from nu_physics.effective_parameters: the same physics, for free.
Contender = Callable[[dict], dict[str, tuple[Callable[[], object], Callable[[object], np.ndarray], int]]]


def serve(build: Contender) -> None:
    """build(workload) -> {case: (call, to_array, points)}; to_array gives P_ee(E) or P(E, alpha, beta)."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        workload = json.load(stream)
    folder = sys.argv[2]
    os.sched_setaffinity(0, {workload["core"]})
    cases = build(workload)
    for name, (call, to_array, _) in cases.items():
        result = call()
        np.save(os.path.join(folder, f"{os.path.basename(sys.argv[0])}-{name}.npy"), to_array(result))
        call()
    print(json.dumps({"ready": {name: points for name, (_, _, points) in cases.items()}}), flush=True)
    for line in sys.stdin:
        name = line.strip()
        call, _, _ = cases[name]
        count, begin = 0, time.process_time()
        while count < 1 or time.process_time() - begin < 0.05:
            call()
            count += 1
        print((time.process_time() - begin) / count, flush=True)
