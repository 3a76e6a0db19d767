"""Upper blocks that let states in one after the other: when they are trusted to, and that nothing of them stays."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.lm.cut import find_blocks
from trainables.lm.staggered import Staggered
from trainables.lm.upper import load_upper

FP32 = torch.float32


@pytest.fixture
def card(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    return replace(make_model(), key="llama:staggered")


def test_a_verdict_of_an_earlier_version_is_made_again(card: Any, tmp_path: Path) -> None:
    assert load_upper(card, 1, FP32, "cpu").staggers
    (file,) = tmp_path.rglob("upper_1.json")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in told.items() if name != "staggers"}))
    assert load_upper(card, 1, FP32, "cpu").staggers
    assert json.loads(file.read_text()) == told
    file.write_text(json.dumps({**told, "staggers": False}))
    assert not load_upper(card, 1, FP32, "cpu").staggers, "what was found is kept"


def test_blocks_that_are_told_of_others_states_are_found_out(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Staggered, "told", lambda self, value: value)
        upper = load_upper(card, 1, FP32, "cpu")
    assert upper.direct and not upper.staggers, "the rest of it is right"
    with pytest.raises(ValueError, match="not after 2"):
        upper(torch.zeros(1, 3, card.model_dim), layers=2)


def test_a_model_that_is_dropped_is_gone_at_once(card: Any) -> None:
    load_upper(card, 1, FP32, "cpu")
    gc.collect()
    gc.disable()
    try:
        upper = load_upper(card, 1, FP32, "cpu")
        held = [weakref.ref(upper.model), weakref.ref(find_blocks(upper.model)[2][-1])]
        del upper
        assert [each() for each in held] == [None, None], "no block holds itself"
    finally:
        gc.enable()
