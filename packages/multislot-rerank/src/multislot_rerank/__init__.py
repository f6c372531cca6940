"""Sequential greedy re-ranking of whole slates, with multi-slot replay evaluation.

Paper: arXiv:2401.06293. Names are imported on first use: the evaluation half does without numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multislot_rerank.candidates import Candidates
    from multislot_rerank.constraints import (
        FreshQuota,
        MaxOfValue,
        MaxPerWindow,
        MaxSlot,
        MinGap,
        MinOfValue,
        Pin,
        Soft,
    )
    from multislot_rerank.diversification import Diversified, diversify
    from multislot_rerank.errors import InvalidInput
    from multislot_rerank.ladder import Ladder, estimate_all
    from multislot_rerank.log import SlateLog, TargetPolicy
    from multislot_rerank.objectives import AttributeRepeat, Freshness, LogDeterminant, MaxSimilarity, Relevance
    from multislot_rerank.planning import plan_logging
    from multislot_rerank.reranker import SequentialGreedyReranker, Slate
    from multislot_rerank.slate_replay import Interaction, replay
    from multislot_rerank.value import ValueEstimate
    from multislot_rerank.warm import warmup
    from multislot_rerank.weighting import cascade_dr, iips, pseudo_inverse, rips, sips

__all__ = [
    "AttributeRepeat",
    "Candidates",
    "Diversified",
    "FreshQuota",
    "Freshness",
    "Interaction",
    "InvalidInput",
    "Ladder",
    "LogDeterminant",
    "MaxOfValue",
    "MaxPerWindow",
    "MaxSimilarity",
    "MaxSlot",
    "MinGap",
    "MinOfValue",
    "Pin",
    "Relevance",
    "SequentialGreedyReranker",
    "Slate",
    "SlateLog",
    "Soft",
    "TargetPolicy",
    "ValueEstimate",
    "cascade_dr",
    "diversify",
    "estimate_all",
    "iips",
    "plan_logging",
    "pseudo_inverse",
    "replay",
    "rips",
    "sips",
    "warmup",
]

_HOMES = {
    "AttributeRepeat": "objectives",
    "Candidates": "candidates",
    "Diversified": "diversification",
    "FreshQuota": "constraints",
    "Freshness": "objectives",
    "Interaction": "slate_replay",
    "InvalidInput": "errors",
    "Ladder": "ladder",
    "LogDeterminant": "objectives",
    "MaxOfValue": "constraints",
    "MaxPerWindow": "constraints",
    "MaxSimilarity": "objectives",
    "MaxSlot": "constraints",
    "MinGap": "constraints",
    "MinOfValue": "constraints",
    "Pin": "constraints",
    "Relevance": "objectives",
    "SequentialGreedyReranker": "reranker",
    "Slate": "reranker",
    "SlateLog": "log",
    "Soft": "constraints",
    "TargetPolicy": "log",
    "ValueEstimate": "value",
    "cascade_dr": "weighting",
    "diversify": "diversification",
    "estimate_all": "ladder",
    "iips": "weighting",
    "plan_logging": "planning",
    "pseudo_inverse": "weighting",
    "replay": "slate_replay",
    "rips": "weighting",
    "sips": "weighting",
    "warmup": "warm",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
