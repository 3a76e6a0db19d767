"""Which entries each member of a pack may use for each text: allocations, built once and shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.adapters.memory.allocation import Allocation, build_allocation, stack_masks
from trainables.adapters.memory.analysis import allocation_report
from trainables.adapters.memory.grouping import group_documents
from trainables.adapters.memory.setting import SetSetting
from trainables.lm.texts import NO_DOCUMENT, TrainingText
from trainables.lm.token_tree import TokenTree


class EntrySets:
    """Builds allocations over the same documents, each different one once.

    Args:
        texts: the documents' segments; shingles and lengths come from these.
        num_documents: documents there are, with or without text.
        memory_dim: entries of the memory.
    """

    def __init__(self, texts: Sequence[TrainingText], num_documents: int, memory_dim: int) -> None:
        """Collect the segments of each document."""
        self._segments: list[list[list[int]]] = [[] for _ in range(num_documents)]
        for text in texts:
            self._segments[text.document].append(list(text.tree.tokens))
        self._memory_dim = memory_dim
        self._groups: dict[int, list[int]] = {}
        self._built: dict[SetSetting, EntrySet] = {}

    def of(self, setting: SetSetting) -> EntrySet:
        """Return the entry set of a setting: it depends on nothing else of a trial.

        Raises:
            ConfigError: fewer entries than groups, where each group needs its own.
        """
        if setting not in self._built:
            self._built[setting] = self._build(setting)
        return self._built[setting]

    def _build(self, setting: SetSetting) -> EntrySet:
        num_documents = len(self._segments)
        groups = self.groups(min(setting.num_clusters or num_documents, num_documents))
        sequences: list[list[list[int]]] = [[] for _ in range(max(groups) + 1)]
        for document, group in enumerate(groups):
            sequences[group] += self._segments[document]
        built = build_allocation(
            setting.allocation,
            setting.granularity,
            sequences,
            self._memory_dim,
            setting.mem_seed,
            setting.entries_per_group,
        )
        return EntrySet(built, groups, sequences)

    def groups(self, num_clusters: int) -> list[int]:
        """Return the group of every document."""
        if num_clusters not in self._groups:
            tokens = [[t for segment in segments for t in segment] for segments in self._segments]
            self._groups[num_clusters] = group_documents(tokens, num_clusters)
        return self._groups[num_clusters]


class EntrySet:
    """An allocation with the group of every document.

    Attributes:
        allocation: which entries each group, or each token, uses.
        groups: the group of every document.
        sequences: group -> segments -> token ids.
    """

    def __init__(self, allocation: Allocation, groups: list[int], sequences: list[list[list[int]]]) -> None:
        """Keep the parts together."""
        self.allocation = allocation
        self.groups = groups
        self.sequences = sequences
        self._analysis: dict[str, Any] | None = None

    def analysis(self) -> dict[str, Any]:
        """Return the allocation's analysis (`allocation_report`), made once."""
        if self._analysis is None:
            self._analysis = allocation_report(self.allocation, self.sequences)
        return self._analysis

    def described(self) -> dict[str, Any]:
        """Return the analysis as a trial's `analysis.json` holds it, with the group of each document by its rank."""
        return {"allocation": self.analysis(), "group_of_document": list(self.groups)}

    def mask(self, documents: Sequence[int], trees: Sequence[TokenTree], device: torch.device) -> Tensor | None:
        """Return the entries allowed: bool `[nodes of all trees, memory_dim]`; None when every entry is.

        A tree about no document (`NO_DOCUMENT`) may use every entry.
        """
        groups = [self.groups[max(document, 0)] for document in documents]
        mask = self.allocation.mask(groups, trees, device)
        if mask is None or NO_DOCUMENT not in documents:
            return mask
        free = [
            document == NO_DOCUMENT for document, tree in zip(documents, trees, strict=True) for _ in range(len(tree))
        ]
        return mask | torch.tensor(free, device=device)[:, None]


def member_masks(
    sets: Sequence[EntrySet | None],
    documents: Sequence[int],
    trees: Sequence[TokenTree],
    device: torch.device,
) -> Tensor | None:
    """Return the masks of several members: bool `[members or 1, nodes of all trees, memory_dim]`.

    A member without a set may use every entry; None when that holds for all. A set that several members share is
    made once; when all share one, the first dimension is 1.
    """
    made = {id(s): s.mask(documents, trees, device) for s in sets if s is not None}
    return stack_masks([None if s is None else made[id(s)] for s in sets])
