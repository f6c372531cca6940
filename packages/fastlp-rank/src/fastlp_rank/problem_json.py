"""Problems and solutions as JSON documents.

A problem::

    {"items": ["a", "b", "c"],                      optional names, indices otherwise
     "scores": [0.9, 0.5, 0.4],
     "slots": {"dcg": 2},                           or {"uniform": 2}, or a list of weights
     "groups": {"genre": ["x", "x", "y"]},          labels, or lists of labels, that constraints refer to by name
     "blocked": [false, false, true],               optional, items that must not be shown
     "feasibility_tol": 1e-9,                       optional, see `RankingProblem`
     "constraints": [{"type": "group_exposure", "groups": "genre", "group": "y", "min_share": 0.2},
                     {"type": "group_count", "groups": "genre", "group": "x", "at_most": 1},
                     {"type": "linear_exposure", "values": [1, 0, 2], "upper": 1.5, "name": "cost"}]}

Constraints that are all of the type ``{"type": "prefix_count", "groups": "genre", "group": "y", "first": 2, "at_least":
1}``, with one name of groups, make it a `PrefixProblem`: they hold in the first slots of every list.
"""

import math
from collections.abc import Mapping
from typing import Any

from fastlp_rank.errors import InvalidProblemError
from fastlp_rank.prefixes.problem import PrefixCount, PrefixProblem
from fastlp_rank.prefixes.ranking import PrefixRanking
from fastlp_rank.problem import Constraint, GroupCount, GroupExposure, LinearExposure, RankingProblem, SlotWeights
from fastlp_rank.solver import RankingSolution

__all__ = ["prefix_ranking_to_json", "problem_from_json", "solution_to_json"]

_FIELDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "group_exposure": (GroupExposure, ("groups", "group", "min_share", "max_share", "name")),
    "group_count": (GroupCount, ("groups", "group", "at_least", "at_most", "name")),
    "linear_exposure": (LinearExposure, ("values", "lower", "upper", "name")),
}


def problem_from_json(document: Any) -> RankingProblem | PrefixProblem:
    """Read a problem; see the module for the format.

    Raises
    ------
    InvalidProblemError
        If a field is missing, unknown or has no meaning.

    Examples
    --------
    >>> problem_from_json({"scores": [2, 1], "slots": {"uniform": 1}}).family
    'selection'
    """
    if not isinstance(document, Mapping):
        raise InvalidProblemError('the problem is no JSON object; write {"scores": [...], "slots": ...}')
    _known(document, ("items", "scores", "slots", "groups", "blocked", "feasibility_tol", "constraints"), "the problem")
    for name in ("scores", "slots"):
        if name not in document:
            raise InvalidProblemError(f"the field {name!r} is missing")
    groups, entries, items = document.get("groups", {}), document.get("constraints", []), document.get("items")
    if not isinstance(groups, Mapping):
        raise InvalidProblemError('groups is no JSON object; give {"name": [a label a candidate]} or leave it out')
    if not isinstance(entries, list):
        raise InvalidProblemError("constraints is no JSON list; give a list of objects or leave it out")
    if items is not None and not isinstance(items, list):
        raise InvalidProblemError("items is no JSON list; give a name for each score or leave it out")
    scores, slots = _numbers(document["scores"], "scores"), _slots(document["slots"])
    problem: RankingProblem | PrefixProblem
    if any(isinstance(entry, Mapping) and entry.get("type") == "prefix_count" for entry in entries):
        if "feasibility_tol" in document:
            raise InvalidProblemError("feasibility_tol has no meaning for prefix_count, which is kept exactly; drop it")
        bounds, labels = _prefix_counts(entries, groups)
        problem = PrefixProblem(scores, slots, labels, bounds, document.get("blocked"))
    else:
        constraints = [_constraint(k, entry, groups) for k, entry in enumerate(entries)]
        options = {name: document[name] for name in ("blocked", "feasibility_tol") if name in document}
        problem = RankingProblem(scores, slots, constraints, **options)
    n = problem.scores.size
    if items is not None and len(items) != n:
        raise InvalidProblemError(f"items has {len(items)} names for {n} scores; give one each or leave it out")
    return problem


