"""Text to token ids, one way for training, probes and references."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from trainables.lm.card import ModelCard
from trainables.lm.weights import tokenizer_folder


def load_tokenizer(card: ModelCard) -> Any:
    """Return the model's tokenizer (a `transformers` fast tokenizer).

    Raises:
        ConfigError: the hub does not have the model.
    """
    return AutoTokenizer.from_pretrained(tokenizer_folder(card))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text: BOS first if the tokenizer adds one, never EOS."""
    return _start(tokenizer) + _plain(tokenizer, text)


def segments(tokenizer: Any, text: str, segment_tokens: int, max_segments: int) -> list[list[int]]:
    """Cut a text into the segments that are memorised; without overlap (ours).

    Args:
        tokenizer: as from `load_tokenizer`.
        text: of any length.
        segment_tokens: most tokens of a segment, BOS included.
        max_segments: the text beyond is left out.

    Returns:
        Token ids per segment, each starting with BOS if the tokenizer adds one. A segment of a single token
        is left out, because nothing in it can be predicted.

    Raises:
        ValueError: `segment_tokens` has no room for text.
    """
    start, tokens = _start(tokenizer), _plain(tokenizer, text)
    step = segment_tokens - len(start)
    if step < 1:
        raise ValueError(f"segments of {segment_tokens} tokens have no room for text after BOS")
    cut = [start + tokens[at : at + step] for at in range(0, len(tokens), step)][:max_segments]
    return [segment for segment in cut if len(segment) > 1]


def _plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _start(tokenizer: Any) -> list[int]:
    """Return `[BOS]` if the tokenizer puts one before a text, else nothing."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return []
    ids = tokenizer("a")["input_ids"]
    return [bos] if ids[:1] == [bos] and _plain(tokenizer, "a")[:1] != [bos] else []
