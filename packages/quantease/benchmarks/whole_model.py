"""Perplexity of a whole model, quantised in many ways on the same tokens; finished cells stay on disk.

    uv run python packages/quantease/benchmarks/whole_model.py --model MODEL --out FOLDER [--cells NAME ...]
    uv run python packages/quantease/benchmarks/whole_model.py --model MODEL --out FOLDER --fresh --cells NAME ...
    uv run python packages/quantease/benchmarks/whole_model.py --model MODEL --out FOLDER --peers
    uv run python packages/quantease/benchmarks/whole_model.py --model MODEL --out FOLDER --table

A cell is `<bits>-<group>-<recipe>`; its per-token nll is FOLDER/nll/<cell>.npy. `--peers` scores every file of
dequantised weights that a peer has left in FOLDER/peers (see peer_*_model.py) in the same way.
Calibration: the first 64 windows of 512 tokens of WikiText-2 valid; evaluation: 64 windows spread over WikiText-2 test.
`--fresh` scores cells once more on 64 other windows of it (FOLDER/nll/fresh), for pairs whose difference is small.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from papershelf_core import datasets, metrics, timing
from quantease.calibration import token_windows
from quantease.evaluation import paired_difference, token_nll
from quantease.models import load_model, load_tokenizer
from quantease.pipeline import quantize_model
from quantease.scheme import QuantizationScheme, SolverConfig
from safetensors import safe_open

SCHEMES = {
    "3-channel": QuantizationScheme(3),
    "3-g64": QuantizationScheme(3, 64),
    "2-g64": QuantizationScheme(2, 64),
}
# name: solver, error feedback, drift windows
RECIPES = {
    "rtn": (SolverConfig("rtn", grid="minmax"), False, 0),
    "gptq-minmax": (SolverConfig("gptq", grid="minmax"), False, 0),
    "gptq": (SolverConfig("gptq"), False, 0),
    "cd": (SolverConfig("quantease"), False, 0),
    "feedback8-gptq": (SolverConfig("gptq"), True, 8),
    "feedback8-cd": (SolverConfig("quantease"), True, 8),
    "feedback32-gptq": (SolverConfig("gptq"), True, 32),
    "feedback32-cd": (SolverConfig("quantease"), True, 32),
}
PAIRS = [("cd", "gptq"), ("feedback8-cd", "feedback8-gptq"), ("feedback32-cd", "feedback32-gptq")]
OURS = ("feedback8-cd", "cd")  # against every other row of the same scheme
CALIBRATION_WINDOWS, TEST_WINDOWS, LENGTH = 64, 64, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", nargs="*", default=[])
    parser.add_argument("--calibration", type=Path, help="another calibration text; its cells end in its name")
    parser.add_argument("--fresh", action="store_true", help="score the cells on windows that the table does not use")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (arguments.out / "nll" / "fresh").mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        tokens(arguments.model, arguments.out)
        for cell in arguments.cells:
            run(cell, arguments.model, arguments.out, arguments.calibration, arguments.fresh)
        if arguments.peers:
            score_peers(arguments.model, arguments.out)
    table(arguments.out)


def tokens(model: str, out: Path) -> None:
    """Hand the windows over to peers as arrays."""
    tokenizer = load_tokenizer(model)
    valid, test = (datasets.load("wikitext2", split=split).text for split in ("valid", "test"))
    chosen = token_windows(tokenizer, test, LENGTH, TEST_WINDOWS, spread=True)
    np.save(out / "calibration.npy", token_windows(tokenizer, valid, LENGTH, CALIBRATION_WINDOWS).numpy())
    np.save(out / "test.npy", chosen.numpy())
    windows = token_windows(tokenizer, test, LENGTH)
    rest = windows[~(windows[:, None] == chosen).all(2).any(1)]
    np.save(out / "fresh.npy", rest[torch.linspace(0, len(rest) - 1, TEST_WINDOWS).round().long()].numpy())


def run(cell: str, source: str, out: Path, calibration: Path | None, fresh: bool) -> None:
    name = cell if calibration is None else f"{cell}-{calibration.stem}"
    scores = out / "nll" / "fresh" if fresh else out / "nll"
    if (scores / f"{name}.npy").exists():
        return
    model = load_model(source)
    test = torch.from_numpy(np.load(out / ("fresh.npy" if fresh else "test.npy")))
    began, clock = time.process_time(), 0.0
    if cell != "fp32":
        bits, group, recipe = cell.split("-", 2)
        solver, feedback, drift = RECIPES[recipe]
        windows = torch.from_numpy(np.load(out / "calibration.npy"))
        if calibration is not None:
            text = calibration.read_text(encoding="utf-8")
            windows = token_windows(load_tokenizer(source), text, LENGTH, CALIBRATION_WINDOWS)
        result = quantize_model(
            model,
            windows,
            SCHEMES[f"{bits}-{group}"],
            solver,
            error_feedback=feedback,
            drift_windows=drift,
            folder=out / "runs" / name,
            moments=out / ("moments" if calibration is None else f"moments-{calibration.stem}"),
            progress=lambda at: print(f"{name}: block {at.blocks_done}, {at.seconds_left or 0:.0f} s left", flush=True),
        )
        clock = time.process_time() - began
        about = {"cpu_seconds": clock, "bits": result.bits_per_weight}
        about["layer_error"] = float(np.mean([row.error for row in result.reports]))
        (scores / f"{name}.json").write_text(json.dumps(about))
    keep(name, token_nll(model, test), scores)
    print(f"{name}: {clock:.0f} CPU s", flush=True)


def keep(name: str, nll: np.ndarray, scores: Path) -> None:
    scratch = scores / f"{name}.part.npy"
    np.save(scratch, nll)
    scratch.replace(scores / f"{name}.npy")
    print(f"{name}: perplexity {np.exp(nll.mean()):.2f}", flush=True)


def score_peers(source: str, out: Path) -> None:
    """Put the weights that peers left into the model, one file after the other; all layers must be there."""
    test = torch.from_numpy(np.load(out / "test.npy"))
    model = load_model(source)
    layers = [name for name in model.state_dict() if name.endswith("_proj.weight")]
    for file in sorted((out / "peers").glob("*.safetensors")):
        if (out / "nll" / f"{file.stem}.npy").exists():
            continue
        with safe_open(file, "pt") as stored:
            about = json.loads((stored.metadata() or {}).get("about", "{}"))
            weights = {name: stored.get_tensor(name).float() for name in layers}
        model.load_state_dict(weights, strict=False)
        (out / "nll" / f"{file.stem}.json").write_text(json.dumps(about))
        keep(file.stem, token_nll(model, test), out / "nll")


def scored(folder: Path) -> dict[str, np.ndarray]:
    """Nll of every finished cell by name."""
    return {file.stem: np.load(file) for file in sorted(folder.glob("*.npy")) if ".part" not in file.name}


def table(out: Path) -> None:
    cells = scored(out / "nll")
    print("| cell | perplexity (s.e.) | mean layer error | bits a weight | CPU s |\n| --- | --- | --- | --- | --- |")
    for name, nll in cells.items():
        file = out / "nll" / f"{name}.json"
        about = json.loads(file.read_text()) if file.exists() else {}
        windows = np.repeat(np.arange(len(nll)), nll.shape[1])
        perplexity = metrics.perplexity(nll.ravel(), windows)
        columns = [f"{about[key]:.4g}" if key in about else "" for key in ("layer_error", "bits", "cpu_seconds")]
        print(f"| {name} | {perplexity.value:.2f} ({perplexity.standard_error:.2f}) | {' | '.join(columns)} |")
    pairs(cells, scored(out / "nll" / "fresh"))
    print("\n| ours | against | nats a token (s.e.) | in s.e. |\n| --- | --- | --- | --- |")
    for scheme in SCHEMES:
        ours = next((f"{scheme}-{name}" for name in OURS if f"{scheme}-{name}" in cells), None)
        for other in (name for name in cells if name.startswith(scheme) and ours not in (None, name)):
            paired = paired_difference(cells[ours], cells[other])
            print(f"| {ours} | {other} | {paired.mean:+.4f} ({paired.standard_error:.4f}) | {paired.z:+.1f} |")
    print(timing.Machine.here("quantease", "torch", "transformers"))


def pairs(cells: dict[str, np.ndarray], fresh: dict[str, np.ndarray]) -> None:
    """Descent against the same pipeline without it: on the windows of the table, on fresh ones, and on both."""
    print("\n| with descent | without | windows | nats a token (s.e.) | in s.e. |\n| --- | --- | --- | --- | --- |")
    both = {name: np.concatenate([cells[name], fresh[name]]) for name in cells.keys() & fresh.keys()}
    for scheme in SCHEMES:
        for ours, other in PAIRS:
            a, b = f"{scheme}-{ours}", f"{scheme}-{other}"
            for label, found in {"table": cells, "fresh": fresh, "both": both}.items():
                if a in found and b in found:
                    d = paired_difference(found[a], found[b])
                    gain = f"{d.mean:+.4f} ({d.standard_error:.4f}) | {d.z:+.1f}"
                    print(f"| {a} | {b} | {label}, {len(found[a])} | {gain} |")


if __name__ == "__main__":
    main()
