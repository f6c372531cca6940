# mypy: allow-untyped-defs, allow-untyped-calls
"""The inverse of a small basis, compiled: Gauss-Jordan with partial pivoting."""

from numba import njit


@njit(cache=True, nogil=True)
def invert(work, inverse, least_pivot):
    """Invert ``work``, which is used up, into ``inverse``; False when a pivot is smaller than ``least_pivot``."""
    size = work.shape[0]
    inverse[:, :] = 0.0
    for i in range(size):
        inverse[i, i] = 1.0
    for c in range(size):
        p = c
        for i in range(c + 1, size):
            if abs(work[i, c]) > abs(work[p, c]):
                p = i
        if abs(work[p, c]) < least_pivot:
            return False
        if p != c:
            for j in range(size):
                work[c, j], work[p, j] = work[p, j], work[c, j]
                inverse[c, j], inverse[p, j] = inverse[p, j], inverse[c, j]
        scale = 1.0 / work[c, c]
        for j in range(size):
            work[c, j] *= scale
            inverse[c, j] *= scale
        for i in range(size):
            if i != c:
                f = work[i, c]
                if f != 0.0:
                    for j in range(size):
                        work[i, j] -= f * work[c, j]
                        inverse[i, j] -= f * inverse[c, j]
    return True
