"""A model's shape as its `config.json` says, for any family of `transformers`, without importing that or torch.

Families name the same numbers differently; the class would know its defaults, but it costs seconds to import, and
`config.json` states all that is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError, DataError

_NAMES = {
    "num_blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "model_dim": ("hidden_size", "n_embd", "d_model"),
    "vocab_size": ("vocab_size",),
}
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_INTERMEDIATE = ("ffn_hidden_size", "n_inner", "ffn_dim", "intermediate_size")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_USED = ("num_experts_per_tok", "moe_topk", "moe_top_k")

TWO_MATRICES = frozenset(
    "gpt_neox gpt2 gptj gpt_neo gpt_bigcode gpt_neox_japanese codegen falcon bloom mpt opt phi starcoder2 "
    "persimmon xglm biogpt openai-gpt ctrl nemotron".split()
)
"""Families whose feed-forward part has two matrices; the others' has a third, the gate."""
_TIED = frozenset(
    "gpt2 gpt_neo gpt_bigcode gemma gemma2 gemma3_text bloom mpt opt falcon cohere cohere2 starcoder2 biogpt".split()
)
"""Families that tie head and embedding where `config.json` leaves it out."""


def read_config(config_file: Path) -> dict[str, Any]:
    """Return a model's `config.json`.

    Raises:
        DataError: it cannot be read, or is not a JSON object.
    """
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{config_file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        hint = "a Git LFS pointer: run `git lfs pull` there" if is_lfs_pointer(config_file) else str(error)
        raise DataError(f"{config_file}: not a model configuration ({hint})") from None
    if not isinstance(config, dict):
        raise DataError(f"{config_file}: not a model configuration (no JSON object)")
    return config


def is_lfs_pointer(path: Path) -> bool:
    """Say whether a file is what Git leaves in the place of a large one."""
    try:
        with open(path, "rb") as file:
            return file.read(40).startswith(b"version https://git-lfs")
    except OSError:
        return False


def shape_of(config_file: Path) -> dict[str, Any]:
    """Return the shape that a `config.json` states, as fields of `ModelCard`.

    Raises:
        ConfigError: a kind of model that is no causal language model on its own.
        DataError: not a configuration, or one without a number that is needed.
    """
    config = read_config(config_file)
    family = str(config.get("model_type"))
    try:
        if "model_type" not in config:
            raise ValueError("no model_type")
        if "text_config" in config or config.get("is_encoder_decoder"):
            kind = "an encoder-decoder" if config.get("is_encoder_decoder") else "a multimodal model"
            raise ConfigError(f"{config_file}: {family} is {kind}; a causal language model is needed")
        return {"family": family, **_numbers(family, config)}
    except (TypeError, ValueError, ZeroDivisionError) as error:
        told = f"model_type {family!r}: " if "model_type" in config else ""
        raise DataError(f"{config_file}: not the configuration of a language model ({told}{error})") from None


def _numbers(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    needed = {field: int(_needed(config, names)) for field, names in _NAMES.items()}
    if any(value < 1 for value in needed.values()):
        raise ValueError(f"numbers below 1: {needed}")
    heads, dim = int(_first(config, _HEADS) or 1), needed["model_dim"]  # families without attention have none
    kv_heads = 1 if family in ("falcon", "gpt_bigcode") and config.get("multi_query") else heads
    if family != "falcon" or config.get("new_decoder_architecture"):
        kv_heads = int(_first(config, _KV_HEADS) or kv_heads)
    intermediate = int(_first(config, _INTERMEDIATE) or 4 * dim)
    found: dict[str, Any] = {
        **needed,
        "num_heads": heads,
        "intermediate_dim": intermediate,
        "num_kv_heads": kv_heads,
        "head_dim": int(config.get("head_dim") or dim // heads),
        "tied": bool(config.get("tie_word_embeddings", family in _TIED)),
        "positions": _positions(config),
    }
    experts = int(_first(config, _EXPERTS) or 0)
    if experts > 1:
        used = int(_first(config, _EXPERTS_USED) or 1)
        size = int(config.get("moe_intermediate_size") or intermediate)
        shared = int(config.get("shared_expert_intermediate_size") or size * int(config.get("n_shared_experts") or 0))
        found |= {"experts_dim": experts * size + shared, "experts_used_dim": used * size + shared}
    return found


def _positions(config: Mapping[str, Any]) -> int | None:
    """Return the longest text; None where positions are not limited (ALiBi, none)."""
    if config.get("alibi") or config.get("model_type") in ("bloom", "mpt"):
        return None
    value = _first(config, _POSITIONS)
    return int(value) if value else None


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _needed(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value = _first(config, names)
    if value is None:
        raise ValueError(f"it has no {' or '.join(names)}")
    return value
