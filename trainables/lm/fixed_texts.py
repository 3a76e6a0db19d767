"""Texts at places of fixed sizes, for passes that are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.lm.attention import FixedTextRow
from trainables.lm.batches import TextBatch, marks_of
from trainables.lm.gathered_rows import Places
from trainables.lm.head_loss import IGNORED
from trainables.lm.transfer import sent

SIZES, SMALLEST = 8, 64
"""Sizes between a power of two and the next, and the least step between them, in tokens: of more than 512 at most an
eighth is computed for nothing, and texts of all lengths have few recordings (ours)."""


@dataclass(frozen=True)
class Size:
    """What a recording is made for.

    Attributes:
        members: rows of states.
        tokens: of each row, at most.
        texts: of each row, at most.
        longest: tokens of a text, at most.
    """

    members: int
    tokens: int
    texts: int
    longest: int

    @classmethod
    def of(cls, batch: TextBatch, members: int) -> Size:
        """Return the size whose recording serves some texts of some members."""
        lengths = batch.lengths
        tokens, texts = rounded(sum(lengths)), 1 << (len(lengths) - 1).bit_length()
        # what is left over is a text too
        return cls(members, tokens, texts, max(rounded(max(lengths)), step_of(tokens)))


def step_of(count: int) -> int:
    """Return the step between the sizes around a number of tokens."""
    return max(SMALLEST, (1 << max(0, (count - 1).bit_length() - 1)) // SIZES)


def rounded(count: int) -> int:
    """Return the least size that holds so many tokens."""
    step = step_of(count)
    return -(-count // step) * step


class FixedTexts:
    """Texts at places that stay where they are; as much of a `TextBatch` as the blocks and the head look at.

    Args:
        size: what there is room for.
        device: where they are.

    Attributes:
        lengths: the texts of each row, for attention.
        positions: `[tokens]`.
        target_places: where targets are predicted from; beyond them the first token, without a label.
        labels: `[tokens]`, -100 beyond the targets.
    """

    def __init__(self, size: Size, device: torch.device) -> None:
        """Hold one text of zeros."""
        self._size, self._device = size, device
        self._numbers = torch.zeros(4, size.tokens, dtype=torch.int64, device=device)
        self.positions, taken, back, self.labels = self._numbers.unbind()
        self.target_places = Places(taken, back, True)
        starts = torch.zeros(size.members * (size.texts + 1) + 1, dtype=torch.int32, device=device)
        self.lengths = FixedTextRow(starts, size.members, size.longest)
        self._put([0], *[np.empty(0, dtype=np.int64)] * 3)

    def put(self, batch: TextBatch) -> None:
        """Hold other texts."""
        self._put(batch.lengths, *marks_of(batch.texts))

    def _put(
        self,
        lengths: Sequence[int],
        positions: NDArray[np.int64],
        targets: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> None:
        size, count = self._size, len(targets)
        numbers = np.zeros((4, size.tokens), dtype=np.int64)
        numbers[0, : len(positions)] = positions
        numbers[1, :count] = targets
        numbers[2] = size.tokens  # none
        numbers[2, targets] = np.arange(count)
        numbers[3] = IGNORED
        numbers[3, :count] = labels
        ends = np.full(size.texts + 1, sum(lengths))
        ends[: len(lengths) + 1] = np.cumsum([0, *lengths])
        starts = (np.arange(size.members)[:, None] * size.tokens + ends).ravel()
        of_attention = np.append(starts, size.members * size.tokens).astype(np.int32)
        self._numbers.copy_(sent(numbers, self._device))
        self.lengths.put(sent(of_attention, self._device))
