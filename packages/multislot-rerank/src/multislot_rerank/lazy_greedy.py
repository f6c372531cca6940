"""Exact greedy selection that evaluates few candidates: kernels.

Greedy takes the candidate of largest utility, K times. When a utility can only fall as items are placed, the value
computed some steps ago is an upper bound of today's. So: take the candidate with the largest bound; if its value is of
today, it is the greedy choice; else bring it up to date and look again (Minoux, 1978). A block maximum over 32
candidates makes "the largest bound" cheap. Ties go to the lower index, as a full scan would have it.

The utility of candidate i after placing S is

    u_i(S) = b_i - a max_{j in S} max(0, cos(i, j)) - sum_p r_p #{j in S: attribute p as i} + g log d_i(S)

with d_i(S) the residual of i's embedding given those of S, (det L_{S+i} / det L_S) for L = cos + jitter I: all falling.
For a determinantal point process alone, with quality q_i, the value compared is q_i^2 d_i(S) itself.
"""

import math

import numpy as np
from numba import njit

from multislot_rerank.arrays import Floats, Ints, Vectors

__all__ = [
    "BLOCK",
    "block_maximum",
    "cosine_of",
    "exponential_quality",
    "inverse_norms",
    "largest_block",
    "lazy_dpp",
    "lazy_sga",
    "minima_due",
    "shrink",
    "worth",
]

BLOCK = 32
# Two copies of a vector have cosine 1 up to rounding, opposites -1; taken as such, so that rounding orders neither.
ALIKE = 1.0 - 1e-14
# Norms within [1e-140, 1e140]: squares and products of two rows stay in the range where doubles keep their digits.
_LEAST_SQUARE, _LARGEST_SQUARE = 1e-280, 1e280


@njit(cache=True, nogil=True)
def block_maximum(values, taken, block, best_value, best_index):  # type: ignore[no-untyped-def]
    """Store the largest value of a block among those not taken and its lowest index; -1 where all are taken."""
    start = block * BLOCK
    top, largest = -1, 0.0
    for i in range(start, min(start + BLOCK, values.size)):
        if not taken[i] and (top < 0 or values[i] > largest):
            top, largest = i, values[i]
    best_value[block], best_index[block] = largest, top


@njit(cache=True, nogil=True)
def largest_block(best_value, best_index):  # type: ignore[no-untyped-def]
    """Block of the largest value, the first of equals; -1 where every candidate is taken."""
    top, largest = -1, 0.0
    for block in range(best_value.size):
        if best_index[block] >= 0 and (top < 0 or best_value[block] > largest):
            top, largest = block, best_value[block]
    return top


# Reordering a sum is the one liberty taken: it lets the processor add eight products at a time. Equal rows still give
# equal sums, so that duplicates tie.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(left, i, right, j, length):  # type: ignore[no-untyped-def]
    total = 0.0
    for axis in range(length):
        total += np.float64(left[i, axis]) * np.float64(right[j, axis])
    return total


@njit(cache=True, nogil=True)
def cosine_of(embeddings, inverse_norm, i, j):  # type: ignore[no-untyped-def]
    """Cosine of two rows."""
    cosine = _dot(embeddings, i, embeddings, j, embeddings.shape[1]) * inverse_norm[i] * inverse_norm[j]
    if cosine > ALIKE:
        return 1.0
    return -1.0 if cosine < -ALIKE else cosine


@njit(cache=True, nogil=True)
def inverse_norms(embeddings: Vectors) -> tuple[Floats, int]:
    """1 / |e_i|, 0 for a zero vector (similar to nothing); the first row not finite or to be scaled, or -1."""
    found = np.zeros(embeddings.shape[0])
    for i in range(embeddings.shape[0]):
        square = _dot(embeddings, i, embeddings, i, embeddings.shape[1])
        if not square < _LARGEST_SQUARE:
            return found, i
        if square >= _LEAST_SQUARE:
            found[i] = 1.0 / math.sqrt(square)
            continue
        for axis in range(embeddings.shape[1]):
            if embeddings[i, axis] != 0.0:
                return found, i
    return found, -1


@njit(cache=True, nogil=True)
def exponential_quality(relevance: Floats, emphasis: float) -> Floats:
    """exp(emphasis (s - mean s) / sd s); ones where all scores are equal.

    Standard scores do not change with the unit: scores are scaled by a power of two first, so that no square over- or
    underflows.
    """
    _, exponent = math.frexp(np.abs(relevance).max())
    scaled = np.empty(relevance.size)
    for i in range(relevance.size):
        scaled[i] = math.ldexp(relevance[i], -exponent)
    mean = scaled.mean()
    deviation = scaled.std()
    if deviation == 0.0:
        return np.ones(relevance.size)
    quality: Floats = np.exp(emphasis * (scaled - mean) / deviation)
    return quality


