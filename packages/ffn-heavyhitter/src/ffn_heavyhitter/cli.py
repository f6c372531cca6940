"""The ``ffn-heavyhitter`` command: analyze, plan, compress, eval, bench, merge, reproduce.

Exit codes: 0 done, 2 usage, 3 input that cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

from papershelf_core import command, files

__all__ = ["main"]

MEASURED_WINDOWS = 2  # on which plans of widths run each layer alone
METHODS = ("int8", "mixed_bits", "narrow", "low_rank", "split")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return command.main(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        "ffn-heavyhitter",
        distribution="ffn-heavyhitter",
        description="Split the FFNs of a language model at their heavy-hitter neurons and compress the rest.",
        epilog="exit codes: 0 done, 2 usage, 3 unusable input. "
        "MODEL is a transformers folder, or smollm2 / minilm where their pip wheels are installed. "
        "TEXT is a file, or wikitext2/valid, wikitext2/test.",
    )
    commands = parser.add_subparsers(title="commands")

    analyze = commands.add_parser("analyze", help="how heavy are the heavy hitters, layer by layer")
    _model_and_text(analyze)
    analyze.add_argument("--domain", nargs="*", default=[], metavar="NAME=TEXT", help="compare heavy sets over texts")
    command.add_json(analyze)
    analyze.add_argument("--plots", type=Path, metavar="FOLDER", help="write pictures (needs the extra plots)")
    analyze.set_defaults(run=_analyze)

    plan = commands.add_parser("plan", help="choose a treatment for each FFN and write it as JSON")
    _model_and_text(plan)
    _treatment(plan)
    plan.add_argument("--size", type=float, metavar="SHARE", help="whole model's bytes, as a share of the dense ones")
    plan.add_argument("--out", type=Path, required=True, metavar="FILE")
    plan.set_defaults(run=_plan)

    compress = commands.add_parser("compress", help="write a compressed model folder")
    _model_and_text(compress)
    _treatment(compress)
    compress.add_argument(
        "--whole",
        action="store_true",
        help="attention, embedding, head in int8; FFNs too, reading no TEXT, unless --method or --plan says otherwise",
    )
    compress.add_argument(
        "--activation-bits", type=int, choices=(8, 16), help="with --whole: 16 (default), or 8, faster and less exact"
    )
    compress.add_argument("--plan", type=Path, metavar="FILE", help="what `plan` wrote, in place of --method")
    compress.add_argument("--statistics", type=Path, metavar="FILE", help="keep the statistics here, or reuse them")
    compress.add_argument("--shard", default="5GB", metavar="SIZE", help="largest file, such as 50MB")
    compress.add_argument("--half", action="store_true", help="store all that stays floating point in fp16")
    compress.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    compress.set_defaults(run=_compress)

    evaluate = commands.add_parser("eval", help="perplexity, and its ratio to another model's on the same windows")
    _model_and_text(evaluate, text="wikitext2/test")
    evaluate.add_argument("--against", metavar="MODEL")
    command.add_json(evaluate)
    evaluate.set_defaults(run=_evaluate)

    bench = commands.add_parser("bench", help="size and speed against another model, interleaved")
    bench.add_argument("model")
    bench.add_argument("--against", required=True, metavar="MODEL")
    bench.add_argument("--threads", type=int, default=1)
    bench.add_argument("--repeat", type=int, default=9)
    command.add_json(bench)
    bench.set_defaults(run=_bench)

    merge = commands.add_parser("merge", help="write a compressed model as a dense one")
    merge.add_argument("model")
    merge.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    merge.set_defaults(run=_merge)

    reproduce = commands.add_parser("reproduce", help="measure this package's claims")
    reproduce.add_argument("--full", action="store_true", help="on a real model and text (minutes)")
    reproduce.add_argument("--model", default="smollm2", help="causal model of the full run")
    command.add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return parser


def _model_and_text(parser: argparse.ArgumentParser, text: str = "wikitext2/valid") -> None:
    parser.add_argument("model")
    parser.add_argument("--text", default=text, help=f"{text} by default")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--length", type=int, default=512, help="tokens a window")


def _treatment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)} (default: int8)")
    parser.add_argument(
        "--heavy", type=_number, help="heavy neurons: a number, a share with a point, or auto (low_rank)"
    )
    parser.add_argument("--heavy-bits", type=int, help="mixed_bits: bits of heavy neurons")
    parser.add_argument("--light-bits", type=int, help="mixed_bits: bits of light neurons")
    parser.add_argument("--share", type=float, help="narrow: neurons to keep; low_rank: weights to keep")
    parser.add_argument("--score", help="what makes a neuron heavy")
    parser.add_argument("--per-layer", action="store_true", help="narrow: a width for each layer (plan only)")


def _number(text: str) -> int | float | str:
    if text == "auto":
        return text
    return float(text) if "." in text else int(text)


def _text(name: str) -> str:
    from papershelf_core import datasets

    from ffn_heavyhitter.text import detokenise

    if name in ("wikitext2/valid", "wikitext2/test"):
        split: Literal["valid", "test"] = "valid" if name.endswith("valid") else "test"
        return detokenise(datasets.load("wikitext2", split=split).text)
    return Path(name).read_text(encoding="utf-8")


def _windows(arguments: argparse.Namespace, name: str | None = None) -> Any:
    from ffn_heavyhitter.models import load_tokenizer
    from ffn_heavyhitter.text import token_windows

    tokenizer = load_tokenizer(arguments.model)  # before any text is fetched
    return token_windows(tokenizer, _text(name or arguments.text), tokens=arguments.tokens, length=arguments.length)


def _batches(windows: Any) -> list[dict[str, Any]]:
    return [{"input_ids": window[None]} for window in windows]


def _progress(label: str, total: int) -> Any:
    def show(done: int) -> None:
        print(f"\r{label} {done}/{total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)

    return show


def _load(name: str) -> Any:
    from ffn_heavyhitter.models import load_model

    return load_model(name)


def _load_causal(name: str, what: str) -> Any:
    """A model whose predictions of the next token ``what`` needs."""
    model = _load(name)
    if not model.can_generate():
        raise ValueError(f"{what} needs a causal language model; {name} holds a {type(model).__name__}")
    return model


def _chosen(arguments: argparse.Namespace, model: Any) -> Any:
    """The treatment that the options describe."""
    from ffn_heavyhitter.adapters import find_ffns
    from ffn_heavyhitter.treatments import TREATMENTS

    method = arguments.method or "int8"
    options = {
        name: value
        for name in ("heavy", "heavy_bits", "light_bits", "score")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.heavy == "auto" and method != "low_rank":
        raise ValueError(f"--heavy auto is for --method low_rank; give {method} a number or a share")
    if method == "narrow":
        width = find_ffns(model)[0].weights().width
        options["width"] = round((arguments.share or 0.75) * width / 8) * 8
    if method == "low_rank":
        options["share"] = arguments.share or 0.75
    try:
        return TREATMENTS[method](**options)
    except TypeError as error:
        raise ValueError(f"--method {method} does not take all of {', '.join(options)}") from error


def _analyze(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from ffn_heavyhitter.report import analyse
    from ffn_heavyhitter.statistics import collect

    windows, model = _windows(arguments), _load(arguments.model)
    if len(windows) < 2:
        raise ValueError(f"--tokens {arguments.tokens} makes one window; stability needs two halves, give more tokens")
    half = len(windows) // 2
    first = collect(model, _batches(windows[:half]), hits=True, progress=_progress("tokens", arguments.tokens // 2))
    second = collect(model, _batches(windows[half:]), hits=True, progress=_progress("tokens", arguments.tokens // 2))
    domains = {"text": first + second} if arguments.domain else {}
    for named in arguments.domain:
        name, _, text = named.partition("=")
        if not text:
            raise ValueError(f"--domain {named!r} must be NAME=TEXT")
        domains[name] = collect(model, _batches(_windows(arguments, text)), hits=True)
    report = analyse(first, second, domains)
    heading, *rows = report.rows()
    table = Table(title=f"{arguments.model}: {report.tokens} tokens", title_justify="left")
    for cell in heading:
        table.add_column(cell, justify="left" if cell == "layer" else "right")
    for row in rows:
        table.add_row(*row)
    if arguments.json != "-":
        Console(width=None if sys.stdout.isatty() else 140).print(table)
    lines = [f"heavy sets of {pair} overlap by {overlap:.0%}" for pair, overlap in report.domain_overlap.items()]
    command.show([*lines, report.verdict], report.document(), arguments.json)
    if arguments.plots is not None:
        from ffn_heavyhitter.plots import plot_report

        for path in plot_report(report, first + second, arguments.plots):
            print(f"wrote {path}")


def _plan(arguments: argparse.Namespace) -> None:
    from ffn_heavyhitter.int8 import Int8
    from ffn_heavyhitter.mixed_bits import MixedBits
    from ffn_heavyhitter.plan import Plan, plan_budget, plan_widths
    from ffn_heavyhitter.statistics import collect

    plain = arguments.size is None and not arguments.per_layer
    model = _load(arguments.model) if plain else _load_causal(arguments.model, "--size or --per-layer")
    if plain:
        plan = Plan.of(model, _chosen(arguments, model))
    else:
        windows = _windows(arguments)
        fitted = max(1, len(windows) * 3 // 4)
        if len(windows) < 2:
            raise ValueError(f"--tokens {arguments.tokens} makes one window; errors need held-out tokens, give more")
        seen = _progress("tokens", fitted * arguments.length)
        fit = collect(model, _batches(windows[:fitted]), moments=True, gradients=True, progress=seen)
        if arguments.per_layer:
            held_out = collect(model, _batches(windows[fitted:]), moments=True)
            template = _chosen(argparse.Namespace(**{**vars(arguments), "method": "narrow"}), model)
            share = arguments.share or 0.75
            measured_on = _batches(windows[fitted:][:MEASURED_WINDOWS])
            options: dict[str, Any] = {"share": share, "template": template, "measured_on": measured_on}
            plan = plan_widths(model, fit, held_out, progress=_say, **options)
        else:
            ways = [MixedBits(heavy_bits=b + 2, light_bits=b) for b in (2, 3, 4, 5)] + [Int8()]
            budget = int(arguments.size * Plan.of(model, {}).dense_bytes)
            plan = plan_budget(model, fit, _batches(windows[fitted:]), ways, budget, progress=_say)
    plan.save(arguments.out)
    print(f"wrote {arguments.out}: {plan.dense_bytes} -> {plan.model_bytes} bytes ({_change(plan)})")


def _say(name: str) -> None:
    print(name, file=sys.stderr)


def _change(plan: Any) -> str:
    return f"{plan.model_bytes / plan.dense_bytes - 1:+.1%}"


def _compress(arguments: argparse.Namespace) -> None:
    from ffn_heavyhitter.compression import compress, halve
    from ffn_heavyhitter.evaluation import bytes_on_disk
    from ffn_heavyhitter.models import load_tokenizer, model_folder
    from ffn_heavyhitter.plan import Plan
    from ffn_heavyhitter.whole import compress_model

    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise ValueError(f"--out {arguments.out} is not empty; choose another folder")
    if arguments.activation_bits is not None and not arguments.whole:
        raise ValueError(f"--activation-bits {arguments.activation_bits} is for --whole")
    tokenizer = load_tokenizer(arguments.model)
    model = _load(arguments.model)
    treatment: Any = None
    if arguments.plan is not None:
        treatment = Plan.load(arguments.plan).treatments
    elif arguments.method is not None or not arguments.whole:
        treatment = _chosen(arguments, model)
    else:
        _refuse_unused(arguments)
    planned = Plan.of(model, treatment or {})
    statistics = None if treatment is None else _statistics(arguments, model, planned)
    if arguments.whole:
        bits = arguments.activation_bits or 16
        compress_model(model, activation_bits=bits, ffn=treatment, statistics=statistics, progress=_say)
    elif statistics is not None:
        compress(model, treatment, statistics, progress=_say)
    if arguments.half:
        halve(model)
    dense = bytes_on_disk(model_folder(arguments.model))
    with files.replacing(arguments.out) as scratch:
        model.save_pretrained(scratch, max_shard_size=arguments.shard)
        tokenizer.save_pretrained(scratch)
    size = bytes_on_disk(arguments.out)
    planned_bytes = "" if arguments.whole else f" (planned {planned.model_bytes})"
    print(f"wrote {arguments.out}: {size} bytes on disk, {size / dense - 1:+.2%}{planned_bytes}")


def _refuse_unused(arguments: argparse.Namespace) -> None:
    """Options of a treatment say nothing where all is int8."""
    for name in ("heavy", "heavy_bits", "light_bits", "score", "share", "statistics"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} needs --method or --plan beside --whole")


def _statistics(arguments: argparse.Namespace, model: Any, planned: Any) -> Any:
    """Those of --statistics, or collected on the text and kept there."""
    from ffn_heavyhitter.low_rank import LowRank
    from ffn_heavyhitter.statistics import Statistics, collect

    if arguments.statistics is not None and arguments.statistics.exists():
        return Statistics.load(arguments.statistics)
    windows = _windows(arguments)
    keep_inputs = any(isinstance(way, LowRank) for way in planned.treatments.values())
    seen = _progress("tokens", arguments.tokens)
    statistics = collect(model, _batches(windows), moments=True, inputs=keep_inputs, progress=seen)
    if arguments.statistics is not None:
        statistics.save(arguments.statistics)
    return statistics


def _evaluate(arguments: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ffn_heavyhitter.evaluation import perplexity_ratio, window_nll

    windows = _windows(arguments)
    nll = window_nll(_load_causal(arguments.model, "eval"), windows)
    found: dict[str, Any] = {
        "model": arguments.model,
        "tokens": arguments.tokens,
        "perplexity": float(nll.mean().exp()),
    }
    lines = [f"perplexity {found['perplexity']:.3f} on {arguments.tokens} tokens"]
    if arguments.against is not None:
        result = perplexity_ratio(nll, window_nll(_load_causal(arguments.against, "eval"), windows))
        found |= {"against": arguments.against, **asdict(result)}
        lines.append(f"against {result.reference:.3f}: {result.ratio:.4f}x +- {result.standard_error:.4f}")
    command.show(lines, found, arguments.json)


def _bench(arguments: argparse.Namespace) -> None:
    import torch

    from ffn_heavyhitter.evaluation import bytes_on_disk, time_models
    from ffn_heavyhitter.models import model_folder

    torch.set_num_threads(arguments.threads)
    models = {"ours": _load_causal(arguments.model, "bench"), "other": _load_causal(arguments.against, "bench")}
    ours, other = (bytes_on_disk(model_folder(name)) for name in (arguments.model, arguments.against))
    lines, rows = [f"size: {ours} bytes, {ours / other - 1:+.2%}"], []
    vocabulary = models["other"].config.vocab_size
    ids = torch.randint(0, vocabulary, (1, 512), generator=torch.Generator().manual_seed(0))
    for label, length, options in (
        ("prefill of 128 tokens", 128, {}),
        ("prefill of 512 tokens", 512, {}),
        ("prefill of 128 tokens, all logits", 128, {"all_logits": True}),
        ("decode after 128 tokens", 128, {"decode": True}),
    ):
        result = time_models(models, ids[:, :length], repeat=arguments.repeat, **options)
        seconds, ratio = result.median["ours"], result.ratio("other")
        lines.append(f"{label}: {seconds * 1e3:.2f} ms, {ratio} as fast ({arguments.threads} threads)")
        rows.append(
            {"what": label, "seconds": seconds, "as_fast": ratio.estimate, "low": ratio.low, "high": ratio.high}
        )
    document = {"bytes": ours, "bytes_against": other, "threads": arguments.threads, "times": rows}
    command.show(lines, document, arguments.json)


def _merge(arguments: argparse.Namespace) -> None:
    from ffn_heavyhitter.compression import merge
    from ffn_heavyhitter.models import load_tokenizer

    if arguments.out.exists():
        raise ValueError(f"--out {arguments.out} exists; choose another folder")
    model = merge(_load(arguments.model))
    tokenizer = load_tokenizer(arguments.model)
    with files.replacing(arguments.out) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    print(f"wrote {arguments.out}")


def _reproduce(arguments: argparse.Namespace) -> None:
    from papershelf_core.claims import publish
    from transformers.utils import logging

    from ffn_heavyhitter.reproduce import claims

    quiet: Any = logging
    quiet.disable_progress_bar()  # of every tiny model that the claims load
    rows = claims(arguments.full, arguments.model)
    publish(rows, "ffn-heavyhitter", "ffn-heavyhitter", "torch", "transformers", json_path=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
