"""Training texts with their hidden states as batches on the device, and how to batch what is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.lm.gathered_rows import Places
from trainables.lm.placement import free_bytes
from trainables.lm.segment_texts import target_count, text_lengths
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.transfer import sent

PASS_TOKENS = {"cpu": 16, "cuda": 256}
"""What reading the weights once more costs, in tokens that the device could have computed meanwhile (ours)."""
PASS_FLOPS = {"cpu": 5e8, "cuda": 5e11}
"""What starting one more forward pass costs, in FLOPs (ours)."""


SHARD_TEXTS = 8192
"""Texts that an epoch in shards reads at a time, and that lie in files of their own in the cache of hidden states: with
256 tokens each, 4 GiB of a model of width 1,024 in bfloat16. It is part of what `epoch_order=shards` means (ours)."""


@dataclass(frozen=True)
class TextBatch:
    """Some texts one after the other, without padding.

    Attributes:
        texts: the texts.
        hidden: `[tokens, model_dim]`, states at the memory's block.
        positions: int64 `[tokens]`, of each token within its text.
        targets: int64 `[n]`, tokens from which a target is predicted.
        labels: int64 `[n]`, the tokens to predict there.
    """

    texts: list[TrainingText]
    hidden: Tensor
    positions: Tensor
    targets: Tensor
    labels: Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(text.tree) for text in self.texts]

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted."""
        return len(self.labels)

    @property
    def tokens(self) -> Tensor:
        """The texts' token ids, int64 `[tokens]`."""
        return sent([token for text in self.texts for token in text.tree.tokens], self.hidden.device)

    @cached_property
    def target_places(self) -> Places:
        """Where targets are predicted from, to be read from `[any, tokens, ...]`."""
        is_target = np.concatenate([np.arange(1, len(text.tree) + 1) >= text.first_target for text in self.texts])
        is_target[np.cumsum(self.lengths) - 1] = False
        count = int(is_target.sum())
        back = np.where(is_target, np.cumsum(is_target) - 1, count)
        return Places(self.targets, sent(back, self.hidden.device), count < len(back))

    @property
    def trees(self) -> list[TokenTree]:
        """The texts as trees."""
        return [text.tree for text in self.texts]

    @property
    def documents(self) -> list[int]:
        """Index of each text's document."""
        return [text.document for text in self.texts]

    def part(self, texts: slice) -> TextBatch:
        """Return some of the texts, which stand next to each other, as a batch."""
        chosen = self.texts[texts]
        if len(chosen) == len(self.texts):
            return self
        before = self.texts[: texts.start]
        start, first = sum(len(text.tree) for text in before), sum(text.num_targets for text in before)
        end = start + sum(len(text.tree) for text in chosen)
        last = first + sum(text.num_targets for text in chosen)
        return TextBatch(
            chosen,
            self.hidden[start:end],
            self.positions[start:end],
            self.targets[first:last] - start,
            self.labels[first:last],
        )

    def chosen(self, places: Sequence[int]) -> TextBatch | None:
        """Return the texts at some places, in order, as a batch; None where there are none."""
        if len(places) == len(self.texts):
            return self
        parts = [self.part(slice(place, place + 1)) for place in places]
        if not parts:
            return None
        starts = np.cumsum([0, *[len(part.hidden) for part in parts]]).tolist()
        return TextBatch(
            [text for part in parts for text in part.texts],
            torch.cat([part.hidden for part in parts]),
            torch.cat([part.positions for part in parts]),
            torch.cat([part.targets + start for part, start in zip(parts, starts, strict=False)]),
            torch.cat([part.labels for part in parts]),
        )


