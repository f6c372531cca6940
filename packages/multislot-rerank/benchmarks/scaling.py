"""How the greedy re-ranker's time grows with candidates and slots: typical requests, and the worst case of laziness.

uv run python packages/multislot-rerank/benchmarks/scaling.py

Typical: random scores, so that most candidates can never win a slot and are not looked at again. Worst: all scores
equal and a strong similarity penalty, so that every placed item changes every bound and all candidates are updated.
The log-log slope is of the median CPU time, from sizes on at which a request's fixed cost hardly shows; N runs at
K = 20, K at N = 2000.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import time  # noqa: E402

import numpy as np  # noqa: E402
from multislot_rerank.candidates import Candidates  # noqa: E402
from multislot_rerank.objectives import AttributeRepeat, MaxSimilarity, Relevance  # noqa: E402
from multislot_rerank.reranker import SequentialGreedyReranker  # noqa: E402
from papershelf_core.machine import Machine  # noqa: E402

CANDIDATES = (1000, 2000, 4000, 8000, 16000)
SLOTS = (20, 40, 80, 160, 320)


def median_ms(candidates: int, slots: int, worst: bool, repeat: int = 15) -> float:
    rng = np.random.default_rng(candidates)
    request = Candidates(
        scores=np.full((candidates, 1), 1.0) if worst else rng.random((candidates, 1)),
        embeddings=(np.abs(rng.normal(size=(candidates, 64))) if worst else rng.normal(size=(candidates, 64))).astype(
            np.float32
        ),
        attributes={"creator": rng.integers(candidates // 5, size=candidates).tolist()},
    )
    weight = 3.0 if worst else 0.3
    reranker = SequentialGreedyReranker(
        [Relevance((1.0,)), MaxSimilarity(weight), AttributeRepeat("creator", 0.1)], slots
    )
    reranker.rerank(request)
    seconds = []
    for _ in range(repeat):
        began = time.process_time()
        for _ in range(5):
            reranker.rerank(request)
        seconds.append((time.process_time() - began) / 5)
    return 1e3 * float(np.median(seconds))


def main() -> None:
    print(Machine.here("multislot-rerank", "numba", "numpy"))
    for label, worst in (("typical", False), ("worst case of laziness", True)):
        by_candidates = [median_ms(n, 20, worst) for n in CANDIDATES]
        by_slots = [median_ms(2000, k, worst) for k in SLOTS]
        slope_n, slope_k = (
            float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
            for sizes, times in ((CANDIDATES, by_candidates), (SLOTS, by_slots))
        )
        cells = ", ".join(f"{n}: {t:.3f}" for n, t in zip(CANDIDATES, by_candidates, strict=True))
        print(f"{label}: slope {slope_n:.2f} in N ({cells} ms)")
        cells = ", ".join(f"{k}: {t:.3f}" for k, t in zip(SLOTS, by_slots, strict=True))
        print(f"{label}: slope {slope_k:.2f} in K ({cells} ms)")


if __name__ == "__main__":
    main()
