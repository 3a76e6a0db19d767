"""Texts and tokens of documents as tables, and the one made of the other.

Imports neither torch nor transformers, which take seconds: this is all that a task on another machine needs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trainables.lm.corpus_tokens import CorpusTokens, Ints

BATCH_DOCUMENTS = 1024
"""Texts that the tokenizer takes at a time."""
SCHEMA = pa.schema([("tokens", pa.list_(pa.int32())), ("segment_lengths", pa.list_(pa.int32()))])
"""Of a document: the tokens of its segments one after the other, and how many each segment has."""

Encode = Callable[[list[str]], Iterable[list[int]]]


@dataclass(frozen=True)
class FastEncoder:
    """The core of a tokenizer, which takes half of the time of the whole; pickled as its JSON.

    It cuts and pads as it was last told to: not at all, since `text_start` has asked for plain encodings.

    Attributes:
        core: of the `tokenizers` library.
        encode_special_tokens: whether special tokens in a text are text; no part of the JSON.
    """

    core: Tokenizer
    encode_special_tokens: bool

    def __call__(self, texts: list[str]) -> Iterator[list[int]]:
        """Yield the token ids of each text."""
        yield from (e.ids for e in self.core.encode_batch_fast(texts, add_special_tokens=False))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as values: another machine may not have the tokenizer's files."""
        return _fast_encoder, (self.core.to_str(), self.encode_special_tokens)


@lru_cache(maxsize=1)
def _fast_encoder(plain: str, encode_special_tokens: bool) -> FastEncoder:
    """Return what was pickled, made once in a process: a large vocabulary takes as long as hundreds of texts."""
    core = Tokenizer.from_str(plain)
    core.encode_special_tokens = encode_special_tokens
    return FastEncoder(core, encode_special_tokens)


def tokenised(
    encode: Encode, start: list[int], segment_tokens: int, max_segments: int, table: pa.Table
) -> Iterator[pa.Table]:
    """Yield a row for each text of a table: the tokens of its segments, and their lengths.

    Args:
        encode: gives the tokens of texts, without what comes before a text.
        start: what comes before a text (`trainables.lm.tokens.text_start`).
        segment_tokens: most tokens of a segment, `start` included.
        max_segments: the tokens beyond are left out.
        table: `text`, one a document.
    """
    texts = table.column("text").to_pylist()
    for place in range(0, len(texts), BATCH_DOCUMENTS):
        tokens, lengths = [], []
        for ids in encode(texts[place : place + BATCH_DOCUMENTS]):
            parts = segments_of(start, ids, segment_tokens, max_segments)
            tokens.append(np.array([token for part in parts for token in part], dtype=np.int32))
            lengths.append(np.array([len(part) for part in parts], dtype=np.int32))
        columns = [lists_of(np.concatenate(rows), np.cumsum([*map(len, rows)])) for rows in (tokens, lengths)]
        yield pa.Table.from_arrays(columns, schema=SCHEMA)


def lists_of(values: Ints, ends: NDArray[np.int64]) -> pa.ListArray:
    """Return a column of lists of 32-bit numbers, one after the other in `values`, each up to its end."""
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.asarray(values, dtype=np.int32)))


def segments_of(start: list[int], tokens: list[int], segment_tokens: int, max_segments: int) -> list[list[int]]:
    """Cut a text's tokens into segments (see `segments`).

    Args:
        start: what the tokenizer puts before a text (`text_start`).
        tokens: of the text, without that.
        segment_tokens: most tokens of a segment, `start` included.
        max_segments: the tokens beyond are left out.

    Raises:
        ValueError: `segment_tokens` has no room for text.
    """
    step = segment_tokens - len(start)
    if step < 1:
        raise ValueError(f"segments of {segment_tokens} tokens have no room for text after BOS")
    ends = range(0, min(len(tokens), step * max_segments), step)
    cut = [start + tokens[at : at + step] for at in ends]
    return [segment for segment in cut if len(segment) > 1]


def tokens_of(table: pa.Table) -> CorpusTokens:
    """Return the documents of a table that has the columns of `SCHEMA`, as views of it."""
    tokens = [_flat(chunk) for chunk in table.column("tokens").chunks]
    lengths = [chunk for chunk in table.column("segment_lengths").chunks]
    segment_ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *map(_flat, lengths)]), dtype=np.int64)
    per_document = [np.diff(chunk.offsets.to_numpy()) for chunk in lengths]
    document_ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *per_document]), dtype=np.int64)
    return CorpusTokens(MappedTokens(tokens), segment_ends, document_ends)


def _flat(chunk: pa.ListArray) -> NDArray[np.int32]:
    values: NDArray[np.int32] = chunk.flatten().to_numpy(zero_copy_only=True)
    return values


class MappedTokens:
    """Several arrays that are read as one, slice by slice.

    Args:
        parts: the arrays.
    """

    def __init__(self, parts: Sequence[NDArray[np.int32]]) -> None:
        """Note where each part ends."""
        self._parts = [np.zeros(0, dtype=np.int32), *parts]
        self._ends: list[int] = np.cumsum([len(part) for part in self._parts]).tolist()

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self._ends[-1]

    def __getitem__(self, places: slice) -> Ints:
        """Return some tokens; a slice within one part is a view."""
        start, stop, _ = places.indices(len(self))
        first, last = (bisect_right(self._ends, place) for place in (start, max(start, stop - 1)))
        found = []
        for number in range(first, min(last, len(self._parts) - 1) + 1):
            before = self._ends[number - 1]
            found.append(self._parts[number][max(0, start - before) : max(0, stop - before)])
        return found[0] if len(found) == 1 else np.concatenate([self._parts[0], *found])
