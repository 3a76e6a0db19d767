"""Texts one after the other without padding, and padded ones of similar length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.adapters.passes import slices
from trainables.lm.batches import TextBatches, similar_lengths
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree

LENGTHS = (5, 3, 9, 3, 2)


def _batches() -> TextBatches:
    texts = [
        TrainingText(TokenTree.chain([10 * i + j for j in range(length)]), document=i, first_target=2 if i == 2 else 1)
        for i, length in enumerate(LENGTHS)
    ]
    hidden = [torch.tensor(text.tree.tokens, dtype=torch.float32)[:, None].repeat(1, 4) for text in texts]
    return TextBatches(texts, hidden, torch.device("cpu"))


def test_a_batch_has_each_text_whole_and_the_targets_it_predicts() -> None:
    batch = _batches().batch([0, 1, 2, 3])
    assert batch.lengths == [3, 3, 5, 9] and batch.documents == [1, 3, 0, 2]
    assert batch.hidden[:, 0].tolist() == [t for tree in batch.trees for t in tree.tokens]
    assert batch.positions.tolist() == [p for length in batch.lengths for p in range(length)]
    assert batch.labels.tolist() == [11, 12, 31, 32, 1, 2, 3, 4, 22, 23, 24, 25, 26, 27, 28]
    assert batch.hidden[batch.targets, 0].tolist() == [label - 1 for label in batch.labels.tolist()]


@pytest.mark.parametrize("texts", [slice(0, 4), slice(0, 1), slice(1, 3), slice(2, 4)])
def test_a_part_of_a_batch_is_the_batch_of_its_texts(texts: slice) -> None:
    batches = _batches()
    part = batches.batch([0, 1, 2, 3]).part(texts)
    expected = batches.batch([1, 3, 0, 2][texts])
    assert part.trees == expected.trees and part.documents == expected.documents
    for name in ("hidden", "positions", "targets", "labels"):
        assert torch.equal(getattr(part, name), getattr(expected, name)), name


@pytest.mark.parametrize("max_tokens", [1, 6, 8, 100])
def test_all_texts_come_once_and_within_the_budget(max_tokens: int) -> None:
    batches = list(_batches().by_length(max_tokens))
    assert sorted(document for batch in batches for document in batch.documents) == [0, 1, 2, 3, 4]
    assert all(len(batch.texts) == 1 or sum(batch.lengths) <= max_tokens for batch in batches)


@given(st.integers(1, 6), st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 300))
def test_passes_cover_every_member_and_text_once_within_the_budget(members, lengths, max_tokens):
    seen = []
    for who, texts in slices(members, lengths, max_tokens):
        chosen, count = lengths[texts], who.stop - who.start
        assert sum(chosen) * count <= max_tokens or (len(chosen), count) == (1, 1)
        seen += [(k, i) for k in range(who.start, who.stop) for i in range(texts.start, texts.stop)]
    assert sorted(seen) == [(k, i) for k in range(members) for i in range(len(lengths))]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200), st.floats(0, 60))
def test_padded_batches_keep_to_their_budget_and_to_the_padding_that_pays(lengths, max_tokens, pass_tokens):
    groups = similar_lengths(lengths, max_tokens, pass_tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        widest = max(lengths[i] for i in group)
        assert len(group) == 1 or len(group) * widest <= max_tokens
        assert len(group) * widest - sum(lengths[i] for i in group) <= pass_tokens


def test_states_that_lie_on_the_device_are_taken_from_there_whatever_its_number() -> None:
    """`cuda` and `cuda:0` are one device, and not equal: states of the first GPU were taken for the host's."""
    texts = [TrainingText(TokenTree.chain([1, 2, 3]), 0), TrainingText(TokenTree.chain([4, 5]), 0)]
    states = [torch.empty(len(text.tree), 4, device="meta") for text in texts]
    batches = TextBatches(texts, states, torch.device("meta", 0))
    assert states[0].device != batches.device
    assert batches._states([1, 0]).shape == (5, 4)
