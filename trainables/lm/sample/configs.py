"""Shapes of the two sample language models."""

from __future__ import annotations

from typing import Any

SAMPLE_MODELS: dict[str, dict[str, Any]] = {
    "sample-llama": {
        "family": "llama",
        "num_blocks": 8,
        "model_dim": 64,
        "intermediate_dim": 128,
        "num_heads": 2,
        "num_kv_heads": 1,
        "vocab_size": 768,
        "tied": True,
        "positions": 2048,
    },
    "sample-neox": {
        "family": "gpt_neox",
        "num_blocks": 8,
        "model_dim": 64,
        "intermediate_dim": 128,
        "num_heads": 2,
        "num_kv_heads": 2,
        "vocab_size": 768,
        "tied": False,
        "positions": 2048,
    },
}
"""Architecture numbers by model name: eight blocks, so that the study's depths fall on different blocks."""
