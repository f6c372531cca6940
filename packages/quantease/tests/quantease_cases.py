"""Seeded layers that the tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def layer(q: int, p: int, seed: int = 0, tokens: int | None = None, dead: int = 0) -> tuple[Tensor, Tensor]:
    """A float64 weight (q, p) and Sigma of correlated inputs of uneven size; ``dead`` inputs are never on."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = normal(p, p) * torch.logspace(0, -1, p, dtype=torch.float64)
    inputs = mixing @ normal(p, 4 * p if tokens is None else tokens)
    if dead:
        inputs[-dead:] = 0
    return normal(q, p), inputs @ inputs.T


WINDOWS = torch.randint(0, 100, (6, 64), generator=torch.Generator().manual_seed(0))


def tiny(architecture: str) -> Any:
    """A random model of two or three blocks and 100 tokens; the same weights at every call."""
    import transformers as hf

    torch.manual_seed(0)
    common = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = common | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = {
        "llama": lambda: hf.LlamaConfig(**llama | {"num_hidden_layers": 3, "tie_word_embeddings": True}),
        "mistral": lambda: hf.MistralConfig(**llama, sliding_window=16),
        "gemma3": lambda: hf.Gemma3TextConfig(**llama, head_dim=8, sliding_window=16, sliding_window_pattern=2),
        "falcon": lambda: hf.FalconConfig(**common, **special),
        "opt": lambda: hf.OPTConfig(**common, ffn_dim=64, word_embed_proj_dim=32, **special),
        "gpt2": lambda: hf.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=128, **special),
        "mixtral": lambda: hf.MixtralConfig(**llama, num_local_experts=2),
    }[architecture]()
    return hf.AutoModelForCausalLM.from_config(config).float().eval()


def numbered_words(folder: Path, chat_template: str | None = None) -> Any:
    """A tokenizer of the words w0 .. w99, saved to a folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(100)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return tokenizer
