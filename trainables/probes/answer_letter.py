"""Reading an answer letter out of what the model writes after `A:`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_ANSWER_TOKENS = 5
"""An answer that has not shown its letter after so many tokens is unparsed (ours)."""

_ANSWER = re.compile(r" *\(([a-z])\)")
_BEGINNING = re.compile(r" *(\(([a-z])?)?")


def parse_answer(text: str, letters: str = "abc") -> str | None:
    """Return the letter of the `(a)`, `(b)`, … that opens the text, spaces aside; else None.

    Strict on purpose (note 000 counts anything else as no answer): a newline, a capital, another word
    before the letter, or the letter of no choice makes the answer unparsed.

    Args:
        text: what was written.
        letters: of the choices.
    """
    found = _ANSWER.match(text)
    return found.group(1) if found and found.group(1) in letters else None


def could_become_answer(text: str, letters: str = "abc") -> bool:
    """Tell whether the text shows a letter, or could by growing at its end."""
    if parse_answer(text, letters) is not None:
        return True
    begun = _BEGINNING.fullmatch(text)
    return begun is not None and (begun.group(2) or letters[0]) in letters


class ContinuationDecoder:
    """Turns generated token ids into the text that they add to a prompt.

    Decoding the new ids alone would lose the leading space that SentencePiece tokenizers keep inside the
    first token. So they are decoded behind the prompt's last token, and its text is cut off: the same
    text as from decoding the whole prompt, at the cost of one token. Results are kept, as few different
    answers occur.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Decode with `tokenizer`, special tokens left out."""
        self._tokenizer = tokenizer
        self._texts: dict[tuple[int, ...], str] = {}

    def text(self, prompt: Sequence[int], generated: Sequence[int]) -> str:
        """Return what `generated` adds to the text of `prompt` (token ids, at least one)."""
        behind = self._decode((prompt[-1],))
        return self._decode((prompt[-1], *generated))[len(behind) :]

    def _decode(self, ids: tuple[int, ...]) -> str:
        text = self._texts.get(ids)
        if text is None:
            text = self._texts[ids] = str(
                self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        return text
