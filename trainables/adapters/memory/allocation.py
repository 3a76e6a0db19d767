"""Allocations: which memory entries each group of documents may use (notes 001 and 002).

`none`, `random`, `partitioned`, and SimSet (`simset1` … `simset3`): MinHash over token shingles, so that
groups share entries in proportion to how similar their texts are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from trainables.adapters.memory.entry_lists import Drawn, EntryLists, EveryEntry, Listed, Stretches
from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.shingles import HashFamily, shingle_ids
from trainables.adapters.memory.simset import TokenLists, signatures_of
from trainables.errors import ConfigError, nearest
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.token_tree import TokenTree
from trainables.lm.transfer import sent

GroupSequences = Sequence[Sequence[Sequence[int]]]
"""Group -> segments of all its documents -> token ids."""

_SHINGLE_WIDTHS = {"simset1": 1, "simset2": 2, "simset3": 3}
_NAMES = ("none", "random", "partitioned", *_SHINGLE_WIDTHS)
_KEPT_BYTES = 256 * 2**20
_CHEAP_FUNCTIONS = 64  # with so few hash functions, hashing a token again costs no more than unpacking it


@dataclass(frozen=True)
class Allocation:
    """The entries of every group, and the masks made of them for the texts of a step.

    Attributes:
        name: `none`, `random`, `partitioned`, `simset1`, `simset2` or `simset3`.
        memory_dim: Number of entries of the memory.
        entries_per_group: Mean entries per group of `partitioned`; for SimSet its n, the hash functions.
        lists: The entries of each group. With token granularity: those of any token of the group's texts.
        signatures: `[groups, n]` the entry each hash function gives each group; SimSet with granularity
            `dim`.
        addresses: What gives each token its entries; SimSet with granularity `token`.
    """

    name: str
    memory_dim: int
    entries_per_group: int
    lists: EntryLists
    signatures: NDArray[np.int32] | None = None
    addresses: TokenAddresses | None = None

    @property
    def granularity(self) -> str:
        """`dim`: one set for all tokens of a group; `token`: a set for each token."""
        return "dim" if self.addresses is None else "token"

    @property
    def shingle_width(self) -> int:
        """Tokens per shingle; 1 for allocations that do not look at the text."""
        return self.width_of(self.name)

    @staticmethod
    def width_of(name: str) -> int:
        """Return an allocation's `shingle_width` by its name."""
        return _SHINGLE_WIDTHS.get(name, 1)

    @property
    def table(self) -> NDArray[np.bool_]:
        """All sets as `[groups, memory_dim]` bool: for a few groups, since it is groups times entries."""
        return self._rows(range(len(self.lists.sizes)))

    def entries(self, group: int) -> NDArray[np.int64]:
        """Return the entries of one group, ascending."""
        return self.lists.of(group)

    def _rows(self, groups: Sequence[int]) -> NDArray[np.bool_]:
        rows = np.zeros((len(groups), self.memory_dim), dtype=np.bool_)
        for row, group in zip(rows, groups, strict=True):
            row[self.lists.of(group)] = True
        return rows

    def mask(
        self, groups: Sequence[int], trees: Sequence[TokenTree], device: torch.device | str = "cpu"
    ) -> Tensor | None:
        """Return which entries each token of some texts may use.

        Args:
            groups: Group of each text; with token granularity it does not matter.
            trees: The texts, as many.
            device: Where the mask is to be.

        Returns:
            Bool `[nodes of all trees, memory_dim]`, True = allowed, tree after tree. None for `none`.
        """
        if self.name == "none":
            return None
        lengths = [len(tree) for tree in trees]
        if self.addresses is None:
            of_token = sent(np.repeat(np.arange(len(lengths)), lengths), torch.device(device))
            return sent(self._rows(groups), torch.device(device)).index_select(0, of_token)
        rows = np.zeros((sum(lengths), self.memory_dim), dtype=np.bool_)
        for tree, part in zip(trees, np.split(rows, np.cumsum(lengths[:-1])), strict=True):
            self.addresses.write(tree, part)
        return sent(rows, torch.device(device))


class TokenAddresses:
    """The entries of a token by the shingle that ends at it (`token` granularity of note 001).

    Equal shingles address equal entries whatever the document. The first `width - 1` tokens of a text use the
    shorter shingle that ends there (ours).

    Attributes:
        family: hash functions and their maps onto entries.
    """

    def __init__(self, width: int, family: HashFamily) -> None:
        """Start with nothing kept.

        Args:
            width: Tokens per shingle.
            family: Hash functions and their maps onto entries.
        """
        self._width, self.family = width, family
        self._kept: dict[str, NDArray[np.uint8]] = {}
        self._free_bytes = _KEPT_BYTES

    def write(self, tree: TokenTree, out: NDArray[np.bool_]) -> None:
        """Set `out`, `[len(tree), memory_dim]` and False so far, to the entries of the tree's tokens.

        Rows that are slow to hash are kept as bits, as long as there is room: training asks every epoch.
        """
        kept = self._kept.get(tree.digest())
        if kept is not None:
            out[:] = np.unpackbits(kept, axis=1, count=out.shape[1]).view(np.bool_)
            return
        shingles = shingle_ids(tree.tokens, tree.parents, self._width)
        np.put_along_axis(out, self.family.addresses(shingles), True, axis=1)
        if len(self.family.keys) > _CHEAP_FUNCTIONS and out.size // 8 <= self._free_bytes:
            self._kept[tree.digest()] = np.packbits(out, axis=1)
            self._free_bytes -= self._kept[tree.digest()].nbytes


