"""Which entries each group has, without a table of groups times entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.shingles import mix64, seeded_keys

KEPT_CELLS = 1 << 24
"""Groups times entries up to which drawn sets are drawn once and kept: 4,096 of each take half a second (ours)."""


class EntryLists(ABC):
    """The sets of all groups.

    Attributes:
        sizes: `[groups]` number of entries of each group.
        memory_dim: number of entries there are.
    """

    def __init__(self, sizes: Sequence[int] | NDArray[np.int64], memory_dim: int) -> None:
        """Keep the sizes."""
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.memory_dim = memory_dim

    @abstractmethod
    def of(self, group: int) -> NDArray[np.int64]:
        """Return the entries of one group, ascending."""

    def load(self, groups: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of some groups have each entry, `[memory_dim]`."""
        found = np.zeros(self.memory_dim, dtype=np.int64)
        for group in groups:
            found[self.of(int(group))] += 1
        return found

    @property
    def is_cheap(self) -> bool:
        """Whether the sets of all groups are known, so that counting over all of them takes little time."""
        return True


class EveryEntry(EntryLists):
    """Every group has every entry."""

    def __init__(self, groups: int, memory_dim: int) -> None:
        """Take the number of groups."""
        super().__init__(np.full(groups, memory_dim), memory_dim)

    def of(self, group: int) -> NDArray[np.int64]:
        """Return all entries."""
        return np.arange(self.memory_dim)

    def load(self, groups: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of groups for every entry."""
        return np.full(self.memory_dim, len(groups))


class Stretches(EntryLists):
    """Disjoint stretches of entries, group after group."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """Take the sizes, which add up to all entries."""
        super().__init__(sizes, sum(sizes))
        self._ends = np.cumsum(self.sizes)

    def of(self, group: int) -> NDArray[np.int64]:
        """Return the group's stretch."""
        return np.arange(self._ends[group] - self.sizes[group], self._ends[group])


class Listed(EntryLists):
    """Sets that are kept, one after the other."""

    def __init__(self, sizes: NDArray[np.int64], entries: NDArray[np.int32], memory_dim: int) -> None:
        """Take the sets, each ascending, in one array."""
        super().__init__(sizes, memory_dim)
        self._entries, self._ends = entries, np.cumsum(sizes)

    @classmethod
    def of_rows(cls, rows: NDArray[np.int32], memory_dim: int) -> Listed:
        """Take the different numbers of each row, `[groups, n]`, as a group's set."""
        ordered = np.sort(rows, axis=1)
        is_new = np.ones(ordered.shape, dtype=np.bool_)
        is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        return cls(is_new.sum(axis=1), ordered[is_new], memory_dim)

    def of(self, group: int) -> NDArray[np.int64]:
        """Return the group's set."""
        found = self._entries[self._ends[group] - self.sizes[group] : self._ends[group]]
        return found.astype(np.int64)

    def load(self, groups: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Count; all groups at once without taking them one by one."""
        if len(groups) < len(self.sizes):
            return super().load(groups)
        return np.bincount(self._entries, minlength=self.memory_dim)


class Drawn(EntryLists):
    """Sets drawn at random: of each group the `size` entries with the smallest hash of (seed, group, entry).

    A set costs a hash of every entry, and all sets groups times entries, so each is drawn when it is asked for.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        """Take the sizes, which add up to the number of entries."""
        super().__init__(sizes, sum(sizes))
        self._entry_keys = seeded_keys(seed, 3, self.memory_dim)
        self._group_keys = seeded_keys(seed, 4, len(sizes))
        self._kept: dict[int, NDArray[np.int64]] = {}

    @property
    def is_cheap(self) -> bool:
        """Whether the sets are few and small enough to be kept."""
        return len(self.sizes) * self.memory_dim <= KEPT_CELLS

    def of(self, group: int) -> NDArray[np.int64]:
        """Draw the group's set, or return what was drawn."""
        found = self._kept.get(group)
        if found is None:
            hashes = mix64(self._entry_keys ^ self._group_keys[group])
            found = np.sort(np.argsort(hashes)[: self.sizes[group]])
            if self.is_cheap:
                self._kept[group] = found
        return found
