"""Texts become tokens with BOS where the model expects one, and never EOS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from trainables.lm.tokens import encode, load_tokenizer, segments


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
