"""The mSAM gradient of any torch model, slow and obvious: a loop over micro-batches with weights moved by hand."""

import torch


def plain_msam(model, loss, inputs, targets, sizes, rho, weights):
    """g = sum_i q_i grad L_i(w + rho g_i / ||g_i||) of the tensors in ``weights``; None where there is none.

    ``loss(model, inputs, targets) -> scalar mean`` of the rows it is given; ``inputs`` and ``targets`` are tuples of
    tensors. Each micro-batch draws the same random numbers in both passes. What the first pass writes into a weight
    itself (max_norm) stays.
    """
    total = [None] * len(weights)
    start = 0
    for size in sizes:
        x = tuple(t[start : start + size] for t in inputs)
        y = tuple(t[start : start + size] for t in targets)
        start += size
        state = torch.get_rng_state()
        first = torch.autograd.grad(loss(model, x, y), weights, allow_unused=True)
        first = [None if g is None else g.to_dense() for g in first]
        norm = sum(float(g.square().sum()) for g in first if g is not None) ** 0.5
        before = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, g in zip(weights, first, strict=True):
                if g is not None:
                    w.copy_(w + rho * g / (norm + 1e-12))
        torch.set_rng_state(state)
        second = torch.autograd.grad(loss(model, x, y), weights, allow_unused=True)
        with torch.no_grad():
            for w, kept in zip(weights, before, strict=True):
                w.copy_(kept)
        for i, g in enumerate(second):
            if g is not None:
                part = size / sum(sizes) * g.to_dense()
                total[i] = part if total[i] is None else total[i] + part
    return total
