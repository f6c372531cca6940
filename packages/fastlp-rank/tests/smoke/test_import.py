"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import fastlp_rank
from fastlp_rank import GroupExposure, RankingProblem, SlotWeights, Status, solve


def test_import_and_version() -> None:
    assert importlib.metadata.version("fastlp-rank") == "0.1.0"
    assert fastlp_rank.__all__ == sorted(fastlp_rank.__all__)
    assert all(getattr(fastlp_rank, name) is not None for name in fastlp_rank.__all__)


def test_solves_and_verifies() -> None:
    problem = RankingProblem([0.9, 0.8, 0.3], SlotWeights.dcg(2), [GroupExposure(["a", "a", "b"], "b", min_share=0.25)])
    solution = solve(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.certificate().verify(problem).holds
