"""Random sets of constraints of all kinds on pools of 2 to 60 candidates, and the same as lists for any solver."""

import numpy as np
from multislot_rerank import (
    Candidates,
    FreshQuota,
    MaxOfValue,
    MaxPerWindow,
    MaxSlot,
    MinGap,
    MinOfValue,
    Pin,
    Relevance,
    SequentialGreedyReranker,
)
from oracles import slate_by_definition

MAX_AGE_S = 10.0


def draw(seed):
    """Up to 20 slots, 5 caps on three attributes of 1 to 8 values and one of labels, 4 pins, up to 3 minima."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 21))
    count = k + int(rng.integers(0, rng.choice([2, 10, 41])))
    values = [int(rng.integers(1, 9)) for _ in range(4)]
    attributes = {
        str(a): [None if rng.random() < 0.03 else int(rng.integers(values[a])) for _ in range(count)] for a in range(3)
    }
    attributes["labels"] = [
        sorted({int(v) for v in rng.integers(values[3], size=rng.integers(0, 4))}) for _ in range(count)
    ]
    fresh = rng.random(count) < rng.random()
    constraints = [_cap(rng, k, values) for _ in range(int(rng.integers(1, 6)))]
    constraints += [_minimum(rng, k, values, count) for _ in range(int(rng.choice([0, 0, 1, 1, 2, 3])))]
    pins = int(rng.integers(0, min(5, k)))
    constraints += [
        Pin(int(i), int(s)) for i, s in zip(rng.permutation(count)[:pins], rng.permutation(k)[:pins], strict=True)
    ]
    rng.shuffle(constraints)
    return SequentialGreedyReranker([Relevance()], k, constraints), Candidates(
        rng.normal(size=count), None, attributes, np.where(fresh, 1.0, 99.0)
    )


def _cap(rng, k, values):
    place = int(rng.choice(4, p=[0.3, 0.3, 0.3, 0.1]))
    attribute = "labels" if place == 3 else str(place)
    if rng.random() < 0.2:
        window = int(rng.integers(2, k + 1))
        return MaxOfValue(attribute, int(rng.integers(values[place])), window, int(rng.integers(1, window + 1)))
    if rng.random() < 0.5:
        return MinGap(attribute, int(rng.integers(2, min(k, values[place] + 1) + 1)))
    window = int(rng.integers(2, k + 1))
    return MaxPerWindow(attribute, window, int(rng.integers(max(1, window // values[place]), window + 1)))


def _minimum(rng, k, values, count):
    first = None if rng.random() < 0.5 else int(rng.integers(1, k + 1))
    number = int(rng.integers(1, (first or k) + 1))
    kind = rng.integers(3)
    if kind == 0:
        return FreshQuota(number, MAX_AGE_S, first)
    if kind == 1:
        return MaxSlot(int(rng.integers(count)), int(rng.integers(k)))
    place = int(rng.integers(4))
    number = int(rng.integers(1, 1 + max(1, number // 2)))
    return MinOfValue("labels" if place == 3 else str(place), int(rng.integers(values[place])), number, first)


def plain(reranker, candidates):
    """The set as lists: pins (item, slot), caps (candidates counted, window, most), minima (candidates, end, least)."""
    hard = slate_by_definition.by_importance(reranker.constraints)
    caps, minima = [], []
    for constraint in hard:
        rules = slate_by_definition.counted(constraint, candidates.attributes, candidates.age_s.tolist(), reranker.k)
        target = minima if slate_by_definition.is_minimum(constraint) else caps
        target += [(sorted(some), size, number) for some, size, number in rules]
    return {
        "k": reranker.k,
        "count": len(candidates),
        "pins": [(pin.item, pin.slot) for pin in reranker.constraints if isinstance(pin, Pin)],
        "caps": caps,
        "minima": minima,
    }
