"""The slate of a request, from the definitions alone: every cosine, window and completion is computed anew.

Greedy takes, slot by slot, the candidate of largest utility among those from which the slate can still be completed
under the constraints that can hold together. "Can be completed" is tried out, item by item.
"""

import math

import numpy as np
from multislot_rerank import (
    AttributeRepeat,
    Freshness,
    FreshQuota,
    LogDeterminant,
    MaxPerWindow,
    MaxSimilarity,
    MinGap,
    Pin,
    Relevance,
)

LARGEST = float(np.finfo(float).max)


def same(one, two):
    """Equal values; None and NaN equal nothing."""
    return one is not None and two is not None and one == two


def cosines(embeddings):
    """Cosine of every pair, each row divided by its largest entry first."""
    rows = np.asarray(embeddings, np.longdouble)
    unit = []
    for row in rows:
        largest = np.abs(row).max()
        scaled = row / largest if largest > 0 else row
        length = np.sqrt((scaled * scaled).sum())
        unit.append(scaled / length if length > 0 else scaled)
    unit = np.array(unit)
    product = (unit @ unit.T).astype(float)
    product[product > 1 - 1e-13] = 1.0
    product[product < -1 + 1e-13] = -1.0
    return product


def overflows(objectives, k, scores, beam=1):
    """Whether the magnitudes of some candidate's terms add up to more than a double holds."""
    others = 0.0
    weights = [0.0] * len(scores[0])
    for objective in objectives:
        if isinstance(objective, Relevance):
            weights = objective.weights
        elif isinstance(objective, Freshness | MaxSimilarity):
            others += objective.weight
        elif isinstance(objective, AttributeRepeat):
            others += objective.weight * k
        else:
            others += objective.weight * max(-math.log(objective.jitter), math.log1p(objective.jitter))
    factor = k if beam > 1 else 1
    return any(
        (sum(abs(w * s) for w, s in zip(weights, row, strict=True)) + others) * factor > LARGEST for row in scores
    )


def utilities(objectives, scores, cos, attributes, age_s):
    """Function (candidate, placed) -> utility and the sum of its terms' magnitudes."""

    def value(i, placed):
        total, nearest, repeats, growth = 0.0, 0.0, 0.0, 0.0
        for objective in objectives:
            if isinstance(objective, Relevance):
                for w, s in zip(objective.weights, scores[i], strict=True):
                    total += w * s
            elif isinstance(objective, Freshness):
                total += objective.weight * 2.0 ** -min(age_s[i] / objective.half_life_s, 2000.0)
            elif isinstance(objective, MaxSimilarity):
                recent = placed[-objective.window :] if objective.window else placed
                nearest = objective.weight * max([0.0, *(float(cos[i, j]) for j in recent)])
            elif isinstance(objective, AttributeRepeat):
                recent = placed[-objective.window :] if objective.window else placed
                column = attributes[objective.attribute]
                repeats += objective.weight * sum(same(column[i], column[j]) for j in recent)
            elif isinstance(objective, LogDeterminant):
                growth = objective.weight * math.log(residual(cos, i, placed, objective.jitter))
        return total - nearest - repeats + growth, abs(total) / 2 + nearest / 2 + repeats / 2 + abs(growth) / 2

    return value


def residual(cos, i, placed, jitter):
    """det(L_S+i) / det(L_S) for L = cos + jitter I."""
    if not placed:
        return 1.0 + jitter
    gram = cos[np.ix_(placed, placed)] + jitter * np.eye(len(placed))
    across = cos[i, placed]
    return max(1.0 + jitter - float(across @ np.linalg.solve(gram, across)), jitter)


def broken(slate, constraints, attributes, age_s):
    """Every (slot, constraint) that a slate breaks; slots may be None where nothing stands yet (no quota then)."""
    pairs = []
    for constraint in constraints:
        found = set()
        if isinstance(constraint, Pin):
            if slate[constraint.slot] not in (None, constraint.item):
                found.add((constraint.slot, constraint))
        elif isinstance(constraint, FreshQuota):
            if None in slate:
                continue
            stale = [slot for slot, i in enumerate(slate) if not age_s[i] <= constraint.max_age_s]
            short = constraint.count - (len(slate) - len(stale))
            if short > 0:
                found |= {(slot, constraint) for slot in (stale[-short:] or [len(slate) - 1])}
                if short > len(stale):
                    found.add((len(slate) - 1, constraint))
        else:
            window, most = (
                (constraint.gap, 1) if isinstance(constraint, MinGap) else (constraint.window, constraint.count)
            )
            column = attributes[constraint.attribute]
            for start in range(len(slate)):
                inside = [slot for slot in range(start, min(start + window, len(slate))) if slate[slot] is not None]
                for slot in inside:
                    alike = [s for s in inside if s <= slot and same(column[slate[s]], column[slate[slot]])]
                    if slate[slot] is not None and len(alike) > most:
                        found.add((slot, constraint))
        pairs += sorted(found, key=lambda pair: pair[0])
    return pairs


