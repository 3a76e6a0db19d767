"""Attention within each of several texts that stand one after the other in a row, without padding, or in a tree.

The blocks' other parts look at one token at a time, so they need not know where a text ends: the tokens of many
texts go through them as one matrix, and only attention looks at the texts one by one. Texts of one length that
stand together share a call; on a GPU, where a call costs more than the padding, all texts do: without padding where
flash attention can be told where each text starts, else padded. Sliding windows count by positions within a text, in
trees too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from trainables.lm.gathered_rows import Padding
from trainables.lm.transfer import sent

NAME = "text_by_text"
"""What `attn_implementation` is to be. Masks are taken as they come (None or `[rows, 1, seq, seq]`)."""

AT_ONCE = ("cuda",)
"""Kinds of devices on which texts of several lengths share a call, padded. On a CPU a call of each length is faster: a
call costs little there, and padding is computed (`python -m benchmarks parts`, no padding)."""

FLASH_DTYPES, FLASH_HEAD_DIM, FLASH_CAPABILITY = (torch.bfloat16, torch.float16), 256, (8, 0)
"""What flash attention takes: types of numbers, the widest head (a multiple of 8), the oldest GPU (its own limits)."""

_seen: ContextVar[dict[int, int | None] | None] = ContextVar("windows_seen", default=None)


class TextRow:
    """Texts that stand one after the other in a row, for attention to tell apart in every block.

    Args:
        lengths: tokens of each text.
        device: where the row is.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        """Keep the lengths."""
        self.lengths, self._device = tuple(lengths), device
        self.at_once = device.type in AT_ONCE and len(set(self.lengths)) > 1
        self._masks: dict[int, Tensor] = {}
        self._starts: dict[int, Tensor] = {}

    @cached_property
    def padding(self) -> Padding:
        """The texts as rows of one width: made once for all blocks."""
        return Padding.of_texts(self.lengths, self._device)

    def starts(self, rows: int) -> Tensor:
        """Return where each text of some such rows starts, and the end, int32: made once for all blocks."""
        if rows not in self._starts:
            ends = np.cumsum([0, *self.lengths * rows], dtype=np.int32)
            self._starts[rows] = sent(ends, self._device)
        return self._starts[rows]

    def within(self, window: int, query: Tensor, key: Tensor) -> Tensor:
        """Return the mask of a sliding window over padded texts: made once for all blocks that have it."""
        if window not in self._masks:
            self._masks[window] = _within(window, query, key, None, None)
        return self._masks[window]


def text_row(lengths: Sequence[int] | TextRow, device: torch.device) -> TextRow:
    """Return texts for attention, given their lengths or as they are."""
    return lengths if isinstance(lengths, TextRow) else TextRow(lengths, device)


class FixedTextRow(TextRow):
    """Texts of several rows whose starts lie at places that stay where they are, for a pass that is recorded.

    Args:
        starts: int32, `[rows * texts + 1]`.
        rows: how many there are.
        longest: tokens of a text, at most.
    """

    def __init__(self, starts: Tensor, rows: int, longest: int) -> None:
        """Keep the places."""
        super().__init__([longest], starts.device)
        self._fixed, self._rows, self.at_once = starts, rows, True

    def starts(self, rows: int) -> Tensor:
        """Return the starts.

        Raises:
            ValueError: of other rows than they were made for.
        """
        if rows != self._rows:
            raise ValueError(f"{rows} rows where {self._rows} are fixed")
        return self._fixed

    def put(self, starts: Tensor) -> None:
        """Hold other starts."""
        self._fixed.copy_(starts)

    @cached_property
    def padding(self) -> Padding:
        """Refuse: padding has the texts' own sizes.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("texts whose sizes are not fixed cannot be padded")


def text_by_text(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: TextRow | None = None,
    depths: Tensor | None = None,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Return what attention of `transformers` returns, computed for each text alone.

    Args:
        module: the attention module.
        query: `[rows, heads, tokens, head_dim]`; key and value may have fewer heads.
        key: as query.
        value: as query.
        attention_mask: who sees whom, bool; used only where there are no lengths. None: all that comes before.
        lengths: the texts, whose tokens add up to `tokens`. None: each row is one text.
        depths: positions of the tokens of a tree, `[rows, tokens]`; used only with a mask.
        sliding_window: a token sees so many positions, its own included; None for all.
        settings: passed on.

    Returns:
        `[rows, tokens, heads, head_dim]`, and no weights.
    """
    seen = _seen.get()
    if seen is not None:
        seen[int(getattr(module, "layer_idx", -1))] = sliding_window
    if lengths is None:
        if sliding_window is not None and key.shape[2] > sliding_window:
            attention_mask = _within(sliding_window, query, key, attention_mask, depths)
        return _attend(module, query, key, value, attention_mask, settings), None
    if lengths.at_once and _flash_can(query, settings):
        return _without_padding(query, key, value, lengths, sliding_window, settings), None
    if lengths.at_once:
        return _padded(module, query, key, value, lengths, sliding_window, settings), None
    outputs, start = [], 0
    for length, texts in groupby(lengths.lengths):
        count = len(list(texts))
        end = start + count * length
        texts_query, texts_key, texts_value = (
            torch.unflatten(states[:, :, start:end], 2, (count, length)).transpose(1, 2).flatten(0, 1)
            for states in (query, key, value)
        )
        mask = None
        if sliding_window is not None and length > sliding_window:
            mask = _within(sliding_window, texts_query, texts_key, None, None)
        out = _attend(module, texts_query, texts_key, texts_value, mask, settings)
        outputs.append(out.reshape(len(query), count * length, *out.shape[2:]))
        start = end
    return torch.cat(outputs, dim=1), None


