"""Two gloo processes on this machine, met through a file."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from msam_lawn.torch import SAM
from msam_lawn_cases import flat, losses
from torch import nn

STEPS = 20


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    return x, (x.sum(1) > 0).long()


def worker(rank, folder, engine, bad_step):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    reduced = []

    def counting(_, bucket):
        reduced.append(bucket.buffer().numel())
        future = dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
        return future.then(lambda done: done.value()[0])

    model = net()
    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped.register_comm_hook(None, counting)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.1, micro_batches=2, engine=engine)
    for seed in range(STEPS):
        x, y = batch(seed)
        mine = slice(8 * rank, 8 * rank + 8)
        x, y = x[mine].clone(), y[mine]
        if seed == bad_step and rank == 1:
            x[0, 0] = torch.nan
        optimizer.zero_grad()
        optimizer.backward(wrapped, x, y, losses)
        optimizer.step()
    torch.save(
        {"weights": flat(model), "reduced": reduced, "skipped": optimizer.skipped_steps}, f"{folder}/rank{rank}.pt"
    )
    dist.destroy_process_group()


def run(folder, engine, bad_step=-1):
    folder.mkdir()
    mp.start_processes(worker, args=(str(folder), engine, bad_step), nprocs=2, start_method="fork")
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