def completable(slate, constraints, attributes, age_s, count):
    """Whether the empty slots of a slate (None) can be filled from the candidates so that nothing is broken."""
    if broken(slate, constraints, attributes, age_s):
        return False
    if None not in slate:
        return True
    slot = slate.index(None)
    failed = []
    quotas = [c for c in constraints if isinstance(c, FreshQuota)]
    for i in range(count):
        if i in slate:
            continue
        looks = [column[i] for column in attributes.values()], [age_s[i] <= c.max_age_s for c in quotas]
        if any(fresh == looks[1] and all(map(same, values, looks[0])) for values, fresh in failed):
            continue  # one that no constraint tells from this has failed here
        if completable([*slate[:slot], i, *slate[slot + 1 :]], constraints, attributes, age_s, count):
            return True
        failed.append(looks)
    return False


def pinned_slate(k, constraints):
    """Slots with their pins, else None."""
    pins = {c.slot: c.item for c in constraints if isinstance(c, Pin)}
    return [pins.get(slot) for slot in range(k)]


def kept_constraints(k, constraints, attributes, age_s, count):
    """Constraints that can hold together: all, or the quota first and then in the order of the list."""
    soft = [c for c in constraints if not isinstance(c, Pin)]
    start = pinned_slate(k, constraints)
    if completable(start, soft, attributes, age_s, count):
        return soft
    kept = []
    for constraint in sorted(soft, key=lambda c: not isinstance(c, FreshQuota)):
        if completable(start, [*kept, constraint], attributes, age_s, count):
            kept.append(constraint)
    return kept


def greedy(k, constraints, value, attributes, age_s, count, rounding):
    """The slate; the lowest index among utilities that are equal up to ``rounding`` times their terms."""
    kept = kept_constraints(k, constraints, attributes, age_s, count)
    caps = [c for c in constraints if isinstance(c, MaxPerWindow | MinGap) and c not in kept]
    quotas = [c for c in constraints if isinstance(c, FreshQuota)]
    slate = pinned_slate(k, constraints)
    for slot in range(k):
        if slate[slot] is not None:
            continue
        placed = slate[:slot]
        free = [i for i in range(count) if i not in slate]
        missing = max([0, *(q.count - sum(age_s[i] <= q.max_age_s for i in slate if i is not None) for q in quotas)])
        fresh = [i for i in free if age_s[i] <= quotas[0].max_age_s] if missing >= slate.count(None) else free
        levels = [(fresh, caps[:number]) for number in range(len(caps), -1, -1)]
        for some, held in [*levels, (free, [])]:
            now = {i: value(i, placed) for i in some}
            fits = []
            for i in sorted(some, key=lambda i: -now[i][0]):
                if fits and now[i][0] < now[fits[0]][0] - rounding * max(now[i][1], now[fits[0]][1]):
                    break
                trial = [*placed, i, *slate[slot + 1 :]]
                if any(exceeds(trial, slot, cap, attributes) for cap in held):
                    continue
                if not kept or completable(trial, kept, attributes, age_s, count):
                    fits.append(i)
            if fits:
                slate[slot] = min(fits)
                break
    return slate


def exceeds(slate, slot, cap, attributes):
    """Whether some window around the slot holds more items of its value than the cap allows."""
    window, most = (cap.gap, 1) if isinstance(cap, MinGap) else (cap.window, cap.count)
    column = attributes[cap.attribute]
    for start in range(max(0, slot - window + 1), slot + 1):
        inside = [i for i in slate[start : start + window] if i is not None]
        if 1 + sum(same(column[i], column[slate[slot]]) for i in inside if i != slate[slot]) > most:
            return True
    return False
