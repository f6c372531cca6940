"""Sequential greedy re-ranking of whole slates, with multi-slot replay evaluation.

Paper: arXiv:2401.06293.
"""

from multislot_rerank.candidates import Candidates
from multislot_rerank.constraints import FreshQuota, MaxPerWindow, MinGap, Pin
from multislot_rerank.diversify import Diversified, diversify
from multislot_rerank.errors import InvalidInput
from multislot_rerank.ladder import Ladder, estimate_all
from multislot_rerank.log import SlateLog, TargetPolicy
from multislot_rerank.objectives import AttributeRepeat, Freshness, LogDeterminant, MaxSimilarity, Relevance
from multislot_rerank.planning import plan_logging
from multislot_rerank.reranker import SequentialGreedyReranker, Slate
from multislot_rerank.slate_replay import Interaction, replay
from multislot_rerank.value import ValueEstimate
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
    "MaxPerWindow",
    "MaxSimilarity",
    "MinGap",
    "Pin",
    "Relevance",
    "SequentialGreedyReranker",
    "Slate",
    "SlateLog",
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
]
