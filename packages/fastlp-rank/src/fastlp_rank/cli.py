"""``fastlp-rank solve | generate | bench | reproduce``: parse, call the library, print."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from papershelf_core import command

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 4 where ``solve`` found no optimum."""
    return command.main(_parser(), arguments)


def _parser() -> command.Parser:
    parser = command.Parser(
        "fastlp-rank",
        distribution="fastlp-rank",
        description="Exact LP ranking under diversity constraints, inside a request.",
        epilog="exit codes: 0 done, 2 usage, 3 unusable input, 4 solve: infeasible, limit or numerical",
    )
    commands = parser.add_subparsers(title="commands")
    one = commands.add_parser("solve", help="solve a problem given as JSON; exit 4 unless optimal")
    one.add_argument("problem", type=Path, help="problem file, or - for standard input")
    one.add_argument("--out", type=Path, metavar="FILE", help="write the solution here instead of printing it")
    one.set_defaults(run=_solve)
    generate = commands.add_parser("generate", help="write a random exposure problem as JSON")
    generate.add_argument("--n", type=int, default=100, help="candidates (100)")
    generate.add_argument("--m", type=int, default=10, help="slots (10)")
    generate.add_argument("--k", type=int, default=3, help="constraints (3)")
    generate.add_argument("--seed", type=int, default=0, help="of the random numbers, at least 0 (0)")
    generate.add_argument("--out", type=Path, metavar="FILE", help="file to write; standard output otherwise")
    generate.set_defaults(run=_generate)
    bench = commands.add_parser("bench", help="time this machine: microseconds a solve, by size")
    bench.add_argument(
        "--sizes",
        nargs="+",
        default=["100x10x3", "200x20x5", "500x50x10"],
        metavar="NxMxK",
        help="candidates x slots x constraints (100x10x3 200x20x5 500x50x10)",
    )
    bench.add_argument("--seeds", type=int, default=20, help="instances a size (20)")
    command.add_json(bench)
    bench.set_defaults(run=_bench)
    reproduce = commands.add_parser("reproduce", help="measure what this package claims")
    reproduce.add_argument("--full", action="store_true", help="real requests, more instances")
    command.add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return parser


def _write(text: str, target: Path | None) -> None:
    from papershelf_core.files import write_text

    if target is None:
        print(text)
        return
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: the folder {target.parent} does not exist; make it first")
    write_text(target, text + "\n")


def _solve(options: argparse.Namespace) -> int:
    from fastlp_rank.errors import InvalidProblemError
    from fastlp_rank.prefixes.problem import PrefixProblem
    from fastlp_rank.prefixes.ranking import rank_prefixes
    from fastlp_rank.problem_json import prefix_ranking_to_json, problem_from_json, solution_to_json
    from fastlp_rank.solver import solve
    from fastlp_rank.status import Status

    try:
        text = sys.stdin.read() if str(options.problem) == "-" else options.problem.read_text(encoding="utf-8")
        document = json.loads(text)
        problem = problem_from_json(document)
        items = document.get("items")
        if isinstance(problem, PrefixProblem):
            found = rank_prefixes(problem)
            status, shown = found.status, prefix_ranking_to_json(problem, found, items)
        else:
            solution = solve(problem)
            status, shown = solution.status, solution_to_json(solution, items)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidProblemError(f"{options.problem} is no JSON ({error}); see the README for an example") from None
    except InvalidProblemError as error:
        raise InvalidProblemError(f"{options.problem}: {error}") from None
    _write(json.dumps(shown, indent=1, allow_nan=False), options.out)
    return command.DONE if status is Status.OPTIMAL else command.BAR_MISSED


def _generate(options: argparse.Namespace) -> int:
    from fastlp_rank.instances import exposure

    if not 1 <= options.m <= options.n or options.k < 0:
        raise ValueError(f"need 1 <= m <= n, k >= 0; got n={options.n} m={options.m} k={options.k}")
    if options.seed < 0:
        raise ValueError(f"--seed {options.seed} is negative; give a whole number of at least 0")
    instance = exposure(options.n, options.m, options.k, options.seed)
    constraints = []
    for k in range(options.k):
        side = "upper" if instance.upper[k] < float("inf") else "lower"
        bound = float(getattr(instance, side)[k])
        values = instance.rows[k].astype(int).tolist()
        constraints.append({"type": "linear_exposure", "name": f"group {k}", "values": values, side: bound})
    document = {"scores": instance.scores.tolist(), "slots": {"dcg": options.m}, "constraints": constraints}
    _write(json.dumps(document), options.out)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from fastlp_rank.bench import measure

    try:
        sizes = [tuple(int(part) for part in size.split("x")) for size in options.sizes]
        if any(len(size) != 3 or not 1 <= size[1] <= size[0] or size[2] < 0 for size in sizes):
            raise ValueError("a size is NxMxK with 1 <= M <= N")
    except ValueError as error:
        raise ValueError(f"--sizes {' '.join(options.sizes)}: {error}") from None
    if options.seeds < 1:
        raise ValueError(f"--seeds {options.seeds}: give at least 1 instance a size")
    result = measure([(n, m, K) for n, m, K in sizes], options.seeds)
    lines = [
        f"{'size':>12} {'core µs':>9} {'p95':>8} {'solve µs':>9} {'+problem':>9} {'batch LP/s':>11} {'pricings':>9}"
    ]
    for row in result["sizes"]:
        lines.append(
            f"{row['size']:>12} {row['core_us']:9.1f} {row['core_p95_us']:8.1f} {row['solve_us']:9.1f} "
            f"{row['build_and_solve_us']:9.1f} {row['batch_per_s']:11,.0f} {row['pricings']:9.0f}"
        )
    command.show([*lines, result["machine"]], result, options.json)
    return command.DONE


def _reproduce(options: argparse.Namespace) -> int:
    from papershelf_core.claims import publish

    from fastlp_rank.reproduce import claims, pictures

    rows = claims(options.full)
    shown = pictures(options.full) if options.json is not None else {}
    publish(rows, "fastlp-rank", "fastlp-rank", "numba", "highspy", pictures=shown, json_path=options.json)
    return command.DONE


if __name__ == "__main__":
    raise SystemExit(main())
