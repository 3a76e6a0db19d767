"""Which documents use which entries: mean activations, by document and entry (note 002)."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.split import passes
from trainables.lm.batches import TextBatches

ACTIVATIONS = "activations.npy"
MOST_CELLS = 2**23
"""Documents times entries above which no such file is written: 16 MB (ours)."""


@torch.no_grad()
def document_activations(
    batches: TextBatches, bank: MemoryBank, num_documents: int, max_tokens: int, entries: int
) -> Tensor:
    """Return each member's mean activation after GELU, before any mask, over the tokens of each document.

    Args:
        batches: the documents' texts.
        bank: the memories.
        num_documents: documents there are; one without text has zeros.
        max_tokens: tokens, over all members, at a time.
        entries: how many of each memory, from the first on.

    Returns:
        `[members, documents, entries]` float32, on the CPU.
    """
    sums = torch.zeros(bank.num_members, num_documents, entries, device=batches.device)
    tokens = torch.zeros(num_documents)
    for part, who in passes(batches, bank.num_members, max_tokens):
        _, activations = bank(part.hidden[None], None, who)
        of_token = torch.repeat_interleave(torch.tensor(part.documents), torch.tensor(part.lengths))
        sums[who].index_add_(1, of_token.to(batches.device), activations[..., :entries])
        if who.start in (0, None):
            tokens += torch.bincount(of_token, minlength=num_documents)
    return sums.cpu() / tokens.clamp(min=1)[None, :, None]


def array_bytes(values: NDArray[np.float32]) -> bytes:
    """Return numbers as a file that `numpy.load` reads, in half precision."""
    sink = io.BytesIO()
    np.save(sink, values.astype(np.float16))
    return sink.getvalue()
