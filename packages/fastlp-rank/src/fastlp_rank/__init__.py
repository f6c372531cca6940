"""Exact linear-programming ranking under diversity constraints, inside a request (arXiv:2211.12409).

State the request as a `RankingProblem`, call `solve`, draw from the lottery of the `RankingSolution`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlp_rank.certificate import Certificate, Verification, verify_arrays
    from fastlp_rank.errors import InvalidProblemError
    from fastlp_rank.lottery import Lottery
    from fastlp_rank.prefixes.problem import PrefixCount, PrefixProblem, proportional_prefixes
    from fastlp_rank.prefixes.ranking import PrefixRanking, rank_prefixes
    from fastlp_rank.problem import GroupCount, GroupExposure, LinearExposure, RankingProblem, SlotWeights
    from fastlp_rank.solver import (
        BatchSolution,
        RankingSolution,
        Workspace,
        solve,
        solve_arrays,
        solve_batch,
        warmup,
    )
    from fastlp_rank.status import Status

__all__ = [
    "BatchSolution",
    "Certificate",
    "GroupCount",
    "GroupExposure",
    "InvalidProblemError",
    "LinearExposure",
    "Lottery",
    "PrefixCount",
    "PrefixProblem",
    "PrefixRanking",
    "RankingProblem",
    "RankingSolution",
    "SlotWeights",
    "Status",
    "Verification",
    "Workspace",
    "proportional_prefixes",
    "rank_prefixes",
    "solve",
    "solve_arrays",
    "solve_batch",
    "verify_arrays",
    "warmup",
]

_HOME = {
    "certificate": ("Certificate", "Verification", "verify_arrays"),
    "errors": ("InvalidProblemError",),
    "lottery": ("Lottery",),
    "prefixes.problem": ("PrefixCount", "PrefixProblem", "proportional_prefixes"),
    "prefixes.ranking": ("PrefixRanking", "rank_prefixes"),
    "problem": ("GroupCount", "GroupExposure", "LinearExposure", "RankingProblem", "SlotWeights"),
    "solver": (
        "BatchSolution",
        "RankingSolution",
        "Workspace",
        "solve",
        "solve_arrays",
        "solve_batch",
        "warmup",
    ),
    "status": ("Status",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import on first use: numba takes longer to import than most requests take to solve."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
