"""Layer errors and times: our solvers, the paper's and GPTQ on the same problems; peers join through files.

    uv run python packages/quantease/benchmarks/layers.py problems --model MODEL --encoder FOLDER --out FILE
    uv run python packages/quantease/benchmarks/layers.py errors --problems FILE [--peers FOLDER]
    uv run python packages/quantease/benchmarks/layers.py times --problems FILE

Problems: the seven linear layers of blocks 0, 12, 24 of a decoder (calibration: the first 64 windows of 512 tokens of
WikiText-2 valid; held-out: the last 16) and the six of one block of an encoder. A peer's FOLDER holds one safetensors
file a setting, with its dequantised weights by problem name.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from papershelf_core import datasets, timing
from quantease.calibration import token_windows
from quantease.coordinate_descent import SortedMoment, _by_column, coordinate_descent, objective
from quantease.gptq import gptq, upper_factor
from quantease.grid import fit_grid
from quantease.layer import quantize_layer
from quantease.models import load_model, load_tokenizer
from quantease.moments import Moment
from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig
from safetensors.torch import load_file, save_file
from torch import nn

BLOCKS, ENCODER_BLOCK = (0, 12, 24), 2
LENGTH, CALIBRATION_WINDOWS, HELD_OUT_WINDOWS = 512, 64, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["problems", "errors", "times"])
    parser.add_argument("--model")
    parser.add_argument("--encoder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "problems":
        save_file(problems(arguments.model, arguments.encoder), arguments.out)
    elif arguments.what == "errors":
        errors(load_file(arguments.problems), arguments.peers)
    else:
        times(load_file(arguments.problems))
    print(timing.Machine.here("quantease", "torch"))


@torch.no_grad()
def problems(model_source: str, encoder_source: str) -> dict[str, torch.Tensor]:
    """``<name>.weight``, ``.sigma`` and ``.held_out`` of every problem."""
    from transformers import AutoModel, AutoTokenizer

    text = datasets.load("wikitext2", split="valid").text
    decoder = load_model(model_source).model
    decoder.layers = decoder.layers[: max(BLOCKS) + 1]
    found = {f"layers.{i}.{n}": m for i in BLOCKS for n, m in decoder.layers[i].named_modules() if type(m) is nn.Linear}
    stored = moments(decoder, found, token_windows(load_tokenizer(model_source), text, LENGTH))
    encoder = AutoModel.from_pretrained(encoder_source, dtype=torch.float32)
    block = encoder.encoder.layer[ENCODER_BLOCK]
    found = {f"encoder.{n}": m for n, m in block.named_modules() if type(m) is nn.Linear}
    tokenizer = AutoTokenizer.from_pretrained(encoder_source)
    return stored | moments(encoder, found, token_windows(tokenizer, text, LENGTH))


def moments(model: nn.Module, layers: dict[str, nn.Linear], windows: torch.Tensor) -> dict[str, torch.Tensor]:
    stored = {f"{name}.weight": layer.weight.data.clone() for name, layer in layers.items()}
    for kind, chosen in (("sigma", windows[:CALIBRATION_WINDOWS]), ("held_out", windows[-HELD_OUT_WINDOWS:])):
        sums = {name: Moment() for name in layers}
        handles = [
            layer.register_forward_pre_hook(lambda _m, args, into=sums[name]: into.update(args[0]))
            for name, layer in layers.items()
        ]
        for window in chosen:
            model(window[None])
        for handle in handles:
            handle.remove()
        stored |= {f"{name}.{kind}": (moment.total / moment.tokens).float() for name, moment in sums.items()}
    return stored


def settings(bits: int) -> dict[str, tuple[SolverConfig, OutlierConfig | None]]:
    """Name, solver and outliers of what is compared; ridge .01 unless the paper's."""
    one_percent = OutlierConfig(0.01)
    return {
        "rtn, min/max": (SolverConfig("rtn", grid="minmax"), None),
        "GPTQ activation order, min/max": (SolverConfig("gptq", grid="minmax"), None),
        "paper, 30 sweeps, min/max": (SolverConfig("paper", grid="minmax", sweeps=30), None),
        "ours, min/max": (SolverConfig(grid="minmax"), None),
        "GPTQ activation order, our grid": (SolverConfig("gptq"), None),
        "ours": (SolverConfig(), None),
        "paper, outliers 1 %": (SolverConfig("paper", sweeps=30), one_percent),
        "ours, outliers 1 %": (SolverConfig(), one_percent),
        "ours, columns 1 %": (SolverConfig(), OutlierConfig(0.01, "column")),
    }


