"""Tiny seeded random models of the architectures that transformers users have, and what the package says to each."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCABULARY = 97
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {"n_embd": 32, "n_inner": 96, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 4}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 96, "num_layers": 2, "num_heads": 4}
_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}

# name: (model class, config class, settings beside the sizes)
SUPPORTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "llama-bias": ("LlamaForCausalLM", "LlamaConfig", {"mlp_bias": True}),
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", {"tie_word_embeddings": True}),
    "llama-body": ("LlamaModel", "LlamaConfig", {}),
    "llama-classifier": ("LlamaForSequenceClassification", "LlamaConfig", {"num_labels": 3}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {"query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {"sliding_window": 16}),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", {}),
    "granite": ("GraniteForCausalLM", "GraniteConfig", {"residual_multiplier": 0.5}),
    "seed-oss": ("SeedOssForCausalLM", "SeedOssConfig", {}),
    "helium": ("HeliumForCausalLM", "HeliumConfig", {}),
    "olmo": ("OlmoForCausalLM", "OlmoConfig", {}),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", {}),
    "olmo3": ("Olmo3ForCausalLM", "Olmo3Config", {}),
    "exaone4": ("Exaone4ForCausalLM", "Exaone4Config", {"sliding_window": 16, "sliding_window_pattern": 4}),
    "cohere": ("CohereForCausalLM", "CohereConfig", {}),
    "cohere2": ("Cohere2ForCausalLM", "Cohere2Config", {}),
    "phi": ("PhiForCausalLM", "PhiConfig", {}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {}),
    "glm": ("GlmForCausalLM", "GlmConfig", {}),
    "glm4": ("Glm4ForCausalLM", "Glm4Config", {}),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", {}),
    "stablelm-parallel": ("StableLmForCausalLM", "StableLmConfig", {"use_parallel_residual": True}),
    "nemotron": ("NemotronForCausalLM", "NemotronConfig", {}),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", {"sliding_window": None}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT),
    "gpt-bigcode": ("GPTBigCodeForCausalLM", "GPTBigCodeConfig", _GPT),
    "gpt-j": ("GPTJForCausalLM", "GPTJConfig", _GPT),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {"use_parallel_residual": False}),
    "gpt-neox-parallel": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {"use_parallel_residual": True}),
    "opt": ("OPTForCausalLM", "OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 32}),
    "opt-post-norm": (
        "OPTForCausalLM",
        "OPTConfig",
        {"ffn_dim": 96, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"n_layer": 2, "n_head": 4}),
    "bloom-post-norm-residual": (
        "BloomForCausalLM",
        "BloomConfig",
        {"n_layer": 2, "n_head": 4, "apply_residual_connection_post_layernorm": True},
    ),
    "falcon": ("FalconForCausalLM", "FalconConfig", {"parallel_attn": False, "ffn_hidden_size": 96}),
    "falcon-parallel": ("FalconForCausalLM", "FalconConfig", {"ffn_hidden_size": 96}),
    "falcon-two-norms": (
        "FalconForCausalLM",
        "FalconConfig",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 96},
    ),
    "bart-decoder": ("BartForCausalLM", "BartConfig", _BART),
    "mbart-decoder": ("MBartForCausalLM", "MBartConfig", _BART),
    "bert": ("BertModel", "BertConfig", {}),
    "bert-classifier": ("BertForSequenceClassification", "BertConfig", {"num_labels": 3}),
    "bert-masked": ("BertForMaskedLM", "BertConfig", {}),
    "roberta": ("RobertaModel", "RobertaConfig", {}),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", {}),
    "camembert": ("CamembertModel", "CamembertConfig", {}),
    "distilbert": ("DistilBertModel", "DistilBertConfig", {"dim": 32, "hidden_dim": 96, "n_layers": 2, "n_heads": 4}),
    "electra": ("ElectraModel", "ElectraConfig", {"embedding_size": 16}),
    "mpnet": ("MPNetModel", "MPNetConfig", {}),
    "modernbert": ("ModernBertModel", "ModernBertConfig", {"cls_token_id": 1, "sep_token_id": 2}),
    "deberta": ("DebertaModel", "DebertaConfig", {}),
    "deberta-v2": ("DebertaV2Model", "DebertaV2Config", {}),
    "albert": ("AlbertModel", "AlbertConfig", {"embedding_size": 16}),
    "t5-encoder": ("T5EncoderModel", "T5Config", _T5),
    "t5-gated-encoder": ("T5EncoderModel", "T5Config", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "vit": ("ViTModel", "ViTConfig", {"image_size": 16, "patch_size": 4}),
}
REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5, "encoder-decoder"),
    "bart": ("BartForConditionalGeneration", "BartConfig", _BART, "encoder-decoder"),
    "whisper": ("WhisperModel", "WhisperConfig", _BART, "encoder-decoder"),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _MOE, "mixes experts"),
    "qwen2-moe": ("Qwen2MoeForCausalLM", "Qwen2MoeConfig", _MOE, "mixes experts"),
    "qwen3-moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _MOE, "mixes experts"),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
        r'register_adapter\("GPTNeoBlock", FFNLayout\(up="mlp.c_fc", down="mlp.c_proj", activation="mlp.act"',
    ),
    "codegen": ("CodeGenForCausalLM", "CodeGenConfig", _GPT, r'register_adapter\("CodeGenBlock"'),
    "arcee": (
        "ArceeForCausalLM",
        "ArceeConfig",
        {},
        r'register_adapter\("ArceeDecoderLayer", FFNLayout\(up="mlp.up_proj", down="mlp.down_proj"',
    ),
}


def build(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The model in eval mode: matrices large enough for every part to matter, norms that are not the identity."""
    model_class, config_class, settings, *_ = {**SUPPORTED, **REFUSED}[name]
    torch.manual_seed(0)
    sizes = {key: value for key, value in _SIZES.items() if not (key == "head_dim" and "Falcon" in config_class)}
    config = getattr(transformers, config_class)(**{**sizes, **settings})
    model = getattr(transformers, model_class)(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            elif "embed" not in key and "wte" not in key:
                fan_in = parameter.shape[-1]
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.2 / fan_in**0.5)
    return model.to(dtype)


def batch(model: Any, rows: int = 8, length: int = 32, seed: int = 0) -> dict[str, torch.Tensor]:
    """What the model reads: tokens, or images."""
    generator = torch.Generator().manual_seed(seed)
    if model.main_input_name == "pixel_values":
        dtype = next(model.parameters()).dtype
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator).to(dtype)}
    return {"input_ids": torch.randint(3, VOCABULARY, (rows, length), generator=generator)}


def answers(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The first output, in double."""
    with torch.no_grad():
        return model(**inputs)[0].double()
