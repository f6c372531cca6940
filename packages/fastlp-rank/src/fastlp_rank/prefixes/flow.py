# mypy: allow-untyped-defs, allow-untyped-calls
r"""Counts of exclusive groups in the prefixes of a ranking, as a flow that cycles improve.

Let u_{g,1} >= u_{g,2} >= ... be the scores of group g, S_g(N) the sum of its N best, and N_gj how many of its items the
first j slots hold. A ranking that shows every group best first is worth (Abel summation)

.. math:: \sum_j v_j u_{\pi(j)} = \sum_g \sum_j w_j S_g(N_{gj}),\qquad w_j = v_j - v_{j+1} \ge 0,\; v_{m+1} = 0,

concave in each N_gj. Slot j adds one unit to the chain of one group, and L_gj <= N_gj <= U_gj: a flow, whose optimum
is integral. Potentials p_gj (p_{g,m+1} = 0) bound every ranking, and every lottery that keeps the bounds in
expectation, by

.. math:: \sum_j \max_g p_{gj} + \sum_{gj} \max_{L \le N \le U} \bigl( w_j S_g(N) - (p_{gj} - p_{g,j+1}) N \bigr).

A ranking is best when no cycle of exchanges gains, and then the potentials are shortest distances. Nodes are numbered
g m + j, the end of all chains is the last one. `improve` runs compiled on floats and, as plain Python, on fractions.
"""

import numpy as np
from numba import njit

SOLVED, CONTRADICTORY, UNSOLVED = 0, 1, 2
_LAST_BITS = 2.0**-51  # of a term, relative to its parts


@njit(cache=True, nogil=True)
def best_of_groups(u, group, G, m):
    """The m best items of every group, best first (ties: smaller index), shape (G, m), and how many there are.

    Group -1 is shown nowhere.
    """
    item = np.zeros((G, m), dtype=np.int64)
    size = np.zeros(G, dtype=np.int64)
    for i in range(u.size):
        g = group[i]
        if g < 0:
            continue
        place = size[g]
        if place == m:
            if u[item[g, m - 1]] >= u[i]:
                continue
            place = m - 1
        else:
            size[g] += 1
        while place > 0 and u[item[g, place - 1]] < u[i]:
            item[g, place] = item[g, place - 1]
            place -= 1
        item[g, place] = i
    return item, size


@njit(cache=True, nogil=True)
def close(lower, upper, size):
    """Tighten bounds, in place, to all that each group's own imply: counts rise by 0 or 1 a slot up to its size."""
    G, m = lower.shape
    for g in range(G):
        for j in range(m):
            upper[g, j] = min(upper[g, j], size[g], (upper[g, j - 1] if j > 0 else 0) + 1)
            lower[g, j] = max(lower[g, j], lower[g, j - 1] if j > 0 else 0)
        for j in range(m - 2, -1, -1):
            upper[g, j] = min(upper[g, j], upper[g, j + 1])
            lower[g, j] = max(lower[g, j], lower[g, j + 1] - 1)


@njit(cache=True, nogil=True)
def conflict(lower, upper):
    """What no ranking can do, of closed bounds: (kind, group, first slot, last slot).

    Kind 1: one group's own bounds contradict each other at a slot. 2: slots must hold more items than they are. 3:
    fewer items may stand in slots than they are. 0: none of these, and then a ranking exists: the items with a deadline
    can all be placed, all slots can be filled (Hall), hence both at once (Mendelsohn and Dulmage 1958).
    """
    G, m = lower.shape
    for g in range(G):
        for j in range(m):
            if lower[g, j] > upper[g, j]:
                return 1, g, j, j
    for a in range(m):
        for b in range(a, m):
            due = 0
            allowed = 0
            for g in range(G):
                due += max(0, lower[g, b] - (upper[g, a - 1] if a > 0 else 0))
                allowed += upper[g, b] - (lower[g, a - 1] if a > 0 else 0)
            if due > b - a + 1:
                return 2, -1, a, b
            if allowed < b - a + 1:
                return 3, -1, a, b
    return 0, -1, -1, -1


