"""Windows of tokens to calibrate and evaluate on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantease.errors import ModelError

__all__ = ["token_windows"]


def token_windows(
    tokenizer: Any, text: str, length: int = 512, count: int | None = None, spread: bool = False
) -> Tensor:
    """Cut a text into windows of equal length.

    Parameters
    ----------
    tokenizer : Hugging Face tokenizer
    text : str
    length : int
        Tokens a window.
    count : int, optional
        Windows to keep; all by default.
    spread : bool
        Keep windows spread evenly over the text instead of the first ones.

    Returns
    -------
    Tensor of shape (windows, length), int64

    Raises
    ------
    ModelError
        If the text is too short.
    """
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    available = len(tokens) // length
    wanted = available if count is None else count
    if available < max(wanted, 1):
        raise ModelError(
            f"text has {len(tokens)} tokens, which is {available} windows of {length}; {max(wanted, 1)} are asked for: "
            "give more text, fewer windows or shorter ones"
        )
    windows = torch.tensor(tokens[: available * length]).reshape(available, length)
    if not spread:
        return windows[:wanted]
    return windows[torch.linspace(0, available - 1, wanted).round().long()]
