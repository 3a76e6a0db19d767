from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.lm.tokens import encode
from trainables.probes.answer_letter import ContinuationDecoder, could_become_answer, parse_answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" (a)", "a"),
        ("(b)", "b"),
        ("   (c) not enough info\nClaim: x (a)", "c"),
        (" (d)", None),
        (" (A)", None),
        ("\n(a)", None),
        (" a)", None),
        (" ( a)", None),
        (" (a", None),
        (" The claim is (a)", None),
        ("", None),
    ],
)
def test_only_a_letter_in_brackets_at_the_start_is_an_answer(text: str, letter: str | None) -> None:
    assert parse_answer(text) == letter


@given(st.text(alphabet=" (abcd)\n", max_size=7))
def test_a_text_could_become_an_answer_exactly_when_some_continuation_is_one(text: str) -> None:
    endings = ["", *("(a)"[cut:] for cut in range(3)), "b)", "c)"]
    assert could_become_answer(text) == any(parse_answer(text + ending) for ending in endings)


def test_a_continuation_reads_as_when_the_whole_text_is_decoded(tokenizer: Any) -> None:
    prompt = encode(tokenizer, "Claim: Röyksopp is a band.\nA:")
    decoder = ContinuationDecoder(tokenizer)
    generator = torch.Generator().manual_seed(0)
    for length in [1, 2, 3, 5] * 100:
        new = torch.randint(len(tokenizer) + 7, (length,), generator=generator).tolist()
        texts = [
            tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (prompt, prompt + new)
        ]
        assert decoder.text(prompt, new) == texts[1][len(texts[0]) :]


@pytest.mark.parametrize("answer", [" (a)", "(b)", "  (c)"])
def test_spaces_before_an_answer_survive_decoding(tokenizer: Any, answer: str) -> None:
    prompt = encode(tokenizer, "Claim: x.\nA:")
    whole = encode(tokenizer, f"Claim: x.\nA:{answer}")
    assert whole[: len(prompt)] == prompt
    assert ContinuationDecoder(tokenizer).text(prompt, whole[len(prompt) :]) == answer