@njit(cache=True, nogil=True)
def lazy_dpp(
    embeddings: Vectors, inverse_norm: Floats, quality: Floats, slots: int, tolerance: float
) -> tuple[Ints, Floats, int]:
    """Greedy maximum of det(L_S), L = diag(q) cos diag(q).

    Returns the items, their gains q_i^2 d_i, and how many were chosen before the residual fell to ``tolerance`` times
    the largest q^2 (the rest is not chosen).

    Reference: Chen, Zhang & Zhou, NeurIPS 2018, arXiv:1709.05135 (the incremental Cholesky update).
    """
    count = embeddings.shape[0]
    values = quality * quality
    stop_at = tolerance * values.max()
    factor = np.empty((count, slots))  # row i is written up to seen[i] before it is read
    seen = np.zeros(count, np.int64)
    chosen = np.empty(slots, np.int64)
    gains = np.empty(slots)
    root = np.empty(slots)
    taken = np.zeros(count, np.bool_)
    blocks = (count + BLOCK - 1) // BLOCK
    best_value, best_index = np.empty(blocks), np.empty(blocks, np.int64)
    for block in range(blocks):
        block_maximum(values, taken, block, best_value, best_index)
    for step in range(slots):
        fresh = -np.inf
        while True:
            block = largest_block(best_value, best_index)
            i = best_index[block]
            if seen[i] == step:
                break
            while seen[i] < step and values[i] >= fresh:
                j = seen[i]
                placed = chosen[j]
                cosine = cosine_of(embeddings, inverse_norm, i, placed)
                inner = quality[i] * quality[placed] * cosine - _dot(factor, i, factor, placed, j)
                factor[i, j] = inner / root[j]
                values[i] = max(values[i] - factor[i, j] * factor[i, j], 0.0)
                seen[i] = j + 1
            if seen[i] == step and values[i] > fresh:
                fresh = values[i]
            block_maximum(values, taken, block, best_value, best_index)
        if values[i] <= stop_at:
            return chosen[:step], gains[:step], step
        chosen[step], gains[step], root[step] = i, values[i], math.sqrt(values[i])
        taken[i] = True
        block_maximum(values, taken, block, best_value, best_index)
    return chosen, gains, slots


@njit(cache=True, nogil=True)
def worth(static, nearest, repeat, residual, weights):  # type: ignore[no-untyped-def]
    """Utility of a candidate from its parts, summed in this order everywhere.

    ``weights`` holds similarity weight, log-determinant weight and jitter.
    """
    value = static - weights[0] * nearest - repeat
    if weights[1] > 0.0:
        value += weights[1] * math.log(residual)
    return value


@njit(cache=True, nogil=True)
def shrink(residual, factor, i, placed, j, cosine, root, jitter):  # type: ignore[no-untyped-def]
    """Residual of candidate i given one more placed item, the j-th; writes its entry of the Cholesky factor."""
    factor[i, j] = (cosine - _dot(factor, i, factor, placed, j)) / root
    return max(residual - factor[i, j] * factor[i, j], jitter)


@njit(cache=True, nogil=True)
def _up_to_date(  # type: ignore[no-untyped-def]
    i, slot, floor, static, repeat, embeddings, inverse_norm, weights, chosen, root, nearest, residual, factor, seen
):
    """Advance candidate i over the items placed since it was last seen, until its utility is below ``floor``."""
    while True:
        value = worth(static[i], nearest[i], repeat, residual[i], weights)
        if seen[i] == slot or value < floor:
            return value
        j = seen[i]
        if weights[0] > 0.0 or weights[1] > 0.0:
            cosine = cosine_of(embeddings, inverse_norm, i, chosen[j])
            nearest[i] = max(nearest[i], cosine)
            if weights[1] > 0.0:
                residual[i] = shrink(residual[i], factor, i, chosen[j], j, cosine, root[j], weights[2])
        seen[i] = j + 1


@njit(cache=True, nogil=True)
def feasible(i, slot, chosen, pinned, codes, caps, minima, due, kept):  # type: ignore[no-untyped-def]
    """Whether item i may take the slot under the constraints of rank below ``kept``, minima as far as they are due."""
    slots = pinned.size
    for m in range(minima.shape[0]):
        if due[m] and minima[m, 3] < kept and codes[i, minima[m, 0]] != 0:
            return False
    for c in range(caps.shape[0]):
        column, window, most = caps[c, 0], caps[c, 1], caps[c, 2]
        if caps[c, 3] >= kept:
            break
        for start in range(max(0, slot - window + 1), slot + 1):
            alike = 1
            for other in range(start, min(start + window, slots)):
                item = -1
                if other < slot:
                    item = chosen[other]
                elif other > slot:
                    item = pinned[other]
                if item >= 0 and codes[item, column] == codes[i, column]:
                    alike += 1
            if alike > most:
                return False
    return True


