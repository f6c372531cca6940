"""What an mSAM step costs, in plain SGD steps of the same run: CPU time, one thread, 32 rows, interleaved medians.

    uv run --no-sync python packages/msam-lawn/benchmarks/cost.py --json cost.json

"auto" is what it costs once its choice is made; beside it stand every engine that is exact for the model. A network of
convolutions is measured in both layouts of its memory; the plain step of the faster one is the unit of both. Exit code
4 where a bar is missed.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import torch
from msam_lawn import EngineError
from msam_lawn.torch import SAM
from papershelf_core import command
from papershelf_core.machine import Machine
from papershelf_core.timing import compare

sys.path.insert(0, str(Path(__file__).parent))

from cost_models import MODELS, losses, task

COUNTS = (4, 8, 32)
TRANSFORMERS = ("encoder", "GPT, tied", "GPT, untied", "ViT", "nn.TransformerEncoder")
LAYOUTS = {"": torch.contiguous_format, ", channels last": torch.channels_last}
AUTO_OVER_BEST = 1.05


def bar(name, count):
    """What the step may cost, in plain steps; None where nothing was promised."""
    if name in TRANSFORMERS:
        return 2.35 if count < 32 else 2.6
    if name.startswith("ResNet"):
        return 2.5
    return 6.0 if name == "LSTM" and count == 32 else None


def plain(model, inputs, targets):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step():
        optimizer.zero_grad()
        losses(model(inputs), targets).mean().backward()
        optimizer.step()

    return step


def sharp(model, inputs, targets, count, engine):
    """A step of SAM, once its engine is chosen; None where that engine is refused."""
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1e-6), rho=0.05, micro_batches=count, engine=engine)

    def step():
        optimizer.zero_grad()
        optimizer.backward(model, inputs, targets, losses)
        optimizer.step()

    try:
        step()
    except EngineError:
        return None, None
    return step, optimizer


def measured(name, counts, repeat):
    """Rows of one model: one a layout and number of micro-batches."""
    layouts = LAYOUTS if name.startswith("ResNet") else {"": torch.contiguous_format}
    steps, chosen = {}, {}
    for suffix, layout in layouts.items():
        model, inputs, targets = task(name)
        if suffix:
            model, inputs = model.to(memory_format=layout), inputs.contiguous(memory_format=layout)
        steps["plain" + suffix] = plain(model, inputs, targets)
        for count in counts:
            for engine in ("auto", "loop", "low-rank", "stacked"):
                step, optimizer = sharp(model, inputs, targets, count, engine)
                if step is not None:
                    steps[engine, suffix, count] = step
                    if engine == "auto":
                        chosen[suffix, count] = optimizer.choices[0]
    found = compare(steps, repeat=repeat, clock="process")
    unit = min(found.median["plain" + suffix] for suffix in layouts)
    rows = []
    for suffix in layouts:
        for count in counts:
            cost = {
                e: found.median[e, suffix, count] / unit for e, s, c in chosen_keys(steps) if (s, c) == (suffix, count)
            }
            best = min(value for engine, value in cost.items() if engine != "auto")
            choice = chosen[suffix, count]
            row = {"model": name + suffix, "micro_batches": count, "plain_ms": unit * 1e3, **cost}
            row |= {
                "chosen": choice.engine,
                "together": choice.group,
                "auto_over_best": cost["auto"] / min(best, cost["auto"]),
            }
            rows.append(row | {"bar": bar(name, count)})
    return rows


def chosen_keys(steps):
    """Keys of the steps that are not plain."""
    return [key for key in steps if isinstance(key, tuple)]


def line(row):
    cells = [f"{row['model']:34s}", f"{row['micro_batches']:3d}", f"{row['plain_ms']:7.1f}"]
    cells += [
        f"{row[engine]:8.2f}" if engine in row else f"{'-':>8s}" for engine in ("auto", "loop", "low-rank", "stacked")
    ]
    chosen = row["chosen"] if row["together"] is None else f"{row['chosen']} by {row['together']}"
    missed = row["bar"] is not None and row["auto"] > row["bar"]
    bar = "-" if row["bar"] is None else f"{row['bar']:.2f}{' missed' if missed else ''}"
    return " ".join([*cells, f"{row['auto_over_best']:6.2f}", f"{chosen:14s}", bar])


def run(arguments):
    """Measure, print, and say whether the bars hold."""
    torch.set_num_threads(1)
    rows = []
    for name in arguments.models or MODELS:
        if name not in MODELS:
            raise ValueError(f"{name!r} is no model here; give some of: {'; '.join(MODELS)}")
        rows += measured(name, arguments.micro_batches, arguments.repeat)
        if arguments.json != "-":
            print(f"measured {name}", file=sys.stderr)
    machine = f"{Machine.here('torch', 'msam-lawn')}; {datetime.datetime.now(datetime.UTC).date()}; one thread"
    heads = f"{'model':34s}   M plain_ms     auto     loop low-rank  stacked  /best chosen         bar"
    missed = [row for row in rows if row["bar"] is not None and row["auto"] > row["bar"]]
    slow = [row for row in rows if row["auto_over_best"] > AUTO_OVER_BEST]
    footer = f"{len(missed)} bars missed; auto above {AUTO_OVER_BEST} of the best in {len(slow)} of {len(rows)} rows"
    document = {"machine": machine, "rows": rows}
    command.show([machine, heads, *map(line, rows), footer], document, arguments.json)
    return command.BAR_MISSED if missed or slow else command.DONE


def main() -> int:
    """Parse and run."""
    parser = command.Parser(prog="cost.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="some of the models; all by default")
    parser.add_argument("--micro-batches", nargs="+", type=int, default=COUNTS, metavar="M")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    command.add_json(parser)
    parser.set_defaults(run=run)
    return command.main(parser, None)


if __name__ == "__main__":
    sys.exit(main())
