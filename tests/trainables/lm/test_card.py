"""What a model name means: aliases, folders, sample models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from trainables.errors import ConfigError, DataError
from trainables.lm.aliases import MODELS
from trainables.lm.card import ALIASES, ModelCard, model_card
from trainables.lm.hub_commit import hub_commit
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec


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
    [
        ('{"model_type": "gemma3", "text_config": {}}', ConfigError),
        ('{"model_type": "t5", "is_encoder_decoder": true}', ConfigError),
        ("{", DataError),
        ("[]", DataError),
        ('{"model_type": "llama"}', DataError),
        ("version https://git-lfs.github.com/spec/v1", DataError),
    ],
)
def test_a_model_of_another_type_or_a_broken_config_is_refused(
    folder: Path, config: str, error: type[Exception]
) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(error, match="config.json"):
        model_card(str(folder))


def key_of(folder: Path) -> str:
    model_card.cache_clear()
    return model_card(str(folder)).key


def test_all_that_changes_token_ids_or_the_end_of_an_answer_is_part_of_what_a_model_is(folder: Path) -> None:
    keys = [key_of(folder)]
    for name, content in (
        ("tokenizer_config.json", {"add_bos_token": False}),
        ("tokenizer_config.json", {"add_bos_token": True}),
        ("special_tokens_map.json", {"bos_token": "<s>"}),
        ("added_tokens.json", {"<x>": 9}),
        ("merges.txt", "a b"),
        ("generation_config.json", {"eos_token_id": [1, 2]}),
        ("generation_config.json", {"eos_token_id": 2}),
        ("config.json", json.loads((folder / "config.json").read_text()) | {"rope_theta": 5.0}),
        ("tokenizer.model", "s"),
    ):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        keys.append(key_of(folder))
    assert len(set(keys)) == len(keys)


def test_what_changes_no_number_is_not(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    before = key_of(folder)
    template = {"chat_template": "{{ x }}", "model_max_length": 5, "name_or_path": "/there", "padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, **template}))
    (folder / "chat_template.jinja").write_text("{{ x }}")
    (folder / "README.md").write_text("a model")
    (folder / "pytorch_model.bin").write_bytes(b"a second copy, which is not loaded")
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6}))
    assert key_of(folder) == before


def test_a_path_of_the_hubs_cache_is_called_as_on_the_hub(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--HuggingFaceTB--SmolLM2-135M" / "snapshots" / ("c0ffee" * 7)[:40]
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    card = model_card(str(snapshot))
    assert (card.name, card.commit, card.is_hub) == ("HuggingFaceTB/SmolLM2-135M", snapshot.name, False)


@pytest.mark.parametrize("name", ["pythia-160m", "Pythia_160M", "sample-llama"])
def test_a_folder_that_bears_an_aliass_name_is_said_to_be_one(folder: Path, tmp_path: Path, name: str) -> None:
    assert model_card(str(shutil.copytree(folder, tmp_path / "x" / name))).name == f"{name} (local folder)"


def test_a_hub_model_is_the_commit_that_its_branch_stands_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--EleutherAI--pythia-70m" / "refs"
    refs.mkdir(parents=True)
    found = []
    for commit in ("a" * 40, "b" * 40):
        (refs / "main").write_text(commit)
        model_card.cache_clear()
        hub_commit.cache_clear()
        spec = TrialSpec(model="pythia-70m", layer=1, data="sample")
        card, plain = model_card("pythia-70m"), canonical(spec)
        assert (card.key, card.revision, card.commit) == (f"EleutherAI/pythia-70m@{commit}", "main", commit)
        assert plain.revision == commit and model_card(plain.model, plain.revision).key == card.key, "workers take it"
        found.append(trial_id(identity(spec)))
        assert trial_id(identity(plain)) == found[-1]
    assert found[0] != found[1]
    model_card.cache_clear()
    hub_commit.cache_clear()


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(ALIASES)))
def test_every_other_alias_has_a_shape_of_its_nominal_size(name: str) -> None:
    card = model_card(name)
    size = name.rpartition("-")[2]
    assert card.params == pytest.approx(
        float(size[:-1]) * {"m": 1e6, "b": 1e9}[size[-1]], rel=0.5 if "olmo" in name else 0.25
    )
    assert MODELS[name].licence and MODELS[name].source.count("/") == 1


def test_shapes_are_read_under_every_familys_names(folder: Path) -> None:
    config = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    }
    (folder / "config.json").write_text(json.dumps(config))
    card = model_card(str(folder))
    assert (card.family, card.num_blocks, card.model_dim, card.intermediate_dim) == ("gpt2", 12, 768, 3072)
    assert (card.tied, card.positions, card.block_params) == (True, 1024, 12 * 768 * 768)


def test_a_tokens_share_of_the_experts_is_what_it_costs(folder: Path) -> None:
    config = {
        "model_type": "mixtral", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9,
        "num_key_value_heads": 1, "intermediate_size": 16, "num_local_experts": 8, "num_experts_per_tok": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    card, attention = model_card(str(folder)), 8 * 8 * 2 + 8 * 4 * 2
    assert (card.block_params, card.active_block_params) == (attention + 24 * 16 * 8, attention + 24 * 16 * 2)


def test_an_adapter_alone_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    model_card(str(folder))
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    model_card.cache_clear()
    with pytest.raises(ConfigError, match="an adapter without its base model .*merge_and_unload"):
        model_card(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="an adapter without its base model .*merge_and_unload"):
        model_card(str(folder))


def test_the_documented_table_is_the_aliases() -> None:
    rows = (Path(__file__).parents[3] / "docs" / "models.md").read_text().splitlines()
    for name, alias in MODELS.items():
        millions = f"{model_card(name).params / 1e6:,.0f} million"
        gated = " (gated)" if alias.is_gated else ""
        cells = (f"`{name}`", alias.source, alias.licence + gated, millions, alias.num_blocks, f"{alias.positions:,}")
        assert f"| {' | '.join(map(str, cells))} |" in rows
    assert sum(row.startswith("| `") for row in rows) == len(MODELS)
