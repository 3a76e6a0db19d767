"""The entry sets of a hard memory as part of its file, so that it can be used without the texts it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.adapters.memory.allocation import Allocation, TokenAddresses
from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.entry_lists import EveryEntry, Listed
from trainables.adapters.memory.masked import ConfinedMemory, confined
from trainables.adapters.memory.shingles import HashFamily
from trainables.errors import DataError, nearest

_PREFIX = "sets."


@dataclass(frozen=True)
class StoredSets:
    """Which entries a text about a document may use.

    Attributes:
        allocation: the entries of each group, or of each token.
        groups: the group of every document, by rank.
        titles: the documents' titles, by rank; empty where they were not known.
    """

    allocation: Allocation
    groups: Sequence[int]
    titles: Sequence[str] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return the sets as tensors: each group's entries one after the other, or the hash functions of tokens."""
        found = {"groups": np.asarray(self.groups, dtype=np.int64)}
        if self.allocation.addresses is None:
            lists = self.allocation.lists
            found["sizes"] = np.asarray(lists.sizes, dtype=np.int64)
            found["entries"] = np.concatenate([lists.of(group) for group in range(len(lists.sizes))])
        else:
            family = self.allocation.addresses.family
            found |= {"keys": family.keys.view(np.int64), "slot_keys": family.slot_keys.view(np.int64)}
        return {_PREFIX + name: torch.from_numpy(values) for name, values in found.items()}

    def texts(self) -> dict[str, str]:
        """Return what goes into a file's metadata."""
        return {"allocation": self.allocation.name, "titles": json.dumps(list(self.titles), ensure_ascii=False)}

    @staticmethod
    def without(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a file's tensors without those of sets."""
        return {name: value for name, value in state.items() if not name.startswith(_PREFIX)}

    @classmethod
    def of_file(cls, state: Mapping[str, Tensor], texts: Mapping[str, str]) -> StoredSets | None:
        """Read them back; None where there are none.

        Raises:
            KeyError: a part is missing.
            ValueError: a part is not what it should be.
        """
        found = {name.removeprefix(_PREFIX): v.numpy() for name, v in state.items() if name.startswith(_PREFIX)}
        if not found:
            return None
        groups, memory_dim = found["groups"].tolist(), int(texts["memory_dim"])
        num_groups = max(groups, default=-1) + 1
        if "keys" in found:
            family = HashFamily(found["keys"].view(np.uint64), found["slot_keys"].view(np.uint64), memory_dim)
            addresses = TokenAddresses(Allocation.width_of(texts["allocation"]), family)
            lists = EveryEntry(num_groups, memory_dim)
            built = Allocation(texts["allocation"], memory_dim, len(family.keys), lists, addresses=addresses)
        else:
            listed = Listed(found["sizes"], found["entries"].astype(np.int32), memory_dim)
            built = Allocation(texts["allocation"], memory_dim, round(float(listed.sizes.mean())), listed)
        return cls(built, groups, json.loads(texts["titles"]))

    def about(self, memory: Memory, document: str | int, where: str) -> ConfinedMemory:
        """Return a memory confined to what a document may use.

        Args:
            memory: the memory.
            document: its title or rank.
            where: name of the file, for messages.

        Raises:
            DataError: there is no such document.
        """
        return confined(memory, self.allocation, self.groups[self._rank(document, where)])

    def _rank(self, document: str | int, where: str) -> int:
        number = len(self.groups)
        if isinstance(document, int):
            if 0 <= document < number:
                return document
            raise DataError(f"{where}: document={document}: it knows {number} documents, 0 to {number - 1}")
        if document in self.titles:
            return list(self.titles).index(document)
        raise DataError(f"{where}: {document!r} is none of its {number} documents{nearest(document, self.titles)}")