@njit(cache=True, nogil=True)
def greedy(score, lower, upper, size, choice):
    """Give every slot the best item that no bound forbids there; False where it runs into a dead end."""
    G, m = lower.shape
    used = np.zeros(G, dtype=np.int64)
    for j in range(m):
        tight = m  # the first prefix all of whose free slots are spoken for
        for b in range(j, m):
            due = 0
            for g in range(G):
                due += max(0, lower[g, b] - used[g])
            if due > b + 1 - j:
                return False
            if due == b + 1 - j:
                tight = b
                break
        best = -1
        for g in range(G):
            if used[g] == upper[g, j] or (tight < m and lower[g, tight] <= used[g]):
                continue
            if best < 0 or score[g, used[g]] > score[best, used[best]]:
                best = g
        if best < 0:
            return False
        choice[j] = best
        used[best] += 1
    return True


@njit(cache=True, nogil=True)
def earliest_deadline(lower, upper, choice):
    """Give every slot an item of the group whose next one is due first; False where that is too late, or none may."""
    G, m = lower.shape
    used = np.zeros(G, dtype=np.int64)
    for j in range(m):
        best = -1
        first = m + 1
        for g in range(G):
            if used[g] < upper[g, j]:
                due = j
                while due < m and lower[g, due] <= used[g]:
                    due += 1
                if due < first:
                    first = due
                    best = g
        if best < 0:
            return False
        choice[j] = best
        used[best] += 1
        for g in range(G):
            if used[g] < lower[g, j]:
                return False
    return True


@njit(cache=True, nogil=True)
def count_prefixes(choice, count):
    """N_gj, from the group of every slot."""
    G, m = count.shape
    for g in range(G):
        total = 0
        for j in range(m):
            total += 1 if choice[j] == g else 0
            count[g, j] = total


@njit(cache=True, nogil=True)
def _on_a_cycle(parent, mark):
    """A node from which parents lead back to it, or -1."""
    for i in range(mark.size):
        mark[i] = -1
    for start in range(mark.size):
        node = start
        while node >= 0 and mark[node] < 0:
            mark[node] = start
            node = parent[node]
        if node >= 0 and mark[node] == start:
            return node
    return -1


@njit(cache=True, nogil=True)
def _exchange(parent, start, choice, m):
    """Give slots to other groups, along a cycle of parents: at one slot from the one that has it to another."""
    node, end = start, parent.size - 1
    while True:
        before = parent[node]
        if node != end and before != end and node % m == before % m:
            choice[node % m] = node // m
        node = before
        if node == start:
            return


@njit(cache=True, nogil=True)
def improve(score, w, lower, upper, choice, count, potential, rounding, most_exchanges):
    """Exchange along gaining cycles until there are none; `choice` and `count` are then best, the potentials prove it.

    Bellman and Ford's sweeps, over the chains back and forth. ``rounding``: a gain below this fraction of what it is
    the difference of is none. Returns the exchanges, -1 where they are more than ``most_exchanges``.
    """
    G, m = lower.shape
    end = G * m
    zero = w[0] - w[0]
    parent = np.empty(end + 1, dtype=np.int64)
    mark = np.empty(end + 1, dtype=np.int64)
    exchanges = 0
    while True:
        count_prefixes(choice, count)
        for i in range(end + 1):
            potential[i] = zero
            parent[i] = -1
        sweeps = 0
        start = -1
        changed = True
        while changed and start < 0:
            changed = False
            for step in range(2 * m):
                back = step < m
                j = m - 1 - step if back else step - m
                for g in range(G if back else 0):
                    c = count[g, j]
                    if c > lower[g, j]:  # one fewer
                        after = end if j == m - 1 else g * m + j + 1
                        node = g * m + j
                        new = potential[after] + w[j] * score[g, c - 1]
                        if new < potential[node] - rounding * (abs(new) + abs(potential[node])):
                            potential[node] = new
                            parent[node] = after
                            changed = True
                for g in range(G):  # the slot's item may be of another group
                    node = g * m + j
                    now = choice[j] * m + j
                    if potential[now] < potential[node] - rounding * (abs(potential[now]) + abs(potential[node])):
                        potential[node] = potential[now]
                        parent[node] = now
                        changed = True
                for g in range(0 if back else G):
                    c = count[g, j]
                    if c < upper[g, j]:  # one more
                        after = end if j == m - 1 else g * m + j + 1
                        node = g * m + j
                        new = potential[node] - w[j] * score[g, c]
                        if new < potential[after] - rounding * (abs(new) + abs(potential[after])):
                            potential[after] = new
                            parent[after] = node
                            changed = True
            sweeps += 1
            if changed and sweeps > 1:
                start = _on_a_cycle(parent, mark)
        if start < 0:
            last = potential[end]
            for i in range(end + 1):
                potential[i] -= last
            return exchanges
        if exchanges == most_exchanges:
            return -1
        exchanges += 1
        _exchange(parent, start, choice, m)


