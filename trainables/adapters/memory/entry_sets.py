"""Which entries each member of a pack may use for each text: allocations, built once and shared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.adapters.memory.allocation import Allocation, build_allocation, stack_masks
from trainables.adapters.memory.analysis import allocation_report
from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.grouping import group_documents, group_near_documents
from trainables.adapters.memory.setting import SetSetting
from trainables.adapters.own_texts import OwnTexts
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.segment_texts import SegmentTexts
from trainables.lm.texts import NO_DOCUMENT, TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.transfer import sent
from trainables.node.map_batches import MapBatches, map_here


class EntrySets:
    """Builds allocations over the same documents, each different one once.

    Args:
        texts: the documents' segments; shingles and lengths come from these.
        num_documents: documents there are, with or without text.
        map_batches: where shingles are hashed.
    """

    def __init__(self, texts: Sequence[TrainingText], num_documents: int, map_batches: MapBatches = map_here) -> None:
        """Collect the segments of each document."""
        self._map_batches = map_batches
        self._tokens = texts.tokens if isinstance(texts, SegmentTexts) else CorpusTokens.of_texts(texts, num_documents)
        self._groups: dict[tuple[int, str], Groups] = {}
        self._built: dict[tuple[SetSetting, int], EntrySet] = {}

    def of(self, setting: SetSetting, memory_dim: int) -> EntrySet:
        """Return the entry set of a setting for a memory of a size: it depends on nothing else of a trial.

        Raises:
            ConfigError: fewer entries than groups, where each group needs its own.
        """
        key = setting, memory_dim
        if key not in self._built:
            self._built[key] = self._build(*key)
        return self._built[key]

    def keep_only(self, sizes: Collection[int]) -> None:
        """Forget the sets of memories of other sizes."""
        self._built = {key: built for key, built in self._built.items() if key[1] in sizes}

    def _build(self, setting: SetSetting, memory_dim: int) -> EntrySet:
        num_documents = len(self._tokens)
        groups = self.groups(min(setting.num_clusters or num_documents, num_documents), setting.grouping)
        grouped = GroupedTokens(self._tokens, groups.of_document, self._map_batches)
        built = build_allocation(
            setting.allocation,
            setting.granularity,
            grouped,
            memory_dim,
            setting.mem_seed,
            setting.entries_per_group,
        )
        return EntrySet(built, groups, grouped)

    def groups(self, num_clusters: int, grouping: str = "complete") -> Groups:
        """Return the group of every document."""
        key = num_clusters, grouping
        if key not in self._groups:
            self._groups[key] = self._grouped(num_clusters, grouping)
        return self._groups[key]

    def _grouped(self, num_clusters: int, grouping: str) -> Groups:
        if grouping == "lsh":
            found = group_near_documents(self._tokens, num_clusters, self._map_batches)
            told = {"near_pairs": found.near_pairs, "groups_by_similarity": found.by_similarity}
            return Groups(found.groups.tolist(), told)
        if num_clusters == len(self._tokens):
            return Groups(list(range(num_clusters)))
        documents = [self._tokens.document(document) for document in range(len(self._tokens))]
        return Groups(group_documents(documents, num_clusters))


@dataclass(frozen=True)
class Groups:
    """The groups of documents.

    Attributes:
        of_document: the group of each, by place.
        told: how they came about, for the analysis.
    """

    of_document: list[int]
    told: Mapping[str, int] = field(default_factory=dict)


class EntrySet:
    """An allocation with the group of every document.

    Attributes:
        allocation: which entries each group, or each token, uses.
        groups: the group of every document.
        memory_dim: entries of the memory.
    """

    def __init__(self, allocation: Allocation, groups: Groups, grouped: GroupedTokens) -> None:
        """Keep the parts together."""
        self.allocation = allocation
        self.groups = groups.of_document
        self._told, self._grouped = groups.told, grouped
        self.memory_dim = allocation.memory_dim
        self._analysis: dict[str, Any] | None = None

    def analysis(self) -> dict[str, Any]:
        """Return the allocation's analysis (`allocation_report`), made once."""
        if self._analysis is None:
            self._analysis = allocation_report(self.allocation, self._grouped)
        return self._analysis

    def described(self) -> dict[str, Any]:
        """Return the analysis as a trial's `analysis.json` holds it, with the group of each document by its rank."""
        return {"allocation": self.analysis(), "group_of_document": list(self.groups), **self._told}

    def mask(self, documents: Sequence[int], trees: Sequence[TokenTree], device: torch.device) -> Tensor | None:
        """Return the entries allowed: bool `[nodes of all trees, memory_dim]`; None when every entry is.

        A tree about no document (`NO_DOCUMENT`) may use every entry.
        """
        groups = [self.groups[max(document, 0)] for document in documents]
        mask = self.allocation.mask(groups, trees, device)
        if mask is None or NO_DOCUMENT not in documents:
            return mask
        free = np.repeat([document == NO_DOCUMENT for document in documents], [len(tree) for tree in trees])
        return mask | sent(free, device)[:, None]


def member_masks(
    sets: Sequence[EntrySet | None],
    documents: Sequence[int],
    trees: Sequence[TokenTree],
    device: torch.device,
    memory_dim: int,
) -> Tensor | None:
    """Return the masks of several members: bool `[members or 1, nodes of all trees, memory_dim]`.

    A member without a set may use every entry; None when that holds for all. A set that several members share is
    made once; when all share one, the first dimension is 1.

    Args:
        sets: one for each member.
        documents: of each tree.
        trees: the texts.
        device: where the masks are to be.
        memory_dim: entries of the largest memory of the pack.
    """
    different = {id(s): s for s in sets if s is not None}
    made = {key: s.mask(documents, trees, device) for key, s in different.items()}
    return stack_masks([None if s is None else made[id(s)] for s in sets], memory_dim)


def own_masks(sets: Sequence[EntrySet | None], own: OwnTexts, memory_dim: int) -> Tensor | None:
    """Return the masks of members with texts of their own: bool `[members, longest, memory_dim]`, or None as above.

    Beyond a member's texts every entry is allowed, so that nothing leaks there.
    """
    if not any(sets):
        return None
    device = own.hidden.device
    found = torch.ones(*own.hidden.shape[:2], memory_dim, dtype=torch.bool, device=device)
    for place, entry_set, batch in zip(found, sets, own.batches, strict=True):
        mask = None if entry_set is None else entry_set.mask(batch.documents, batch.trees, device)
        if mask is not None:
            place[: len(mask), : mask.shape[1]] = mask
    return found
