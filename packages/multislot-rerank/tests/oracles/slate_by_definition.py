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
    MaxOfValue,
    MaxSimilarity,
    MaxSlot,
    MinGap,
    MinOfValue,
    Pin,
    Relevance,
    Soft,
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


def overflows(objectives, k, scores, constraints=(), beam=1):
    """Whether the magnitudes of some candidate's terms add up to more than a double holds."""
    others = sum(constraint.price for constraint in constraints if isinstance(constraint, Soft))
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


def labels(value):
    """Labels of one candidate: those of a list, or its one value; a missing one is none."""
    listed = value if isinstance(value, list) else [value]
    return {one for one in listed if same(one, one)}


def holders(column, value):
    """Candidates that have a value, alone or among their labels."""
    return {i for i, own in enumerate(column) if value in labels(own)}


def is_minimum(constraint):
    named = constraint.constraint if isinstance(constraint, Soft) else constraint
    return isinstance(named, FreshQuota | MinOfValue | MaxSlot)


def counted(constraint, attributes, age_s, k):
    """Rules (candidates counted, window or end, number) of a cap or of a minimum."""
    if isinstance(constraint, FreshQuota):
        return [({i for i, age in enumerate(age_s) if age <= constraint.max_age_s}, constraint.first or k,
                 constraint.count)]  # fmt: skip
    if isinstance(constraint, MaxSlot):
        return [({constraint.item}, constraint.slot + 1, 1)]
    column = attributes[constraint.attribute]
    if isinstance(constraint, MinOfValue):
        return [(holders(column, constraint.value), constraint.first or k, constraint.count)]
    if isinstance(constraint, MaxOfValue):
        return [(holders(column, constraint.value), constraint.window, constraint.count)]
    window, most = (constraint.gap, 1) if isinstance(constraint, MinGap) else (constraint.window, constraint.count)
    return [(holders(column, value), window, most) for value in set().union(*map(labels, column))]


def broken(slate, constraints, attributes, age_s):
    """Every (slot, constraint) that a slate breaks; slots may be None where nothing stands yet."""
    pairs, k = [], len(slate)
    for constraint in constraints:
        if isinstance(constraint, Pin):
            if slate[constraint.slot] not in (None, constraint.item):
                pairs.append((constraint.slot, constraint))
            continue
        found = set()
        for some, size, number in counted(getattr(constraint, "constraint", constraint), attributes, age_s, k):
            if is_minimum(constraint):
                end = min(size, k)
                lacking = [slot for slot in range(end) if slate[slot] not in some]  # a slot may still be filled
                without = [slot for slot in lacking if slate[slot] is not None]
                short = number - (end - len(without))
                if short > 0:
                    found |= set(without[-short:] if without else [end - 1])
                    if short > len(without):
                        found.add(end - 1)
            else:
                for start in range(k):
                    inside = [slot for slot in range(start, min(start + size, k)) if slate[slot] in some]
                    found |= set(inside[number:])
        pairs += [(slot, constraint) for slot in sorted(found)]
    return pairs


def completable(slate, constraints, attributes, age_s, count):
    """Whether the empty slots of a slate (None) can be filled from the candidates so that nothing is broken."""
    if broken(slate, constraints, attributes, age_s):
        return False
    if None not in slate:
        return True
    slot = slate.index(None)
    rules = [rule for c in constraints for rule in counted(c, attributes, age_s, len(slate))]
    failed = set()
    for i in range(count):
        if i in slate:
            continue
        looks = tuple(i in some for some, _, _ in rules)
        if looks in failed:
            continue  # one that no constraint tells from this has failed here
        if completable([*slate[:slot], i, *slate[slot + 1 :]], constraints, attributes, age_s, count):
            return True
        failed.add(looks)
    return False


def pinned_slate(k, constraints):
    """Slots with their pins, else None."""
    pins = {c.slot: c.item for c in constraints if isinstance(c, Pin)}
    return [pins.get(slot) for slot in range(k)]


def by_importance(constraints):
    """What must hold: minima before caps, each in the order of the list."""
    hard = [c for c in constraints if not isinstance(c, Pin | Soft)]
    return [*filter(is_minimum, hard), *(c for c in hard if not is_minimum(c))]


def kept_constraints(k, constraints, attributes, age_s, count):
    """Constraints that can hold together: all, or the most important first."""
    hard, start = by_importance(constraints), pinned_slate(k, constraints)
    if completable(start, hard, attributes, age_s, count):
        return hard
    kept = []
    for constraint in hard:
        if completable(start, [*kept, constraint], attributes, age_s, count):
            kept.append(constraint)
    return kept


def greedy(k, constraints, value, attributes, age_s, count, rounding, found=None):
    """The slate; the lowest index among utilities that are equal up to ``rounding`` times their terms.

    Of these the item of ``found`` is as right where its utility is the larger one.
    """
    kept = kept_constraints(k, constraints, attributes, age_s, count)
    rest = [c for c in by_importance(constraints) if c not in kept]
    soft = [c for c in constraints if isinstance(c, Soft)]
    slate = pinned_slate(k, constraints)
    for slot in range(k):
        if slate[slot] is not None:
            continue
        placed = slate[:slot]
        free = [i for i in range(count) if i not in slate]
        now = {i: value(i, placed) for i in free}
        for i in free:
            price = sum(s.price for s in soft if charged([*placed, i], slate[slot + 1 :], s, attributes, age_s))
            now[i] = now[i][0] - price, now[i][1] + price / 2
        for number in range(len(rest), -1, -1):
            fits = []
            for i in sorted(free, key=lambda i: -now[i][0]):
                if fits and now[i][0] < now[fits[0]][0] - rounding * max(now[i][1], now[fits[0]][1]):
                    break
                trial = [*placed, i, *slate[slot + 1 :]]
                if any(stands_against(trial, slot, held, attributes, age_s) for held in rest[:number]):
                    continue
                if not kept or completable(trial, kept, attributes, age_s, count):
                    fits.append(i)
            if fits:
                slate[slot] = min(fits)
                if found is not None and found[slot] in fits and now[found[slot]][0] > now[slate[slot]][0]:
                    slate[slot] = found[slot]
                break
    return slate


def charged(placed, later, soft, attributes, age_s):
    """Whether the last item placed breaks a soft constraint, as far as its slot goes."""
    if is_minimum(soft):
        return stands_against([*placed, *later], len(placed) - 1, soft.constraint, attributes, age_s)
    return any(
        placed[-1] in some and sum(i in some for i in placed[-window:]) > most
        for some, window, most in counted(soft.constraint, attributes, age_s, 0)
    )


def stands_against(slate, slot, constraint, attributes, age_s):
    """Whether the item of a slot makes a window too full, or takes a slot that a minimum needs."""
    for some, size, number in counted(constraint, attributes, age_s, len(slate)):
        if is_minimum(constraint):
            inside = range(min(size, len(slate)))
            missing = number - sum(slate[s] in some for s in inside if s != slot)
            left = sum(slate[s] is None or s == slot for s in inside)
            if slot in inside and 0 < missing >= left and slate[slot] not in some:
                return True
        elif slate[slot] in some:
            for start in range(max(0, slot - size + 1), slot + 1):
                if sum(i in some for i in slate[start : start + size]) > number:
                    return True
    return False
