"""``multislot-rerank``: re-rank a request, evaluate a policy on a log, plan a log, reproduce the claims."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="multislot-rerank", description="Re-rank whole slates, and know what a policy would earn."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rerank = commands.add_parser("rerank", help="re-rank the candidates of a JSON request")
    rerank.add_argument("request", type=Path, help="JSON with k, objectives, constraints, candidates")
    evaluate = commands.add_parser("evaluate", help="estimate what a deterministic policy would earn, on a log")
    evaluate.add_argument(
        "log", type=Path, help="Parquet or CSV, a row a slot: request, slot, item, candidates, rewards"
    )
    evaluate.add_argument("target", type=Path, help="Parquet or CSV with the policy's slates: request, slot, item")
    evaluate.add_argument("--objective", action="append", help="reward column; repeatable (default: reward)")
    plan = commands.add_parser("plan", help="how many requests to log")
    plan.add_argument("--candidates", type=int, required=True)
    plan.add_argument("--slots", type=int, required=True)
    plan.add_argument("--standard-error", type=float, required=True, help="of a slot's mean reward")
    plan.add_argument("--reward-deviation", type=float, required=True, help="standard deviation of a slot's reward")
    reproduce = commands.add_parser("reproduce", help="measure the package's claims")
    reproduce.add_argument("--full", action="store_true", help="more logs, and the Open Bandit sample")
    reproduce.add_argument("--json", type=Path, help="also write the rows as JSON")
    arguments = parser.parse_args(argv)
    try:
        return {"rerank": _rerank, "evaluate": _evaluate, "plan": _plan, "reproduce": _reproduce}[arguments.command](
            arguments
        )
    except (ValueError, OSError) as error:
        print(f"multislot-rerank: {error}", file=sys.stderr)
        return 2


def _rerank(arguments: argparse.Namespace) -> int:
    from multislot_rerank import constraints, objectives
    from multislot_rerank.candidates import Candidates
    from multislot_rerank.reranker import SequentialGreedyReranker

    request = json.loads(arguments.request.read_text(encoding="utf-8"))
    for name in ("k", "objectives", "candidates"):
        if not isinstance(request, dict) or name not in request:
            raise ValueError(f"request has no field {name!r}; see the README for its form")
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
    }
    print(json.dumps(document, indent=1))
    return 0


def _built(module: Any, spec: dict[str, Any]) -> Any:
    """An objective or constraint from its JSON form, ``{"type": "MaxSimilarity", "weight": 0.3}``."""
    fields = dict(spec)
    kind = fields.pop("type", None)
    known = [name for name in module.__all__ if name not in ("Objective", "Constraint")]
    if kind not in known:
        raise ValueError(f"type={kind!r} is unknown; use one of {', '.join(known)}")
    return _call(getattr(module, kind), fields, kind)


def _call(build: Any, fields: dict[str, Any], name: str) -> Any:
    try:
        return build(**fields)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _evaluate(arguments: argparse.Namespace) -> int:
    from multislot_rerank.ladder import estimate_all
    from multislot_rerank.log import SlateLog, TargetPolicy

    log = SlateLog.from_frame(_table(arguments.log), arguments.objective or ["reward"])
    target = _table(arguments.target).sort_values(["request", "slot"], kind="stable")
    if len(target) != log.slates.size:
        raise ValueError(f"target has {len(target)} rows where the log has {log.slates.size}; give one a logged slot")
    slates = target["item"].to_numpy().reshape(log.slates.shape)
    print(estimate_all(log, TargetPolicy.deterministic(log, slates)))
    return 0


def _table(path: Path) -> "pd.DataFrame":
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ValueError("reading logs needs the extra: pip install 'multislot-rerank[logs]'") from error
    return pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_csv(path)


def _plan(arguments: argparse.Namespace) -> int:
    from multislot_rerank.planning import plan_logging

    plans = plan_logging(
        arguments.candidates,
        arguments.slots,
        standard_error=arguments.standard_error,
        reward_deviation=arguments.reward_deviation,
    )
    print(f"{'slots interact':<14} {'P(match)':>10} {'matches':>9} {'requests':>12}")
    for plan in plans:
        print(f"{plan.interaction:<14} {plan.acceptance:>10.3g} {plan.matches:>9} {plan.requests:>12}")
    return 0


def _reproduce(arguments: argparse.Namespace) -> int:
    from papershelf_core.claims import publish

    from multislot_rerank.reproduce import claims

    packages = ("multislot-rerank", "numba", "pyversity")
    publish(claims(arguments.full), "multislot-rerank", *packages, json_path=arguments.json)
    return 0
