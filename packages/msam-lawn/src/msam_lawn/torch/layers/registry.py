"""How an operation on stacked weights is computed: one rule a torch function.

A rule has the arguments of its function and is asked where one of them is a ``StandIn``. It returns the output of all
rows, each computed with the weights of its own micro-batch, or ``NotImplemented``: then the operation goes through
``torch.func.vmap``. A rule serves speed alone; what is right is judged by the loop on a few rows before use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["CHANNEL_LAYERS", "RULES", "Rule", "prefers_interleaving", "rule"]

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
CHANNEL_LAYERS: set[type[torch.nn.Module]] = set()


def rule(*functions: Callable[..., Any]) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of some torch functions.

    Examples
    --------
    >>> import torch
    >>> from msam_lawn.torch.layers import rule
    >>> @rule(torch.addbmm)
    ... def addbmm(*arguments, **settings):
    ...     return NotImplemented  # leave it to vmap
    """

    def register(function: Rule) -> Rule:
        for named in functions:
            RULES[named] = function
        return function

    return register


def prefers_interleaving(model: torch.nn.Module) -> bool:
    """Whether layers want row r of micro-batch i at r M + i: (B, C, ...) is then a view of (b, M C, ...)."""
    return any(isinstance(module, tuple(CHANNEL_LAYERS)) for module in model.modules())
