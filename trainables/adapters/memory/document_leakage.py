"""How far memories leak: the entries that a document's tokens use though they are another one's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.memory.entry_sets import EntrySet
from trainables.adapters.memory.leakage import leakage
from trainables.lm.batches import TextBatch


@torch.no_grad()
def document_leakage(
    passes: Iterable[tuple[TextBatch, Tensor, slice]], bank: MemoryBank, sets: Sequence[Mapping[str, EntrySet]]
) -> list[dict[str, dict[int, float]]]:
    """Return each member's mean leakage per token out of some entry sets, over all documents and by group.

    The memories see the documents once, whatever the number of sets.

    Args:
        passes: the documents' texts, some at a time, each time with hidden states and for which members.
        bank: the memories.
        sets: each member's sets by name.

    Returns:
        Per member and set: group -> mean leakage over the group's tokens, and key -1 -> mean over all tokens.
    """
    asking = _asking(sets)
    sums: list[dict[str, dict[int, list[float]]]] = [{name: {} for name in own} for own in sets]
    for part, hidden, who in passes if asking else ():
        first = who.start or 0
        _, activations = bank(hidden, None, who)
        for entry_set, askers in asking:
            here = [(member, name) for member, name in askers if first <= member < first + len(activations)]
            if not here:
                continue
            mask = entry_set.mask(part.documents, part.trees, bank.device)
            own = activations[[member - first for member, _ in here]][..., : entry_set.memory_dim]
            found = leakage(own, None if mask is None else mask[None]).double().cpu()
            by_text = torch.split(found, part.lengths, dim=1)
            for place, (member, name) in enumerate(here):
                for values, document in zip(by_text, part.documents, strict=True):
                    for key in {entry_set.groups[document], -1}:
                        cell = sums[member][name].setdefault(key, [0.0, 0.0])
                        cell[0] += float(values[place].sum())
                        cell[1] += values.shape[1]
    return [
        {name: {group: part / max(1.0, whole) for group, (part, whole) in found.items()} for name, found in own.items()}
        for own in sums
    ]


def _asking(sets: Sequence[Mapping[str, EntrySet]]) -> list[tuple[EntrySet, list[tuple[int, str]]]]:
    """Return each different set with the members that ask for it, and their names for it."""
    found: dict[int, tuple[EntrySet, list[tuple[int, str]]]] = {}
    for member, own in enumerate(sets):
        for name, entry_set in own.items():
            found.setdefault(id(entry_set), (entry_set, []))[1].append((member, name))
    return list(found.values())
