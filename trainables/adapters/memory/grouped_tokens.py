"""The documents' tokens by group, read in blocks that fit the processor's cache: time and memory grow linearly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.shingles import U64, text_shingle_ids
from trainables.lm.corpus_tokens import CorpusTokens, Ints

BLOCK_TOKENS = 1 << 16
"""Tokens of a block: their hashes, half a megabyte, stay in the processor's cache."""


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

    Attributes:
        groups: `[D]`.
        num_groups: how many.
        lengths: `[num_groups]` tokens of each group.
    """

    def __init__(self, corpus: CorpusTokens, groups: Sequence[int] | NDArray[np.int64] | None = None) -> None:
        """Put the documents of a group next to each other."""
        self._corpus = corpus
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
        start, before = 0, 0
        while start < len(self._order):
            end = int(np.searchsorted(self._token_ends, before + BLOCK_TOKENS, side="right"))
            end = max(start + 1, end)
            chosen = self._order[start:end]
            yield self._block(chosen)
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

    def rows(
        self, make: Callable[[Block], NDArray[Any]], merge: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield what is made of every group, in order: the first group, and a row for it and each that follows.

        Args:
            make: gives a block's rows, `[num_groups, ...]`.
            merge: joins the rows of a group whose documents lie in two blocks.
        """
        held: NDArray[Any] | None = None
        held_group = -1
        for block in self.blocks():
            rows, first = make(block), block.first
            if held is not None and held_group == first:
                rows[0] = merge(rows[0], held)
            elif held is not None:
                yield held_group, held[None]
            held, held_group = rows[-1].copy(), first + block.num_groups - 1
            if len(rows) > 1:
                yield first, rows[:-1]
        if held is not None:
            yield held_group, held[None]


def run_starts(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of equal numbers begins."""
    return np.flatnonzero(np.diff(rows, prepend=-1))
