"""Model folders come from disk or the hub, and fingerprints follow the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainables.lm import weights
from trainables.lm.weights import model_fingerprint, model_folder, tokenizer_folder


def test_a_folder_is_used_as_it_is(make_model: Any) -> None:
    card = make_model()
    assert model_folder(card) == tokenizer_folder(card) == Path(card.source)
    assert model_fingerprint(card) == card.key.replace(":", "--")


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
