"""Documents' segments as training texts that are made when they are asked for: many of them take no memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree


class SegmentTexts(Sequence[TrainingText]):
    """One text for every segment of a corpus, in order; each time it is asked for, it is made anew.

    Args:
        tokens: the documents.

    Attributes:
        tokens: the same.
        lengths: `[texts]` tokens of each.
    """

    def __init__(self, tokens: CorpusTokens) -> None:
        """Count the tokens of every segment."""
        self.tokens = tokens
        self.lengths: NDArray[np.int64] = np.diff(tokens.segment_ends, prepend=0)

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> TrainingText: ...

    @overload
    def __getitem__(self, place: slice) -> list[TrainingText]: ...

    def __getitem__(self, place: int | slice) -> TrainingText | list[TrainingText]:
        """Return the text of a segment, or a list of those of a slice."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]  # an IndexError beyond the end, and places counted from there
        end = int(self.tokens.segment_ends[place])
        ids = self.tokens.tokens[end - int(self.lengths[place]) : end].tolist()
        document = int(np.searchsorted(self.tokens.document_ends, place, side="right"))
        return TrainingText(TokenTree.chain(ids), document)


def text_lengths(texts: Sequence[TrainingText]) -> NDArray[np.int64]:
    """Return the tokens of each text, `[texts]`."""
    if isinstance(texts, SegmentTexts):
        return texts.lengths
    return np.array([len(text.tree) for text in texts], dtype=np.int64)


def target_count(texts: Sequence[TrainingText]) -> int:
    """Return the tokens of all texts that carry loss."""
    if isinstance(texts, SegmentTexts):
        return int(texts.lengths.sum()) - len(texts)
    return sum(text.num_targets for text in texts)
