"""Greedy continuations of many texts, written by a model of `transformers` with its own cache."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

BATCH_TEXTS = 16
"""Texts written on together (ours): on a CPU more hardly help, on a GPU their caches stay small."""


@torch.no_grad()
def write_on(
    model: Any,
    texts: Sequence[Sequence[int]],
    most_tokens: int,
    ends: Collection[int],
    batch_texts: int = BATCH_TEXTS,
) -> list[list[int]]:
    """Return what a model writes after each text, always its most likely token.

    Args:
        model: a causal language model with `generate` (`WholeModel.usual`). What its own generation settings would add
            to greedy writing, such as penalties for repetition, is left out.
        texts: token ids, none of them empty; shorter ones of a batch are padded on the left.
        most_tokens: of a continuation.
        ends: tokens that end one; they are not part of it.
        batch_texts: texts written on together.
    """
    written: list[list[int]] = [[] for _ in texts]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        for start in range(0, len(order), batch_texts):
            places = order[start : start + batch_texts]
            rows, mask = _padded([texts[place] for place in places], model.device)
            settings = GenerationConfig(
                do_sample=False, max_new_tokens=most_tokens, pad_token_id=0, eos_token_id=sorted(ends) or None
            )
            found = model.generate(input_ids=rows, attention_mask=mask, generation_config=settings)
            for place, row in zip(places, found[:, rows.shape[1] :].tolist(), strict=True):
                end = next((at for at, token in enumerate(row) if token in ends), len(row))
                written[place] = row[:end]
    finally:
        model.generation_config = own
    return written


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, texts))
    rows = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros_like(rows)
    for row, text in enumerate(texts):
        rows[row, width - len(text) :] = torch.tensor(text)
        mask[row, width - len(text) :] = 1
    return rows.to(device), mask.to(device)
