# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch", "numpy", "scipy", "scikit-learn", "pytorch-optimizer==4.1.0", "curvlinops-for-pytorch==3.0.1",
# ]
# ///
"""Speed, equality and misuse side by side with pytorch_optimizer and curvlinops, in one process, one thread.

Needs both source folders on PYTHONPATH (packages/msam-lawn/src and packages/papershelf-core/src).
"""

import importlib.metadata
import warnings

import numpy as np
import pytorch_optimizer
import torch
from msam_lawn.lanczos import top_eigenvalues
from msam_lawn.torch import LAWN, SAM, HessianProduct
from papershelf_core.timing import compare
from torch import nn

torch.set_num_threads(1)


def losses(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def mlp():
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)),
        torch.randn(128, 3072),
        torch.randint(0, 10, (128,)),
    )


def cnn():
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 64, 10),
        ),
        torch.randn(64, 3, 32, 32),
        torch.randint(0, 10, (64,)),
    )


def ours(model, x, y, count):
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1e-5), rho=0.05, micro_batches=count)

    def step():
        optimizer.zero_grad()
        optimizer.backward(model, x, y, losses)
        optimizer.step()

    step()
    return step, optimizer.choices[0].engine


def peer_loop(model, x, y, count):
    """mSAM by hand around pytorch_optimizer's first_step: what a user of it would write."""
    optimizer = pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=1e-5)
    weights = list(model.parameters())

    def step():
        summed = [torch.zeros_like(w) for w in weights]
        for xs, ys in zip(x.chunk(count), y.chunk(count), strict=True):
            start = [w.detach().clone() for w in weights]
            nn.functional.cross_entropy(model(xs), ys).backward()
            optimizer.first_step(zero_grad=True)
            nn.functional.cross_entropy(model(xs), ys).backward()
            with torch.no_grad():
                for w, kept, total in zip(weights, start, summed, strict=True):
                    total.add_(w.grad, alpha=len(xs) / len(x))
                    w.copy_(kept)
            optimizer.zero_grad()
        for w, total in zip(weights, summed, strict=True):
            w.grad = total
        optimizer.base_optimizer.step()
        optimizer.zero_grad()

    return step


def plain(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def speed_mlp():
    problem = mlp()
    functions = {"plain": plain(*problem)}
    for count in (1, 2, 4, 8, 16, 32, 64, 128):
        functions[f"ours {count}"], engine = ours(*problem, count)
        print(f"engine for {count}: {engine}")
    result = compare(functions, repeat=9)
    for name in functions:
        print(f"MLP {name}: {1e3 * result.median[name]:.1f} ms, {result.ratio(name)} of a plain step", flush=True)
    for count in (16, 128):
        step, _ = ours(*problem, count)
        pair = compare({"ours": step, "peer": peer_loop(*problem, count)}, repeat=5)
        print(f"MLP {count}: loop through pytorch_optimizer {pair.ratio('peer')} of ours", flush=True)


def speed_cnn():
    problem = cnn()
    functions = {"pytorch_optimizer SAM": peer_loop(*problem, 1), "plain": plain(*problem)}
    for count in (1, 4, 8):
        functions[f"ours {count}"], engine = ours(*problem, count)
        print(f"CNN engine for {count}: {engine}")
    result = compare(functions, repeat=9)
    for name in functions:
        print(f"CNN {name}: {1e3 * result.median[name]:.1f} ms, {result.ratio(name)} of pytorch_optimizer's SAM")


def speed_lawn():
    """1e7 weights in layers of three sizes; both optimizers with torch's default kernels, and both fused."""

    def weights(side):
        torch.manual_seed(0)
        made = [nn.Parameter(0.03 * torch.randn(side, side)) for _ in range(round(1e7 / side**2))]
        for w in made:
            w.grad = 1e-3 * torch.randn_like(w)
        return made

    for side in (256, 1000, 3162):
        functions = {}
        for kernels, options in (("default", {}), ("fused", {"fused": True})):
            plain_weights, held = weights(side), weights(side)
            functions[f"Adam {kernels}"] = torch.optim.Adam(plain_weights, lr=1e-3, **options).step
            base = torch.optim.Adam(held, lr=1e-3, **options)
            functions[f"LAWN on Adam {kernels}"] = LAWN(base, held, free_steps=0).step
        result = compare(functions, repeat=15)
        for name in functions:
            print(
                f"layers of {side} x {side}: {name} {1e3 * result.median[name]:.1f} ms, "
                f"{result.ratio(name)} of Adam default"
            )


def equality():
    for kind, make, extra in (
        ("SGD", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        ("Adam", torch.optim.Adam, {"lr": 1e-2}),
    ):
        for dtype in (torch.float32, torch.float64):
            for adaptive in (False, True):
                nets = []
                for _ in range(2):
                    torch.manual_seed(0)
                    nets.append(nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype))
                mine = SAM(make(nets[0].parameters(), **extra), rho=0.1, adaptive=adaptive)
                theirs = pytorch_optimizer.SAM(nets[1].parameters(), make, rho=0.1, adaptive=adaptive, **extra)
                torch.manual_seed(1)
                for _ in range(50):
                    x, y = torch.randn(16, 5, dtype=dtype), torch.randint(0, 3, (16,))
                    mine.zero_grad()
                    mine.backward(nets[0], x, y, losses)
                    mine.step()
                    nn.functional.cross_entropy(nets[1](x), y).backward()
                    theirs.first_step(zero_grad=True)
                    nn.functional.cross_entropy(nets[1](x), y).backward()
                    theirs.second_step(zero_grad=True)
                gap = max(
                    float((a - b).abs().max().detach())
                    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True)
                )
                print(f"50 steps of {kind}, {dtype}, adaptive={adaptive}: largest difference {gap:.1e}")


