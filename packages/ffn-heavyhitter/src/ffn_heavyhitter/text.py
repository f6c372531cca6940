"""Calibration and evaluation text as token windows.

WikiText-2 is published tokenised (`` @-@ ``, `` , ``, ``( x )``). ``detokenise`` undoes what can be undone by rule, so
that a model sees text as people write it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ffn_heavyhitter.errors import CalibrationError

__all__ = ["detokenise", "token_windows"]

_RULES = (
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" ([,.;:!?%)\]}])"), r"\1"),
    (re.compile(r"([(\[{$]) "), r"\1"),
    (re.compile(r" (n't|'(?:s|re|ve|ll|d|m)\b)"), r"\1"),
    (re.compile(r'" ([^"\n]*?) "'), r'"\1"'),
)


def detokenise(text: str) -> str:
    """Write tokenised English as people do.

    Examples
    --------
    >>> detokenise("It cost 1 @,@ 000 dollars ( in real terms ) , did n't it ?")
    "It cost 1,000 dollars (in real terms), didn't it?"
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def token_windows(tokenizer: Any, text: str, *, tokens: int, length: int = 512, skip: int = 0) -> Tensor:
    """Cut the first tokens of a text into windows of equal length.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    text : str
    tokens : int
        How many tokens to take, a multiple of ``length``.
    length : int
        Tokens a window.
    skip : int
        Tokens to leave out first.

    Returns
    -------
    Tensor of shape (tokens / length, length), int64

    Raises
    ------
    CalibrationError
        If the text is too short.
    """
    if length < 2 or tokens < length or tokens % length:
        raise CalibrationError(f"tokens={tokens} must be a positive multiple of length={length}, which must be >= 2")
    # about three characters a token at the least: enough text for the tokens that are asked for
    enough = (tokens + skip) * 12 + 1000
    ids = tokenizer(text[:enough], add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < tokens + skip and enough < len(text):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < tokens + skip:
        raise CalibrationError(f"the text has {len(ids)} tokens; {skip} + {tokens} are needed, give a longer text")
    return torch.tensor(ids[skip : skip + tokens]).reshape(-1, length)
