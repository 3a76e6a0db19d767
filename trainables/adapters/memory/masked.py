"""A memory at the whole model that uses the entries of one document only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.entry_sets import EntrySet
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import TokenTree


@contextmanager
def attached_with_mask(
    whole: WholeModel, memory: Memory, layer: int, entry_set: EntrySet, document: int
) -> Iterator[None]:
    """Attach a memory for the time of a `with` block, confined to what an entry set gives a document.

    Args:
        whole: the model. The `transformers` model inside is masked too, also where it goes on from a cache, as
            `generate` does: rows must then keep their places, and padding counts as text.
        memory: on the model's device.
        layer: block whose output it adds to.
        entry_set: with token granularity each token has its own entries, so every call's tokens are looked at.
        document: of the trial, by place.
    """
    masks: list[Tensor | None] = []
    read: list[Tensor] = []

    def look(_model: Any, _args: Any, given: dict[str, Any]) -> None:
        tokens, attention_mask, cache = given["input_ids"], given.get("attention_mask"), given.get("past_key_values")
        before = 0 if cache is None else cache.get_seq_length()
        if before:
            tokens = torch.cat([read[0][:, :before], tokens], dim=1)
        read[:] = [tokens]
        is_tree = attention_mask is not None and attention_mask.dim() == 4 and not before
        trees = trees_of(tokens, attention_mask if is_tree else None)
        found = entry_set.mask([document] * len(trees), trees, tokens.device)
        masks[:] = [None if found is None else found.view(*tokens.shape, -1)[:, before:]]

    handle = whole.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with whole.with_memory(lambda hidden: memory(hidden, masks[0]), layer):
            yield
    finally:
        handle.remove()


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
