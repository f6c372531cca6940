"""Requests drawn to be awkward: ties, copies, values to +-1e308, vectors to 1e+-298, clashing constraints."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from multislot_rerank import (
    AttributeRepeat,
    Candidates,
    Freshness,
    FreshQuota,
    InvalidInput,
    LogDeterminant,
    MaxOfValue,
    MaxPerWindow,
    MaxSimilarity,
    MaxSlot,
    MinGap,
    MinOfValue,
    Pin,
    Relevance,
    SequentialGreedyReranker,
    Soft,
)
from multislot_rerank.lazy_greedy import lazy_sga
from multislot_rerank.scan import scan_slate
from oracles import slate_by_definition

HALF_LIFE_S = 64.0
HUGE = [1.7976931348623157e308, 1e308, 8e307, 5e307, 1e300, 1.0, 0.0, 5e-324]
ATTRIBUTES = ("creator", "topic")


@dataclass(frozen=True)
class Request:
    """Arguments of a re-ranker and of its candidates."""

    objectives: list[Any]
    k: int
    constraints: list[Any]
    scores: Any
    embeddings: Any
    attributes: dict[str, list[Any]]
    age_s: Any

    def candidates(self):
        return Candidates(self.scores, self.embeddings, self.attributes, self.age_s)

    def reranker(self, beam=1):
        return SequentialGreedyReranker(self.objectives, self.k, self.constraints, beam)


def draw(seed):
    """One request; a third of them without constraints and larger."""
    rng = np.random.default_rng(seed)
    constrained = rng.random() < 0.67
    count = int(rng.integers(1, 10 if constrained else 41))
    k = int(rng.integers(1, min(count, 6 if constrained else 12) + 1))
    kind = rng.choice(["lattice", "generic", "huge", "tiny"])
    scores = _scores(rng, kind, count)
    embeddings, exact = _embeddings(rng, kind, count)
    values = int(rng.integers(1, 5))
    attributes = {name: [_value(rng, values) for _ in range(count)] for name in ATTRIBUTES}
    attributes["tags"] = [[_value(rng, values) for _ in range(rng.integers(3))] for _ in range(count)]
    age_s = HALF_LIFE_S * rng.integers(0, 6, count).astype(float)
    if count > 1 and rng.random() < 0.5:  # copies in every field
        for target, source in rng.integers(count, size=(int(rng.integers(1, count + 1)), 2)):
            scores[target], embeddings[target], age_s[target] = scores[source], embeddings[source], age_s[source]
            for column in attributes.values():
                column[target] = column[source]
    objectives = _objectives(rng, kind, exact, scores.shape[1], k)
    return Request(
        objectives, k, _constraints(rng, count, k) if constrained else [], scores, embeddings, attributes, age_s
    )


def _value(rng, values):
    return None if rng.random() < 0.1 else f"v{rng.integers(values)}"


def _scores(rng, kind, count):
    shape = (count, int(rng.integers(1, 4)))
    if kind == "lattice":
        return rng.integers(-4, 5, shape) / 8
    if kind == "huge":
        return rng.choice(HUGE, shape) * rng.choice([-1.0, 1.0], shape)
    return rng.normal(size=shape) * (1e-305 if kind == "tiny" else 1.0)


def _embeddings(rng, kind, count):
    """Vectors, and whether their cosines are exact multiples of 1/2 with few values."""
    if kind == "generic":
        return rng.normal(size=(count, int(rng.integers(1, 7)))), False
    if rng.random() < 0.5:
        rows = np.eye(3)[rng.integers(3, size=count)] * rng.choice([-1.0, 1.0], (count, 1))
        exact = True
    else:
        rows, exact = rng.choice([-1.0, 1.0], (count, 4)), False
    rows[rng.random(count) < 0.1] = 0.0
    scales = np.exp2(rng.integers(-990, 990, count) if kind != "lattice" else rng.integers(-3, 4, count))
    return rows * scales[:, None], exact


def _objectives(rng, kind, exact, columns, k):
    weights = {"huge": [1.0, 0.5, -1.0, 0.0, 2.0], "lattice": [0.25, 0.5, -0.5, 1.0]}.get(kind)
    found = [Relevance(rng.choice(weights, columns) if weights else rng.normal(size=columns))]
    scale = float(rng.choice([1e300, 1e308])) if kind == "huge" and rng.random() < 0.3 else 1.0

    def weight():
        return scale * float(rng.integers(0, 9) / 8)

    def window():
        return int(rng.integers(1, k + 2)) if rng.random() < 0.2 else None

    if rng.random() < 0.5:
        found.append(Freshness(weight(), HALF_LIFE_S))
    if rng.random() < 0.6:
        found.append(MaxSimilarity(weight(), window()))
    found += [AttributeRepeat(name, weight(), window()) for name in ATTRIBUTES if rng.random() < 0.5]
    if rng.random() < 0.3 and (kind == "generic" or exact):
        found.append(LogDeterminant(weight(), float(rng.choice([1e-6, 1e-3, 0.5]))))
    rng.shuffle(found)
    return found


def _constraints(rng, count, k):
    found = []
    pins = int(rng.choice([0, 0, 1, 2]))
    slots, items = rng.permutation(k)[:pins], rng.permutation(count)[:pins]
    found += [Pin(int(i), int(s)) for i, s in zip(items, slots, strict=False)]
    found += [_constraint(rng, count, k) for _ in range(int(rng.integers(0, 5)))]
    for place, constraint in enumerate(found):
        if not isinstance(constraint, Pin) and rng.random() < 0.15:
            found[place] = Soft(constraint, float(rng.integers(0, 9) / 8))
    rng.shuffle(found)
    return found


def _constraint(rng, count, k):
    attribute, value = str(rng.choice([*ATTRIBUTES, "tags"])), f"v{rng.integers(4)}"
    window, number = int(rng.integers(1, k + 3)), int(rng.integers(1, 4))
    first = None if rng.random() < 0.4 else int(rng.integers(1, k + 2))
    return [
        MinGap(attribute, window + 1),
        MaxPerWindow(attribute, window, number),
        MaxOfValue(attribute, value, window, number),
        MinOfValue(attribute, value, number, first),
        FreshQuota(int(rng.integers(1, k + 2)), float(HALF_LIFE_S * rng.integers(1, 5)), first),
        MaxSlot(int(rng.integers(count)), int(rng.integers(k))),
    ][rng.integers(6)]


def disagreement(request):
    """What the lazy kernel, the scan, the re-ranker and the definitions do not agree on; None if nothing."""
    overflow = slate_by_definition.overflows(
        request.objectives, request.k, request.scores.tolist(), request.constraints
    )
    try:
        slate = request.reranker().rerank(request.candidates())
    except InvalidInput as error:
        named = "leave the range of doubles" in str(error)
        return None if overflow and named else f"refused: {error}"
    if overflow:
        return "utilities can overflow and were not refused"
    if not np.isfinite(slate.utilities).all() or not slate.proven:
        return f"utilities {slate.utilities}, proven {slate.proven}"
    problem = request.reranker().scan_problem(request.candidates())
    rows = problem.rows
    if not problem.similarity_window and not problem.repeat_window.any() and not rows.soft:
        lazy = lazy_sga(
            problem.static, problem.embeddings, problem.inverse_norm, problem.weights, rows.codes,
            problem.repeat_weight, rows.pinned, rows.caps, rows.minima,
        )  # fmt: skip
        scan = scan_slate(problem, 1)
        if any(one.tobytes() != two.tobytes() for one, two in zip(lazy, scan, strict=True)):
            return f"lazy {lazy} and scan {scan} differ"
    value = slate_by_definition.utilities(
        request.objectives, request.scores.tolist(), slate_by_definition.cosines(request.embeddings),
        request.attributes, request.age_s.tolist(),
    )  # fmt: skip
    log_det = any(isinstance(o, LogDeterminant) and o.weight > 0 for o in request.objectives)
    expected = slate_by_definition.greedy(
        request.k, request.constraints, value, request.attributes, request.age_s.tolist(), len(request.scores),
        1e-9 if log_det else 1e-12, slate.items.tolist(),
    )  # fmt: skip
    if slate.items.tolist() != expected:
        return f"slate {slate.items.tolist()}, by definition {expected}"
    told = slate_by_definition.broken(expected, request.constraints, request.attributes, request.age_s.tolist())
    if Counter(slate.relaxed) != Counter(told):
        return f"relaxed {slate.relaxed}, by definition {told}"
    return None
