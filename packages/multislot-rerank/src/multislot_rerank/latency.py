"""How long a re-ranking takes here: four objectives, 64 dimensions, one thread, wall time of single requests."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multislot_rerank.candidates import Candidates
from multislot_rerank.errors import InvalidInput
from multislot_rerank.objectives import AttributeRepeat, Freshness, MaxSimilarity, Relevance
from multislot_rerank.reranker import SequentialGreedyReranker

__all__ = ["Latency", "reranking_latency", "reranking_seconds"]


@dataclass(frozen=True)
class Latency:
    """Quantiles over requests, in ms."""

    p50_ms: float
    p99_ms: float


def reranking_latency(candidates: int, k: int, *, requests: int = 300) -> Latency:
    """Quantiles of `reranking_seconds`."""
    p50, p99 = np.quantile(reranking_seconds(candidates, k, requests=requests), [0.5, 0.99])
    return Latency(1e3 * float(p50), 1e3 * float(p99))


def reranking_seconds(candidates: int, k: int, *, requests: int = 300) -> NDArray[np.float64]:
    """Time re-ranking requests one by one, each a different one, after a warm-up; shape (requests,), wall seconds.

    Raises
    ------
    InvalidInput
        ``k`` does not fit the candidates, or no request.
    """
    if not 1 <= k <= candidates or requests < 1:
        raise InvalidInput(f"k={k} must be between 1 and candidates={candidates}, requests={requests} at least 1")
    rng = np.random.default_rng(candidates)
    objectives = (Relevance((0.7, 0.3)), Freshness(0.2, 3600.0), MaxSimilarity(0.3), AttributeRepeat("creator", 0.1))
    reranker = SequentialGreedyReranker(objectives, k=k)
    drawn = [_request(rng, candidates) for _ in range(min(requests, 20))]
    for request in drawn:
        reranker.rerank(request)
    seconds = np.empty(requests)
    for i in range(requests):
        began = time.perf_counter()
        reranker.rerank(drawn[i % len(drawn)])
        seconds[i] = time.perf_counter() - began
    return seconds


def _request(rng: np.random.Generator, candidates: int) -> Candidates:
    return Candidates(
        scores=rng.random((candidates, 2)),
        embeddings=rng.normal(size=(candidates, 64)).astype(np.float32),
        attributes={"creator": rng.integers(max(candidates // 5, 1), size=candidates).tolist()},
        age_s=rng.exponential(7200.0, size=candidates),
    )