def marks_of(texts: Sequence[TrainingText]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return positions, targets and labels of texts that stand one after the other, as a `TextBatch` has them."""
    starts = np.cumsum([0, *[len(text.tree) for text in texts]])
    targets = [
        np.arange(start + text.first_target - 1, end - 1)
        for text, start, end in zip(texts, starts, starts[1:], strict=False)
    ]
    labels = [np.asarray(text.tree.tokens[text.first_target :], dtype=np.int64) for text in texts]
    positions = [np.asarray(text.tree.positions, dtype=np.int64) for text in texts]
    return np.concatenate(positions), np.concatenate(targets), np.concatenate(labels)


def text_marks(texts: Sequence[TrainingText], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same as tensors on a device."""
    marks = marks_of(texts)
    first, second, third = torch.split(sent(np.concatenate(marks), device), list(map(len, marks)))  # type: ignore[no-untyped-call]
    return first, second, third


class TextBatches:
    """Makes batches of the same texts again and again.

    Args:
        texts: what is memorised, or whose error is evaluated.
        hidden: states of every text, `[tokens, model_dim]`; moved to the device at once where they fit there.
        device: where batches go.
    """

    def __init__(self, texts: Sequence[TrainingText], hidden: Sequence[Tensor], device: torch.device) -> None:
        """Keep texts and states side by side."""
        self.texts = texts
        self.device = device
        self.hidden = list(hidden)
        if device.type == "cuda":
            size = sum(state.nbytes for state in hidden)
            if size < free_bytes(device) / 5:
                self.hidden = [state.to(device) for state in hidden]
        self._lengths = text_lengths(texts)
        self.num_tokens = int(self._lengths.sum())
        self.num_targets = target_count(texts)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    def batch(self, indices: Sequence[int]) -> TextBatch:
        """Return the texts at `indices` as one batch, by length: attention takes texts of one length together."""
        order = sorted(indices, key=self._lengths.__getitem__)
        chosen = [self.texts[i] for i in order]
        return TextBatch(chosen, self._states(order), *text_marks(chosen, self.device))

    def _states(self, indices: Sequence[int]) -> Tensor:
        """Return the states of some texts one after the other, on the device."""
        states = [self.hidden[i] for i in indices]
        if states[0].device.type == self.device.type:
            return torch.cat(states)
        pinned = torch.empty(sum(map(len, states)), *states[0].shape[1:], dtype=states[0].dtype, pin_memory=True)
        return torch.cat(states, out=pinned).to(self.device, non_blocking=True)

    def steps(self, order: NDArray[np.int64], batch_size: int) -> Iterator[TextBatch]:
        """Yield the texts of each step, in the order given; the last step may have fewer.

        Args:
            order: indices of the texts.
            batch_size: texts a step.
        """
        for start in range(0, len(order), batch_size):
            yield self.batch(order[start : start + batch_size].tolist())

    def lengths_of(self, indices: Sequence[int]) -> list[int]:
        """Return the tokens of each text of a batch of some texts, in its order."""
        return sorted(self._lengths[list(indices)].tolist())

    def by_length(self, max_tokens: int) -> Iterator[TextBatch]:
        """Yield all texts once, the shortest first: at most `max_tokens` a batch, or one longer text."""
        return map(self.batch, self.groups_by_length(max_tokens))

    def groups_by_length(self, max_tokens: int) -> Iterator[list[int]]:
        """Yield which texts are in each batch of `by_length`."""
        group: list[int] = []
        tokens = 0
        for index in np.argsort(self._lengths, kind="stable").tolist():
            length = int(self._lengths[index])
            if group and tokens + length > max_tokens:
                yield group
                group, tokens = [], 0
            group.append(index)
            tokens += length
        if group:
            yield group


def pass_tokens(weights: int, device: torch.device, members: int = 1) -> float:
    """Return what one more forward pass costs, in tokens of each member of a pack.

    Args:
        weights: numbers that a pass reads.
        device: where it runs.
        members: trials in the pack.
    """
    return (PASS_TOKENS[device.type] + PASS_FLOPS[device.type] / (4 * weights)) / members


def similar_lengths(lengths: Sequence[int], max_tokens: int, pass_tokens: float) -> list[list[int]]:
    """Split many texts into batches by length: one more text joins as long as padding costs less than a pass.

    Args:
        lengths: tokens of each text.
        max_tokens: largest batch, padding included; a longer text is a batch of its own.
        pass_tokens: what one more forward pass costs, in tokens.
    """
    groups: list[list[int]] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        width = lengths[index]
        if groups:
            more = len(groups[-1]) * (width - lengths[groups[-1][-1]])
            if padding + more <= pass_tokens and (len(groups[-1]) + 1) * width <= max_tokens:
                groups[-1].append(index)
                padding += more
                continue
        groups.append([index])
        padding = 0
    return groups


def epoch_order(num_texts: int, seed: int, epoch: int, kind: str = "shuffled") -> NDArray[np.int64]:
    """Return the order of texts in one epoch, a function of its arguments only.

    Args:
        num_texts: how many there are.
        seed: of the order.
        epoch: number of the epoch.
        kind: `shuffled`: any order is as likely. `shards`: `SHARD_TEXTS` texts that stand next to each other are read
            before the next, shards and the texts of each in an order that is drawn: what is read lies together. Of one
            shard it is the order of `shuffled`.
    """
    rng = np.random.default_rng([seed, epoch])
    if kind == "shuffled":
        return rng.permutation(num_texts)
    starts = rng.permutation(np.arange(0, num_texts, SHARD_TEXTS))
    shards = [rng.permutation(np.arange(start, min(start + SHARD_TEXTS, num_texts))) for start in starts]
    return np.concatenate([np.arange(0), *shards])