def build_allocation(
    name: str,
    granularity: str,
    group_sequences: GroupSequences | GroupedTokens,
    memory_dim: int,
    mem_seed: int = 0,
    entries_per_group: int | None = None,
) -> Allocation:
    """Allocate memory entries to groups of documents.

    A function of its arguments only, the same in every process. SimSet: for hash functions i = 1 … n a group
    takes entry `slot_i(min over its shingles s of hash_i(s))`, so two groups agree in entry i with
    probability J + (1 - J) / memory_dim, where J is the Jaccard similarity of their shingle sets. n and the
    slots are ours.

    Args:
        name: The allocation.
        granularity: `dim` or `token`; matters for SimSet only.
        group_sequences: Documents in groups, or group -> segments of its documents -> token ids. Shingles do not span
            segments.
        memory_dim: Number of entries.
        mem_seed: Seed of `random` and of SimSet's hash functions; `partitioned` is the same for all.
        entries_per_group: SimSet's n; default the mean entries per group of `partitioned`, at least 1.

    Raises:
        ConfigError: Unknown name, a group without tokens, or fewer entries than groups where every group
            needs its own.
    """
    if name not in _NAMES:
        raise ConfigError(f"allocation {name!r} is unknown{nearest(name, _NAMES)}; one of {', '.join(_NAMES)}")
    grouped = as_grouped(group_sequences)
    num_groups, lengths = grouped.num_groups, grouped.lengths.tolist()
    if 0 in lengths:
        raise ConfigError(f"group {lengths.index(0)} has no tokens: leave out its empty documents")
    mean_entries = max(1, round(memory_dim / num_groups))
    if name == "none":
        return Allocation(name, memory_dim, memory_dim, EveryEntry(num_groups, memory_dim))
    if name in ("random", "partitioned"):
        _require_entries(name, memory_dim, num_groups)
        sizes = partition_sizes(lengths, memory_dim)
        parts = Stretches(sizes) if name == "partitioned" else Drawn(sizes, mem_seed)
        return Allocation(name, memory_dim, mean_entries, parts)

    width, functions = _SHINGLE_WIDTHS[name], entries_per_group or mean_entries
    family = HashFamily.seeded(mem_seed, functions, memory_dim)
    if granularity == "token":
        token_lists = TokenLists(grouped, width, family)
        return Allocation(name, memory_dim, functions, token_lists, addresses=TokenAddresses(width, family))
    signatures = signatures_of(grouped, width, family)
    lists = Listed.of_rows(signatures, memory_dim)
    return Allocation(name, memory_dim, functions, lists, signatures=signatures)


def as_grouped(groups: GroupSequences | GroupedTokens) -> GroupedTokens:
    """Return documents in groups; of nested sequences, each group as one document."""
    return groups if isinstance(groups, GroupedTokens) else GroupedTokens(CorpusTokens.of_documents(groups))


def partition_sizes(lengths: Sequence[int], memory_dim: int) -> list[int]:
    """Divide all entries among groups in proportion to their lengths, each at least one (note 001).

    Groups whose proportional share is below one get one; the other entries are divided among the other groups
    by largest remainder, ties to the earlier group (ours). Whole-number arithmetic.

    Args:
        lengths: Tokens of each group, at least 1.
        memory_dim: Number of entries, at least the number of groups.

    Returns:
        Entries of each group; they add up to `memory_dim`.
    """
    sharing = list(range(len(lengths)))
    left, total = memory_dim, sum(lengths)
    while small := [g for g in sharing if lengths[g] * left < total]:
        sharing = [g for g in sharing if lengths[g] * left >= total]
        left, total = left - len(small), total - sum(lengths[g] for g in small)
    sizes = [1] * len(lengths)
    for group in sharing:
        sizes[group] = lengths[group] * left // total
    missing = memory_dim - sum(sizes)
    for group in sorted(sharing, key=lambda g: -(lengths[g] * left % total))[:missing]:
        sizes[group] += 1
    return sizes


def stack_masks(masks: Sequence[Tensor | None], memory_dim: int) -> Tensor | None:
    """Combine the members' masks of the same texts into the bank's.

    Args:
        masks: Per member `[tokens, entries]`, or None for every entry. Members with one allocation should pass
            the same tensor: it is then not copied.
        memory_dim: Entries of the largest memory. What a member has not got is not used, whatever is said of it.

    Returns:
        `[1 | K, tokens, memory_dim]`, or None when no member has a mask.
    """
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    wide = {id(mask): pad(mask, (0, memory_dim - mask.shape[1])) for mask in given if mask.shape[1] < memory_dim}
    given = [wide.get(id(mask), mask) for mask in given]
    if all(mask is masks[0] for mask in masks):
        return given[0].unsqueeze(0)
    everything = torch.ones((1, 1), dtype=torch.bool, device=given[0].device).expand_as(given[0])
    return torch.stack([everything if mask is None else wide.get(id(mask), mask) for mask in masks])


def _require_entries(name: str, memory_dim: int, num_groups: int) -> None:
    if memory_dim < num_groups:
        raise ConfigError(
            f"allocation {name!r} gives every group an entry, but memory_dim is {memory_dim} and there are "
            f"{num_groups} groups: raise memory_dim to {num_groups} or lower num_clusters"
        )
