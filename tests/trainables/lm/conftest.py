"""Tiny random models of both families, saved as their users' folders are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

from trainables.lm.card import ModelCard
from trainables.lm.folder_identity import folder_key, weight_files

sys.path.insert(0, str(Path(__file__).parent))  # for `families`, which several test files use

VOCAB, DIM, BLOCKS = 61, 32, 4
MakeModel = Callable[..., ModelCard]


def config(family: str, tied: bool) -> Any:
    if family == "llama":
        return LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=DIM,
            intermediate_size=48,
            num_hidden_layers=BLOCKS,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    return GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=DIM,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        tie_word_embeddings=tied,
        rope_parameters=rope,
        initializer_range=0.2,
    )


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Return a function that saves a random model and returns its card (equal arguments: the same one)."""
    made: dict[tuple[Any, ...], ModelCard] = {}

    def make(family: str = "llama", tied: bool = False, sharded: bool = False, bin_files: bool = False) -> ModelCard:
        key = (family, tied, sharded, bin_files)
        if key not in made:
            made[key] = card_of(save(tmp_path_factory.mktemp("model"), *key), family, tied)
        return made[key]

    return make


def save(folder: Path, family: str, tied: bool, sharded: bool, bin_files: bool) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(family, tied))
    for parameter in model.parameters():  # norms and biases too, or a swap of two of them would not be seen
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    if bin_files:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder, max_shard_size="20KB" if sharded else "1GB")
    return folder


def card_of(folder: Path, family: str, tied: bool) -> ModelCard:
    return ModelCard(
        name=f"tiny-{family}",
        key=f"{family}:{folder_key(folder, weight_files(folder), [])[:16]}",
        source=str(folder),
        revision="main",
        family=family,
        num_blocks=BLOCKS,
        model_dim=DIM,
        intermediate_dim=48,
        num_heads=4,
        num_kv_heads=2 if family == "llama" else 4,
        head_dim=8,
        vocab_size=VOCAB,
        tied=tied,
    )
