"""Tiny configurations of many families: a random model of each is split in the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainables.lm.card import ModelCard
from trainables.lm.config_shape import shape_of
from trainables.lm.folder_identity import folder_key, weight_files

VOCAB, DIM, BLOCKS = 61, 32, 4
_NEW = {
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
_GQA = {**_NEW, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": VOCAB, "n_embd": DIM, "n_layer": BLOCKS, "n_head": 4, "n_positions": 40, "n_ctx": 40}
_EIGHT = {**_GQA, "head_dim": 8}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}  # fmt: skip
WINDOW = 5
_SLIDING = ["sliding_attention", "full_attention"] * (BLOCKS // 2)

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GQA),
    "llama-tied": ("llama", {**_GQA, "tie_word_embeddings": True}),
    "llama-biases": ("llama", {**_GQA, "attention_bias": True, "mlp_bias": True}),
    "llama-llama3": ("llama", {**_GQA, "rope_parameters": _LLAMA3}),
    "llama-yarn": ("llama", {**_GQA, "rope_parameters": _YARN}),
    "gpt_neox": ("gpt_neox", _NEW),
    "gpt_neox-serial": ("gpt_neox", {**_NEW, "use_parallel_residual": False}),
    "gpt2": ("gpt2", _GPT2),
    "gptj": ("gptj", {**_GPT2, "rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            "vocab_size": VOCAB, "hidden_size": DIM, "num_layers": BLOCKS, "num_heads": 4, "window_size": WINDOW,
            "attention_types": [[["global", "local"], 2]], "max_position_embeddings": 128,
        },
    ),
    "gpt_bigcode": ("gpt_bigcode", _GPT2),
    "opt": ("opt", {**_NEW, "ffn_dim": 48, "word_embed_proj_dim": DIM}),
    "bloom": ("bloom", {"vocab_size": VOCAB, "hidden_size": DIM, "n_layer": BLOCKS, "n_head": 4}),
    "mpt": ("mpt", {"vocab_size": VOCAB, "d_model": DIM, "n_layers": BLOCKS, "n_heads": 4, "max_seq_len": 128}),
    "falcon": ("falcon", {**_NEW, "alibi": False}),
    "falcon-new": ("falcon", {**_NEW, "alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-alibi": ("falcon", {**_NEW, "alibi": True, "multi_query": False, "parallel_attn": False}),
    "mistral": ("mistral", {**_GQA, "sliding_window": WINDOW}),
    "mixtral": ("mixtral", {**_GQA, "num_local_experts": 4, "sliding_window": None}),
    "qwen2": ("qwen2", _GQA),
    "qwen2-windows": (
        "qwen2",
        {**_GQA, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2, "layer_types": None},
    ),
    "qwen2_moe": ("qwen2_moe", {**_GQA, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1, 2]}),
    "qwen3": ("qwen3", _EIGHT),
    "qwen3_moe": (
        "qwen3_moe",
        {
            **_EIGHT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [2],
        },
    ),
    "qwen3_next": (
        "qwen3_next",
        {
            **_EIGHT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
            "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"] * 2,
        },
    ),
    "gemma": ("gemma", _EIGHT),
    "gemma2": (
        "gemma2",
        {
            **_EIGHT, "sliding_window": WINDOW, "layer_types": _SLIDING, "final_logit_softcapping": 3.0,
            "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8,
        },
    ),
    "gemma3_text": (
        "gemma3_text",
        {
            **_EIGHT, "sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
            "query_pre_attn_scalar": 8,
        },
    ),
    "olmo": ("olmo", _GQA),
    "olmo2": ("olmo2", _GQA),
    "olmo3": ("olmo3", {**_GQA, "sliding_window": WINDOW, "layer_types": _SLIDING}),
    "olmoe": ("olmoe", {**_GQA, "num_experts": 4, "num_experts_per_tok": 2}),
    "phi": ("phi", _NEW),
    "phi3": ("phi3", {**_GQA, "sliding_window": WINDOW}),
    "granite": (
        "granite",
        {
            **_GQA, "logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
            "attention_multiplier": 0.2,
        },
    ),
    "granitemoe": ("granitemoe", {**_GQA, "num_local_experts": 4, "logits_scaling": 2.0}),
    "smollm3": ("smollm3", {**_GQA, "no_rope_layers": [1, 0, 1, 0]}),
    "cohere": ("cohere", {**_GQA, "logit_scale": 0.3}),
    "cohere2": ("cohere2", {**_EIGHT, "sliding_window": WINDOW, "layer_types": _SLIDING, "logit_scale": 0.3}),
    "exaone4": ("exaone4", {**_GQA, "sliding_window": WINDOW, "layer_types": _SLIDING, "sliding_window_pattern": 2}),
    "starcoder2": ("starcoder2", {**_GQA, "sliding_window": WINDOW}),
    "stablelm": ("stablelm", _GQA),
    "glm4": ("glm4", _EIGHT),
    "ernie4_5": ("ernie4_5", _EIGHT),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **_NEW, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "kv_lora_rank": 8,
            "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
            "first_k_dense_replace": 2, "moe_intermediate_size": 24,
        },
    ),
    "gpt_oss": (
        "gpt_oss", {**_EIGHT, "num_local_experts": 4, "sliding_window": WINDOW, "layer_types": _SLIDING}
    ),
    "lfm2": ("lfm2", {**_GQA, "layer_types": ["conv", "full_attention"] * 2}),
    "zamba2": (
        "zamba2",
        {
            **_NEW, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3],
            "num_mem_blocks": 1, "mamba_d_state": 8,
            "mamba_headdim": 16, "n_mamba_heads": 4, "mamba_ngroups": 1, "use_mem_rope": True, "chunk_size": 8,
        },
    ),
    "bamba": (
        "bamba",
        {
            **_GQA, "attn_layer_indices": [1, 3], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8,
            "mamba_n_groups": 1, "mamba_expand": 2, "mamba_chunk_size": 8,
        },
    ),
    "mamba": ("mamba", {"vocab_size": VOCAB, "hidden_size": DIM, "num_hidden_layers": BLOCKS, "state_size": 4}),
}  # fmt: skip

_SAVED: dict[str, ModelCard] = {}

# Its blocks hand on four versions of the hidden states: a memory has no place there.
NOT_ONE_STREAM = AutoConfig.for_model(
    "gemma3n_text",
    **_EIGHT,
    sliding_window=WINDOW,
    layer_types=_SLIDING,
    vocab_size_per_layer_input=VOCAB,
    hidden_size_per_layer_input=8,
    laurel_rank=4,
    num_kv_shared_layers=0,
    activation_sparsity_pattern=[0.0] * BLOCKS,
)


def family_config(name: str) -> Any:
    """Return the tiny configuration of this name."""
    family, values = CONFIGS[name]
    return AutoConfig.for_model(family, **values)


def save_family(name: str, tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """Save a random model of a tiny configuration, once for all tests, and return its card."""
    if name not in _SAVED:
        _SAVED[name] = _save(name, tmp_path_factory.mktemp("family"))
    return _SAVED[name]


def _save(name: str, folder: Path) -> ModelCard:
    config = family_config(name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    shape = shape_of(folder / "config.json")
    key = f"{name}:{folder_key(folder, weight_files(folder), [])[:16]}"
    return ModelCard(name=name, key=key, source=str(folder), revision="main", **shape)
