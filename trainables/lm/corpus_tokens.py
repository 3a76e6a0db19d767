"""The tokens of many documents as flat arrays, in memory or mapped from disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainables.lm.texts import TrainingText

Ints = NDArray[np.integer[Any]]


class FlatTokens(Protocol):
    """One array of tokens, or what is read like one."""

    def __len__(self) -> int:
        """Return the number of tokens."""

    def __getitem__(self, places: slice, /) -> Any:
        """Return the tokens of a slice."""


@dataclass(frozen=True)
class CorpusTokens:
    """Segments of documents, one after the other; a few numbers for each document and no Python object.

    Attributes:
        tokens: `[T]` token ids of all segments.
        segment_ends: `[S]` where each segment ends in `tokens`.
        document_ends: `[D]` where each document ends in `segment_ends`; one without text has no segment.
    """

    tokens: FlatTokens
    segment_ends: NDArray[np.int64]
    document_ends: NDArray[np.int64]

    @classmethod
    def of_documents(cls, documents: Iterable[Iterable[Sequence[int]]]) -> CorpusTokens:
        """Lay out nested sequences: document -> segments -> token ids."""
        parts, ends = [np.zeros(0, dtype=np.int64)], []
        for segments in documents:
            parts += [np.asarray(segment, dtype=np.int64) for segment in segments]
            ends.append(len(parts) - 1)
        lengths = np.array([len(part) for part in parts[1:]], dtype=np.int64)
        return cls(np.concatenate(parts), np.cumsum(lengths), np.array(ends, dtype=np.int64))

    @classmethod
    def of_texts(cls, texts: Sequence[TrainingText], num_documents: int) -> CorpusTokens:
        """Lay out texts by the document they belong to, each document's in the order given."""
        documents: list[list[Sequence[int]]] = [[] for _ in range(num_documents)]
        for text in texts:
            documents[text.document].append(text.tree.tokens)
        return cls.of_documents(documents)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.document_ends)

    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each document, `[D]`."""
        ends = np.concatenate([[0], self.segment_ends])[self.document_ends]
        return np.diff(ends, prepend=0)

    def segments(self, document: int) -> list[Ints]:
        """Return the segments of one document: views of `tokens`."""
        first = int(self.document_ends[document - 1]) if document else 0
        ends = self.segment_ends[first : int(self.document_ends[document])].tolist()
        start = int(self.segment_ends[first - 1]) if first else 0
        return [self.tokens[a:b] for a, b in zip([start, *ends], ends, strict=False)]

    def document(self, document: int) -> Ints:
        """Return all tokens of one document."""
        return np.concatenate([self.tokens[:0], *self.segments(document)])

    def take(self, documents: NDArray[np.int64]) -> CorpusTokens:
        """Return some documents, in that order; the tokens are copied unless these stand one after the other."""
        first = np.where(documents > 0, self.document_ends[documents - 1], 0)
        counts = self.document_ends[documents] - first
        chosen = ranges(first, counts)
        starts = np.where(chosen > 0, self.segment_ends[chosen - 1], 0) if len(chosen) else chosen
        lengths = self.segment_ends[chosen] - starts
        # Stretches that stand together are copied whole: a search for each token would cost more than its copy.
        first_of = np.flatnonzero(np.append(True, starts[1:] != self.segment_ends[chosen[:-1]])[: len(chosen)])
        last_of = np.append(first_of[1:], len(chosen))[: len(first_of)] - 1
        ends = self.segment_ends[chosen[last_of]]
        parts = [self.tokens[a:b] for a, b in zip(starts[first_of].tolist(), ends.tolist(), strict=True)]
        tokens = parts[0] if len(parts) == 1 else np.concatenate([self.tokens[:0], *parts])
        return CorpusTokens(tokens, np.cumsum(lengths), np.cumsum(counts))


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers from each start on, `lengths` of them, one range after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)
