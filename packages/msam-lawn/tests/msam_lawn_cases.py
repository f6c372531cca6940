"""Nets and batches that several test files drive through the same cases."""

import torch
from oracles import numpy_msam
from torch import nn

torch.set_num_threads(1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, ids):
        return self.head(torch.tanh(self.inner(self.norm(self.embedding(ids)))).mean(1))


def tanh_mlp():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def small_cnn():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3))


CASES = {
    "tanh_mlp": (tanh_mlp, lambda: torch.randn(10, 5, dtype=torch.float64), numpy_msam.tanh_mlp),
    "small_cnn": (small_cnn, lambda: torch.randn(10, 2, 5, 5, dtype=torch.float64), numpy_msam.small_cnn),
    "encoder": (Encoder, lambda: torch.randint(0, 9, (10, 4)), numpy_msam.encoder),
}


def losses(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def case(name, seed=0):
    """Model in float64, inputs, targets, the oracle's net."""
    torch.manual_seed(seed)
    make, draw, net = CASES[name]
    model = make().double()
    with torch.no_grad():
        for w in model.parameters():
            w.add_(0.1 * torch.randn_like(w))  # norm scales off 1, biases off 0
    return model, draw(), torch.randint(0, 3, (10,)), net


def gradients(model):
    return [w.grad.detach().clone() for w in model.parameters()]


def flat(model):
    return torch.cat([w.detach().reshape(-1) for w in model.parameters()]).clone()
