from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.detokenize import detokenize


@pytest.mark.parametrize(
    ("tokenised", "written"),
    [
        ("Ann -LRB- born 1990 -RRB- sings .", "Ann (born 1990) sings."),
        ("He said -LSB- sic -RSB- , -LCB- x -RCB- ; no : yes ?", "He said [sic], {x}; no: yes?"),
        ("known as `` The Rock '' , he", 'known as "The Rock", he'),
        ("Stan `` The Man '' -LRB- b. 1921 -RRB-", 'Stan "The Man" (b. 1921)'),
        ("Wilson 's son did n't say they 'll or I 'm .", "Wilson's son didn't say they'll or I'm."),
        ("the series ' creator and Gass ' guitar", "the series' creator and Gass' guitar"),
        ("the story is ' Up ' here", "the story is ' Up ' here"),
        ("of ` The Anvil Chorus ' .", "of 'The Anvil Chorus'."),
        ("December 28 , 1856 -- February 3 , 1924", "December 28, 1856 – February 3, 1924"),
        ("$ 12 million , # 22 , 57 %", "$12 million, #22, 57%"),
        ("the .38 Special founder", "the .38 Special founder"),
        ("It ended .  Then more . ", "It ended. Then more."),
        ("", ""),
        ("Nothing to undo here.", "Nothing to undo here."),
    ],
)
def test_tokenised_text_reads_as_written(tokenised: str, written: str) -> None:
    assert detokenize(tokenised) == written


PIECES = ["-LRB-", "-RRB-", "-LSB-", "-RSB-", "``", "''", "`", "'", "'s", "n't", "s", "is", "--", "$", "#"]
PIECES += ["5", ".", ",", ":", "%", "...", "(", ")", "[", '"', "word", "-", "LRB", " ", "  ", "\n"]


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " "])), max_size=12))
def test_twice_is_the_same_as_once(pieces: list[tuple[str, str]]) -> None:
    once = detokenize("".join(piece + space for piece, space in pieces))
    assert detokenize(once) == once


@given(st.text(alphabet="ab s'`-$#5.,:!?()[]\"n t", max_size=30))
def test_words_and_digits_are_never_lost(text: str) -> None:
    assert [c for c in detokenize(text) if c.isalnum()] == [c for c in text if c.isalnum()]
