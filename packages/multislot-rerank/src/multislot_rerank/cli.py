"""``multislot-rerank``: re-rank, evaluate, plan, choose a trade-off, simulate, time, reproduce the claims."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papershelf_core import command

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["main"]

_LOGGING = "says that every ordered slate was equally likely; else the log has columns conditional and marginal"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return command.main(_parser(), argv)


def _parser() -> command.Parser:
    parser = command.Parser(
        "multislot-rerank",
        distribution="multislot-rerank",
        description="Re-rank whole slates, and know what a policy would earn.",
        epilog="exit codes: 0 done, 2 usage, 3 unusable input",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    rerank = commands.add_parser("rerank", help="re-rank the candidates of a JSON request")
    rerank.add_argument("request", type=Path, help="JSON with k, objectives, constraints, candidates")
    evaluate = commands.add_parser("evaluate", help="estimate what a deterministic policy would earn, on a log")
    evaluate.add_argument(
        "log", type=Path, help="Parquet or CSV, a row a slot: request, slot, item, candidates, rewards"
    )
    evaluate.add_argument("target", type=Path, help="Parquet or CSV with the policy's slates: request, slot, item")
    evaluate.add_argument("--logging", choices=["uniform"], help=_LOGGING)
    evaluate.add_argument("--objective", action="append", help="reward column; repeatable (default: reward)")
    plan = commands.add_parser("plan", help="how many requests to log")
    plan.add_argument("--candidates", type=int, required=True, help="items to choose from, a request")
    plan.add_argument("--slots", type=int, required=True, help="of a slate")
    plan.add_argument("--standard-error", type=float, required=True, help="wanted of a slot's mean reward, in its unit")
    plan.add_argument("--reward-deviation", type=float, required=True, help="standard deviation of a slot's reward")
    pareto = commands.add_parser(
        "pareto", help="the Pareto front of policies on one log, its knee, an honest value of it"
    )
    pareto.add_argument("log", type=Path, help="Parquet or CSV, as for evaluate")
    pareto.add_argument("policies", type=Path, help="Parquet or CSV: policy, request, slot, item")
    pareto.add_argument("--logging", choices=["uniform"], help=_LOGGING)
    pareto.add_argument("--objective", action="append", help="reward column; repeatable (default: reward)")
    pareto.add_argument("--less", action="append", default=[], help="an objective of which less is better; repeatable")
    pareto.add_argument(
        "--interaction", default="cascade", help="full, cascade, independent or set (default: %(default)s)"
    )
    pareto.add_argument("--plot", metavar="FILE", help="picture of the front (extra: plots)")
    simulate = commands.add_parser("simulate", help="what policies earn in a simulated world, on the same requests")
    simulate.add_argument(
        "--influence", type=float, default=1.0, help="of items above on those below; 0 for none (%(default)s)"
    )
    simulate.add_argument("--candidates", type=int, default=20, help="items of a request (default: %(default)s)")
    simulate.add_argument("--slots", type=int, default=8, help="of a slate (default: %(default)s)")
    simulate.add_argument("--requests", type=int, default=2000, help="to measure on (default: %(default)s)")
    simulate.add_argument("--model", type=int, metavar="N", help="also a model of N logged slates (extra: model)")
    simulate.add_argument("--ppo", type=float, metavar="SECONDS", help="also PPO trained so long (extra: rl)")
    simulate.add_argument("--seed", type=int, default=0, help="of requests and clicks (default: %(default)s)")
    simulate.add_argument("--plot", metavar="FILE", help="picture of the gains (extra: plots)")
    benchmark = commands.add_parser("benchmark", help="latency of re-ranking on this machine")
    benchmark.add_argument(
        "--candidates", type=int, nargs="+", default=[100, 500, 1000], help="items of a request (100 500 1000)"
    )
    benchmark.add_argument("--k", type=int, default=10, help="slots to fill (default: %(default)s)")
    benchmark.add_argument("--requests", type=int, default=300, help="to time (default: %(default)s)")
    reproduce = commands.add_parser("reproduce", help="measure the package's claims")
    reproduce.add_argument("--full", action="store_true", help="more logs, and the Open Bandit sample")
    command.add_json(reproduce)
    for shown in (evaluate, plan, pareto, simulate, benchmark):
        command.add_json(shown)
    for name, run in _COMMANDS.items():
        commands.choices[name].set_defaults(run=run)
    return parser


def _rerank(arguments: argparse.Namespace) -> int:
    from multislot_rerank import constraints, objectives
    from multislot_rerank.candidates import Candidates
    from multislot_rerank.reranker import SequentialGreedyReranker

    try:
        request = json.loads(arguments.request.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{arguments.request} is no JSON ({error})") from error
    for name in ("k", "objectives", "candidates"):
        if not isinstance(request, dict) or name not in request:
            raise ValueError(f"request has no field {name!r}; see the README for its form")
    for name in ("objectives", "constraints"):
        if not isinstance(request.get(name, []), list):
            raise ValueError(f"{name}={request[name]!r} is no list; give a list of objects with a type")
    reranker = SequentialGreedyReranker(
        [_built(objectives, spec) for spec in request["objectives"]],
        request["k"],
        [_built(constraints, spec) for spec in request.get("constraints", [])],
    )
    slate = reranker.rerank(_call(Candidates, request["candidates"], "candidates"))
    document = {
        "items": slate.items.tolist(),
        "utilities": slate.utilities.tolist(),
        "relaxed": [{"slot": slot, "constraint": str(constraint)} for slot, constraint in slate.relaxed],
        "proven": slate.proven,
    }
    print(json.dumps(document, indent=1))
    return 0


def _built(module: Any, spec: dict[str, Any]) -> Any:
    """An objective or constraint from its JSON form, ``{"type": "MaxSimilarity", "weight": 0.3}``."""
    if not isinstance(spec, dict):
        raise ValueError(f'{spec!r} is no objective or constraint; give an object such as {{"type": "Relevance"}}')
    fields = dict(spec)
    kind = fields.pop("type", None)
    known = [name for name in module.__all__ if name not in ("Objective", "Constraint")]
    if kind not in known:
        raise ValueError(f"type={kind!r} is unknown; use one of {', '.join(known)}")
    if kind == "Soft" and "constraint" in fields:
        fields["constraint"] = _built(module, fields["constraint"])
    return _call(getattr(module, kind), fields, kind)


def _call(build: Any, fields: dict[str, Any], name: str) -> Any:
    if not isinstance(fields, dict):
        raise ValueError(f"{name}={fields!r} is no object; give its fields by name")
    try:
        return build(**fields)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _evaluate(arguments: argparse.Namespace) -> int:
    from multislot_rerank.ladder import estimate_all
    from multislot_rerank.log import SlateLog, TargetPolicy

    table = _table(arguments.log)
    log = SlateLog.from_frame(table, arguments.objective or ["reward"], logging=arguments.logging)
    target = _table(arguments.target)
    _check_columns(target, arguments.target, "request", "slot", "item")
    found = estimate_all(log, TargetPolicy.deterministic(log, _slates(target, table, log.slates.shape, "target")))
    document = {
        "recommended": None if found.recommended is None else found.recommended.estimator,
        "reason": found.reason,
        "estimates": [
            {**_estimate(rung.estimate), "assumes": rung.assumes, "doubts": list(rung.doubts)} for rung in found.rungs
        ],
    }
    command.show([str(found)], document, arguments.json)
    return command.DONE


def _estimate(estimate: Any) -> dict[str, Any]:
    """Values and errors by objective; None where the log cannot tell."""
    numbers = {"value": estimate.value, "standard_error": estimate.standard_error}
    named = {
        key: {
            name: float(number) if math.isfinite(number) else None
            for name, number in zip(estimate.objectives, values, strict=True)
        }
        for key, values in numbers.items()
    }
    return {"estimator": estimate.estimator, **named}


def _check_columns(table: "pd.DataFrame", path: Path, *names: str) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")


def _slates(rows: "pd.DataFrame", logged: "pd.DataFrame", shape: tuple[int, ...], name: str) -> Any:
    """A policy's items in the order of the log's requests and slots, which must be the same."""
    if len(rows) != len(logged):
        raise ValueError(f"{name} has {len(rows)} rows where the log has {len(logged)}; give one a logged slot")
    ours, theirs = (t.sort_values(["request", "slot"], kind="stable") for t in (rows, logged))
    for column in ("request", "slot"):
        differs = ours[column].to_numpy() != theirs[column].to_numpy()
        if differs.any():
            raise ValueError(
                f"{name} has {column} {ours[column].iloc[differs.argmax()]} where the log has "
                f"{theirs[column].iloc[differs.argmax()]}; give a row for every request and slot of the log"
            )
    return ours["item"].to_numpy().reshape(shape)


def _table(path: Path) -> "pd.DataFrame":
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ValueError("reading logs needs the extra: pip install 'multislot-rerank[logs]'") from error
    try:
        return pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_csv(path)
    except ValueError as error:
        form = "Parquet" if path.suffix == ".parquet" else "CSV"
        raise ValueError(f"{path} cannot be read as {form} ({error})") from error


def _plan(arguments: argparse.Namespace) -> int:
    from multislot_rerank.planning import plan_logging

    plans = plan_logging(
        arguments.candidates,
        arguments.slots,
        standard_error=arguments.standard_error,
        reward_deviation=arguments.reward_deviation,
    )
    lines = [f"{'slots interact':<14} {'P(match)':>10} {'matches':>9} {'requests':>12}"]
    lines += [
        f"{plan.interaction:<14} {plan.acceptance:>10.3g} {plan.matches:>9} {plan.requests:>12}" for plan in plans
    ]
    command.show(lines, [asdict(plan) for plan in plans], arguments.json)
    return command.DONE


def _check_plot(arguments: argparse.Namespace) -> None:
    """Refuse a picture that could not be written before the work that it shows."""
    from papershelf_core.files import check_writable

    from multislot_rerank.admission import target_file

    if arguments.plot:
        check_writable(target_file(arguments.plot))


def _pareto(arguments: argparse.Namespace) -> int:
    from multislot_rerank.log import SlateLog
    from multislot_rerank.pareto import ParetoFront, choose_honestly, sweep

    _check_plot(arguments)
    logged = _table(arguments.log)
    log = SlateLog.from_frame(logged, arguments.objective or ["reward"], logging=arguments.logging)
    table = _table(arguments.policies)
    _check_columns(table, arguments.policies, "policy", "request", "slot", "item")
    if table.empty:
        raise ValueError(f"{arguments.policies} has no rows; give each policy a row a logged slot")
    slates = {
        str(name): _slates(rows, logged, log.slates.shape, f"policy {name!r}")
        for name, rows in table.groupby("policy", sort=False)
    }
    unknown = set(arguments.less) - set(log.objectives)
    if unknown:
        raise ValueError(f"--less {', '.join(sorted(unknown))}: the objectives are {', '.join(log.objectives)}")
    senses: list[Any] = ["min" if name in arguments.less else "max" for name in log.objectives]
    front = sweep(log, slates, arguments.interaction, senses=senses)
    width = max(len(name) for name in front.names)
    lines = [f"{'policy':<{width}}  front  " + "  ".join(f"{name:>20}" for name in log.objectives)]
    for name, estimate, optimal in zip(front.names, front.estimates, front.optimal, strict=True):
        cells = (f"{v:>11.5f} +-{e:>7.5f}" for v, e in zip(estimate.value, estimate.standard_error, strict=True))
        lines.append(f"{name:<{width}}  {'*' if optimal else ' ':<5}  " + "  ".join(cells))
    choice = choose_honestly(log, slates, ParetoFront.knee, arguments.interaction, senses=senses)
    values = ", ".join(
        f"{name} {value:.5f} +- {error:.5f}"
        for name, value, error in zip(log.objectives, choice.honest.value, choice.honest.standard_error, strict=True)
    )
    lines.append(
        f"knee of all: {front.knee()}; knee of one half of the log: {choice.name}, on the other half: {values}"
    )
    rows = zip(front.names, front.estimates, front.optimal, strict=True)
    document = {
        "policies": [{"policy": name, "on_front": bool(on), **_estimate(found)} for name, found, on in rows],
        "knee": front.knee(),
        "knee_of_half": {"policy": choice.name, **_estimate(choice.honest)},
    }
    command.show(lines, document, arguments.json)
    if arguments.plot:
        from multislot_rerank.plots import front_figure, save

        save(front_figure(front), arguments.plot)
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from multislot_rerank.influence_world import InfluenceWorld
    from multislot_rerank.objectives import AttributeRepeat, MaxSimilarity, Relevance
    from multislot_rerank.policies import Policy, by_relevance, compare_policies, greedy_truth, whole_slate
    from multislot_rerank.reranker import SequentialGreedyReranker

    _check_plot(arguments)
    if not math.isfinite(arguments.influence):
        raise ValueError(f"--influence {arguments.influence} is not finite; 0 is none, 1 the default, 2 strong")
    if arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed} is negative; give a whole number of at least 0")
    if not 1 <= arguments.slots <= arguments.candidates:
        raise ValueError(f"--slots {arguments.slots} must be between 1 and --candidates {arguments.candidates}")
    world = InfluenceWorld(arguments.influence, arguments.candidates, arguments.slots)
    greedy = SequentialGreedyReranker(
        [Relevance((1.1, 0.5)), MaxSimilarity(1.2), AttributeRepeat("creator", 0.8)], arguments.slots
    )
    policies: dict[str, Policy] = {"by relevance": by_relevance, "sequential greedy": whole_slate(greedy)}
    if arguments.model:
        from multislot_rerank.model_reranker import ModelReranker

        logged = world.log(arguments.model, seed=arguments.seed + 1)
        clicks = {"click": logged.clicks}
        model = ModelReranker.fit(logged.requests, logged.slates, clicks, attributes=["creator"], monotone=True)
        policies["model of the log"] = whole_slate(model)
    if arguments.ppo:
        from multislot_rerank.reinforcement import train_ppo

        policies["PPO"] = train_ppo(world, seconds=arguments.ppo, seed=arguments.seed, progress=_training)
    policies["greedy on the truth"] = greedy_truth
    table = compare_policies(world, policies, requests=arguments.requests, seed=arguments.seed)
    document = {"requests": table.requests, "policies": [asdict(row) for row in table.rows]}
    command.show([str(table)], document, arguments.json)
    if arguments.plot:
        from multislot_rerank.plots import policies_figure, save

        save(policies_figure(table), arguments.plot)
    return 0


def _training(iteration: int, reward: float, seconds: float) -> None:
    print(f"iteration {iteration}: {reward:.3f} clicks a slate after {seconds:.0f} s", file=sys.stderr)


def _benchmark(arguments: argparse.Namespace) -> int:
    from multislot_rerank.latency import reranking_latency

    lines, rows = [f"{'candidates':>10} {'k':>4} {'p50 ms':>8} {'p99 ms':>8}"], []
    for candidates in arguments.candidates:
        found = reranking_latency(candidates, arguments.k, requests=arguments.requests)
        lines.append(f"{candidates:>10} {arguments.k:>4} {found.p50_ms:>8.3f} {found.p99_ms:>8.3f}")
        rows.append({"candidates": candidates, "k": arguments.k, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms})
    command.show(lines, rows, arguments.json)
    return command.DONE


def _reproduce(arguments: argparse.Namespace) -> int:
    from papershelf_core.claims import publish

    from multislot_rerank.reproduce import claims

    packages = ("multislot-rerank", "numba", "pyversity")
    publish(claims(arguments.full), "multislot-rerank", *packages, json_path=arguments.json)
    return 0


_COMMANDS = {
    "rerank": _rerank,
    "evaluate": _evaluate,
    "plan": _plan,
    "pareto": _pareto,
    "simulate": _simulate,
    "benchmark": _benchmark,
    "reproduce": _reproduce,
}
