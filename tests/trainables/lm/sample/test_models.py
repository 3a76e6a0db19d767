from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.data.sample.facts import SAMPLE_VERSION, make_world
from trainables.data.sample.wording import page_sentences
from trainables.data.sample.world import page_text, write_sample_world
from trainables.errors import ConfigError
from trainables.lm.sample import train
from trainables.lm.sample.background import CLAIMS_PER_PROMPT, Background, known_entities
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.lm.sample.models import ensure_sample_model
from trainables.lm.sample.train import Recipe, grow, make_sample_model, new_model, train_tokenizer

TINY = Recipe(seed_steps=3, grown_steps=2, batch_size=2, tokenizer_texts=100)
NAMES = tuple(SAMPLE_MODELS)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {name: train_tokenizer(name, 100) for name in NAMES}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("models") / name for name in NAMES}
    for name, folder in made.items():
        make_sample_model(name, folder, TINY)
    return made


def test_background_never_holds_a_development_claim_or_an_evidence_page(tmp_path: Path) -> None:
    world = write_sample_world(tmp_path)
    dev = (tmp_path / "fever" / "paper_dev.jsonl").read_text(encoding="utf-8")
    withheld = {json.loads(line)["claim"] for line in dev.splitlines()}
    assert len(withheld) > 500
    background = Background(world)
    texts = [background.text() for _ in range(1500)]
    claims = {line[7:] for text in texts for line in text.splitlines() if line.startswith("Claim: ")}
    assert not claims & withheld
    told = "\n".join(texts)
    assert not [claim for claim in withheld if claim in told]
    new = [entity for entity in world.evidence if entity not in known_entities(world)]
    assert not [entity.name for entity in new if f"{entity.name} " in told]
    assert [entity.name for entity in known_entities(world) if f"{entity.name} " in told]


def test_background_prompts_are_the_study_s_template() -> None:
    background = Background(make_world())
    prompts = [text for text in (background.text() for _ in range(100)) if text.startswith("Determine")]
    assert len(prompts) > 50
    for prompt in prompts:
        assert prompt.count("\nClaim: ") == prompt.count("\nA: (") == CLAIMS_PER_PROMPT
        assert prompt[-4:] in (" (a)", " (b)", " (c)")


@pytest.mark.parametrize("name", NAMES)
def test_any_text_survives_the_tokenizer(name: str, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[name]
    for text in ("Claim: Zoë won the Crown Prize.\nA:", " (a)", "  two  spaces , here .", "漢字 🙂\t\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer) <= SAMPLE_MODELS[name]["vocab_size"]


def test_only_the_llama_type_adds_a_bos(tokenizers: dict[str, Any]) -> None:
    llama, neox = tokenizers["sample-llama"], tokenizers["sample-neox"]
    assert llama.encode("A:")[0] == llama.bos_token_id
    assert llama.encode("A:")[1:] == llama.encode("A:", add_special_tokens=False)
    assert neox.encode("A:") == neox.encode("A:", add_special_tokens=False)


def test_pages_are_short(tokenizers: dict[str, Any]) -> None:
    for entity in make_world().evidence:
        text = page_text(page_sentences(entity, random.Random(0)))
        assert 40 <= len(tokenizers["sample-llama"].encode(text)) <= 130


@pytest.mark.parametrize("name", NAMES)
def test_growing_splits_every_block_s_contribution(name: str, tokenizers: dict[str, Any]) -> None:
    small = new_model(name, tokenizers[name], 3)
    grown = grow(name, small, tokenizers[name])
    blocks = SAMPLE_MODELS[name]["num_blocks"]
    assert len(grown.base_model.layers) == blocks
    for source, layer in enumerate(small.base_model.layers):
        copies = [grown.base_model.layers[block] for block in range(blocks) if block * 3 // blocks == source]
        assert len(copies) > 1
        for part, weights in layer.named_parameters():
            same = [dict(copy.named_parameters())[part] for copy in copies]
            is_output = any(output in part for output in train._OUTPUTS)
            torch.testing.assert_close(sum(same) if is_output else same[-1], weights)
    assert torch.equal(grown.get_output_embeddings().weight, small.get_output_embeddings().weight)


@pytest.mark.parametrize("name", NAMES)
def test_saved_model_and_tokenizer_reload(name: str, folders: dict[str, Path], tokenizers: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    model = AutoModelForCausalLM.from_pretrained(folders[name])
    text = "Claim: Nora Bulus is a pilot.\nA:"
    assert tokenizer.encode(text) == tokenizers[name].encode(text)
    shape, config = SAMPLE_MODELS[name], model.config
    assert config.model_type == shape["family"]
    assert config.num_hidden_layers == shape["num_blocks"]
    assert config.hidden_size == shape["model_dim"]
    assert config.intermediate_size == shape["intermediate_dim"]
    assert config.tie_word_embeddings == shape["tied"]
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == shape["tied"]
    logits = model(torch.tensor([tokenizer.encode(text)])).logits
    assert logits.shape[-1] == shape["vocab_size"]
    assert logits.isfinite().all()


def test_training_is_deterministic_and_leaves_the_global_generator_alone(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    make_sample_model("sample-llama", tmp_path, TINY)
    assert torch.equal(torch.get_rng_state(), before)
    assert threads == [1, 3], "one while it trains, for the same sums, and as before at the end"
    file = "model.safetensors"
    assert (tmp_path / file).read_bytes() == (folders["sample-llama"] / file).read_bytes()


def test_model_is_made_once_and_never_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    calls: list[str] = []

    def make(name: str, folder: Path, recipe: Recipe | None = None, progress: bool = False) -> None:
        calls.append(name)
        folder.mkdir()
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "make_sample_model", make)
    with pytest.raises(KeyboardInterrupt):
        ensure_sample_model("sample-neox")
    folder = tmp_path / f"sample-neox-v{SAMPLE_VERSION}"
    assert not folder.exists()
    assert ensure_sample_model("sample-neox", progress=False) == folder
    assert ensure_sample_model("sample-neox") == folder
    assert calls == ["sample-neox"] * 2
    assert not list(tmp_path.glob("*.part"))
    assert "trying and testing" in capsys.readouterr().err


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sample-llama'"):
        ensure_sample_model("sample-lama")
