"""Models that have a short name: the study's twelve, and small open ones of later years, with licence and shape.

A shape given here is that of the hub's `config.json`; it lets a sweep be planned without a network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A model on the hub.

    Attributes:
        source: hub id.
        licence: as the hub states it; gated models want it accepted there first.
        family: `model_type` of its configuration.
        num_blocks: blocks.
        model_dim: width of the hidden states.
        intermediate_dim: width inside the feed-forward part.
        num_heads: attention heads.
        num_kv_heads: key-value heads.
        vocab_size: rows of the embedding.
        tied: the head's weight is the embedding's.
        positions: longest text.
        head_dim: of one head.
        is_gated: whether the hub gives it only to those who accepted its licence.
        study: whether it is one of the study's.
    """

    source: str
    licence: str
    family: str
    num_blocks: int
    model_dim: int
    intermediate_dim: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    tied: bool
    positions: int
    head_dim: int
    is_gated: bool = False
    study: bool = False


def _pythia(size: str, blocks: int, dim: int, heads: int, vocab: int = 50304) -> Alias:
    source, head = f"EleutherAI/pythia-{size}", dim // heads
    shape = (blocks, dim, 4 * dim, heads, heads, vocab, False, 2048, head)
    return Alias(source, "Apache-2.0", "gpt_neox", *shape, study=True)


def _llama2(suffix: str, blocks: int, dim: int, heads: int, inner: int) -> Alias:
    source, shape = f"meta-llama/Llama-2-{suffix}-hf", (blocks, dim, inner, heads, heads, 32000, False, 4096, 128)
    return Alias(source, "Llama 2", "llama", *shape, is_gated=True, study=True)


APACHE = "Apache-2.0"
MODELS: dict[str, Alias] = {
    "llama2-13b": _llama2("13b", 40, 5120, 40, 13824),
    "llama2-7b": _llama2("7b", 32, 4096, 32, 11008),
    "llama2_chat-13b": _llama2("13b-chat", 40, 5120, 40, 13824),
    "llama2_chat-7b": _llama2("7b-chat", 32, 4096, 32, 11008),
    "pythia-12b": _pythia("12b", 36, 5120, 40, 50688),
    "pythia-6.9b": _pythia("6.9b", 32, 4096, 32, 50432),
    "pythia-2.8b": _pythia("2.8b", 32, 2560, 32),
    "pythia-1.4b": _pythia("1.4b", 24, 2048, 16),
    "pythia-1b": _pythia("1b", 16, 2048, 8),
    "pythia-410m": _pythia("410m", 24, 1024, 16),
    "pythia-160m": _pythia("160m", 12, 768, 12),
    "pythia-70m": _pythia("70m", 6, 512, 8),
    "smollm2-135m": Alias("HuggingFaceTB/SmolLM2-135M", APACHE, "llama", 30, 576, 1536, 9, 3, 49152, True, 8192, 64),
    "smollm2-360m": Alias("HuggingFaceTB/SmolLM2-360M", APACHE, "llama", 32, 960, 2560, 15, 5, 49152, True, 8192, 64),
    "smollm2-1.7b": Alias("HuggingFaceTB/SmolLM2-1.7B", APACHE, "llama", 24, 2048, 8192, 32, 32, 49152, True, 8192, 64),
    "qwen2.5-0.5b": Alias("Qwen/Qwen2.5-0.5B", APACHE, "qwen2", 24, 896, 4864, 14, 2, 151936, True, 32768, 64),
    "qwen2.5-1.5b": Alias("Qwen/Qwen2.5-1.5B", APACHE, "qwen2", 28, 1536, 8960, 12, 2, 151936, True, 131072, 128),
    "qwen3-0.6b": Alias("Qwen/Qwen3-0.6B", APACHE, "qwen3", 28, 1024, 3072, 16, 8, 151936, True, 40960, 128),
    "qwen3-1.7b": Alias("Qwen/Qwen3-1.7B", APACHE, "qwen3", 28, 2048, 6144, 16, 8, 151936, True, 40960, 128),
    "qwen3-4b": Alias("Qwen/Qwen3-4B", APACHE, "qwen3", 36, 2560, 9728, 32, 8, 151936, True, 40960, 128),
    "qwen3-8b": Alias("Qwen/Qwen3-8B", APACHE, "qwen3", 36, 4096, 12288, 32, 8, 151936, False, 40960, 128),
    "olmo2-1b": Alias("allenai/OLMo-2-0425-1B", APACHE, "olmo2", 16, 2048, 8192, 16, 16, 100352, False, 4096, 128),
    "tinyllama_chat-1.1b": Alias(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0", APACHE, "llama", 22, 2048, 5632, 32, 4, 32000, False, 2048, 64
    ),
    "llama3.2-1b": Alias(
        "meta-llama/Llama-3.2-1B", "Llama 3.2", "llama", 16, 2048, 8192, 32, 8, 128256, True, 131072, 64, is_gated=True
    ),
    "llama3.2-3b": Alias(
        "meta-llama/Llama-3.2-3B", "Llama 3.2", "llama", 28, 3072, 8192, 24, 8, 128256, True, 131072, 128, is_gated=True
    ),
    "gemma3-1b": Alias(
        "google/gemma-3-1b-pt", "Gemma", "gemma3_text", 26, 1152, 6912, 4, 1, 262144, True, 32768, 256, is_gated=True
    ),
}


def plain_name(name: str) -> str:
    """Return a name without what people spell differently: case, blanks, dashes and underscores."""
    return re.sub(r"[ _-]+", "-", name.strip().lower())


_BY_PLAIN_NAME = {plain_name(name): name for name in MODELS}


def find_alias(name: str) -> str | None:
    """Return the alias that a name spells, or None."""
    return _BY_PLAIN_NAME.get(plain_name(name))
