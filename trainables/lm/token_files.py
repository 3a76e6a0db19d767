"""Tokens of many documents in an Arrow file that is mapped from disk rather than held in memory.

One row a document: `tokens`, those of its segments one after the other, and `segment_lengths`. The file is an Arrow
stream, which `datasets.Dataset.from_file` opens as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainables.lm.corpus_tokens import CorpusTokens, Ints
from trainables.lm.tokens import segments_of, text_start

BATCH_DOCUMENTS = 1024
"""Texts that the tokenizer takes at a time."""
ROWS = 32 * BATCH_DOCUMENTS
"""Documents of a record batch: 50 MB of tokens at 400 each, and one array to look in for so many."""
_SCHEMA = pa.schema([("tokens", pa.list_(pa.int32())), ("segment_lengths", pa.list_(pa.int32()))])


def write_tokens(
    path: Path, texts: Iterable[str], tokenizer: Any, segment_tokens: int, max_segments: int
) -> CorpusTokens:
    """Cut texts into segments as `trainables.lm.tokens.segments` does, write their tokens, and map the file.

    Args:
        path: the file to write.
        texts: one a document, read once.
        tokenizer: as from `load_tokenizer`.
        segment_tokens: most tokens of a segment, what comes before a text included.
        max_segments: the text beyond is left out.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    start, remaining = text_start(tokenizer), iter(texts)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        while rows := list(_tokenised(islice(remaining, ROWS), tokenizer, start, segment_tokens, max_segments)):
            tokens, lengths = zip(*rows, strict=True)
            writer.write_batch(pa.record_batch([_lists(tokens), _lists(lengths)], schema=_SCHEMA))
    return map_tokens(path)


def _tokenised(
    texts: Iterator[str], tokenizer: Any, start: list[int], segment_tokens: int, max_segments: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Yield the tokens of each text's segments, and their lengths."""
    while batch := list(islice(texts, BATCH_DOCUMENTS)):
        for ids in _encoded(batch, tokenizer):
            parts = segments_of(start, ids, segment_tokens, max_segments)
            flat = [token for part in parts for token in part]
            yield np.array(flat, dtype=np.int32), np.array([len(part) for part in parts], dtype=np.int32)


def _encoded(batch: list[str], tokenizer: Any) -> Iterator[list[int]]:
    """Yield the token ids of each text; by the tokenizer's own core where it has one, which saves half of the time.

    That core cuts and pads as it was last told to: not at all, since `text_start` has asked for plain encodings.
    """
    if not tokenizer.is_fast:
        yield from tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        return
    yield from (e.ids for e in tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False))


def _lists(rows: Sequence[NDArray[np.int32]]) -> pa.Array:
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.concatenate(rows)))


def map_tokens(path: Path) -> CorpusTokens:
    """Return the tokens of a file that `write_tokens` wrote; they stay on disk until they are read."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
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
