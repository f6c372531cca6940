"""Slow and obvious: one entry at a time, float64, numpy, no blocks, no transposes."""

import itertools

import numpy as np


def objective(W, What, sigma):
    return float(sum((w - v) @ sigma @ (w - v) for w, v in zip(W, What, strict=True)))


def decode(codes, scale, zero, group):
    return np.array(
        [[(c - zero[i, j // group]) * scale[i, j // group] for j, c in enumerate(row)] for i, row in enumerate(codes)]
    )


def coordinate_descent(W, codes, scale, zero, group, largest, sigma, order, sweeps):
    """Entry (i, j): residual from scratch, exact minimiser, nearest code; a tie stays where it is."""
    codes = codes.copy()
    for _ in range(sweeps):
        changed = 0
        for i in range(len(W)):
            for j in order:
                here = decode(codes[i : i + 1], scale[i : i + 1], zero[i : i + 1], group)[0]
                shift = (W[i] - here) @ sigma[:, j] / sigma[j, j] / scale[i, j // group]
                new = min(max(codes[i, j] + np.round(shift), 0), largest)
                changed += new != codes[i, j]
                codes[i, j] = new
        if not changed:
            break
    return codes


def improving_moves(W, codes, scale, zero, group, largest, sigma):
    """Every single code change, each tried and the objective of its row taken anew."""
    found = 0
    for i in range(len(W)):
        here = objective(W[i : i + 1], decode(codes[i : i + 1], scale[i : i + 1], zero[i : i + 1], group), sigma)
        for j, other in itertools.product(range(W.shape[1]), range(largest + 1)):
            if other == codes[i, j]:
                continue
            moved = codes[i : i + 1].copy()
            moved[0, j] = other
            there = objective(W[i : i + 1], decode(moved, scale[i : i + 1], zero[i : i + 1], group), sigma)
            found += there < here * (1 - 1e-12)
    return found


def gptq(W, scale, zero, group, largest, sigma, order):
    """Optimal brain quantisation in a fixed order: the inverse of the remaining block, taken anew at every column."""
    W, codes = W.copy(), np.zeros_like(W)
    order = list(order)
    for position, j in enumerate(order):
        remaining = order[position:]
        inverse = np.linalg.inv(sigma[np.ix_(remaining, remaining)])
        for i in range(len(W)):
            s, z = scale[i, j // group], zero[i, j // group]
            codes[i, j] = min(max(np.round(W[i, j] / s) + z, 0), largest)
            error = (W[i, j] - (codes[i, j] - z) * s) / inverse[0, 0]
            W[i, remaining] -= error * inverse[0]
    return codes


def best_codes(w, scale, zero, largest, sigma):
    """All codes of one row."""
    return min(
        (w - (np.array(c) - zero) * scale) @ sigma @ (w - (np.array(c) - zero) * scale)
        for c in itertools.product(range(largest + 1), repeat=len(w))
    )


def published_sweeps(W, scale, zero, largest, sigma, sweeps):
    """The paper's cyclic descent from W, entry by entry, relaxed sweeps included; per channel."""
    What = W.copy()
    for sweep in range(sweeps):
        relax = sweep % 3 == 1 and sweep < sweeps - 1 and sweep <= 25
        for j in range(W.shape[1]):
            for i in range(len(W)):
                best = What[i, j] + (W[i] - What[i]) @ sigma[:, j] / sigma[j, j]
                if not relax:
                    best = (min(max(np.round(best / scale[i, 0]) + zero[i, 0], 0), largest) - zero[i, 0]) * scale[i, 0]
                What[i, j] = best
    return What
