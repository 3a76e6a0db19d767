"""What a model name means: aliases, folders, sample models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from trainables.errors import ConfigError, DataError
from trainables.lm.card import ALIASES, ModelCard, model_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model: shape, weights and tokenizer, the latter two of no use."""
    config = {
        "model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
        "num_hidden_layers": 30, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True,
    }  # fmt: skip
    made = tmp_path / "smol, v1"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(config))
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "tokenizer.json").write_text("{}")
    return made


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_every_alias_of_the_study_has_a_shape(alias: str) -> None:
    card = model_card(alias)
    assert card.is_hub and card.head_dim * card.num_heads == card.model_dim
    size = alias.rpartition("-")[2]
    nominal = float(size[:-1]) * {"m": 1e6, "b": 1e9}[size[-1]]
    assert card.params == pytest.approx(nominal, rel=0.1)


@pytest.mark.parametrize("spelled", ["llama2_chat 7b", "Llama2-Chat-7B", "llama2_chat-7b"])
def test_aliases_may_be_spelled_as_in_the_notes(spelled: str) -> None:
    assert model_card(spelled) == model_card("llama2_chat-7b")
    assert model_card(spelled).key == "meta-llama/Llama-2-7b-chat-hf@main"


def test_a_revision_is_part_of_what_a_hub_model_is() -> None:
    assert model_card("pythia-70m", "step1000").key != model_card("pythia-70m").key


def test_sample_models_need_no_files() -> None:
    cards = [model_card("sample-llama"), model_card("sample-neox")]
    assert [card.family for card in cards] == ["llama", "gpt_neox"]
    assert all(card.is_sample and not card.source for card in cards)


def test_a_folder_is_named_by_its_content(folder: Path, tmp_path: Path) -> None:
    card = model_card(str(folder))
    assert (card.name, card.num_blocks, card.num_kv_heads, card.head_dim) == ("smol, v1", 30, 3, 64)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert model_card(str(copy)).key == card.key
    (copy / "model.safetensors").write_bytes(b"others!")
    model_card.cache_clear()
    assert model_card(str(copy)).key != card.key


def test_parameters_are_counted() -> None:
    card = ModelCard("x", "x", "", "main", "llama", 2, 8, 16, 2, 1, 4, 100, True)
    assert card.block_params == 8 * 8 + 8 * 4 * 2 + 8 * 8 + 3 * 8 * 16
    assert card.params == 2 * card.block_params + 800


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_model_in_it_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match="not a model folder, it has no"):
        model_card(str(folder))


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="no such folder, alias or hub id, did you mean 'pythia-70m'"):
        model_card("pythia-70")


@pytest.mark.parametrize(
    ("config", "error"),
    [('{"model_type": "gpt2"}', ConfigError), ("{", DataError), ('{"model_type": "llama"}', DataError)],
)
def test_a_model_of_another_type_or_a_broken_config_is_refused(
    folder: Path, config: str, error: type[Exception]
) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(error, match="config.json"):
        model_card(str(folder))
