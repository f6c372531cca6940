"""Context features and model-based greedy, written out for one candidate at a time."""

import numpy as np


def features(candidates, attributes, slots, item, placed):
    scores = np.asarray(candidates.scores)
    unit = np.asarray(candidates.embeddings) / np.linalg.norm(candidates.embeddings, axis=1, keepdims=True)
    cosines = [float(unit[item] @ unit[j]) for j in placed]
    row = [*scores[item], *(scores[item] - scores.mean(axis=0))]
    row.append(0.0 if candidates.age_s is None else np.log1p(candidates.age_s[item]))
    row.append(len(placed))
    row += [max(0.0, *cosines), np.mean(cosines), cosines[-1]] if placed else [0.0, 0.0, 0.0]
    row.append(np.mean(scores[placed, 0]) - scores[item, 0] if placed else 0.0)
    for name in attributes:
        row.append(sum(candidates.codes[name][j] == candidates.codes[name][item] for j in placed))
    for name in attributes:
        since = [
            len(placed) - k for k, j in enumerate(placed) if candidates.codes[name][j] == candidates.codes[name][item]
        ]
        row.append(min(since, default=slots))
    return np.array(row)


def greedy(candidates, attributes, slots, predict):
    """predict(rows) -> utilities; every slot scores every remaining candidate with a fresh feature row."""
    placed = []
    for _ in range(slots):
        left = [i for i in range(len(candidates)) if i not in placed]
        rows = np.array([features(candidates, attributes, slots, i, placed) for i in left])
        placed.append(left[int(np.argmax(predict(rows)))])
    return placed
