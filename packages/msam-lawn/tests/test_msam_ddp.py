"""Two gloo processes on this machine, met through a file."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from msam_ddp_worker import STEPS, batch, net
from msam_lawn.torch import SAM
from msam_lawn_cases import flat, losses

TESTS = Path(__file__).parent


def run(folder, engine, bad_step=-1):
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, TESTS / "msam_ddp_worker.py", str(rank), str(folder), engine, str(bad_step)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for rank in ranks:
            _, complaint = rank.communicate(timeout=120)
            assert rank.returncode == 0, complaint
    finally:
        for rank in ranks:
            rank.kill()  # does nothing to one that has ended
            rank.wait()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def alone(skipped=-1):
    model = net()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.1, micro_batches=4, engine="loop")
    for seed in range(STEPS):
        if seed != skipped:
            optimizer.zero_grad()
            optimizer.backward(model, *batch(seed), losses)
            optimizer.step()
    return flat(model)


def test_two_processes_are_one_with_twice_the_micro_batches(tmp_path):
    for engine in ("loop", "low-rank"):
        first, second = run(tmp_path / engine, engine)
        assert torch.equal(first["weights"], second["weights"])
        torch.testing.assert_close(first["weights"], alone(), rtol=0, atol=1e-10)
        # one all-reduce of all 147 weights a step
        assert first["reduced"] == second["reduced"] == [147] * STEPS


def test_one_ranks_bad_gradient_skips_the_step_on_both(tmp_path):
    first, second = run(tmp_path / "bad", "low-rank", bad_step=7)
    assert first["skipped"] == second["skipped"] == 1
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], alone(skipped=7), rtol=0, atol=1e-10)
