"""Looking at a pack without training it: memorisation error, leakage, and the next token after a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.memory.leakage import leakage
from trainables.lm.hidden import HiddenStates
from trainables.lm.token_tree import Batch, TokenTree, collate
from trainables.lm.upper import Upper
from trainables.pack.batches import TextBatches, pass_tokens, similar_lengths
from trainables.pack.entry_sets import EntrySet, member_masks
from trainables.pack.training import member_nll, slices


@torch.no_grad()
def document_nll(
    upper: Upper,
    batches: TextBatches,
    bank: MemoryBank | None,
    hard: Sequence[EntrySet | None],
    max_tokens: int,
) -> Tensor:
    """Return the memorisation error of each member: NLL per predicted token of all texts, `[members]`, float64.

    Without a bank it is the pretrained model's, `[1]`.
    """
    count = 1 if bank is None else bank.num_members
    total = torch.zeros(count, dtype=torch.float64)
    for batch in batches.by_length(max_tokens):
        for who, texts in slices(count, batch.lengths, max_tokens):
            chosen = batch.part(texts)
            if bank is None:
                added = torch.zeros_like(chosen.hidden)[None]
            else:
                masks = member_masks(hard[who], chosen.documents, chosen.trees, batches.device)
                added, _ = bank(chosen.hidden[None], masks, who)
            total[who] += member_nll(upper, chosen, added).double().sum(dim=1).cpu()
    return total / batches.num_targets


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
    count = bank.num_members
    sums: list[dict[int, list[float]]] = [{} for _ in range(count)]
    for batch in batches.by_length(max_tokens):
        for who, texts in slices(count, batch.lengths, max_tokens):
            chosen, part = sets[who], batch.part(texts)
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


class Responder:
    """Gives the model's next token at nodes of token trees, for every member of a pack.

    Args:
        hidden_states: source of the states below the memory.
        layer: block whose output the memory adds to.
        upper: the blocks above.
        bank: the memories, or None for the pretrained model.
        hard: each member's mask, by the document a tree belongs to; None for no mask.
        device: where to compute.
        max_tokens: padded tokens, over all members, in one forward pass.
    """

    def __init__(
        self,
        hidden_states: HiddenStates,
        layer: int,
        upper: Upper,
        bank: MemoryBank | None,
        hard: Sequence[EntrySet | None],
        device: torch.device,
        max_tokens: int,
    ) -> None:
        """Keep the parts."""
        self._hidden_states, self._layer, self._upper = hidden_states, layer, upper
        self._bank, self._hard, self._device = bank, list(hard), device
        self._max_tokens = max_tokens
        self.tokens = 0
        """Tree nodes gone through so far, per member."""

    @torch.no_grad()
    def __call__(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the likeliest next token at the nodes read.

        Args:
            trees: the texts.
            documents: the document each tree belongs to.
            nodes: which nodes of each tree to read.

        Returns:
            `[members, nodes in all]`, in the order of trees and nodes.
        """
        count = 1 if self._bank is None else self._bank.num_members
        hidden = self._hidden_states.get(trees, self._layer)
        starts = np.cumsum([0, *[len(read) for read in nodes]])
        out = np.zeros((count, int(starts[-1])), dtype=np.int64)
        for rows in self._groups(trees, count):
            chosen = [trees[r] for r in rows]
            self.tokens += sum(map(len, chosen))
            read = [(place, node) for place, row in enumerate(rows) for node in nodes[row]]
            if not read:
                continue
            where = np.concatenate([np.arange(starts[r], starts[r + 1]) for r in rows])
            batch = collate(chosen, self._device)
            states = torch.cat([hidden[r] for r in rows]).to(self._device)
            masks = member_masks(self._hard, [documents[r] for r in rows], chosen, self._device)
            places = torch.tensor(read, device=self._device)
            per_pass = max(1, self._max_tokens // batch.tokens.numel())
            for start in range(0, count, per_pass):
                who = slice(start, min(count, start + per_pass))
                own = masks if masks is None or len(masks) == 1 else masks[who]
                found = self._next_tokens(states, own, who, batch, places)
                out[who, where] = found.cpu().numpy()
        return out

    def _next_tokens(self, states: Tensor, masks: Tensor | None, who: slice, batch: Batch, places: Tensor) -> Tensor:
        """Return the argmax token at `places` `[n, 2]` (row, node) for some members: `[members, n]`.

        Args:
            states: `[nodes of all trees, model_dim]`, tree after tree.
            masks: `[members or 1, nodes, memory_dim]`, or None.
            who: which members.
            batch: the trees.
            places: what to read.
        """
        inputs = states[None]
        if self._bank is not None:
            added, _ = self._bank(inputs, masks, who)
            inputs = inputs + added
        rows, width = batch.tokens.shape
        padded = inputs.new_zeros(len(inputs), rows, width, inputs.shape[-1])
        padded[:, torch.arange(width, device=self._device) < batch.lengths[:, None]] = inputs
        final = self._upper(padded.flatten(0, 1), batch.attention_mask, batch.positions, tokens=batch.tokens)
        read = final.reshape(padded.shape)[:, places[:, 0], places[:, 1]]
        logits: Tensor = self._upper.logits(read)
        return logits.argmax(dim=-1)

    def _groups(self, trees: Sequence[TokenTree], members: int) -> list[list[int]]:
        """Return tree indices batch by batch: similar sizes together, within the token budget."""
        one_more = pass_tokens(self._upper.num_weights, self._device, members)
        return similar_lengths([len(tree) for tree in trees], self._max_tokens // members, one_more)
