"""Compile the kernels before the first request."""

import numpy as np

from multislot_rerank.candidates import Candidates
from multislot_rerank.constraints import MinGap
from multislot_rerank.diversification import diversify
from multislot_rerank.objectives import LogDeterminant, MaxSimilarity, Relevance
from multislot_rerank.reranker import SequentialGreedyReranker

__all__ = ["warmup"]


def warmup() -> None:
    """Compile (or load from numba's cache) every kernel, for single and double precision.

    Call it when a service starts. Takes seconds the first time on a machine and a fraction of one after that.
    """
    reranker = SequentialGreedyReranker([Relevance(), MaxSimilarity(0.1), LogDeterminant(0.1)], k=2)
    for vectors in (np.eye(3, dtype=np.float32), np.eye(3)):
        reranker.rerank(Candidates(np.ones(3), vectors))
        diversify(vectors, np.arange(3.0), 2, "dpp")
        # only a b a keeps the gap, and greedy starts with b: the look-ahead too
        dead_end = Candidates(np.arange(3.0), vectors, {"c": ["a", "a", "b"]})
        SequentialGreedyReranker(reranker.objectives, 3, [MinGap("c", 2)]).rerank(dead_end)
