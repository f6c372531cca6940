"""All treatments by name, and with them every kind of module that a saved model may hold."""

from __future__ import annotations

from ffn_heavyhitter.exact import Split
from ffn_heavyhitter.int8 import Int8
from ffn_heavyhitter.low_rank import LowRank
from ffn_heavyhitter.mixed_bits import MixedBits
from ffn_heavyhitter.narrow import Narrow

__all__ = ["TREATMENTS"]

TREATMENTS = {"split": Split, "int8": Int8, "mixed_bits": MixedBits, "low_rank": LowRank, "narrow": Narrow}
