"""Short recovery: a few passes over the calibration tokens that teach a compressed model the dense one's predictions.

    minimise  E_t KL( p_dense(. | t) || p_compressed(. | t) )   over the weights of the FFNs alone

by Adam with a linear decay to zero. No label is used: the text only says where to compare the two models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import find_ffns
from ffn_heavyhitter.errors import CompressionError
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.statistics import Batch

__all__ = ["recover"]


def recover(
    model: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    *,
    epochs: int = 2,
    learning_rate: float = 1e-4,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train the FFN weights of ``model`` in place to predict what ``teacher`` predicts.

    Parameters
    ----------
    model : nn.Module
        A causal language model whose FFNs are narrow or of low rank, or plain.
    teacher : nn.Module
        The dense model.
    batches : sequence of mappings
        Keyword arguments of the models' call; one step of Adam each.
    epochs : int
        Passes over the batches.
    learning_rate : float
        Of the first step.
    progress : callable, optional
        Called with the number of steps taken and the loss of the last.

    Raises
    ------
    CompressionError
        If an FFN holds integers, which cannot be trained.
    """
    trained = _ffn_parameters(model)
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    steps = epochs * len(batches)
    adam = torch.optim.Adam(trained, lr=learning_rate, betas=(0.9, 0.95))
    try:
        for step in range(steps):
            batch = batches[step % len(batches)]
            adam.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
            loss: Any = _divergence(model, teacher, batch)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            adam.step()
            if progress is not None:
                progress(step + 1, float(loss))
    finally:
        for parameter in trained:
            parameter.requires_grad_(False)
            parameter.grad = None
        for parameter in asked:
            parameter.requires_grad_(True)


def _ffn_parameters(model: nn.Module) -> list[nn.Parameter]:
    compressed = compressed_ffns(model)
    for name, module in compressed.items():
        if module.kind not in ("narrow", "low_rank", "split"):
            raise CompressionError(f"{name} ({module.kind}) holds integers; recover before quantising")
    found = [p for module in compressed.values() for p in module.parameters() if p.is_floating_point()]
    for ffn in find_ffns(model):
        if ffn.name not in compressed:
            found += [parameter for layer in (*ffn.inner, ffn.down) for parameter in layer.parameters()]
    return found


def _divergence(model: nn.Module, teacher: nn.Module, batch: Batch) -> Tensor:
    """Mean Kullback-Leibler divergence over the tokens that are not padding."""
    with torch.no_grad():
        wanted = teacher(**batch).logits.float().log_softmax(-1)
    given = model(**batch).logits.float().log_softmax(-1)
    each = nn.functional.kl_div(given, wanted, log_target=True, reduction="none").sum(-1)
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    return each[mask].mean()
