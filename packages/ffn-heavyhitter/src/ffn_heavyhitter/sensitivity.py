"""What the model loses when one FFN alone is rewritten, measured.

    s_l = E_t KL( p_dense(. | t) || p_l(. | t) ),

with p_l the predictions of the dense model whose FFN l gives what a compressed module makes of the same input. Nothing
in the model is changed: hooks take the input of the FFN's first layer and replace the output of its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN
from ffn_heavyhitter.feedforward import CompressedFeedForward
from ffn_heavyhitter.statistics import Batch

__all__ = ["Sensitivity"]


class Sensitivity:
    """Measures single FFNs of one dense model on the same tokens.

    Parameters
    ----------
    model : nn.Module
        A dense causal language model.
    batches : iterable of mappings
        Keyword arguments of the model's call; their log-probabilities under the dense model stay in memory.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        self.model, self.batches = model, list(batches)
        self.wanted = [self._predictions(batch) for batch in self.batches]

    def of(self, ffn: FFN, module: CompressedFeedForward) -> float:
        """Divergence in nats a token with ``module`` in the place of one FFN."""
        with _in_place_of(ffn, module):
            found = [
                nn.functional.kl_div(self._predictions(batch), wanted, log_target=True, reduction="none").sum(-1)
                for batch, wanted in zip(self.batches, self.wanted, strict=True)
            ]
        return float(torch.cat(found).double().mean())

    def _predictions(self, batch: Batch) -> Tensor:
        """Log-probabilities of the tokens that are not padding, shape (tokens, vocabulary)."""
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        with torch.no_grad():
            return self.model(**batch).logits[mask].float().log_softmax(-1)  # type: ignore[no-any-return]


@contextmanager
def _in_place_of(ffn: FFN, module: CompressedFeedForward) -> Iterator[None]:
    """Let a compressed module answer for a dense FFN for the time of the block."""
    read: list[Tensor] = []
    balance = getattr(module, "balance", None)

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read[:] = [inputs[0] if balance is None else inputs[0] / balance]

    def answer(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return module(read[0])  # type: ignore[no-any-return]

    handles = [ffn.up.register_forward_pre_hook(keep), ffn.down.register_forward_hook(answer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
