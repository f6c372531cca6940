"""The ``msam-lawn`` command: bench, sharpness, doctor, plot, reproduce.

A TASK is ``module:function``; the function takes nothing and returns ``(model, inputs, targets, loss)`` as
``SAM.backward`` takes them. Exit codes: 0 done, 2 usage, 3 input that cannot be used.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from papershelf_core import command

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    sys.path.insert(0, os.getcwd())  # a task beside the user's own code
    try:
        return command.main(_parser(), argv)
    finally:
        sys.path.pop(0)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        "msam-lawn",
        distribution="msam-lawn",
        description="mSAM and LAWN: which engine, how fast, how flat.",
        epilog="TASK is module:function, returning (model, inputs, targets, loss). "
        "Exit codes: 0 done, 2 usage, 3 unusable input.",
    )
    commands = parser.add_subparsers(title="commands")

    bench = commands.add_parser("bench", help="cost of a step in plain steps, by number of micro-batches")
    bench.add_argument("task", nargs="?", metavar="TASK", help="a small MLP by default")
    bench.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4, 16], metavar="M")
    bench.add_argument("--repeat", type=int, default=5)
    command.add_json(bench)
    bench.set_defaults(run=_bench)

    sharpness = commands.add_parser("sharpness", help="largest Hessian eigenvalues, trace, micro-batch sharpness")
    sharpness.add_argument("task", metavar="TASK")
    sharpness.add_argument("--checkpoint", type=Path, help="state_dict for the model, read without pickled code")
    sharpness.add_argument("--top", type=int, default=5)
    sharpness.add_argument("--rho", type=float, default=0.05)
    sharpness.add_argument("--micro-batches", type=int, default=1, metavar="M")
    command.add_json(sharpness)
    sharpness.set_defaults(run=_sharpness)

    doctor = commands.add_parser("doctor", help="which engine and why, what LAWN would hold, what needs care")
    doctor.add_argument("task", metavar="TASK")
    doctor.add_argument("--micro-batches", type=int, default=4, metavar="M")
    command.add_json(doctor)
    doctor.set_defaults(run=_doctor)

    plot = commands.add_parser("plot", help="draw what bench --json wrote (extra plots)")
    plot.add_argument("figures", type=Path, help="JSON written by bench")
    plot.add_argument("--out", type=Path, required=True, help="picture, .svg or .png")
    plot.set_defaults(run=_plot)

    reproduce = commands.add_parser("reproduce", help="measure this package's claims")
    reproduce.add_argument("--full", action="store_true", help="the MNIST studies too (about an hour of CPU)")
    reproduce.add_argument("--cache", type=Path, metavar="FILE", help="keep finished runs here and resume from them")
    command.add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return parser


def _task(name: str) -> tuple[Any, Any, Any, Any]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"TASK {name!r} is no module:function")
    try:
        made = getattr(importlib.import_module(module), function)()
    except AttributeError as error:
        raise ValueError(f"TASK {name!r}: {error}") from error
    if not isinstance(made, tuple) or len(made) != 4:
        raise ValueError(f"TASK {name!r} returned a {type(made).__name__}; return (model, inputs, targets, loss)")
    return made


def _default_task() -> tuple[Any, Any, Any, Any]:
    from msam_lawn.reproduce import image_mlp

    return image_mlp()


def _bench(arguments: argparse.Namespace) -> int:
    from msam_lawn.reproduce import step_costs

    task = _task(arguments.task) if arguments.task else _default_task()
    rows = step_costs(task, arguments.micro_batches, arguments.repeat)
    lines = [f"{'micro-batches':>13s} {'engine':9s} {'of a plain step':>15s}"]
    lines += [f"{row['micro_batches']:13d} {row['engine']:9s} {row['plain_steps']:14.2f}x" for row in rows]
    command.show(lines, {"step_costs": rows}, arguments.json)
    return command.DONE


def _sharpness(arguments: argparse.Namespace) -> int:
    from msam_lawn.lanczos import top_eigenvalues
    from msam_lawn.torch import HessianProduct, micro_batch_sharpness
    from msam_lawn.trace import trace

    model, inputs, targets, loss = _task(arguments.task)
    if arguments.checkpoint:
        import torch

        model.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    product = HessianProduct(model, inputs, targets, loss)
    top = top_eigenvalues(product, product.size, arguments.top)
    found = trace(product, product.size)
    value = micro_batch_sharpness(
        model, inputs, targets, loss, rho=arguments.rho, micro_batches=arguments.micro_batches
    )
    lines = [
        "largest eigenvalues " + " ".join(f"{each:.5g}" for each in top.values),
        f"  {top.products} products, {'converged' if top.converged else 'NOT converged'}",
        f"trace {found.estimate:.5g} +- {found.standard_error:.2g} (s.e., {found.products} probes)",
        f"sharpness {value:.5g} at rho {arguments.rho:g}, {arguments.micro_batches} micro-batches",
    ]
    document = {
        "eigenvalues": [float(each) for each in top.values],
        "converged": bool(top.converged),
        "trace": float(found.estimate),
        "trace_standard_error": float(found.standard_error),
        "sharpness": float(value),
        "rho": arguments.rho,
        "micro_batches": arguments.micro_batches,
    }
    command.show(lines, document, arguments.json)
    return command.DONE


def _doctor(arguments: argparse.Namespace) -> int:
    import torch

    from msam_lawn.errors import HomogeneityError
    from msam_lawn.torch import SAM, homogeneous_tail
    from msam_lawn.torch.passes import has_running_statistics

    model, inputs, targets, loss = _task(arguments.task)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.0), micro_batches=arguments.micro_batches)
    optimizer.backward(model, inputs, targets, loss)
    (choice,) = optimizer.choices
    lines = [f"engine: {choice.engine}: {choice.reason}"]
    document: dict[str, Any] = {"engine": choice.engine, "reason": choice.reason}
    try:
        tail = homogeneous_tail(model, inputs)
        lines.append(f"LAWN would hold {', '.join(tail.names)} (degree {tail.degree}, after {tail.ends_at})")
        document["lawn"] = {"holds": list(tail.names), "degree": tail.degree}
    except HomogeneityError as error:
        lines.append(f"LAWN: {error}")
        document["lawn"] = {"refused": str(error)}
    norms = [name for name, module in model.named_modules() if has_running_statistics(module)]
    if norms:
        lines.append(f"batch statistics, moved once a step: {', '.join(norms)}")
    small = sorted({str(w.dtype) for w in model.parameters() if w.dtype in (torch.bfloat16, torch.float16)})
    if small:
        lines.append(
            f"weights of {', '.join(small)} round most of a perturbation away: keep float32 and use torch.autocast"
        )
    document |= {"batch_statistics": norms, "small_types": small}
    command.show(lines, document, arguments.json)
    return command.DONE


def _plot(arguments: argparse.Namespace) -> int:
    from msam_lawn.plots import cost_picture

    document = json.loads(arguments.figures.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or "step_costs" not in document:
        raise ValueError(f"{arguments.figures} has no 'step_costs'; write it with msam-lawn bench --json")
    cost_picture(document["step_costs"], arguments.out)
    print(f"wrote {arguments.out}")
    return 0


def _reproduce(arguments: argparse.Namespace) -> int:
    from papershelf_core import claims as core

    from msam_lawn.reproduce import claims

    rows = claims(full=arguments.full, cache=arguments.cache)
    core.publish(rows, "msam-lawn", "msam-lawn", "torch", "numpy", json_path=arguments.json)
    return 0
