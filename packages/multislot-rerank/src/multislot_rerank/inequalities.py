"""A conflict-driven search for 0/1 solutions of linear inequalities, which learns by cutting planes.

    sum_j w_j l_j >= d,      w_j and d whole and positive, l_j a variable or its complement

Decide, propagate (an unassigned literal of weight above the slack, sum of the weights not yet false - d, must be true),
and on a conflict add to the violated inequality what propagated its literals, so that these cancel, until the sum
propagates on an earlier level; keep it. Such sums are proofs by counting: that eleven of fifteen slots hold at most ten
of what is left is one line here and needs exponentially many clauses (Haken, 1985).

Reference: Elffers & Nordstroem, IJCAI 2018 (division in place of saturation); Een & Soerensson, SAT 2003 (the loop).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from multislot_rerank.arrays import Ints

__all__ = ["LATER", "NO", "UNKNOWN", "YES", "System", "add", "search", "system"]

YES, NO, UNKNOWN = 1, 0, -1
_LARGEST = 1 << 20  # weight; products of two and sums of 2^20 of them stay below 2^63
_RESTART = 50  # conflicts, times 1 1 2 1 1 2 4 ...
_DECAY = 0.95  # of a variable's part in conflicts, a conflict
ROWS, TERMS, ASSIGNED, LEVELS, WAITING, REFUTED, LATER = range(7)  # entries of System.sizes


class System(NamedTuple):
    """Inequalities and the state of the search; literal 2 v is variable v, literal 2 v + 1 its complement."""

    begin: Ints  # of a row: its first term; a row more than there are
    least: Ints  # d
    slack: Ints
    heaviest: Ints  # largest weight of the row
    use: NDArray[np.float64]  # how often, and how late, the row explained a conflict
    literal: Ints  # of a term
    weight: Ints
    row: Ints
    before: Ints  # the term before it that has the same literal, or -1
    last: Ints  # of a literal: its last term, or -1
    truth: NDArray[np.int8]  # of a literal: 1, -1, or 0 where open
    level: Ints  # of a variable: decisions made when it was set
    reason: Ints  # the row that set it, -1 for a decision
    phase: NDArray[np.int8]  # the value that it had last; decisions repeat it
    activity: NDArray[np.float64]
    trail: Ints  # literals that are true, in the order in which they became so
    level_begin: Ints
    queue: Ints  # rows that may propagate
    queued: NDArray[np.bool_]
    sizes: Ints


@njit(cache=True, nogil=True)
def system(variables, rows, terms):  # type: ignore[no-untyped-def]
    """A system without inequalities that has room for so many."""
    return System(
        begin=np.zeros(rows + 1, np.int64),
        least=np.zeros(rows, np.int64),
        slack=np.zeros(rows, np.int64),
        heaviest=np.zeros(rows, np.int64),
        use=np.zeros(rows),
        literal=np.zeros(terms, np.int64),
        weight=np.zeros(terms, np.int64),
        row=np.zeros(terms, np.int64),
        before=np.zeros(terms, np.int64),
        last=np.full(2 * variables, -1),
        truth=np.zeros(2 * variables, np.int8),
        level=np.zeros(variables, np.int64),
        reason=np.full(variables, -1),
        phase=np.zeros(variables, np.int8),
        activity=np.zeros(variables),
        trail=np.zeros(variables, np.int64),
        level_begin=np.zeros(2 * variables + 2, np.int64),
        queue=np.zeros(rows, np.int64),
        queued=np.zeros(rows, np.bool_),
        sizes=np.zeros(7, np.int64),
    )


@njit(cache=True, nogil=True)
def add(s, literals, weights, size, least):  # type: ignore[no-untyped-def]
    """Add an inequality of ``size`` terms with distinct variables."""
    row, heaviest, slack = s.sizes[ROWS], 0, -least
    for j in range(size):
        term, literal, weight = s.sizes[TERMS] + j, literals[j], weights[j]
        s.literal[term], s.weight[term], s.row[term] = literal, weight, row
        s.before[term], s.last[literal] = s.last[literal], term
        heaviest = max(heaviest, weight)
        if s.truth[literal] >= 0:
            slack += weight
    s.sizes[TERMS] += size
    s.sizes[ROWS] += 1
    s.begin[row + 1] = s.sizes[TERMS]
    s.least[row], s.slack[row], s.heaviest[row], s.use[row] = least, slack, heaviest, 0.0
    if slack < heaviest:
        _wait(s, row)


@njit(cache=True, nogil=True)
def _wait(s, row):  # type: ignore[no-untyped-def]
    if not s.queued[row]:
        s.queued[row] = True
        s.queue[s.sizes[WAITING]] = row
        s.sizes[WAITING] += 1


@njit(cache=True, nogil=True)
def _set(s, literal, reason):  # type: ignore[no-untyped-def]
    """Make an open literal true; returns the terms touched."""
    variable = literal >> 1
    s.truth[literal], s.truth[literal ^ 1] = 1, -1
    s.level[variable], s.reason[variable] = s.sizes[LEVELS], reason
    s.trail[s.sizes[ASSIGNED]] = literal
    s.sizes[ASSIGNED] += 1
    term, touched = s.last[literal ^ 1], 1
    while term >= 0:
        row = s.row[term]
        s.slack[row] -= s.weight[term]
        if s.slack[row] < s.heaviest[row]:
            _wait(s, row)
        term = s.before[term]
        touched += 1
    return touched


@njit(cache=True, nogil=True)
def _unset_last(s):  # type: ignore[no-untyped-def]
    s.sizes[ASSIGNED] -= 1
    literal = s.trail[s.sizes[ASSIGNED]]
    s.truth[literal] = s.truth[literal ^ 1] = 0
    s.phase[literal >> 1] = 1 - (literal & 1)
    term = s.last[literal ^ 1]
    while term >= 0:
        s.slack[s.row[term]] += s.weight[term]
        term = s.before[term]
    while s.sizes[LEVELS] > 0 and s.level_begin[s.sizes[LEVELS]] >= s.sizes[ASSIGNED]:
        s.sizes[LEVELS] -= 1


@njit(cache=True, nogil=True)
def _back_to(s, level):  # type: ignore[no-untyped-def]
    while s.sizes[LEVELS] > level and s.level_begin[level + 1] < s.sizes[ASSIGNED]:
        _unset_last(s)
    s.sizes[LEVELS] = min(s.sizes[LEVELS], level)


@njit(cache=True, nogil=True)
def _propagate(s, work):  # type: ignore[no-untyped-def]
    """Set what must be; returns a violated row or -1."""
    while s.sizes[WAITING] > 0:
        s.sizes[WAITING] -= 1
        row = s.queue[s.sizes[WAITING]]
        s.queued[row] = False
        slack = s.slack[row]
        if slack < 0:
            while s.sizes[WAITING] > 0:
                s.sizes[WAITING] -= 1
                s.queued[s.queue[s.sizes[WAITING]]] = False
            return row
        if slack >= s.heaviest[row]:
            continue
        work[0] -= s.begin[row + 1] - s.begin[row]
        for term in range(s.begin[row], s.begin[row + 1]):
            if s.weight[term] > slack and s.truth[s.literal[term]] == 0:
                work[0] -= _set(s, s.literal[term], row)
    return -1


@njit(cache=True, nogil=True)
def _reduced(s, row, literal, literals, weights):  # type: ignore[no-untyped-def]
    """The row that set a literal, divided so that its weight is 1; what is not false may be left out. Size and d."""
    size, least, divisor = 0, s.least[row], 1
    for term in range(s.begin[row], s.begin[row + 1]):
        if s.literal[term] == literal:
            divisor = s.weight[term]
    for term in range(s.begin[row], s.begin[row + 1]):
        other, weight = s.literal[term], s.weight[term]
        if weight % divisor != 0 and s.truth[other] >= 0:
            least -= weight
            continue
        literals[size], weights[size] = other, (weight + divisor - 1) // divisor
        size += 1
    return size, (least + divisor - 1) // divisor


@njit(cache=True, nogil=True)
def _false(s, variable, signed):  # type: ignore[no-untyped-def]
    """Whether the literal that a signed weight stands for is false."""
    return s.truth[2 * variable + (signed < 0)] < 0


@njit(cache=True, nogil=True)
def _tidied(s, total, there, size, least):  # type: ignore[no-untyped-def]
    """Drop what has cancelled, cut weights down to d, and divide where they grow large."""
    divisor = 1 + (least - 1) // _LARGEST
    if divisor > 1:
        for j in range(size):
            weight = min(abs(total[there[j]]), least)
            if weight % divisor != 0 and not _false(s, there[j], total[there[j]]):
                least -= weight
                total[there[j]] = 0
            else:
                sign = 1 if total[there[j]] > 0 else -1
                total[there[j]] = sign * ((weight + divisor - 1) // divisor)
        least = (least + divisor - 1) // divisor
    kept = 0
    for j in range(size):
        variable = there[j]
        if total[variable] != 0:
            total[variable] = min(max(total[variable], -least), least)
            there[kept] = variable
            kept += 1
    return kept, least


@njit(cache=True, nogil=True)
def _assertive(s, total, there, size, least, level):  # type: ignore[no-untyped-def]
    """Whether the sum propagates or is violated by what was set up to a level."""
    slack, heaviest = -least, 0
    for j in range(size):
        variable = there[j]
        is_set = s.truth[2 * variable] != 0 and s.level[variable] <= level
        if not (is_set and _false(s, variable, total[variable])):
            slack += abs(total[variable])
        if not is_set:
            heaviest = max(heaviest, abs(total[variable]))
    return slack < heaviest or slack < 0


@njit(cache=True, nogil=True)
def _explain(s, conflict, gain, total, there, literals, weights, work):  # type: ignore[no-untyped-def]
    """Sum up what led to a conflict; returns size and d of the sum, and the level where it tells something new.

    ``total`` holds signed weights of the variables ``there``. The trail is shortened on the way, so that "false" means
    false before the literal that cancels. Level -1: the inequalities have no solution.
    """
    size, least = 0, s.least[conflict]
    s.use[conflict] += gain
    for term in range(s.begin[conflict], s.begin[conflict + 1]):
        literal = s.literal[term]
        there[size] = literal >> 1
        total[literal >> 1] = s.weight[term] * (1 - 2 * (literal & 1))
        size += 1
    while True:
        false = -1
        while s.sizes[ASSIGNED] > 0:
            false = s.trail[s.sizes[ASSIGNED] - 1] ^ 1
            if total[false >> 1] * (1 - 2 * (false & 1)) > 0:
                break
            _unset_last(s)
        now = s.level[false >> 1] if s.sizes[ASSIGNED] > 0 else 0
        if now == 0:
            return size, least, -1
        work[0] -= size
        if _assertive(s, total, there, size, least, now - 1):
            level = 0
            while not _assertive(s, total, there, size, least, level):
                level += 1
                work[0] -= size
            return size, least, level
        variable, reason = false >> 1, s.reason[false >> 1]
        _unset_last(s)
        s.use[reason] += gain
        times = abs(total[variable])
        count, needed = _reduced(s, reason, false ^ 1, literals, weights)
        work[0] -= count
        least += times * needed
        for j in range(count):
            other, weight = literals[j] >> 1, times * weights[j]
            s.activity[other] += gain
            before = total[other]
            after = weight if literals[j] & 1 == 0 else -weight
            if before == 0:  # each variable comes once in a row, and zeros were dropped from the sum
                there[size] = other
                size += 1
            elif before * after < 0:
                least -= min(abs(before), weight)
            total[other] = before + after
        size, least = _tidied(s, total, there, size, least)


@njit(cache=True, nogil=True)
def _luby(number):  # type: ignore[no-untyped-def]
    """1 1 2 1 1 2 4 1 1 2 ... from number 1 on."""
    while True:
        size = 1
        while size < number:
            size = 2 * size + 1
        if size == number:
            return (size + 1) // 2
        number -= size // 2


@njit(cache=True, nogil=True)
def _decision(s):  # type: ignore[no-untyped-def]
    """The open variable that took part in most of the late conflicts, the first of equals; -1 where none is open.

    Those below ``sizes[LATER]`` only when no other is open.
    """
    best, most = -1, -1.0
    for variable in range(s.sizes[LATER], s.activity.size):
        if s.truth[2 * variable] == 0 and s.activity[variable] > most:
            best, most = variable, s.activity[variable]
    if best >= 0:
        return best
    for variable in range(s.sizes[LATER]):
        if s.truth[2 * variable] == 0 and s.activity[variable] > most:
            best, most = variable, s.activity[variable]
    return best


@njit(cache=True, nogil=True)
def _forget(s, given):  # type: ignore[no-untyped-def]
    """Drop the half of what was learnt that explained least; only what follows without decisions may be set."""
    rows = s.sizes[ROWS]
    middle = np.median(s.use[given:rows])
    s.sizes[ROWS], s.sizes[TERMS] = given, s.begin[given]
    for old in range(given, rows):
        if s.use[old] <= middle:
            continue
        row = s.sizes[ROWS]
        s.least[row], s.slack[row], s.heaviest[row], s.use[row] = (
            s.least[old],
            s.slack[old],
            s.heaviest[old],
            s.use[old],
        )
        for term in range(s.begin[old], s.begin[old + 1]):
            kept = s.sizes[TERMS]
            s.literal[kept], s.weight[kept], s.row[kept] = s.literal[term], s.weight[term], row
            s.sizes[TERMS] += 1
        s.sizes[ROWS] += 1
        s.begin[row + 1] = s.sizes[TERMS]
    s.last[:] = -1
    for term in range(s.sizes[TERMS]):
        s.before[term], s.last[s.literal[term]] = s.last[s.literal[term]], term


@njit(cache=True, nogil=True)
def search(s, given, assumed, work):  # type: ignore[no-untyped-def]
    """Look for a solution of which the literals ``assumed`` are part: YES (``s.truth`` holds it), NO or UNKNOWN.

    ``given`` rows are the problem, the others were learnt from it and serve every later search. ``work`` counts the
    terms looked at down to zero, where the answer is UNKNOWN.
    """
    variables = s.activity.size
    total, there = np.zeros(variables, np.int64), np.zeros(variables, np.int64)
    literals, weights = np.zeros(variables, np.int64), np.zeros(variables, np.int64)
    gain, restarts, until_restart = 1.0, 1, _RESTART
    if s.sizes[REFUTED]:
        return NO
    _back_to(s, 0)
    while True:
        if work[0] <= 0:
            return UNKNOWN
        conflict = _propagate(s, work)
        if conflict >= 0:
            size, least, level = _explain(s, conflict, gain, total, there, literals, weights, work)
            if level < 0:
                s.sizes[REFUTED] = 1
                return NO
            _back_to(s, level)
            for j in range(size):
                variable = there[j]
                literals[j], weights[j] = 2 * variable + (total[variable] < 0), abs(total[variable])
                total[variable] = 0
            if s.sizes[TERMS] + size > s.literal.size or s.sizes[ROWS] == s.least.size:
                _back_to(s, 0)
                while s.sizes[TERMS] + size > s.literal.size or s.sizes[ROWS] == s.least.size:
                    _forget(s, given)
            add(s, literals, weights, size, least)
            s.use[s.sizes[ROWS] - 1] = gain
            gain /= _DECAY
            if gain > 1e100:
                gain *= 1e-100
                s.activity[:] *= 1e-100
                s.use[:] *= 1e-100
            until_restart -= 1
            if until_restart == 0:
                restarts += 1
                until_restart = _RESTART * _luby(restarts)
                _back_to(s, 0)
            continue
        literal = -1
        if s.sizes[LEVELS] < assumed.size:
            literal = assumed[s.sizes[LEVELS]]
            if s.truth[literal] < 0:
                return NO
        else:
            variable = _decision(s)
            if variable < 0:
                return YES
            literal = 2 * variable + (1 - s.phase[variable])
            work[0] -= variables
        s.sizes[LEVELS] += 1
        s.level_begin[s.sizes[LEVELS]] = s.sizes[ASSIGNED]
        if s.truth[literal] == 0:
            work[0] -= _set(s, literal, -1)
