"""Tiny seeded random models of the five families, with neurons of very different weight: for claims and tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from ffn_heavyhitter.adapters import find_ffns

__all__ = ["FAMILIES", "output", "tiny", "tokens"]

VOCABULARY = 97


def _llama(layers: int) -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def _gemma(layers: int) -> Any:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=16,
        )
    )


def _gpt2(layers: int) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_inner=96, n_layer=layers, n_head=4, bos_token_id=1, eos_token_id=2
        )
    )


def _opt(layers: int) -> Any:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            max_position_embeddings=128,
        )
    )


def _bert(layers: int) -> Any:
    return BertModel(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
        )
    )


FAMILIES: dict[str, Callable[[int], Any]] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "opt": _opt,
    "llama": _llama,
    "gemma": _gemma,
}


def tiny(family: str, layers: int = 2, dtype: torch.dtype = torch.float32) -> Any:
    """A model in eval mode with unequal neurons, non-zero biases and norms that are not the identity."""
    torch.manual_seed(0)
    model = FAMILIES[family](layers).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.mul_(8.0)
        for ffn in find_ffns(model):
            spread = torch.exp(torch.randn(96, generator=generator))
            weights = ffn.weights()
            weights.down.mul_(spread / 4)
    return model.to(dtype)


def tokens(rows: int = 4, length: int = 24, seed: int = 0) -> torch.Tensor:
    """Random token numbers, shape (rows, length)."""
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def output(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits of a causal model, last hidden states of an encoder."""
    with torch.no_grad():
        result = model(input_ids=ids)
    found: torch.Tensor = result.logits if hasattr(result, "logits") else result.last_hidden_state
    return found
