"""Model folders come from disk or the hub, and fingerprints follow the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from trainables.errors import ConfigError, DataError
from trainables.lm import weights
from trainables.lm.card import ModelCard
from trainables.lm.weights import model_fingerprint, model_folder, tokenizer_folder


@pytest.fixture
def hub_card(make_model: Any, tmp_path: Path) -> ModelCard:
    name = tmp_path.name
    return replace(make_model(), source=f"someone/{name}", key=f"someone/{name}@main", is_hub=True)


class Hub:
    """Stands for the hub: gives the files that match, as a snapshot folder named after the commit."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names, self.given = folder / "c0ffee", names, set[str]()

    def snapshot_download(self, source: str, revision: str, allow_patterns: list[str]) -> str:
        self.folder.mkdir(exist_ok=True)
        for name in self.names:
            if any(Path(name).match(pattern) for pattern in allow_patterns):
                (self.folder / name).touch()
                self.given.add(name)
        return str(self.folder)


def test_a_folder_is_used_as_it_is(make_model: Any) -> None:
    card = make_model()
    assert model_folder(card) == tokenizer_folder(card) == Path(card.source)
    assert model_fingerprint(card) == card.key.replace(":", "--")


@pytest.mark.parametrize("has_safetensors", [True, False])
def test_one_kind_of_weights_is_downloaded(
    hub_card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_safetensors: bool
) -> None:
    others = ["config.json", "tokenizer.json", "pytorch_model.bin", "consolidated.safetensors"]
    hub = Hub(tmp_path, others + ["model.safetensors"] * has_safetensors)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    assert tokenizer_folder(hub_card) == hub.folder
    assert hub.given == {"config.json", "tokenizer.json"}
    assert model_folder(hub_card) == hub.folder
    weights = "model.safetensors" if has_safetensors else "pytorch_model.bin"
    assert hub.given == {"config.json", "tokenizer.json", weights}
    assert model_fingerprint(hub_card) == f"someone--{tmp_path.name}@c0ffee", "the commit, not the branch"


def test_a_model_without_weights_is_named(hub_card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(tmp_path, ["config.json"]).snapshot_download)
    with pytest.raises(DataError, match="neither"):
        model_folder(hub_card)


def test_a_refusal_of_the_hub_is_one_line(hub_card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find the requested files.\nMore about it.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ConfigError, match="cannot be had from the hub") as caught:
        model_folder(hub_card)
    assert "\n" not in str(caught.value)


def test_a_sample_model_made_anew_has_another_fingerprint(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(make_model(), source="", key="sample-llama@v1", is_sample=True)
    monkeypatch.setattr(weights, "model_folder", lambda card: tmp_path)
    prints = []
    for content in (b"one", b"two"):
        (tmp_path / "model.safetensors").write_bytes(content)
        prints.append(model_fingerprint.__wrapped__(card))
    assert prints[0] != prints[1] and all(found.startswith("sample-llama@v1-") for found in prints)