RATIOS = [
    ("ours, min/max", "GPTQ activation order, min/max"),
    ("ours, min/max", "paper, 30 sweeps, min/max"),
    ("ours", "GPTQ activation order, our grid"),
    ("ours, outliers 1 %", "paper, outliers 1 %"),
    ("ours, outliers 1 %", "ours"),
    ("ours, columns 1 %", "ours"),
]


def relative(weight: torch.Tensor, approximation: torch.Tensor, sigma: torch.Tensor) -> float:
    return float(
        objective(weight, approximation, sigma).sum() / objective(weight, torch.zeros_like(weight), sigma).sum()
    )


def errors(stored: dict[str, torch.Tensor], peers: Path | None) -> None:
    names = sorted(key.removesuffix(".weight") for key in stored if key.endswith(".weight"))
    for bits in (3, 2):
        calibration: dict[str, list[float]] = defaultdict(list)
        held_out: dict[str, list[float]] = defaultdict(list)
        outputs = {}
        for method, (solver, outliers) in settings(bits).items():
            outputs[method] = {}
            for name in names:
                result = quantize_layer(
                    stored[f"{name}.weight"],
                    stored[f"{name}.sigma"],
                    QuantizationScheme(bits),
                    solver,
                    outliers=outliers,
                )
                outputs[method][name] = result.dequantize()
        for file in sorted(peers.glob(f"*-{bits}bit.safetensors")) if peers else []:
            outputs[file.stem] = load_file(file)
        print(f"\n{bits} bit per channel\n")
        print("| method | sum of errors | geometric mean | held-out, sum | held-out, geometric |")
        print("| --- | --- | --- | --- | --- |")
        for method, weights in outputs.items():
            for name in names:
                weight = stored[f"{name}.weight"]
                calibration[method].append(relative(weight, weights[name], stored[f"{name}.sigma"]))
                held_out[method].append(relative(weight, weights[name], stored[f"{name}.held_out"]))
            columns = [f"{f(e[method]):.5f}" for e in (calibration, held_out) for f in (sum, geometric)]
            print(f"| {method} | {' | '.join(columns)} |")
        print(
            "\n| ratio | of sums | geometric mean | worst layer | held-out: of sums |\n| --- | --- | --- | --- | --- |"
        )
        pairs = RATIOS + [("ours", method) for method in outputs if method not in settings(bits)]
        for ours, theirs in pairs:
            ratios = np.array(calibration[ours]) / np.array(calibration[theirs])
            sums = [sum(e[ours]) / sum(e[theirs]) for e in (calibration, held_out)]
            worst = f"{ratios.max():.3f} ({names[ratios.argmax()]})"
            print(f"| {ours} / {theirs} | {sums[0]:.3f} | {geometric(ratios):.3f} | {worst} | {sums[1]:.3f} |")


def geometric(values: list[float] | np.ndarray) -> float:
    return math.exp(float(np.log(values).mean()))


TIMED = ("layers.12.self_attn.o_proj", "layers.12.mlp.gate_proj", "layers.12.mlp.down_proj")


SOLVERS = {
    "our GPTQ": SolverConfig("gptq"),
    "ours": SolverConfig(),
    "our GPTQ, min/max": SolverConfig("gptq", grid="minmax"),
    "ours, min/max": SolverConfig(grid="minmax"),
}


