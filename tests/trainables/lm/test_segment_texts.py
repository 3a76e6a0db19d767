"""Texts made when they are asked for are those of a list, and an epoch in shards reads neighbours together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.lm import batches
from trainables.lm.batches import TextBatches, epoch_order
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.segment_texts import SegmentTexts, target_count, text_lengths
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree

DOCUMENTS = [[[1, 2, 3], [4, 5]], [], [[6, 7, 8, 9]], [[5, 5], [4, 4, 4], [3, 2]]]
HELD = [
    TrainingText(TokenTree.chain(segment), place) for place, segments in enumerate(DOCUMENTS) for segment in segments
]


def test_texts_of_segments_are_those_of_a_list() -> None:
    texts = SegmentTexts(CorpusTokens.of_documents(DOCUMENTS))
    assert list(texts) == HELD and texts[1:4] == HELD[1:4] and texts[-1] == HELD[-1] and texts[9:] == []
    assert text_lengths(texts).tolist() == text_lengths(HELD).tolist() == [3, 2, 4, 2, 3, 2]
    assert target_count(texts) == target_count(HELD) == 10
    with pytest.raises(IndexError):
        texts[len(texts)]


def test_batches_of_them_are_the_same() -> None:
    hidden = [torch.randn(len(text.tree), 3) for text in HELD]
    texts = SegmentTexts(CorpusTokens.of_documents(DOCUMENTS))
    held, made = (TextBatches(each, hidden, torch.device("cpu")) for each in (HELD, texts))
    assert (held.num_tokens, held.num_targets) == (made.num_tokens, made.num_targets) == (16, 10)
    for one, other in zip(held.by_length(6), made.by_length(6), strict=True):
        assert one.texts == other.texts and torch.equal(one.hidden, other.hidden)
        assert torch.equal(one.labels, other.labels) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 20])
def test_an_epoch_in_shards_has_every_text_once_and_neighbours_together(count: int, monkeypatch) -> None:
    monkeypatch.setattr(batches, "SHARD_TEXTS", 8)
    orders = [epoch_order(count, seed, epoch, "shards") for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(sorted(order.tolist()) == list(range(count)) for order in orders)
    assert orders[0].tolist() == orders[1].tolist()
    if count > 6:
        assert len({tuple(order.tolist()) for order in orders}) == 3
    shards = [place // 8 for place in orders[0].tolist()]
    assert sum(one != other for one, other in zip(shards, shards[1:], strict=False)) == max(0, -(-count // 8) - 1)


def test_the_default_order_stays_what_it_is() -> None:
    # A change makes trials incomparable with those already recorded.
    assert epoch_order(8, 3, 2).tolist() == np.random.default_rng([3, 2]).permutation(8).tolist()
    assert epoch_order(8, 3, 2, "shuffled").tolist() == epoch_order(8, 3, 2).tolist()


def test_shards_are_what_they_are_and_one_is_shuffled(monkeypatch) -> None:
    assert epoch_order(8, 3, 2, "shards").tolist() == epoch_order(8, 3, 2).tolist()
    monkeypatch.setattr(batches, "SHARD_TEXTS", 3)
    assert epoch_order(8, 3, 2, "shards").tolist() == [0, 1, 2, 6, 7, 5, 3, 4]