def _flash_can(query: Tensor, settings: dict[str, Any]) -> bool:
    """Say whether flash attention computes this."""
    if query.device.type != "cuda" or query.dtype not in FLASH_DTYPES:
        return False
    if settings.get("softcap") is not None or settings.get("s_aux") is not None or settings.get("dropout"):
        return False
    width = query.shape[-1]
    return width % 8 == 0 and width <= FLASH_HEAD_DIM and _has_flash(query.device)


@cache
def _has_flash(device: torch.device) -> bool:
    return (
        torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY
    )


def _without_padding(
    query: Tensor, key: Tensor, value: Tensor, texts: TextRow, window: int | None, settings: dict[str, Any]
) -> Tensor:
    """Return what `text_by_text` returns, from one call that is told where each text starts."""
    starts, longest = texts.starts(len(query)), max(texts.lengths)
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    told: dict[str, Any] = {"scale": settings.get("scaling"), "window_size": (-1 if window is None else window - 1, 0)}
    if query.shape[2] != key.shape[2]:
        told["enable_gqa"] = True
    rows = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    out = cast("Tensor", varlen_attn(*rows, starts, starts, longest, longest, **told))
    return out.view(*query.shape[:3], value.shape[-1])


def _padded(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    texts: TextRow,
    window: int | None,
    settings: dict[str, Any],
) -> Tensor:
    """Return what `text_by_text` returns, from one call for texts of all lengths."""
    padding, mask = texts.padding, None
    query, key, value = (padding.apart(states.transpose(1, 2)).transpose(1, 2) for states in (query, key, value))
    if window is not None and padding.width > window:
        mask = texts.within(window, query, key)
    return padding.together(_attend(module, query, key, value, mask, settings))


def _before(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return where queries and keys stand, `[tokens]` each; queries are the last ones where a cache has the others."""
    places = torch.arange(key.shape[2], device=query.device)
    return places[-query.shape[2] :], places


def _within(window: int, query: Tensor, key: Tensor, mask: Tensor | None, depths: Tensor | None) -> Tensor:
    """Return the mask of what comes before, or the one given, less what lies a window or more back."""
    rows, columns = _before(query, key)
    if mask is None:
        mask = (rows[:, None] >= columns[None, :])[None, None]
    if depths is not None:
        return mask & (depths[:, None, :, None] - depths[:, None, None, :] < window)
    return mask & (rows[:, None] - columns[None, :] < window)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, settings: dict[str, Any]
) -> Tensor:
    """Return attention's output, `[rows, tokens, heads, head_dim]`; scores capped and sinks added where asked for."""
    softcap, sinks = settings.get("softcap"), settings.get("s_aux")
    if softcap is None and sinks is None:
        plain = {name: value for name, value in settings.items() if name not in ("softcap", "s_aux")}
        out: Tensor = sdpa_attention_forward(module, query, key, value, mask, **plain)[0]
        return out
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaling = settings.get("scaling")
    scores: Tensor = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        rows, columns = _before(query, key)
        mask = rows[:, None] >= columns[None, :]
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        sink = sinks.reshape(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1).to(scores.dtype)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights[..., : key.shape[2]] @ value).transpose(1, 2).contiguous()


@contextmanager
def windows_seen() -> Iterator[dict[int, int | None]]:
    """Note which sliding window each block's attention is given in a `with` block: block -> window."""
    seen: dict[int, int | None] = {}
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


AttentionInterface.register(NAME, text_by_text)