def times(stored: dict[str, torch.Tensor]) -> None:
    """CPU seconds, interleaved: solvers on all layers and on three shapes, and one sweep in three forms."""
    names = sorted(key.removesuffix(".weight") for key in stored if key.endswith(".weight"))
    for bits in (3, 2):
        compared = compare(stored, names, QuantizationScheme(bits), SOLVERS)
        print(f"{bits} bit, all {len(names)} layers")
        show(compared)
    scheme = QuantizationScheme(3)
    for name in TIMED:
        weight, sigma = stored[f"{name}.weight"], stored[f"{name}.sigma"]
        print(f"\n{name} {tuple(weight.shape)}")
        paper = {"paper, 30 sweeps": SolverConfig("paper", grid="minmax", sweeps=30)}
        show(compare(stored, [name], scheme, SOLVERS | paper))
        for start in ("rounding", "GPTQ"):
            forms = sweep_forms(weight, sigma, start)
            swept = timing.compare(forms, repeat=5, baseline="GEMV", clock="process")
            print(f"  one sweep from {start}: " + ", ".join(f"{k} {v:.4f} CPU s" for k, v in swept.median.items()))
            print(f"    by row {swept.ratio('by row')}, lazy blocks {swept.ratio('lazy blocks')} of the GEMV form")


def compare(
    stored: dict[str, torch.Tensor], names: list[str], scheme: QuantizationScheme, solvers: dict[str, SolverConfig]
) -> timing.Comparison:
    functions = {
        key: lambda solver=solver: [
            quantize_layer(stored[f"{name}.weight"], stored[f"{name}.sigma"], scheme, solver) for name in names
        ]
        for key, solver in solvers.items()
    }
    return timing.compare(functions, repeat=5, baseline="our GPTQ", clock="process")


def show(compared: timing.Comparison) -> None:
    for key, seconds in compared.median.items():
        print(f"  {key}: {seconds:.3f} CPU s, {compared.ratio(key)} of our GPTQ")


def sweep_forms(weight: torch.Tensor, sigma: torch.Tensor, start: str):
    """One whole sweep, its first gradient included, in three forms that end with the same codes."""
    sigma = sigma / sigma.diagonal().mean()
    sigma.diagonal().add_(0.01)
    natural, moment = torch.arange(len(sigma)), SortedMoment.of(sigma)
    grid = fit_grid(weight, QuantizationScheme(3), "minmax", sigma.diagonal())
    codes = grid.encode(weight) if start == "rounding" else gptq(weight, grid, upper_factor(sigma), natural).codes
    scale, zero = (entry.T.contiguous() for entry in grid.columns())
    scaled = sigma / sigma.diagonal()
    pull = (weight @ scaled).T.contiguous()
    rows_of_n = scaled.fill_diagonal_(0).T.contiguous()
    before = (codes.T.contiguous() - zero) * scale

    def by_row() -> torch.Tensor:
        return coordinate_descent(weight, codes, grid, moment, 1).codes

    def lazy() -> torch.Tensor:
        gradient, moving = (weight - grid.decode(codes)) @ sigma, codes.clone()
        _by_column(gradient, moving, grid, moment, 1, None)
        return moving

    def gemv() -> torch.Tensor:
        approximation = before.clone()
        ahead = pull - rows_of_n @ approximation
        change = torch.empty_like(approximation)
        for j in range(len(approximation)):
            best = torch.addmv(ahead[j], change[:j].T, rows_of_n[j, :j])
            best = (torch.round(best / scale[j]).add_(zero[j]).clamp_(0, grid.largest_code) - zero[j]) * scale[j]
            torch.sub(approximation[j], best, out=change[j])
            approximation[j] = best
        return (approximation / scale + zero).round().T

    differing = [int((form() != by_row()).sum()) for form in (lazy, gemv)]
    if max(differing) > weight.numel() // 10_000:  # near ties in float32
        raise SystemExit(f"the forms differ in {differing} codes of {weight.numel()}")
    return {"by row": by_row, "lazy blocks": lazy, "GEMV": gemv}


if __name__ == "__main__":
    main()
