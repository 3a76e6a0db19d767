"""Tokens of many documents in an Arrow file that is mapped from disk rather than held in memory.

One row a document: `tokens`, those of its segments one after the other, and `segment_lengths`. The file is an Arrow
stream, which `datasets.Dataset.from_file` opens as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.token_tables import BATCH_DOCUMENTS, SCHEMA, Encode, FastEncoder, segments_of, tokenised, tokens_of
from trainables.lm.tokens import text_start
from trainables.node.map_batches import MapBatches, map_here

PIECE_DOCUMENTS = 4 * BATCH_DOCUMENTS
"""Texts of a table that is mapped: a second of work at 400 tokens each, and 10 MB."""
ROWS = 8 * PIECE_DOCUMENTS
"""Documents of a record batch: 50 MB of tokens at 400 each, and one array to look in for so many."""


def write_tokens(
    path: Path,
    texts: Iterable[str],
    tokenizer: Any,
    segment_tokens: int,
    max_segments: int,
    map_batches: MapBatches = map_here,
) -> CorpusTokens:
    """Cut texts into segments as `trainables.lm.tokens.segments` does, write their tokens, and map the file.

    Args:
        path: the file to write; it has the same bytes wherever the tokens were made.
        texts: one a document, read once.
        tokenizer: as from `load_tokenizer`.
        segment_tokens: most tokens of a segment, what comes before a text included.
        max_segments: the text beyond is left out.
        map_batches: where to compute; a tokenizer that is none of the `tokenizers` library works here alone.

    Raises:
        OSError: the disk is full or cannot be written to.
        ValueError: `segment_tokens` has no room for text.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for rows in _made(texts, tokenizer, segment_tokens, max_segments, map_batches):
            writer.write_batch(rows)
    return map_tokens(path)


def memory_tokens(
    texts: Iterable[str],
    tokenizer: Any,
    segment_tokens: int,
    max_segments: int,
    map_batches: MapBatches = map_here,
) -> CorpusTokens:
    """Return the same tokens held in memory: where no file can be written. Arguments as for `write_tokens`."""
    return tokens_of(pa.Table.from_batches(_made(texts, tokenizer, segment_tokens, max_segments, map_batches), SCHEMA))


def _made(
    texts: Iterable[str], tokenizer: Any, segment_tokens: int, max_segments: int, map_batches: MapBatches
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file of tokens."""
    start, remaining = text_start(tokenizer), iter(texts)
    segments_of(start, [], segment_tokens, max_segments)  # raises here, not on another machine
    encode: Encode = partial(_encoded, tokenizer)
    if tokenizer.is_fast:
        core = tokenizer.backend_tokenizer
        encode = FastEncoder(core, core.encode_special_tokens)
    else:
        map_batches = map_here
    make = partial(tokenised, encode, start, segment_tokens, max_segments)

    def pieces() -> Iterator[pa.Table]:
        while piece := list(islice(remaining, PIECE_DOCUMENTS)):
            yield pa.table({"text": pa.array(piece, pa.large_string())})

    yield from _in_batches(map_batches(make, pieces()))


def _in_batches(tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some tables, `ROWS` at a time."""
    held = SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while len(held) >= ROWS:
            yield _batch(held.slice(0, ROWS))
            held = held.slice(ROWS)
    if len(held):
        yield _batch(held)


def _batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def map_tokens(path: Path) -> CorpusTokens:
    """Return the tokens of a file that `write_tokens` wrote; they stay on disk until they are read."""
    with pa.memory_map(str(path)) as source:
        return tokens_of(pa.ipc.open_stream(source).read_all())
