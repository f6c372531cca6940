"""One rank of test_msam_ddp: arguments are the rank, the folder, the engine and the step with a bad row."""

import os
import sys

import torch
import torch.distributed as dist
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
    dist.barrier()  # not reached by a rank that raised: it leaves by its traceback, with code 1
    # gloo's threads may still hold the hook's futures; tearing them down with the interpreter aborts now and then
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
