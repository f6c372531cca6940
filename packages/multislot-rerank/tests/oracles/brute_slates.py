"""Greedy by scanning every candidate with everything recomputed, and the best slate by trying all: slow and obvious."""

from itertools import permutations

import numpy as np


def cosine(embeddings):
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 0)
    return unit @ unit.T


def utility(i, placed, static, cos, similarity, log_det, jitter, attributes, repeat, window=0):
    recent = placed[-window:]  # a window of 0 is all of them
    value = static[i] - sum(
        weight * sum(codes[j] == codes[i] for j in recent) for codes, weight in zip(attributes, repeat, strict=True)
    )
    if placed:
        value -= similarity * max(0.0, max(cos[i, j] for j in recent))
    if log_det:
        kernel = cos + jitter * np.eye(len(cos))
        both, alone = [*placed, i], list(placed)
        determinant = np.linalg.slogdet(kernel[np.ix_(both, both)])[1]
        value += log_det * (determinant - (np.linalg.slogdet(kernel[np.ix_(alone, alone)])[1] if alone else 0.0))
    return value


def allowed(i, slot, placed, pins, caps, attributes, slots):
    """Whether item i in the slot keeps every window of every cap, pinned items to come included."""
    slate = [placed[s] if s < slot else i if s == slot else pins.get(s) for s in range(slots)]
    for attribute, window, count in caps:
        codes = attributes[attribute]
        for start in range(slots):
            inside = [slate[s] for s in range(start, min(start + window, slots)) if slate[s] is not None]
            if slot in range(start, start + window) and sum(codes[j] == codes[i] for j in inside) > count:
                return False
    return True


def greedy(slots, count, value, feasible):
    """value(i, placed) and feasible(i, slot, placed); the lower index wins ties up to rounding."""
    placed = []  # ends early where nothing is feasible
    for slot in range(slots):
        best, best_value = None, -np.inf
        for i in range(count):
            if i in placed or not feasible(i, slot, placed):
                continue
            now = value(i, placed)
            if now > best_value + 1e-12:
                best, best_value = i, now
        if best is None:
            break
        placed.append(best)
    return placed


def mmr_matrix(embeddings, scores, slots, diversity):
    """MMR by matrices: fast enough for hundreds of seeds at real size; first of equals up to rounding."""
    cos = np.clip(cosine(embeddings), 0, None)
    placed, nearest = [], np.zeros(len(scores))
    for _ in range(slots):
        value = (1 - diversity) * scores - diversity * nearest
        value[placed] = -np.inf
        placed.append(int(np.flatnonzero(value >= value.max() - 1e-12)[0]))
        nearest = np.maximum(nearest, cos[placed[-1]])
    return placed


def dpp_matrix(embeddings, quality, slots):
    """Greedy determinant by solving with the whole Gram matrix of what is placed, in double precision."""
    kernel = quality[:, None] * cosine(embeddings) * quality
    placed = []
    for _ in range(slots):
        gain = np.diag(kernel).copy()
        if placed:
            cross = kernel[np.ix_(placed, range(len(quality)))]
            gain = gain - np.einsum("ji,ji->i", cross, np.linalg.solve(kernel[np.ix_(placed, placed)], cross))
        gain[placed] = -np.inf
        placed.append(int(np.flatnonzero(gain >= gain.max() - 1e-11 * gain.max())[0]))
    return placed


def best_slate(slots, count, value):
    """Slate of the largest total utility, by trying every ordered slate."""
    return max(
        permutations(range(count), slots),
        key=lambda slate: sum(value(i, list(slate[:slot])) for slot, i in enumerate(slate)),
    )
