"""Mean activations by document and entry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from trainables.adapters.memory.activations import document_activations
from trainables.adapters.memory.bank import MemoryBank


def test_members_that_are_seen_in_passes_of_their_own_have_the_same_means() -> None:
    torch.manual_seed(0)
    bank = MemoryBank(6, 4, True, [1, 2, 3])
    batch: Any = SimpleNamespace(hidden=torch.randn(7, 6), documents=[0, 2, 0], lengths=[3, 2, 2])
    together = document_activations([(batch, batch.hidden[None], slice(0, 3))], bank, 3, 4)
    parts = document_activations(
        [(batch, batch.hidden[None], slice(0, 1)), (batch, batch.hidden[None], slice(1, 3))], bank, 3, 4
    )
    torch.testing.assert_close(parts, together)
    assert together[:, 1].eq(0).all() and together[:, [0, 2]].ne(0).all(), "document 1 has no text"
    _, each = bank(batch.hidden[None])
    torch.testing.assert_close(together[:, 2], each[:, 3:5].mean(dim=1))
    some = document_activations([(batch, batch.hidden[None], slice(1, 2))], bank, 3, 4)
    torch.testing.assert_close(some[1], together[1])
    assert some[[0, 2]].eq(0).all()
