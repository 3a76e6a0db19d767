"""A plain program that trains: torch, transformers' schedule, one text at a time; to hold adapters against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from trainables.lm.batches import epoch_order


def train_plainly(
    spec: Any,
    texts: Sequence[Sequence[int]],
    parameters: Mapping[str, nn.Parameter],
    nll: Callable[[Tensor], Tensor],
) -> int:
    """Train parameters for a trial's epochs; return the number of steps.

    Args:
        spec: the trial: epochs, batch size, optimiser, seed.
        texts: token ids.
        parameters: what is trained, in place.
        nll: the mean NLL of a text `[1, tokens]`, with its gradient.
    """
    adamw = torch.optim.AdamW(parameters.values(), lr=spec.lr, weight_decay=spec.weight_decay)
    steps = -(-len(texts) // spec.batch_size) * spec.epochs
    schedule = get_cosine_schedule_with_warmup(adamw, spec.warmup_steps, steps)
    for epoch in range(spec.epochs):
        order = epoch_order(len(texts), spec.seed, epoch).tolist()
        for start in range(0, len(order), spec.batch_size):
            rows = [torch.tensor([texts[i]]) for i in order[start : start + spec.batch_size]]
            targets = sum(row.shape[1] - 1 for row in rows)
            adamw.zero_grad()
            for row in rows:
                (nll(row) * (row.shape[1] - 1) / targets).backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), spec.grad_clip)
            adamw.step()
            schedule.step()
    return steps


@pytest.fixture
def plainly() -> Callable[..., int]:
    """Return `train_plainly`."""
    return train_plainly