@njit(cache=True, nogil=True)
def shortfall(score, w, lower, upper, choice, count, potential):
    """The bound minus the value, a sum of terms none of which is negative; and what rounding may hide of it.

    Each term is the difference of numbers of which the last bits are rounding, those of the scores' distance from the
    largest included.
    """
    G, m = lower.shape
    total = 0.0
    size = 0.0
    for j in range(m):
        most = potential[choice[j] * m + j]
        for g in range(G):
            node = g * m + j
            most = max(most, potential[node])
            after = potential[g * m + j + 1] if j + 1 < m else 0.0
            slope = potential[node] - after
            size += abs(potential[node]) + abs(after)
            for c in range(count[g, j], upper[g, j]):
                gain = w[j] * score[g, c] - slope
                size += w[j] * abs(score[g, c])
                if not gain > 0.0:
                    break
                total += gain
            for c in range(count[g, j] - 1, lower[g, j] - 1, -1):
                gain = slope - w[j] * score[g, c]
                size += w[j] * abs(score[g, c])
                if not gain > 0.0:
                    break
                total += gain
        total += most - potential[choice[j] * m + j]
    return total, _LAST_BITS * size


@njit(cache=True, nogil=True)
def rank(u, group, w, lower, upper, rounding, most_exchanges, choice, count, potential, ranking):
    """Find the best ranking; return SOLVED, CONTRADICTORY or UNSOLVED (in floats), shortfall and blur.

    Bounds are closed in place, which only the first ranking needs: potentials, hence prices, belong to those stated.
    Scores are taken about the largest, for every slot is filled.
    """
    G, m = lower.shape
    item, size = best_of_groups(u, group, G, m)
    most = np.empty((G, m), dtype=np.int64)
    least = lower.copy()
    for g in range(G):
        for j in range(m):
            most[g, j] = min(upper[g, j], size[g])
    close(lower, upper, size)
    top = -np.inf
    for g in range(G):
        if size[g] > 0:
            top = max(top, u[item[g, 0]])
    score = np.zeros((G, m))
    for g in range(G):
        for c in range(size[g]):
            score[g, c] = u[item[g, c]] - top
    for g in range(G):
        for j in range(m):
            if lower[g, j] > upper[g, j]:
                return CONTRADICTORY, np.inf, 0.0
    if not greedy(score, lower, upper, size, choice) and not earliest_deadline(lower, upper, choice):
        return CONTRADICTORY, np.inf, 0.0
    exchanges = improve(score, w, least, most, choice, count, potential, rounding, most_exchanges)
    count_prefixes(choice, count)
    for j in range(m):
        ranking[j] = item[choice[j], count[choice[j], j] - 1]
    if exchanges < 0:
        return UNSOLVED, np.inf, 0.0
    gap, blur = shortfall(score, w, least, most, choice, count, potential)
    return SOLVED, gap, blur
