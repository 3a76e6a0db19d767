"""How far memories leak: the entries that a document's tokens use though they are another one's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.memory.entry_sets import EntrySet, member_masks
from trainables.adapters.memory.leakage import leakage
from trainables.adapters.split import passes
from trainables.lm.batches import TextBatches


@torch.no_grad()
def document_leakage(
    batches: TextBatches, bank: MemoryBank, sets: Sequence[EntrySet | None], max_tokens: int
) -> list[dict[int, float]]:
    """Return each member's mean leakage per token, over all documents and by group.

    Args:
        batches: the documents' texts.
        bank: the memories.
        sets: one set per member; None (every entry) gives 0.
        max_tokens: tokens, over all members, at a time.

    Returns:
        Per member: group -> mean leakage over the group's tokens, and key -1 -> mean over all tokens.
    """
    sums: list[dict[int, list[float]]] = [{} for _ in range(bank.num_members)]
    for part, who in passes(batches, bank.num_members, max_tokens):
        chosen = sets[who]
        masks = member_masks(chosen, part.documents, part.trees, batches.device)
        _, activations = bank(part.hidden[None], None, who)
        by_text = torch.split(leakage(activations, masks).double().cpu(), part.lengths, dim=1)
        for offset, entry_set in enumerate(chosen):
            for found, document in zip(by_text, part.documents, strict=True):
                group = -1 if entry_set is None else entry_set.groups[document]
                for key in {group, -1}:
                    cell = sums[(who.start or 0) + offset].setdefault(key, [0.0, 0.0])
                    cell[0] += float(found[offset].sum())
                    cell[1] += found.shape[1]
    return [{group: part / max(1.0, whole) for group, (part, whole) in found.items()} for found in sums]