@njit(cache=True, nogil=True)
def minima_due(slot, placed, pinned, codes, minima, due):  # type: ignore[no-untyped-def]
    """Mark the minima for which every slot left to them must be used, this one included."""
    for m in range(minima.shape[0]):
        column, end, missing = minima[m, 0], minima[m, 1], minima[m, 2]
        left = 0
        for other in range(end):
            item = placed[other] if other < slot else pinned[other]
            if item >= 0:
                missing -= codes[item, column] == 0
            else:
                left += 1
        due[m] = slot < end and missing > 0 and missing >= left


@njit(cache=True, nogil=True)
def lazy_sga(  # type: ignore[no-untyped-def]
    static, embeddings, inverse_norm, weights, codes, repeat_weight, pinned, caps, minima
):
    """Sequential greedy re-ranking under growing penalties and hard constraints.

    ``weights`` holds similarity weight a, log-determinant weight g and jitter; ``codes`` (N, P) the attribute values as
    numbers and ``repeat_weight`` (R,) the r_p of the first R; ``pinned`` (K,) the item of a slot or -1; ``caps`` and
    ``minima`` rows of constraints (see ``constraint_rows``).

    Where no candidate is feasible in a slot, constraints are dropped there one by one, the largest rank
    first. Returns items and utilities.
    """
    count, slots = static.size, pinned.size
    log_det = weights[1] > 0.0
    nearest, residual = np.zeros(count), np.full(count, 1.0 + weights[2])
    factor = np.empty((count if log_det else 1, slots))
    root, seen = np.empty(slots), np.zeros(count, np.int64)
    values_seen = 1
    for p in range(repeat_weight.size):
        values_seen = max(values_seen, codes[:, p].max() + 1)
    repeats = np.zeros((repeat_weight.size, values_seen))
    chosen, utilities = np.empty(slots, np.int64), np.empty(slots)
    held, taken = np.empty(count, np.int64), np.zeros(count, np.bool_)
    values = static + (weights[1] * math.log(1.0 + weights[2]) if log_det else 0.0)
    for slot in range(slots):
        if pinned[slot] >= 0:
            taken[pinned[slot]] = True
    ranks = 0
    for c in range(caps.shape[0]):
        ranks = max(ranks, caps[c, 3] + 1)
    for m in range(minima.shape[0]):
        ranks = max(ranks, minima[m, 3] + 1)
    due = np.zeros(minima.shape[0], np.bool_)
    blocks = (count + BLOCK - 1) // BLOCK
    best_value, best_index = np.empty(blocks), np.empty(blocks, np.int64)
    for block in range(blocks):
        block_maximum(values, taken, block, best_value, best_index)

    for slot in range(slots):
        winner = pinned[slot]
        minima_due(slot, chosen, pinned, codes, minima, due)
        for drop in range(ranks + 1):  # with every constraint dropped some candidate is free: k <= N
            if winner >= 0:
                break
            today, held_count = -np.inf, 0
            while True:
                block = largest_block(best_value, best_index)
                if block < 0:
                    break
                i = best_index[block]
                if seen[i] < slot:
                    repeat = 0.0
                    for p in range(repeat_weight.size):
                        repeat += repeat_weight[p] * repeats[p, codes[i, p]]
                    values[i] = _up_to_date(
                        i, slot, today, static, repeat, embeddings, inverse_norm, weights, chosen, root, nearest,
                        residual, factor, seen,
                    )  # fmt: skip
                    if seen[i] == slot:
                        today = max(today, values[i])
                elif feasible(i, slot, chosen, pinned, codes, caps, minima, due, ranks - drop):
                    winner = i
                    break
                else:
                    held[held_count] = i
                    held_count += 1
                    taken[i] = True
                    today = -np.inf  # candidates below the one set aside matter again
                block_maximum(values, taken, block, best_value, best_index)
            for h in range(held_count):
                taken[held[h]] = False
                block_maximum(values, taken, held[h] // BLOCK, best_value, best_index)
        repeat = 0.0
        for p in range(repeat_weight.size):
            repeat += repeat_weight[p] * repeats[p, codes[winner, p]]
            repeats[p, codes[winner, p]] += 1.0
        utilities[slot] = _up_to_date(
            winner, slot, -np.inf, static, repeat, embeddings, inverse_norm, weights, chosen, root, nearest,
            residual, factor, seen,
        )  # fmt: skip
        chosen[slot], root[slot] = winner, math.sqrt(residual[winner])
        taken[winner] = True
        block_maximum(values, taken, winner // BLOCK, best_value, best_index)
    return chosen, utilities
