"""Models whose mSAM step ``cost.py`` prices: 32 rows each, small enough for one thread."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

WORDS, WIDTH, LENGTH, ROWS = 1000, 128, 64, 32


def losses(outputs, targets):
    """One loss a row, or a token."""
    flat = outputs.reshape(-1, outputs.shape[-1])
    return F.cross_entropy(flat, targets.reshape(-1), reduction="none").view(targets.shape)


class Block(nn.Module):
    """Attention and a two-layer network, normalised before."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        rows, length, width = x.shape
        split = self.queries(self.before(x)).view(rows, length, 3, self.heads, width // self.heads)
        attended = F.scaled_dot_product_attention(*split.permute(2, 0, 3, 1, 4), is_causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).reshape(rows, length, width))
        return x + self.network(self.between(x))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block(WIDTH, 4, False) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, ids):
        places = torch.arange(ids.shape[1]).expand_as(ids)
        return self.head(self.norm(self.blocks(self.words(ids) + self.places(places)).mean(1)))


class GPT(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        for table in (self.words, self.places):  # with torch's N(0, 1) the tied model computes with denormals
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(WIDTH, 4, True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.words(ids) + self.places(torch.arange(ids.shape[1])))))


class ViT(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 65, width))
        self.blocks = nn.Sequential(*(Block(width, 3, False) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class TorchEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 2)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        return self.head(self.encoder(self.words(ids)).mean(1))


class Residual(nn.Module):
    def __init__(self, before, after, stride, norm):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([norm(after), norm(after)])
        self.short = nn.Identity()
        if stride > 1 or before != after:
            self.short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm(after))

    def forward(self, x):
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.short(x))


def resnet(norm, width=16):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        norm(width),
        nn.ReLU(),
        Residual(width, width, 1, norm),
        Residual(width, 2 * width, 2, norm),
        Residual(2 * width, 4 * width, 2, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


class LSTM(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, width), nn.Linear(width, 2)
        self.recurrent = nn.LSTM(width, width, batch_first=True)

    def forward(self, ids):
        return self.head(self.recurrent(self.words(ids))[0][:, -1])


def conv1d():
    return nn.Sequential(
        nn.Conv1d(8, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(8),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


MODELS = {
    "encoder": (Encoder, "words", 2),
    "GPT, tied": (lambda: GPT(True), "words", None),
    "GPT, untied": (lambda: GPT(False), "words", None),
    "ViT": (ViT, "images", 10),
    "nn.TransformerEncoder": (TorchEncoder, "words", 2),
    "ResNet, batch norm": (lambda: resnet(nn.BatchNorm2d), "images", 10),
    "ResNet, group norm": (lambda: resnet(lambda channels: nn.GroupNorm(4, channels)), "images", 10),
    "conv1d": (conv1d, "signals", 10),
    "LSTM": (LSTM, "words", 2),
}


def task(name):
    """Model, inputs and targets."""
    torch.manual_seed(0)
    make, kind, classes = MODELS[name]
    model = make()
    if kind == "words":
        inputs = torch.randint(0, WORDS, (ROWS, LENGTH))
    else:
        inputs = torch.randn(ROWS, 3, 32, 32) if kind == "images" else torch.randn(ROWS, 8, 128)
    targets = inputs.roll(-1, 1) if classes is None else torch.randint(0, classes, (ROWS,))
    return model, inputs, targets
