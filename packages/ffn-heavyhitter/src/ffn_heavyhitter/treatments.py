"""All treatments by name, and with them every kind of module that a saved model may hold."""

from __future__ import annotations

from ffn_heavyhitter.exact import Split

__all__ = ["TREATMENTS"]

TREATMENTS = {"split": Split}
