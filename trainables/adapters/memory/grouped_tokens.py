"""The documents' tokens by group, read in blocks that fit the processor's cache: time and memory grow linearly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainables.adapters.memory.shingles import U64, text_shingle_ids
from trainables.lm.corpus_tokens import CorpusTokens, Ints
from trainables.lm.token_tables import SCHEMA, lists_of, tokens_of
from trainables.node.map_batches import MapBatches, map_here

BLOCK_TOKENS = 1 << 16
"""Tokens of a block: their hashes, half a megabyte, stay in the processor's cache."""
PIECE_TOKENS = 1 << 22
"""Tokens of a piece that may be computed on another machine: 16 MB, and 0.1 (sketches) to 0.8 s (100 hash functions) of
work."""

_PIECE_SCHEMA = pa.schema([("group", pa.int64()), *SCHEMA])

Rows = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Block:
    """Some documents of consecutive groups.

    Attributes:
        tokens: `[T]` token ids.
        position: `[T]` place of each token in its segment.
        is_last: `[T]` whether a segment ends there.
        row: `[T]` the group of each token, counted from `first`.
        first: the first group.
        num_groups: groups that have a document here; the last may go on in the next block.
    """

    tokens: Ints
    position: NDArray[np.int64]
    is_last: NDArray[np.bool_]
    row: NDArray[np.int64]
    first: int
    num_groups: int

    def shingles(self, width: int, also_shorter: bool = False) -> tuple[U64, NDArray[np.int64]]:
        """Return the ids of the shingles here, repeated ones too, and the row of each.

        Args:
            width: tokens per shingle; a segment that is shorter counts as one shingle (ours).
            also_shorter: add the shorter shingles that end at the first tokens of every segment.
        """
        ids = text_shingle_ids(self.tokens, self.position, width)
        if also_shorter or width == 1:
            return ids, self.row
        chosen = (self.position >= width - 1) | self.is_last
        return ids[chosen], self.row[chosen]


class GroupedTokens:
    """Documents in groups.

    Args:
        corpus: the documents' tokens.
        groups: the group of each document, from 0 on without gaps; None for one each.
        map_batches: where `rows` are computed.

    Attributes:
        groups: `[D]`.
        num_groups: how many.
        lengths: `[num_groups]` tokens of each group.
    """

    def __init__(
        self,
        corpus: CorpusTokens,
        groups: Sequence[int] | NDArray[np.int64] | None = None,
        map_batches: MapBatches = map_here,
    ) -> None:
        """Put the documents of a group next to each other."""
        self._corpus, self._map_batches = corpus, map_batches
        self.groups = np.arange(len(corpus)) if groups is None else np.asarray(groups, dtype=np.int64)
        self.num_groups = int(self.groups.max(initial=-1)) + 1
        self._order = np.argsort(self.groups, kind="stable")
        self._ends = np.cumsum(np.bincount(self.groups, minlength=self.num_groups))
        lengths = corpus.lengths()
        self.lengths = np.zeros(self.num_groups, dtype=np.int64)
        np.add.at(self.lengths, self.groups, lengths)
        self._token_ends = np.cumsum(lengths[self._order])

    def documents(self, group: int) -> NDArray[np.int64]:
        """Return the documents of a group, ascending."""
        start = int(self._ends[group - 1]) if group else 0
        return self._order[start : int(self._ends[group])]

    def block(self, group: int) -> Block:
        """Return all documents of a group as one block."""
        return self._block(self.documents(group))

    def blocks(self) -> Iterator[Block]:
        """Yield all documents, group after group; a document longer than a block is one of its own."""
        return map(self._block, self._stretches(BLOCK_TOKENS))

    def _stretches(self, tokens: int) -> Iterator[NDArray[np.int64]]:
        """Yield all documents, group after group, as many as have so many tokens together, or one that has more."""
        start, before = 0, 0
        while start < len(self._order):
            end = int(np.searchsorted(self._token_ends, before + tokens, side="right"))
            end = max(start + 1, end)
            yield self._order[start:end]
            start, before = end, int(self._token_ends[end - 1])

    def _block(self, documents: NDArray[np.int64]) -> Block:
        part = self._corpus.take(documents)
        lengths = np.diff(part.segment_ends, prepend=0)
        size = len(part.tokens)
        position = np.arange(size) - np.repeat(part.segment_ends - lengths, lengths)
        is_last = np.zeros(size, dtype=np.bool_)
        is_last[part.segment_ends[lengths > 0] - 1] = True
        groups = self.groups[documents]
        row = np.repeat(groups - groups[0], part.lengths())
        return Block(part.tokens[:], position, is_last, row, int(groups[0]), int(groups[-1] - groups[0]) + 1)

    def rows(self, make: Callable[[Block], Rows], merge: Callable[[Rows, Rows], Rows]) -> Iterator[tuple[int, Rows]]:
        """Yield what is made of every group, in order: the first group, and a row for it and each that follows.

        Args:
            make: gives a block's rows, `[num_groups, n]`; may be pickled (`MapBatches`).
            merge: joins rows of groups whose documents lie in two blocks; in whatever order they are joined, the same.
        """
        tables = self._map_batches(
            partial(_rows_of_piece, make, merge), map(self._piece, self._stretches(PIECE_TOKENS))
        )
        return _joined((part for table in tables for part in _parts(table)), merge)

    def _piece(self, documents: NDArray[np.int64]) -> pa.Table:
        """Return documents as a table: of each its group, its tokens and the lengths of its segments."""
        part = self._corpus.take(documents)
        ends, document_ends = np.concatenate([[0], part.segment_ends]), part.document_ends
        tokens = lists_of(part.tokens[:], ends[document_ends])
        lengths = lists_of(np.diff(ends), document_ends)
        return pa.Table.from_arrays([pa.array(self.groups[documents]), tokens, lengths], schema=_PIECE_SCHEMA)


