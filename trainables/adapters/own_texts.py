"""A step in which each member of a pack has texts of its own: in another order, or with another block's hidden states.

The memories see the members' texts side by side, padded; the blocks above see them one after the other, without
padding, in one pass for all members.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainables.adapters.passes import slices, stretches, trained_nll
from trainables.lm.batches import TextBatch, text_marks
from trainables.lm.transfer import sent
from trainables.lm.upper import Upper


class OwnTexts:
    """Texts of one forward pass, some for each member.

    Args:
        batches: each member's texts.
        layers: each member's block.

    Attributes:
        batches: each member's texts.
        hidden: `[members, longest, model_dim]`, each member's tokens, zeros beyond them.
    """

    def __init__(self, batches: Sequence[TextBatch], layers: Sequence[int]) -> None:
        """Put them side by side, and note where each token goes in the row of all texts: by length, then by member."""
        self.batches = list(batches)
        self.hidden = pad_sequence([batch.hidden for batch in batches], batch_first=True)
        longest, device = self.hidden.shape[1], self.hidden.device
        self._width = max(len(batch.labels) for batch in batches)
        texts, starts, target_starts, blocks = [], [], [], []
        for member, batch in enumerate(batches):
            texts += batch.texts
            blocks += [layers[member]] * len(batch.texts)
            starts += (member * longest + np.cumsum([0, *batch.lengths[:-1]])).tolist()
            counts = [text.num_targets for text in batch.texts]
            target_starts += (member * self._width + np.cumsum([0, *counts[:-1]])).tolist()
        order = sorted(range(len(texts)), key=lambda at: len(texts[at].tree))
        self._row, self._layers = [texts[at] for at in order], [blocks[at] for at in order]
        self._marks = text_marks(self._row, device)
        self._places = sent(_numbers_of([(starts[at], len(texts[at].tree)) for at in order]), device)
        self._target_places = sent(_numbers_of([(target_starts[at], texts[at].num_targets) for at in order]), device)

    def nll(self, upper: Upper, states: Tensor) -> Tensor:
        """Return each member's NLL, summed over its target tokens: `[members]`.

        Args:
            upper: blocks above the lowest member's; they run once, for all members.
            states: `[members, longest, model_dim]`, as the members change them.
        """
        row = states.flatten(0, 1)[self._places]
        nll = trained_nll(upper, TextBatch(self._row, row, *self._marks), row[None], self._layers)[0]
        table = nll.new_zeros(len(self.batches) * self._width).index_copy(0, self._target_places, nll)
        return table.view(len(self.batches), self._width).sum(dim=1)


class OwnStep:
    """One step of a pack whose members have texts of their own.

    Args:
        batches: each member's texts of this step.
        layers: each member's block.

    Attributes:
        batches, layers: the same.
        lengths: tokens of each text, of all members.
        num_targets: of the first member; over an epoch, all have as many.
        targets, tokens: how many each member has, `[members]`, on the texts' device.
    """

    def __init__(self, batches: Sequence[TextBatch], layers: Sequence[int]) -> None:
        """Count."""
        self.batches, self.layers = list(batches), list(layers)
        self.lengths = [length for batch in batches for length in batch.lengths]
        device = batches[0].hidden.device
        self.num_targets = batches[0].num_targets
        self.targets = sent([batch.num_targets for batch in batches], device)
        self.tokens = sent([len(batch.hidden) for batch in batches], device)

    def passes(self, max_tokens: int) -> Iterator[tuple[slice, OwnTexts]]:
        """Split into forward passes of at most `max_tokens` tokens: by members first, then by texts.

        Yields:
            Which members, and their texts.
        """
        for start, end in stretches([len(batch.hidden) for batch in self.batches], max_tokens):
            who = slice(start, end)
            if end - start > 1:
                yield who, OwnTexts(self.batches[who], self.layers[who])
                continue
            batch = self.batches[start]
            for _, texts in slices(1, batch.lengths, max_tokens):
                yield who, OwnTexts([batch.part(texts)], self.layers[who])


def _numbers_of(runs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the numbers of runs, each given by its first and how many there are, one after the other."""
    return np.concatenate([np.arange(first, first + count) for first, count in runs])
