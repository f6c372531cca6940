"""Two gloo processes on this machine, met through a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msam_ddp_worker import STEPS, batch, net
from msam_lawn.torch import SAM
from msam_lawn_cases import flat, losses

TESTS = Path(__file__).parent


def run(folder, engines, bad_step=-1):
    """Train on two ranks, the engine of each given; what they saved."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, TESTS / "msam_ddp_worker.py", str(rank), str(folder), engine, str(bad_step)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, engine in enumerate(engines)
    ]
    try:
        complaints = [rank.communicate(timeout=120)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(complaints)
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
    for engine in ("loop", "low-rank", "stacked"):
        first, second = run(tmp_path / engine, [engine, engine])
        assert torch.equal(first["weights"], second["weights"])
        torch.testing.assert_close(first["weights"], alone(), rtol=0, atol=1e-10)
        # one all-reduce of all 147 weights a step
        assert first["reduced"] == second["reduced"] == [147] * STEPS


def test_one_ranks_bad_gradient_skips_the_step_on_both(tmp_path):
    first, second = run(tmp_path / "bad", ["low-rank", "low-rank"], bad_step=7)
    assert first["skipped"] == second["skipped"] == 1
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], alone(skipped=7), rtol=0, atol=1e-10)


def test_a_rank_that_raises_fails_the_run(tmp_path):
    with pytest.raises(AssertionError, match="engine='broken' is unknown"):
        run(tmp_path / "broken", ["loop", "broken"])
