"""AUC and DeLong by looking at every pair: slow and obvious."""

import numpy as np


def psi(x, y):
    return 1.0 if x > y else 0.5 if x == y else 0.0


def auc(y, scores, weights):
    pairs = total = 0.0
    for label_i, score_i, weight_i in zip(y, scores, weights, strict=True):
        for label_j, score_j, weight_j in zip(y, scores, weights, strict=True):
            if label_i == 1 and label_j == 0:
                pairs += weight_i * weight_j * psi(score_i, score_j)
                total += weight_i * weight_j
    return pairs / total


def delong_covariance(y, *scores):
    """2 x 2 (or 1 x 1) covariance of the AUCs, from the placement values' definition."""
    y = np.asarray(y)
    positives = [np.asarray(s)[y == 1] for s in scores]
    negatives = [np.asarray(s)[y == 0] for s in scores]
    v10 = [[np.mean([psi(x, z) for z in n]) for x in p] for p, n in zip(positives, negatives, strict=True)]
    v01 = [[np.mean([psi(x, z) for x in p]) for z in n] for p, n in zip(positives, negatives, strict=True)]
    return np.atleast_2d(np.cov(v10)) / len(v10[0]) + np.atleast_2d(np.cov(v01)) / len(v01[0])
