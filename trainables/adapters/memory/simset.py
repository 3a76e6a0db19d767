"""SimSet's sets of many groups, in time and memory linear in tokens and groups."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.entry_lists import EntryLists
from trainables.adapters.memory.grouped_tokens import Block, GroupedTokens, run_starts
from trainables.adapters.memory.shingles import U64, HashFamily, distinct, mix64

_NOTHING = np.uint64(2**64 - 1)
_MANY_FUNCTIONS = 64
"""Hash functions from which on a group's repeated shingles are left out first: that is a sort of the block, which costs
as much as some twenty functions if half of the shingles are repeated (an estimate, ours)."""


def signatures_of(grouped: GroupedTokens, width: int, family: HashFamily) -> NDArray[np.int32]:
    """Return the entry that each hash function gives each group, `[groups, n]`.

    Args:
        grouped: documents in groups, each with at least one token.
        width: tokens per shingle.
        family: the hash functions.
    """

    def minima(block: Block) -> U64:
        shingles, row = block.shingles(width)
        found = np.full((block.num_groups, len(family.keys)), _NOTHING)
        if len(family.keys) >= _MANY_FUNCTIONS:
            chosen = _first_of_each(shingles, row)
            shingles, row = shingles[chosen], row[chosen]
        if len(row):
            starts = run_starts(row)
            found[row[starts]] = family.minima(shingles, starts)
        return found

    signatures = np.empty((grouped.num_groups, len(family.keys)), dtype=np.int32)
    for first, rows in grouped.rows(minima, np.minimum):
        signatures[first : first + len(rows)] = family.slots(rows)
    return signatures


def _first_of_each(shingles: U64, row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each shingle of each row stands first, ascending (two are taken for one with probability 2**-64)."""
    together = mix64(shingles + mix64(row.astype(np.uint64)))
    return np.sort(np.unique(together, return_index=True)[1])


class TokenLists(EntryLists):
    """The entries that any token of a group's texts addresses (granularity `token`), made when they are asked for.

    Args:
        grouped: documents in groups.
        width: tokens per shingle; the first tokens of a text have the shorter shingle that ends there.
        family: the hash functions.
    """

    def __init__(self, grouped: GroupedTokens, width: int, family: HashFamily) -> None:
        """Keep what the sets are made of."""
        self.memory_dim = family.memory_dim
        self._grouped, self._width, self._family = grouped, width, family

    def of(self, group: int) -> NDArray[np.int64]:
        """Return the entries of one group."""
        ids = self._grouped.block(group).shingles(self._width, also_shorter=True)[0]
        return distinct(self._family.addresses(distinct(ids)).ravel())

    def load(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:  # type: ignore[override]
        """Count; over all groups in one pass over their tokens."""
        return self._counted[1] if len(groups) == self._grouped.num_groups else super().load(groups)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:  # type: ignore[override]
        """Number of entries of each group."""
        return self._counted[0]

    @cached_property
    def _counted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the entries of every group, and the groups of every entry."""
        width, family = self._width, self._family  # what is computed elsewhere takes these along, and no documents

        def used(block: Block) -> NDArray[np.uint8]:
            shingles, row = block.shingles(width, also_shorter=True)
            found = np.zeros((block.num_groups, family.memory_dim), dtype=np.bool_)
            found[row[:, None], family.addresses(shingles)] = True
            return np.packbits(found, axis=1)

        sizes = np.zeros(self._grouped.num_groups, dtype=np.int64)
        load = np.zeros(self.memory_dim, dtype=np.int64)
        for first, packed in self._grouped.rows(used, np.bitwise_or):
            rows = np.unpackbits(packed, axis=1, count=self.memory_dim).view(np.bool_)
            sizes[first : first + len(rows)] = rows.sum(axis=1)
            load += rows.sum(axis=0)
        return sizes, load
