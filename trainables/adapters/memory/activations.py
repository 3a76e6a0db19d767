"""Which documents use which entries: mean activations, by document and entry (note 002)."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.adapters.memory.bank import MemoryBank
from trainables.lm.batches import TextBatch

ACTIVATIONS = "activations.npy"
MOST_CELLS = 2**23
"""Documents times entries above which no such file is written: 16 MB (ours)."""


@torch.no_grad()
def document_activations(
    passes: Iterable[tuple[TextBatch, Tensor, slice]], bank: MemoryBank, num_documents: int, entries: int
) -> Tensor:
    """Return each member's mean activation after GELU, before any mask, over the tokens of each document.

    Args:
        passes: the documents' texts, some at a time, each time with hidden states and for which members.
        bank: the memories.
        num_documents: documents there are; one without text has zeros.
        entries: how many of each memory, from the first on.

    Returns:
        `[members, documents, entries]` float32, on the CPU; zeros for members in no pass.
    """
    sums = torch.zeros(bank.num_members, num_documents, entries, device=bank.device)
    tokens = torch.zeros(bank.num_members, num_documents)
    for part, hidden, who in passes:
        _, activations = bank(hidden, None, who)
        of_token = torch.repeat_interleave(torch.tensor(part.documents), torch.tensor(part.lengths))
        sums[who].index_add_(1, of_token.to(bank.device), activations[..., :entries])
        tokens[who] += torch.bincount(of_token, minlength=num_documents)
    return sums.cpu() / tokens.clamp(min=1)[..., None]


def array_bytes(values: NDArray[np.float32]) -> bytes:
    """Return numbers as a file that `numpy.load` reads, in half precision."""
    sink = io.BytesIO()
    np.save(sink, values.astype(np.float16))
    return sink.getvalue()
