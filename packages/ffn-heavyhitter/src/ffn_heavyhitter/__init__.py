"""Feed-forward networks split at their heavy-hitter neurons, the light part compressed.

Our formulation of arXiv:2401.04044: rank neurons by the norm of what they write, split every FFN exactly into a heavy
and a light part, and give the light part fewer bits, fewer neurons or a lower rank.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ffn_heavyhitter.registration import register_with_transformers

if TYPE_CHECKING:
    from ffn_heavyhitter.adapters import FFNLayout, find_ffns, register_adapter
    from ffn_heavyhitter.backend import choose_backend
    from ffn_heavyhitter.compression import compress, halve, merge
    from ffn_heavyhitter.errors import (
        BudgetError,
        CalibrationError,
        CompressionError,
        FFNWarning,
        StatisticsError,
        UnsupportedArchitectureError,
    )
    from ffn_heavyhitter.exact import Split
    from ffn_heavyhitter.int8 import Int8
    from ffn_heavyhitter.low_rank import LowRank
    from ffn_heavyhitter.mixed_bits import MixedBits
    from ffn_heavyhitter.narrow import Narrow
    from ffn_heavyhitter.plan import Plan, plan_budget, plan_widths
    from ffn_heavyhitter.recovery import recover
    from ffn_heavyhitter.report import HeavyHitterReport, analyse
    from ffn_heavyhitter.statistics import Statistics, collect
    from ffn_heavyhitter.whole import compress_model

_HOME = {
    "BudgetError": "errors",
    "CalibrationError": "errors",
    "CompressionError": "errors",
    "FFNLayout": "adapters",
    "FFNWarning": "errors",
    "HeavyHitterReport": "report",
    "Int8": "int8",
    "LowRank": "low_rank",
    "MixedBits": "mixed_bits",
    "Narrow": "narrow",
    "Plan": "plan",
    "Split": "exact",
    "Statistics": "statistics",
    "StatisticsError": "errors",
    "UnsupportedArchitectureError": "errors",
    "analyse": "report",
    "choose_backend": "backend",
    "collect": "statistics",
    "compress": "compression",
    "compress_model": "whole",
    "find_ffns": "adapters",
    "halve": "compression",
    "merge": "compression",
    "plan_budget": "plan",
    "plan_widths": "plan",
    "recover": "recovery",
    "register_adapter": "adapters",
}

__all__ = [
    "BudgetError",
    "CalibrationError",
    "CompressionError",
    "FFNLayout",
    "FFNWarning",
    "HeavyHitterReport",
    "Int8",
    "LowRank",
    "MixedBits",
    "Narrow",
    "Plan",
    "Split",
    "Statistics",
    "StatisticsError",
    "UnsupportedArchitectureError",
    "analyse",
    "choose_backend",
    "collect",
    "compress",
    "compress_model",
    "find_ffns",
    "halve",
    "merge",
    "plan_budget",
    "plan_widths",
    "recover",
    "register_adapter",
]

register_with_transformers()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ffn_heavyhitter' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ffn_heavyhitter.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
