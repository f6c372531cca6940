"""How good, how large, how fast: perplexity with paired errors, bytes on disk, prefill and decode time.

Two models read the same windows. With l_w the mean negative log-likelihood of window w under each,

    ratio of perplexities = exp(mean_w (l_w - l'_w)),    its relative error = sd_w(l_w - l'_w) / sqrt(W).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from papershelf_core import timing
from torch import Tensor, nn

from ffn_heavyhitter.errors import CalibrationError
from ffn_heavyhitter.models import weight_files

__all__ = ["PerplexityRatio", "bytes_on_disk", "decoder", "perplexity_ratio", "prefill", "time_models", "window_nll"]


@dataclass(frozen=True)
class PerplexityRatio:
    """Perplexity of one model over that of another on the same windows.

    Attributes
    ----------
    perplexity, reference : float
    ratio : float
    standard_error : float
        Of the ratio, over windows.
    """

    perplexity: float
    reference: float
    ratio: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.perplexity:.3f}, {self.ratio:.4f}x dense +- {self.standard_error:.4f}"


def window_nll(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean negative log-likelihood of each window in nats.

    Parameters
    ----------
    model : nn.Module
        A causal language model.
    windows : Tensor of shape (W, T), int64

    Returns
    -------
    Tensor of shape (W,), float64
    """
    model.eval()
    losses = []
    with torch.no_grad():
        for window in windows:
            logits = model(input_ids=window[None]).logits[0, :-1].float()
            losses.append(nn.functional.cross_entropy(logits, window[1:]).double())
    nll = torch.stack(losses)
    if not torch.isfinite(nll).all():
        raise CalibrationError(f"window {int((~torch.isfinite(nll)).nonzero()[0])}: the loss is not finite")
    return nll


def perplexity_ratio(nll: Tensor, reference: Tensor) -> PerplexityRatio:
    """Compare two models by the losses of the same windows.

    Examples
    --------
    >>> result = perplexity_ratio(torch.tensor([2.1, 2.1]).log(), torch.tensor([2.0, 2.0]).log())
    >>> round(result.ratio, 3), round(result.standard_error, 3)
    (1.05, 0.0)
    """
    difference = nll.double() - reference.double()
    ratio = math.exp(float(difference.mean()))
    error = ratio * float(difference.std()) / math.sqrt(len(difference)) if len(difference) > 1 else math.nan
    return PerplexityRatio(math.exp(float(nll.mean())), math.exp(float(reference.mean())), ratio, error)


def bytes_on_disk(folder: str | os.PathLike[str]) -> int:
    """Bytes of a saved model's weight files."""
    return sum(path.stat().st_size for path in weight_files(folder))


def prefill(model: Any, ids: Tensor, *, all_logits: bool = False) -> Callable[[], object]:
    """A call that reads a prompt, shape (1, T), and computes the logits of its last token (or of all)."""
    keep = 0 if all_logits else 1

    def run() -> object:
        with torch.inference_mode():
            return model(input_ids=ids, use_cache=False, logits_to_keep=keep)

    return run


def decoder(model: Any, ids: Tensor) -> Callable[[], object]:
    """A call that computes one more token after a prompt, shape (1, T), from its key-value cache."""
    with torch.inference_mode():
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    token = ids[:, -1:]

    def run() -> object:
        with torch.inference_mode():
            output = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.crop(-1)
            return output

    return run


def time_models(
    models: Mapping[str, Any], ids: Tensor, *, repeat: int = 15, all_logits: bool = False, decode: bool = False
) -> timing.Comparison:
    """Time models against each other, interleaved, in wall-clock seconds; the first is the baseline.

    Parameters
    ----------
    models : mapping of name to model
    ids : Tensor of shape (1, T)
    repeat : int
        Rounds.
    all_logits : bool
        Compute the logits of all tokens rather than of the last.
    decode : bool
        Time one token after the prompt instead of the prompt.

    Returns
    -------
    papershelf_core.timing.Comparison
    """
    make = decoder if decode else (lambda model, ids: prefill(model, ids, all_logits=all_logits))
    return timing.compare({name: make(m, ids) for name, m in models.items()}, repeat=repeat, clock="wall")
