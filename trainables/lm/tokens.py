"""Text to token ids, one way for training, probes and references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from trainables.errors import DataError
from trainables.lm.card import ModelCard
from trainables.lm.token_tables import segments_of
from trainables.lm.weights import tokenizer_folder


def load_tokenizer(card: ModelCard) -> Any:
    """Return the model's tokenizer (a `transformers` fast tokenizer).

    Raises:
        ConfigError: the hub does not have the model.
    """
    return AutoTokenizer.from_pretrained(tokenizer_folder(card), trust_remote_code=False)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text, as `tokenizer(text)` does but for what that puts behind it (never EOS)."""
    return text_start(tokenizer) + _plain(tokenizer, text)


def end_tokens(tokenizer: Any) -> frozenset[int]:
    """Return the token ids that end an answer, as for `generate`: those of the model's generation configuration.

    A model without one has its configuration's; a tokenizer that comes from no model's folder has its own.
    """
    folder = Path(getattr(tokenizer, "name_or_path", "") or "/nowhere")
    if (folder / "generation_config.json").is_file():
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
    elif (folder / "config.json").is_file():
        ends = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder)).eos_token_id
    else:
        ends = tokenizer.eos_token_id
    return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)


def segments(tokenizer: Any, text: str, segment_tokens: int, max_segments: int) -> list[list[int]]:
    """Cut a text into the segments that are memorised; without overlap (ours).

    Args:
        tokenizer: as from `load_tokenizer`.
        text: of any length.
        segment_tokens: most tokens of a segment, BOS included.
        max_segments: the text beyond is left out.

    Returns:
        Token ids per segment, each starting with what the tokenizer puts before a text (BOS). A segment of a single
        token is left out, because nothing in it can be predicted.

    Raises:
        ValueError: `segment_tokens` has no room for text.
    """
    return segments_of(text_start(tokenizer), _plain(tokenizer, text), segment_tokens, max_segments)


def _plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def text_start(tokenizer: Any) -> list[int]:
    """Return what the tokenizer puts before a text: `[BOS]`, more than that, or nothing.

    Its post-processor may do it without naming a BOS, so a text is encoded with and without.
    """
    plain = _plain(tokenizer, "a")
    whole: list[int] = tokenizer("a", verbose=False)["input_ids"]
    for place in range(len(whole) - len(plain) + 1):
        if plain and whole[place : place + len(plain)] == plain:
            return whole[:place]
    raise DataError(
        f"{getattr(tokenizer, 'name_or_path', '') or 'the tokenizer'}: encodes a text with special tokens as {whole}, "
        f"without as {plain}; these do not fit together"
    )
