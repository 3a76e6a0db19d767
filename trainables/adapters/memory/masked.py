"""A memory that uses the entries of one document only: to be attached to a whole model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainables.adapters.memory.allocation import Allocation
from trainables.adapters.memory.bank import Memory
from trainables.lm.token_tree import TokenTree


def confined(memory: Memory, allocation: Allocation, group: int) -> ConfinedMemory:
    """Return a memory confined to what a group of documents may use (hard mode).

    Args:
        memory: all of it.
        allocation: which entries each group, or each token, uses.
        group: the document's.
    """
    if allocation.addresses is None:
        row = allocation.mask([group], [TokenTree.chain([0])])
        assert row is not None, "an allocation that confines a memory gives each group its entries"
        return ConfinedMemory(memory, row[0])
    return TokenMemory(memory, allocation)


class ConfinedMemory(nn.Module):
    """A memory whose other entries are silent."""

    def __init__(self, memory: Memory, mask: Tensor | None) -> None:
        """Take the memory and its mask.

        Args:
            memory: all of it.
            mask: `[memory_dim]` bool, True for entries that are used.
        """
        super().__init__()
        self.memory = memory
        self.register_buffer("mask", mask, persistent=False)
        self.to(memory.up.weight.device)

    @property
    def model_dim(self) -> int:
        """Width of the residual stream."""
        return self.memory.model_dim

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what is to be added to `hidden`, `[..., model_dim]`."""
        added: Tensor = self.memory(hidden, self.mask)
        return added


class TokenMemory(ConfinedMemory):
    """A memory of which each token uses the entries of the shingle that ends at it, whatever the document.

    It has to be told the tokens (`read`, which `attach_memory` calls before each pass). Where a text goes on from a
    cache, as under `generate`, rows must keep their places (no beams), and padding on the left counts as text.
    """

    def __init__(self, memory: Memory, allocation: Allocation) -> None:
        """Take the memory and what addresses its entries."""
        super().__init__(memory, None)
        self._allocation, self._read = allocation, torch.empty(0)

    def read(self, input_ids: Tensor, attention_mask: Tensor | None = None, past_key_values: Any = None) -> None:
        """Look at the tokens of the pass that follows, after those that a cache holds."""
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        tokens = torch.cat([self._read[:, :before], input_ids], dim=1) if before else input_ids
        self._read = tokens
        is_tree = attention_mask is not None and attention_mask.dim() == 4 and not before
        trees = trees_of(tokens, attention_mask if is_tree else None)
        found = self._allocation.mask([0] * len(trees), trees, tokens.device)
        assert found is not None, "each token has its entries"
        self.mask = found.view(*tokens.shape, -1)[:, before:]


def trees_of(tokens: Tensor, attention_mask: Tensor | None) -> list[TokenTree]:
    """Return the token trees of a batch, padding included, read off what each token attends to.

    A node attends to itself and its ancestors, which come before it, so its parent is the last of those.

    Args:
        tokens: `[batch, seq]`.
        attention_mask: `[batch, 1, seq, seq]`, True (or 0, of numbers) where a token attends; None for plain texts.
    """
    width = tokens.shape[1]
    if attention_mask is None:
        return [TokenTree.chain(row) for row in tokens.tolist()]
    attends = attention_mask if attention_mask.dtype == torch.bool else attention_mask >= 0
    before = attends[:, 0] & torch.ones(width, width, dtype=torch.bool, device=tokens.device).tril(-1)
    place = torch.arange(width, device=tokens.device)
    parents = torch.where(before, place, -1).amax(dim=-1)
    return [TokenTree(tuple(row), tuple(up)) for row, up in zip(tokens.tolist(), parents.tolist(), strict=True)]
