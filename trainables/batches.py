"""Training texts and their hidden states as padded batches on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.lm.tree import TokenTree
from trainables.texts import TrainingText

PASS_TOKENS = {"cpu": 16, "cuda": 256}
"""What reading the weights once more costs, in tokens that the device could have computed meanwhile (ours)."""
PASS_FLOPS = {"cpu": 5e8, "cuda": 5e11}
"""What starting one more forward pass costs, in FLOPs (ours)."""


@dataclass(frozen=True)
class TextBatch:
    """Some texts, padded on the right; no token sees the padding, for attention is causal.

    Attributes:
        hidden: `[batch, seq, model_dim]`, states at the memory's block.
        real: bool `[batch, seq]`, False at padding.
        targets: int64 `[n]`, flat positions in `batch * seq` from which a target is predicted.
        labels: int64 `[n]`, the tokens to predict there.
        trees: the texts.
        documents: index of each text's document.
        num_tokens: tokens, padding left out.
    """

    hidden: Tensor
    real: Tensor
    targets: Tensor
    labels: Tensor
    trees: list[TokenTree]
    documents: list[int]
    num_tokens: int

    @property
    def width(self) -> int:
        """Padded length in tokens."""
        return self.hidden.shape[1]


class TextBatches:
    """Makes batches of the same texts again and again.

    Args:
        texts: what is memorised or measured.
        hidden: states of every text, `[tokens, model_dim]`; moved to the device at once where they fit there.
        device: where batches go.
    """

    def __init__(self, texts: Sequence[TrainingText], hidden: Sequence[Tensor], device: torch.device) -> None:
        """Keep texts and states side by side."""
        self.texts = list(texts)
        self.device = device
        self.hidden = list(hidden)
        if device.type == "cuda":
            size = sum(state.nbytes for state in hidden)
            free, _ = torch.cuda.mem_get_info(device)
            if size < free // 5:
                self.hidden = [state.to(device) for state in hidden]
        self.num_tokens = sum(len(text.tree) for text in self.texts)
        self.num_targets = sum(text.num_targets for text in self.texts)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    def batch(self, indices: Sequence[int]) -> TextBatch:
        """Return the texts at `indices` as one batch."""
        chosen = [self.texts[i] for i in indices]
        lengths = [len(text.tree) for text in chosen]
        width = max(lengths)
        first = self.hidden[indices[0]]
        hidden = torch.zeros(len(chosen), width, first.shape[-1], dtype=first.dtype, device=first.device)
        targets, labels = [], []
        for row, (index, text) in enumerate(zip(indices, chosen, strict=True)):
            hidden[row, : lengths[row]] = self.hidden[index]
            targets.append(np.arange(text.first_target - 1, lengths[row] - 1) + row * width)
            labels.append(np.asarray(text.tree.tokens[text.first_target :]))
        real = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
        return TextBatch(
            hidden=hidden.to(self.device, non_blocking=True),
            real=real.to(self.device),
            targets=torch.from_numpy(np.concatenate(targets)).to(self.device),
            labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)).to(self.device),
            trees=[text.tree for text in chosen],
            documents=[text.document for text in chosen],
            num_tokens=sum(lengths),
        )

    def steps(
        self, order: NDArray[np.int64], batch_size: int, pass_tokens: float
    ) -> Iterator[list[TextBatch]]:
        """Yield the texts of each step, in the order given; the last step may have fewer.

        The texts of a step come as one batch or as several of similar length, to be run one after the other.
        Their losses are sums over tokens, so how a step is cut changes nothing but rounding.

        Args:
            order: indices of the texts.
            batch_size: texts a step.
            pass_tokens: what one more forward pass costs, in tokens.
        """
        for start in range(0, len(order), batch_size):
            chosen = [int(i) for i in order[start : start + batch_size]]
            lengths = [len(self.texts[i].tree) for i in chosen]
            yield [self.batch([chosen[place] for place in group]) for group in length_groups(lengths, pass_tokens)]

    def by_length(self, max_tokens: int, pass_tokens: float = math.inf) -> Iterator[TextBatch]:
        """Yield all texts once, similar lengths together, at most `max_tokens` padded tokens a batch.

        Args:
            max_tokens: largest batch, padding included; a longer text is a batch of its own.
            pass_tokens: what one more forward pass costs, in tokens.
        """
        for group in similar_lengths([len(text.tree) for text in self.texts], max_tokens, pass_tokens):
            yield self.batch(group)


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


def length_groups(lengths: Sequence[int], pass_tokens: float) -> list[list[int]]:
    """Split texts into batches such that padded tokens, and `pass_tokens` for every batch, are fewest together.

    Args:
        lengths: tokens of each text.
        pass_tokens: cost of a batch beside its tokens.

    Returns:
        Indices of the texts of every batch; a batch's texts are next to each other by length.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    costs, cuts = [0.0], [0]
    for last, index in enumerate(order):
        options = [costs[first] + (last + 1 - first) * lengths[index] + pass_tokens for first in range(last + 1)]
        cuts.append(min(range(last + 1), key=options.__getitem__))
        costs.append(options[cuts[-1]])
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[cuts[end] : end])
        end = cuts[end]
    return groups[::-1]


def epoch_order(num_texts: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of texts in one epoch, a function of the seed and the epoch only."""
    return np.random.default_rng([seed, epoch]).permutation(num_texts)
