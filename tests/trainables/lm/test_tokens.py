"""Texts become tokens with BOS where the model expects one, and never EOS."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from trainables.lm.card import ModelCard, model_card
from trainables.lm.tokens import encode, end_tokens, load_tokenizer, segments


def card_of(folder: Path) -> ModelCard:
    return model_card(str(folder))


def tokenizer(template: str) -> Any:
    words = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, **{f"w{i}": i for i in range(4, 40)}}
    plain = Tokenizer(WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = Whitespace()
    plain.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, **names)


@pytest.mark.parametrize(("template", "start"), [("$A", []), ("<s> $A", [0]), ("<s> $A </s>", [0]), ("$A </s>", [])])
def test_bos_if_the_tokenizer_adds_one_and_never_eos(template: str, start: list[int]) -> None:
    assert encode(tokenizer(template), "w5 w6") == [*start, 5, 6]
    assert encode(tokenizer(template), "") == start


@pytest.mark.parametrize("template", ["<s> $A", "<s> </s> $A", "$A"])
def test_what_the_post_processor_adds_counts_though_no_bos_is_named(template: str) -> None:
    unnamed = tokenizer(template)
    unnamed.bos_token = None
    for text in ("w5 w6", "a", "w7"):
        assert encode(unnamed, text) == unnamed(text)["input_ids"]


@pytest.mark.parametrize(("ends", "expected"), [([1], {1}), ([1, 7], {1, 7}), (7, {7}), (None, set())])
def test_an_answer_ends_where_generate_ends_it(make_model: Any, tmp_path: Path, ends: Any, expected: set[int]) -> None:
    shutil.copytree(make_model().source, tmp_path / "model")
    tokenizer("$A").save_pretrained(tmp_path / "model")
    (tmp_path / "model/generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    found = end_tokens(load_tokenizer(card_of(tmp_path / "model")))
    assert found == expected


def test_without_a_generation_configuration_the_models_own_end_counts(make_model: Any, tmp_path: Path) -> None:
    shutil.copytree(make_model().source, tmp_path / "model")
    tokenizer("$A").save_pretrained(tmp_path / "model")
    (tmp_path / "model/generation_config.json").unlink(missing_ok=True)
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"eos_token_id": [5, 6]}))
    assert end_tokens(load_tokenizer(card_of(tmp_path / "model"))) == {5, 6}
    assert end_tokens(tokenizer("$A")) == {1}, "a tokenizer of no model"


@pytest.mark.parametrize(("template", "start"), [("$A", []), ("<s> $A", [0])])
def test_segments_hold_the_text_in_order_within_their_size(template: str, start: list[int]) -> None:
    text = " ".join(f"w{i}" for i in range(4, 27))
    cut = segments(tokenizer(template), text, segment_tokens=6, max_segments=10)
    assert all(segment[: len(start)] == start and len(segment) <= 6 for segment in cut)
    assert [token for segment in cut for token in segment[len(start) :]] == list(range(4, 27))
    assert segments(tokenizer(template), text, 6, 2) == cut[:2]


def test_a_segment_with_nothing_to_predict_is_left_out() -> None:
    assert segments(tokenizer("$A"), "w4 w5 w6 w7", 3, 10) == [[4, 5, 6]]
    assert segments(tokenizer("<s> $A"), "w4 w5 w6", 3, 10) == [[0, 4, 5], [0, 6]]
    assert segments(tokenizer("<s> $A"), "", 3, 10) == []


def test_segments_without_room_for_text_are_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        segments(tokenizer("<s> $A"), "w4", 1, 10)


def test_the_tokenizer_comes_from_the_models_folder(make_model: Any) -> None:
    card = make_model()
    tokenizer("<s> $A").save_pretrained(Path(card.source))
    assert encode(load_tokenizer(card), "w7") == [0, 7]