def _prefix_counts(entries: list[Any], groups: Mapping[str, Any]) -> tuple[list[PrefixCount], Any]:
    """The bounds, and the labels of the one name of groups that they are on."""
    names = ("groups", "group", "first", "at_least", "at_most", "name")
    used: list[str] = []
    bounds = []
    for k, entry in enumerate(entries):
        where = f"constraints[{k}]"
        kind = entry.get("type") if isinstance(entry, Mapping) else entry
        if kind != "prefix_count":
            raise InvalidProblemError(
                f"{where}: type {kind!r} beside prefix_count; prefix counts hold in every list, the others in "
                "expectation, and this version solves one kind at a time"
            )
        _known(entry, ("type", *names), where)
        for name in names[:3]:
            if name not in entry:
                raise InvalidProblemError(f"{where}: the field {name!r} is missing")
        if not isinstance(entry["groups"], str) or entry["groups"] not in groups:
            raise InvalidProblemError(f"{where}: groups {entry['groups']!r} is not under 'groups' of the problem")
        if used and entry["groups"] != used[0]:
            raise InvalidProblemError(
                f"{where}: groups {entry['groups']!r} beside {used[0]!r}; the groups of prefix counts exclude each "
                "other, so give all bounds on one name of groups"
            )
        used.append(entry["groups"])
        bounds.append(PrefixCount(**{name: entry[name] for name in names[1:] if name in entry}))
    return bounds, groups[used[0]]


def _known(entry: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    unknown = [name for name in entry if name not in names]
    if unknown:
        raise InvalidProblemError(f"{where}: field {unknown[0]!r} is unknown; known are {', '.join(names)}")


def _numbers(values: Any, where: str) -> Any:
    """Refuse text and true/false among the entries, which arrays would take for numbers."""
    for i, value in enumerate(values if isinstance(values, list) else []):
        if isinstance(value, (str, bool)):
            raise InvalidProblemError(f"{where}[{i}] = {value!r} is no number; write it without quotes")
    return values


def _slots(value: Any) -> SlotWeights:
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((kind, m),) = value.items()
            if kind == "dcg":
                return SlotWeights.dcg(m)
            if kind == "uniform":
                return SlotWeights.uniform(m)
        raise InvalidProblemError(f"slots = {dict(value)}; give {{'dcg': m}}, {{'uniform': m}} or a list of weights")
    return SlotWeights.explicit(_numbers(value, "slots"))


def _constraint(k: int, entry: Any, groups: Mapping[str, Any]) -> Constraint:
    where = f"constraints[{k}]"
    kind = entry.get("type") if isinstance(entry, Mapping) else entry
    if not isinstance(entry, Mapping) or not isinstance(kind, str) or kind not in _FIELDS:
        raise InvalidProblemError(f"{where}: type {kind!r} is unknown; known are {', '.join(_FIELDS)}")
    make, names = _FIELDS[kind]
    _known(entry, ("type", *names), where)
    if names[0] not in entry:
        raise InvalidProblemError(f"{where}: the field {names[0]!r} is missing")
    fields = {name: entry[name] for name in names if name in entry}
    _numbers(fields.get("values"), f"{where}: values")
    if isinstance(fields.get("groups"), str):
        if fields["groups"] not in groups:
            raise InvalidProblemError(f"{where}: groups {fields['groups']!r} is not under 'groups' of the problem")
        fields["groups"] = groups[fields["groups"]]
    made: Constraint = make(**fields)
    return made


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def solution_to_json(solution: RankingSolution, items: list[Any] | None = None) -> dict[str, Any]:
    """Lay a solution out for JSON; rankings as names where ``items`` gives them, numbers that do not exist as null."""
    rankings = solution.lottery.rankings.tolist()
    if items is not None:
        rankings = [[items[i] for i in ranking] for ranking in rankings]
    verification = solution.certificate().verify(solution.problem)
    return {
        "status": solution.status.name,
        "objective": solution.objective,
        "bound": _number(solution.bound),
        "gap": _number(solution.gap),
        "pricings": solution.pricings,
        "lottery": [
            {"weight": weight, "ranking": ranking}
            for weight, ranking in zip(solution.lottery.weights.tolist(), rankings, strict=True)
        ],
        "prices": {name: _number(value) for name, value in solution.prices.items()},
        "activities": solution.activities,
        "violations": solution.violations,
        "farkas_ray": solution.farkas_ray,
        "verified": verification.holds,
    }


def prefix_ranking_to_json(problem: PrefixProblem, found: PrefixRanking, items: list[Any] | None) -> dict[str, Any]:
    """Lay a ranking out for JSON; as names where ``items`` gives them, numbers that do not exist as null."""
    ranking = found.ranking.tolist()
    return {
        "status": found.status.name,
        "objective": _number(found.objective),
        "gap": _number(found.gap),
        "ranking": ranking if items is None else [items[i] for i in ranking],
        "counts": {str(label): row for label, row in zip(problem.labels, found.counts.tolist(), strict=True)},
        "prices": {name: _number(value) for name, value in found.prices.items()},
        "conflict": found.conflict,
        "verified": found.verify(problem).holds,
    }
