"""Attention within each of several texts that stand one after the other in a row, without padding.

The blocks' other parts look at one token at a time, so they need not know where a text ends: the tokens of many
texts go through them as one matrix, and only attention looks at the texts one by one. Texts of one length that
stand together share a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "text_by_text"
"""What `attn_implementation` is to be. Masks are taken as they come (None or `[rows, 1, seq, seq]`)."""


def text_by_text(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: Sequence[int] | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Return what `sdpa_attention_forward` of `transformers` returns, computed for each text alone.

    Args:
        module: the attention module.
        query: `[rows, heads, tokens, head_dim]`; key and value may have fewer heads.
        key: as query.
        value: as query.
        attention_mask: used only where there are no lengths.
        lengths: tokens of each text; they add up to `tokens`. None: each row is one text.
        settings: passed on.

    Returns:
        `[rows, tokens, heads, head_dim]`, and no weights.
    """
    if lengths is None:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return out, None
    outputs, start = [], 0
    for length, texts in groupby(lengths):
        count = len(list(texts))
        end = start + count * length
        parts = (
            torch.unflatten(states[:, :, start:end], 2, (count, length)).transpose(1, 2).flatten(0, 1)
            for states in (query, key, value)
        )
        out, _ = sdpa_attention_forward(module, *parts, None, **settings)
        outputs.append(out.reshape(len(query), count * length, *out.shape[2:]))
        start = end
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(NAME, text_by_text)