def misuse():
    """What each does with input that a training loop gives by mistake."""
    x, y = torch.randn(16, 5), torch.randint(0, 3, (16,))

    def net(batch_norm=False):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8) if batch_norm else nn.Tanh(), nn.Linear(8, 3))

    makers = {
        "ours": lambda model: SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5),
        "pytorch_optimizer": lambda model: pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1),
    }

    def vector(model):
        return torch.cat([w.detach().reshape(-1) for w in model.parameters()]).clone()

    def step(name, model, inputs, fail_at=0):
        optimizer, calls = makers[name](model), []

        def closure():
            calls.append(0)
            loss = nn.functional.cross_entropy(model(inputs), y)
            loss.backward()
            if len(calls) == fail_at:
                raise RuntimeError
            return loss

        if name != "ours" and fail_at:  # its documented use: a backward pass before step(closure)
            fail_at = 1
            nn.functional.cross_entropy(model(inputs), y).backward()
        try:
            return optimizer.step(closure)
        except RuntimeError:
            return None

    sgd = net()
    plain(sgd, x, y)  # makes the optimizer; the step below is by hand
    nn.functional.cross_entropy(sgd(x), y).backward()
    descended = vector(sgd) - 0.1 * torch.cat([w.grad.reshape(-1) for w in sgd.parameters()])
    for name in makers:
        model = net()
        loss = step(name, model, x)
        gap = float((vector(model) - descended).norm())
        print(f"{name}: step(closure) alone differs from plain SGD by {gap:.1e}; returns {type(loss).__name__}")
        model = net(batch_norm=True)
        if name == "ours":
            step(name, model, x)
        else:
            nn.functional.cross_entropy(model(x), y).backward()
            step(name, model, x)
        print(f"{name}: batch-norm counter after one step {int(model[1].num_batches_tracked)}")
        model = net()
        before = vector(model)
        if name != "ours":
            nn.functional.cross_entropy(model(x * torch.inf), y).backward()
        step(name, model, x * torch.inf)
        print(
            f"{name}: after a non-finite gradient, weights unchanged: {torch.equal(vector(model), before)}, "
            f"finite: {bool(torch.isfinite(vector(model)).all())}"
        )
        model = net()
        before = vector(model)
        step(name, model, x, fail_at=2)
        print(f"{name}: after an exception in the second pass, weights unchanged: {torch.equal(vector(model), before)}")


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def noise():
    torch.manual_seed(0)
    return torch.randn(800, 64), torch.randint(0, 10, (800,))


def flatness():
    for draw in (digits, noise):
        top_five(draw.__name__, *draw())


def top_five(data, x, y):
    """Five eigenvalues of a trained 64-24-10 net's Hessian (1,810 weights) against the dense matrix."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        losses(model(x), y).mean().backward()
        optimizer.step()
    product = HessianProduct(model, x, y, losses)
    dense = np.stack([product(column) for column in np.eye(product.size)])
    exact = np.sort(np.linalg.eigvalsh((dense + dense.T) / 2))[::-1][:5]
    loader = DataLoader(TensorDataset(x, y), batch_size=len(x))
    params = dict(model.named_parameters())
    found = {}

    def mine():
        found["ours"] = top_eigenvalues(product, product.size, 5).values

    def peer():
        try:
            operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), params, loader, check_deterministic=False)
        except Exception:
            operator = HessianLinearOperator(
                model, nn.CrossEntropyLoss(), list(params.values()), loader, check_deterministic=False
            )
        values = eigsh(operator.to_scipy(), k=5, which="LA", tol=1e-4, return_eigenvectors=False)
        found["curvlinops"] = np.sort(values)[::-1]

    result = compare({"ours": mine, "curvlinops": peer}, repeat=5)
    for name, values in found.items():
        error = np.abs(values / exact - 1).max()
        print(f"{data}, {name}: top-5 within {error:.1e} of dense, {result.median[name]:.3f} CPU s")
    used = top_eigenvalues(product, product.size, 5)
    met = 1 + next(count for count in range(5, 100) if within(exact, product, count))
    print(
        f"{data}: curvlinops + eigsh takes {result.ratio('curvlinops')} of ours, which used {used.products} products "
        f"(bound {(used.errors / exact).max():.1e}); 1e-4 is met from product {met} on"
    )


def within(exact, product, count):
    """Whether one product more than this brings all five within 1e-4."""
    values = top_eigenvalues(product, product.size, 5, tolerance=0.0, max_products=count + 1).values
    return np.abs(values / exact - 1).max() <= 1e-4


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    names = ("torch", "pytorch-optimizer", "curvlinops-for-pytorch")
    print({name: importlib.metadata.version(name) for name in names})
    for part in (equality, misuse, flatness, speed_mlp, speed_cnn, speed_lawn):
        print(f"--- {part.__name__}")
        part()
