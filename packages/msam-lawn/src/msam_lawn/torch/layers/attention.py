"""Multi-head attention: projections by the rule of linear layers, attention itself row by row.

softmax(Q K' / sqrt(d) + mask) V, then the output projection.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from msam_lawn.errors import EngineError
from msam_lawn.torch.layers.registry import rule
from msam_lawn.torch.layers.stand_in import StandIn

__all__ = ["multi_head_attention"]


@rule(F.multi_head_attention_forward)
def multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """``torch.nn.functional.multi_head_attention_forward``: (positions, rows, channels), as in torch."""
    run = next(w for w in (in_proj_weight, out_proj_weight, q_proj_weight, in_proj_bias) if isinstance(w, StandIn)).run
    if query.ndim != 3 or query.shape[1] != run.rows.total or key.shape[1] != run.rows.total:
        raise EngineError("attention over something else than the rows of the mini-batch")
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise EngineError("attention with bias_k, bias_v, add_zero_attn or static keys")
    itself = query is key and key is value
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((q, k, v), weights, biases, strict=True))
    elif itself:
        q, k, v = F.linear(q, in_proj_weight, in_proj_bias).chunk(3, dim=-1)
    else:
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((q, k, v), in_proj_weight.chunk(3), biases, strict=True))
    count, length, size = q.shape
    q, k, v = (x.reshape(count, x.shape[1], num_heads, -1).transpose(1, 2) for x in (q, k, v))
    mask = _mask(attn_mask, key_padding_mask, q)
    dropped = dropout_p if training else 0.0
    if need_weights:
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        attention = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropped)
        out = attention @ v
    else:
        attention, out = None, F.scaled_dot_product_attention(q, k, v, mask, dropped)
    out = F.linear(out.transpose(1, 2).reshape(count, length, size), out_proj_weight, out_proj_bias).transpose(0, 1)
    if attention is not None and average_attn_weights:
        attention = attention.mean(1)
    return out, attention


def _mask(attention: Any, padding: Any, like: torch.Tensor) -> torch.Tensor | None:
    """Both masks as one to be added, (rows, heads, queries, keys)."""
    masks = []
    if attention is not None:
        mask = _added(attention, like)
        masks.append(mask if mask.ndim == 2 else mask.reshape(like.shape[0], -1, *mask.shape[-2:]))
    if padding is not None:
        masks.append(_added(padding, like)[:, None, None, :])
    return sum(masks[1:], masks[0]) if masks else None


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)