def _rows_of_piece(
    make: Callable[[Block], Rows], merge: Callable[[Rows, Rows], Rows], piece: pa.Table
) -> Iterator[pa.Table]:
    """Yield the rows of the groups of a piece, each with its group; the counterpart of `_parts`."""
    groups = piece.column("group").to_numpy()
    first = int(groups[0])
    blocks = GroupedTokens(tokens_of(piece), groups - first).blocks()
    for group, rows in _joined(((block.first, make(block)) for block in blocks), merge):
        numbers = np.arange(len(rows)) + (first + group)
        listed = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])
        yield pa.table({"group": numbers, "row": listed})


def _parts(table: pa.Table) -> Iterator[tuple[int, Rows]]:
    """Yield the rows of consecutive groups, with the first of them: a group that is there twice begins another part."""
    for batch in table.to_batches():
        groups, column = batch.column("group").to_numpy(), batch.column("row")
        rows = column.flatten().to_numpy().reshape(len(groups), -1)
        starts = np.flatnonzero(np.diff(groups, prepend=-2) != 1).tolist()
        for start, end in zip(starts, [*starts[1:], len(groups)], strict=True):
            yield int(groups[start]), rows[start:end]


def _joined(parts: Iterable[tuple[int, Rows]], merge: Callable[[Rows, Rows], Rows]) -> Iterator[tuple[int, Rows]]:
    """Yield the same rows, those of a group with which one part ends and the next begins made one."""
    held: Rows | None = None
    held_group = -1
    for first, rows in parts:
        if held is not None and held_group == first:
            rows = np.concatenate([merge(rows[:1], held), rows[1:]])
        elif held is not None:
            yield held_group, held
        held, held_group = rows[-1:].copy(), first + len(rows) - 1
        if len(rows) > 1:
            yield first, rows[:-1]
    if held is not None:
        yield held_group, held


def run_starts(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of equal numbers begins."""
    return np.flatnonzero(np.diff(rows, prepend=-1))
